//! Decoding every request but Produce: first the guard, then the generated decoder.

use bytes::Bytes;

use kafka_protocol::protocol::Decodable;

use crate::{
    api::Api,
    shape::{self, ShapeError},
};

/// Why a request cannot be decoded; its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Lengths or counts are wrong.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A value is wrong: null where it must not be, or a string that is not UTF-8.
    #[error("{0}")]
    Value(String),
}

/// Decodes the body of a request of a served version. `R` must be the request of `api`.
pub fn decode_request<R: Decodable>(
    api: Api,
    version: i16,
    mut body: Bytes,
) -> Result<R, DecodeError> {
    shape::check(api.shape(), version, api.is_flexible(version), &body)?;
    R::decode(&mut body, version).map_err(|error| DecodeError::Value(error.to_string()))
}
