//! Decoding every request but Produce: first the guard, then the generated decoder.

use bytes::Bytes;

use kafka_protocol::protocol::{Decodable, Request};

use crate::{
    api::Api,
    shape::{self, ShapeError},
};

/// Why a request cannot be decoded; its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Lengths, counts or trailing bytes are wrong.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A value is wrong: null where it must not be, or a string that is not UTF-8.
    #[error("{0}")]
    Value(String),
    /// The type is not the request of this API.
    #[error("key {key} is not a request of {}", .api.name())]
    WrongType {
        /// The API that was asked for.
        api: Api,
        /// The key of the type.
        key: i16,
    },
}

/// Decodes the body of a request of a served version.
pub fn decode_request<R: Request + Decodable>(
    api: Api,
    version: i16,
    mut body: Bytes,
) -> Result<R, DecodeError> {
    if R::KEY != api.key() {
        return Err(DecodeError::WrongType { api, key: R::KEY });
    }
    shape::check(api.shape(), version, api.is_flexible(version), &body)?;
    R::decode(&mut body, version).map_err(|error| DecodeError::Value(error.to_string()))
}
