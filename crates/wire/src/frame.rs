//! Framing: an i32 length, then that many bytes.
//!
//! Nothing is allocated by the length field alone: the caller's buffer grows with the bytes that
//! have arrived.

use bytes::{Buf, BytesMut};

/// Room kept for reading while nothing is known about the next frame.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room given to the remainder of a frame once its first bytes are here.
const READ_BYTES_FIRST: usize = 256 * 1024;

/// Why a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is negative.
    #[error("frame length {0} is negative")]
    Negative(i32),
    /// The length is above the limit.
    #[error("frame of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge {
        /// What it claims.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
}

/// What the buffer begins with.
#[derive(Debug)]
pub enum Frame {
    /// A whole frame, without its length, split off the buffer without copying.
    Whole(BytesMut),
    /// More must be read; reserve this much room before the next read.
    Partial {
        /// Bytes to reserve: what is missing, but never far more than what has arrived.
        reserve_bytes: usize,
    },
}

/// Takes the next frame off the front of `buffer`.
pub fn next_frame(buffer: &mut BytesMut, limit_bytes: usize) -> Result<Frame, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(Frame::Partial {
            reserve_bytes: READ_BYTES_MIN,
        });
    };
    let len = i32::from_be_bytes(*prefix);
    let bytes = usize::try_from(len).map_err(|_| FrameError::Negative(len))?;
    if bytes > limit_bytes {
        return Err(FrameError::TooLarge { bytes, limit_bytes });
    }
    let arrived = buffer.len() - 4;
    if arrived < bytes {
        let trusted = READ_BYTES_FIRST.max(arrived.saturating_mul(2));
        let reserve_bytes = (bytes - arrived).min(trusted).max(READ_BYTES_MIN);
        return Ok(Frame::Partial { reserve_bytes });
    }
    buffer.advance(4);
    Ok(Frame::Whole(buffer.split_to(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_and_in_order() {
        let mut buffer = BytesMut::from(&b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01"[..]);
        let Ok(Frame::Whole(first)) = next_frame(&mut buffer, 10) else {
            panic!()
        };
        assert_eq!(&first[..], b"ab");
        let Ok(Frame::Whole(second)) = next_frame(&mut buffer, 10) else {
            panic!()
        };
        assert!(second.is_empty());
        assert!(matches!(
            next_frame(&mut buffer, 10),
            Ok(Frame::Partial { .. })
        ));
        buffer.extend_from_slice(b"z");
        let Ok(Frame::Whole(third)) = next_frame(&mut buffer, 10) else {
            panic!()
        };
        assert_eq!(&third[..], b"z");
    }

    #[test]
    fn a_length_field_alone_reserves_little() {
        let mut buffer = BytesMut::from(&b"\x06\0\0\0"[..]); // 96 MiB.
        match next_frame(&mut buffer, 100 << 20) {
            Ok(Frame::Partial { reserve_bytes }) => assert_eq!(reserve_bytes, READ_BYTES_FIRST),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_lengths_are_refused() {
        let mut buffer = BytesMut::from(&b"\xff\xff\xff\xff"[..]);
        assert_eq!(
            next_frame(&mut buffer, 10).unwrap_err(),
            FrameError::Negative(-1)
        );
        let mut buffer = BytesMut::from(&b"\0\0\0\x0b"[..]);
        let error = next_frame(&mut buffer, 10).unwrap_err();
        assert_eq!(
            error,
            FrameError::TooLarge {
                bytes: 11,
                limit_bytes: 10
            }
        );
    }
}
