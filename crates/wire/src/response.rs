//! Encoding every response but Fetch's, frame and header included.

use bytes::{BufMut, Bytes, BytesMut};

use kafka_protocol::protocol::Encodable;

use crate::api::Api;

/// Room for a small answer, so that most are encoded without growing.
const RESPONSE_BYTES: usize = 256;

/// Why a response cannot be encoded: the handler set a field that its version does not have.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The generated encoder refused it.
    #[error("{} {version}: {reason}", .api.name())]
    Refused {
        /// The API.
        api: Api,
        /// The version.
        version: i16,
        /// What the encoder said.
        reason: String,
    },
    /// The response does not fit a frame.
    #[error("a response of {0} bytes does not fit a frame")]
    TooLarge(usize),
}

/// Encodes one response as a whole frame.
pub fn encode_response<R: Encodable>(
    api: Api,
    version: i16,
    correlation_id: i32,
    response: &R,
) -> Result<Bytes, EncodeError> {
    let mut frame = BytesMut::with_capacity(RESPONSE_BYTES);
    put_header(&mut frame, api, version, correlation_id);
    response
        .encode(&mut frame, version)
        .map_err(|error| EncodeError::Refused {
            api,
            version,
            reason: error.to_string(),
        })?;
    let body_bytes = frame.len() - 4;
    set_length(&mut frame, body_bytes)?;
    Ok(frame.freeze())
}

/// Puts room for the frame's length, then the response header.
pub(crate) fn put_header(frame: &mut BytesMut, api: Api, version: i16, correlation_id: i32) {
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    if api.response_header_version(version) >= 1 {
        frame.put_u8(0); // No tagged fields.
    }
}

/// Writes the frame's length into the room that [`put_header`] left.
pub(crate) fn set_length(frame: &mut BytesMut, bytes: usize) -> Result<(), EncodeError> {
    let len = i32::try_from(bytes).map_err(|_| EncodeError::TooLarge(bytes))?;
    if let Some(room) = frame.first_chunk_mut::<4>() {
        *room = len.to_be_bytes();
    }
    Ok(())
}
