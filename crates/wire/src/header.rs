//! The request header: which API, which version, which answer it waits for, who asks.

use bytes::{Buf, BytesMut};

use crate::{
    api::Api,
    reader::{Reader, ShortRead},
};

/// Longest client id that is kept; longer ones are cut in logs and group members alike.
const CLIENT_ID_BYTES_MAX: usize = 256;

/// A decoded request header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The API.
    pub api: Api,
    /// The version of request and response.
    pub version: i16,
    /// Comes back in the response.
    pub correlation_id: i32,
    /// What the client calls itself; cut to 256 bytes.
    pub client_id: Option<String>,
}

/// Why a header cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The frame is shorter than its header, or a length in it is wrong.
    #[error("the request header is cut off or malformed")]
    Malformed,
    /// The API is not served, or not in this version: the connection is closed.
    #[error("api key {api_key} version {api_version} is not served")]
    Unsupported {
        /// The key asked for.
        api_key: i16,
        /// The version asked for.
        api_version: i16,
    },
    /// ApiVersions in a version that is not served: answered in version 0 with the range.
    #[error("ApiVersions {api_version} is not served")]
    UnsupportedApiVersions {
        /// The version asked for.
        api_version: i16,
        /// Comes back in the response.
        correlation_id: i32,
    },
}

impl From<ShortRead> for HeaderError {
    fn from(_: ShortRead) -> HeaderError {
        HeaderError::Malformed
    }
}

/// Splits the header off the front of a frame.
pub fn take_header(frame: &mut BytesMut) -> Result<RequestHeader, HeaderError> {
    let mut reader = Reader::new(frame);
    let api_key = reader.i16()?;
    let version = reader.i16()?;
    let correlation_id = reader.i32()?;
    let unsupported = HeaderError::Unsupported {
        api_key,
        api_version: version,
    };
    let api = Api::from_key(api_key).ok_or(unsupported)?;
    if !api.versions().contains(version) {
        return Err(match api {
            Api::ApiVersions => HeaderError::UnsupportedApiVersions {
                api_version: version,
                correlation_id,
            },
            _ => unsupported,
        });
    }
    let client_id = match reader.i16()? {
        -1 => None,
        len => {
            let len = usize::try_from(len).map_err(|_| HeaderError::Malformed)?;
            Some(client_id(reader.take(len)?)?)
        }
    };
    if api.request_header_version(version) >= 2 {
        skip_tags(&mut reader)?;
    }
    let header_bytes = frame.len() - reader.remaining();
    frame.advance(header_bytes);
    Ok(RequestHeader {
        api,
        version,
        correlation_id,
        client_id,
    })
}

fn client_id(bytes: &[u8]) -> Result<String, HeaderError> {
    let text = std::str::from_utf8(bytes).map_err(|_| HeaderError::Malformed)?;
    let mut end = text.len().min(CLIENT_ID_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Ok(text.get(..end).unwrap_or_default().to_owned())
}

fn skip_tags(reader: &mut Reader<'_>) -> Result<(), HeaderError> {
    for _ in 0..reader.unsigned_varint()? {
        reader.unsigned_varint()?;
        let size =
            usize::try_from(reader.unsigned_varint()?).map_err(|_| HeaderError::Malformed)?;
        reader.take(size)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn both_header_versions_decode() {
        // Heartbeat 3 is not flexible, Heartbeat 4 is.
        let mut v1 = frame(b"\0\x0c\0\x03\0\0\0\x07\0\x02id|body");
        let header = take_header(&mut v1).unwrap();
        assert_eq!(
            (header.api, header.version, header.correlation_id),
            (Api::Heartbeat, 3, 7)
        );
        assert_eq!(header.client_id.as_deref(), Some("id"));
        assert_eq!(&v1[..], b"|body");

        let mut v2 = frame(b"\0\x0c\0\x04\0\0\0\x07\xff\xff\x01\x05\x02xx|body");
        let header = take_header(&mut v2).unwrap();
        assert_eq!(header.client_id, None);
        assert_eq!(&v2[..], b"|body");
    }

    #[test]
    fn unknown_apis_and_versions_are_told_apart() {
        let error = take_header(&mut frame(b"\0\x04\0\x01\0\0\0\x07\xff\xff")).unwrap_err();
        assert_eq!(
            error,
            HeaderError::Unsupported {
                api_key: 4,
                api_version: 1
            }
        );
        let error = take_header(&mut frame(b"\0\0\0\x02\0\0\0\x07\xff\xff")).unwrap_err();
        assert_eq!(
            error,
            HeaderError::Unsupported {
                api_key: 0,
                api_version: 2
            }
        );
        let error = take_header(&mut frame(b"\0\x12\0\x63\0\0\0\x07")).unwrap_err();
        let expected = HeaderError::UnsupportedApiVersions {
            api_version: 99,
            correlation_id: 7,
        };
        assert_eq!(error, expected);
    }

    #[test]
    fn short_and_lying_headers_are_refused() {
        for bytes in [
            &b""[..],
            b"\0\x0c\0\x03\0\0\0",
            b"\0\x0c\0\x03\0\0\0\x07\0\x09id",
            b"\0\x0c\0\x03\0\0\0\x07\x80\0id",
            b"\0\x0c\0\x03\0\0\0\x07\0\x01\xff",
            b"\0\x0c\0\x04\0\0\0\x07\xff\xff\xff\xff\xff\xff\x0f",
        ] {
            assert_eq!(
                take_header(&mut frame(bytes)).unwrap_err(),
                HeaderError::Malformed
            );
        }
    }

    #[test]
    fn a_long_client_id_is_cut() {
        let name = "é".repeat(200);
        let mut bytes = b"\0\x0c\0\x03\0\0\0\x07\x01\x90".to_vec();
        bytes.extend_from_slice(name.as_bytes());
        let header = take_header(&mut frame(&bytes)).unwrap();
        assert_eq!(header.client_id.unwrap(), "é".repeat(128));
    }
}
