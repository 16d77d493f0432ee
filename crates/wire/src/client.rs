//! The client's direction: requests out, responses in, for every API that has message types.
//!
//! The server's table, [`crate::Api`], says what a broker of ours serves. A client speaks to brokers
//! of others too, so here the table is the message types themselves, and what is spoken is agreed
//! with each broker ([`negotiate`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use kafka_protocol::protocol::{Decodable, HeaderVersion, Message, Request};

use crate::api::Versions;

/// Room for a small request, so that most are encoded without growing.
const REQUEST_BYTES: usize = 256;
/// Where the correlation id stands: after the length, the key and the version.
const CORRELATION_AT: usize = 8;

/// A request ready to be written: a head, then the records (if any) that were never copied.
#[derive(Debug)]
pub struct RequestFrame {
    pub(crate) head: BytesMut,
    pub(crate) tail: Vec<Bytes>,
}

/// Why a request or a response cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientCodecError {
    /// The agreed version does not have a field that is set.
    #[error("encode request: {0}")]
    Encode(String),
    /// The request does not fit a frame.
    #[error("a request of {0} bytes does not fit a frame")]
    TooLarge(usize),
    /// The broker's answer is not what its version says.
    #[error("decode response: {0}")]
    Decode(String),
}

/// The versions of a request that can be encoded here.
#[must_use]
pub fn spoken_versions<R: Request>() -> Versions {
    Versions {
        min: R::VERSIONS.min,
        max: R::VERSIONS.max,
    }
}

/// The highest version that both sides speak, at most `cap`.
#[must_use]
pub fn negotiate<R: Request>(served: Versions, cap: i16) -> Option<i16> {
    let ours = spoken_versions::<R>();
    let version = served.max.min(ours.max).min(cap);
    (version >= served.min && version >= ours.min).then_some(version)
}

/// Encodes one request; its correlation id is set when it is written.
///
/// # Errors
/// A field is set that the version does not have, or the request does not fit a frame.
pub fn encode_request<R: Request>(
    version: i16,
    client_id: &str,
    request: &R,
) -> Result<RequestFrame, ClientCodecError> {
    let mut head = BytesMut::with_capacity(REQUEST_BYTES);
    put_request_header(
        &mut head,
        R::KEY,
        version,
        R::header_version(version),
        client_id,
    )?;
    request
        .encode(&mut head, version)
        .map_err(|error| ClientCodecError::Encode(error.to_string()))?;
    RequestFrame::finish(head, Vec::new())
}

/// Puts room for the length, then the request header.
pub(crate) fn put_request_header(
    head: &mut BytesMut,
    key: i16,
    version: i16,
    header_version: i16,
    client_id: &str,
) -> Result<(), ClientCodecError> {
    let length = i16::try_from(client_id.len())
        .map_err(|_| ClientCodecError::Encode("the client id is too long".to_owned()))?;
    head.put_i32(0);
    head.put_i16(key);
    head.put_i16(version);
    head.put_i32(0);
    head.put_i16(length);
    head.put_slice(client_id.as_bytes());
    if header_version >= 2 {
        head.put_u8(0); // No tagged fields.
    }
    Ok(())
}

impl RequestFrame {
    /// Writes the length into the room left for it.
    pub(crate) fn finish(
        mut head: BytesMut,
        tail: Vec<Bytes>,
    ) -> Result<RequestFrame, ClientCodecError> {
        let bytes = head.len() + tail.iter().map(Bytes::len).sum::<usize>() - 4;
        let length = i32::try_from(bytes).map_err(|_| ClientCodecError::TooLarge(bytes))?;
        if let Some(room) = head.first_chunk_mut::<4>() {
            *room = length.to_be_bytes();
        }
        Ok(RequestFrame { head, tail })
    }

    /// Names the answer that the sender will wait for.
    pub fn set_correlation_id(&mut self, correlation_id: i32) {
        let room = self.head.get_mut(CORRELATION_AT..);
        if let Some(room) = room.and_then(|rest| rest.first_chunk_mut::<4>()) {
            *room = correlation_id.to_be_bytes();
        }
    }

    /// Size with its length field.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.head.len() + self.tail.iter().map(Bytes::len).sum::<usize>()
    }

    /// The bytes, to be written one after another.
    #[must_use]
    pub fn into_chunks(self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(1 + self.tail.len());
        chunks.push(self.head.freeze());
        chunks.extend(self.tail);
        chunks
    }
}

/// Takes the correlation id off the front of a response's frame.
#[must_use]
pub fn take_correlation_id(frame: &mut Bytes) -> Option<i32> {
    frame.try_get_i32().ok()
}

/// Decodes a response whose correlation id has been taken off; its records share the frame's
/// memory. Brokers are trusted more than clients: counts are believed once the frame is bounded.
///
/// # Errors
/// The bytes are not what the version says.
pub fn decode_response<R: Request>(
    version: i16,
    mut frame: Bytes,
) -> Result<R::Response, ClientCodecError> {
    let fail = |error: String| ClientCodecError::Decode(error);
    if R::Response::header_version(version) >= 1 {
        skip_tags(&mut frame).ok_or_else(|| fail("the header is cut off".to_owned()))?;
    }
    if version > R::Response::VERSIONS.max {
        return Err(fail(format!("version {version} is not known")));
    }
    R::Response::decode(&mut frame, version).map_err(|error| fail(error.to_string()))
}

fn skip_tags(frame: &mut Bytes) -> Option<()> {
    for _ in 0..unsigned_varint(frame)? {
        unsigned_varint(frame)?;
        let length = usize::try_from(unsigned_varint(frame)?).ok()?;
        if length > frame.len() {
            return None;
        }
        frame.advance(length);
    }
    Some(())
}

fn unsigned_varint(frame: &mut Bytes) -> Option<u32> {
    let mut reader = crate::reader::Reader::new(frame);
    let value = reader.unsigned_varint().ok()?;
    let read = frame.len() - reader.remaining();
    frame.advance(read);
    Some(value)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{
        ApiVersionsRequest, ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse,
    };

    use super::*;
    use crate::{Api, Frame, decode_request, encode_response, next_frame, take_header};

    #[test]
    fn what_the_client_encodes_the_server_decodes_in_every_version() {
        for version in 0..=4 {
            let mut request = HeartbeatRequest::default();
            request.group_id.0 = "g".to_owned().into();
            request.generation_id = 7;
            let mut frame = encode_request(version, "me", &request).unwrap();
            frame.set_correlation_id(99);
            let size = frame.size_bytes();
            let mut bytes = BytesMut::from(&frame.into_chunks().concat()[..]);
            assert_eq!(bytes.len(), size);
            let Ok(Frame::Whole(mut whole)) = next_frame(&mut bytes, 1 << 20) else {
                panic!("not a whole frame")
            };
            let header = take_header(&mut whole).unwrap();
            assert_eq!((header.api, header.version), (Api::Heartbeat, version));
            assert_eq!(header.correlation_id, 99);
            assert_eq!(header.client_id.as_deref(), Some("me"));
            let back: HeartbeatRequest =
                decode_request(Api::Heartbeat, version, whole.freeze()).unwrap();
            assert_eq!(back, request);
        }
    }

    #[test]
    fn what_the_server_answers_the_client_decodes() {
        for version in 0..=4 {
            let response = HeartbeatResponse::default().with_error_code(27);
            let mut frame = encode_response(Api::Heartbeat, version, 5, &response).unwrap();
            frame.advance(4);
            assert_eq!(take_correlation_id(&mut frame), Some(5));
            let back = decode_response::<HeartbeatRequest>(version, frame).unwrap();
            assert_eq!(back.error_code, 27);
        }
        // ApiVersions has the plain header in its flexible versions too.
        let response = ApiVersionsResponse::default();
        let mut frame = encode_response(Api::ApiVersions, 4, 5, &response).unwrap();
        frame.advance(8);
        assert!(decode_response::<ApiVersionsRequest>(4, frame).is_ok());
    }

    #[test]
    fn the_highest_common_version_is_spoken_or_none() {
        let served = |min, max| Versions { min, max };
        assert_eq!(
            negotiate::<HeartbeatRequest>(served(0, 99), i16::MAX),
            Some(4)
        );
        assert_eq!(negotiate::<HeartbeatRequest>(served(0, 99), 2), Some(2));
        assert_eq!(
            negotiate::<HeartbeatRequest>(served(1, 3), i16::MAX),
            Some(3)
        );
        assert_eq!(negotiate::<HeartbeatRequest>(served(5, 9), i16::MAX), None);
        assert_eq!(negotiate::<HeartbeatRequest>(served(3, 9), 2), None);
    }

    #[test]
    fn cut_off_responses_are_errors() {
        let short = Bytes::from_static(b"\0");
        assert!(decode_response::<HeartbeatRequest>(4, short).is_err());
        assert_eq!(take_correlation_id(&mut Bytes::from_static(b"\0\0")), None);
    }
}
