//! Kafka's primitive encodings, as far as the records of `__consumer_offsets` need them.
//!
//! Nothing is trusted: lengths are checked against what is there before anything is allocated.

use bytes::{BufMut, Bytes};

use super::{DecodeError, EncodeError};

/// Reads primitives off the front of a slice.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .ok_or(DecodeError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        self.take(N)?.try_into().map_err(|_| DecodeError::Short)
    }

    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    pub(super) fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_be_bytes(self.array()?))
    }

    pub(super) fn uvarint(&mut self) -> Result<u32, DecodeError> {
        let mut value: u32 = 0;
        for shift in [0u32, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                return Err(DecodeError::Malformed("varint"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::Malformed("varint"))
    }

    fn text(bytes: &[u8]) -> Result<String, DecodeError> {
        let text = std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("string"))?;
        Ok(text.to_owned())
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<String>, DecodeError> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let length =
                    usize::try_from(length).map_err(|_| DecodeError::Malformed("string"))?;
                Self::text(self.take(length)?).map(Some)
            }
        }
    }

    pub(super) fn string(&mut self) -> Result<String, DecodeError> {
        self.nullable_string()?
            .ok_or(DecodeError::Malformed("string"))
    }

    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        match self.uvarint()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::Malformed("length")),
        }
    }

    pub(super) fn compact_nullable_string(&mut self) -> Result<Option<String>, DecodeError> {
        match self.compact_length()? {
            None => Ok(None),
            Some(length) => Self::text(self.take(length)?).map(Some),
        }
    }

    pub(super) fn compact_string(&mut self) -> Result<String, DecodeError> {
        self.compact_nullable_string()?
            .ok_or(DecodeError::Malformed("string"))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::try_from(self.i32()?).map_err(|_| DecodeError::Malformed("bytes"))?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(super) fn compact_bytes(&mut self) -> Result<Bytes, DecodeError> {
        let length = self
            .compact_length()?
            .ok_or(DecodeError::Malformed("bytes"))?;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    pub(super) fn array_length(&mut self) -> Result<usize, DecodeError> {
        usize::try_from(self.i32()?).map_err(|_| DecodeError::Malformed("array"))
    }

    pub(super) fn compact_array_length(&mut self) -> Result<usize, DecodeError> {
        self.compact_length()?
            .ok_or(DecodeError::Malformed("array"))
    }

    /// Gives each tagged field to `field`, which may ignore it: tags are added without a version.
    pub(super) fn tagged_fields(
        &mut self,
        mut field: impl FnMut(u32, Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let size = usize::try_from(self.uvarint()?).map_err(|_| DecodeError::Short)?;
            field(tag, Reader::new(self.take(size)?))?;
        }
        Ok(())
    }
}

pub(super) fn put_string(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    let length = i16::try_from(text.len()).map_err(|_| EncodeError { bytes: text.len() })?;
    out.put_i16(length);
    out.put_slice(text.as_bytes());
    Ok(())
}

pub(super) fn put_nullable_string(
    out: &mut Vec<u8>,
    text: Option<&str>,
) -> Result<(), EncodeError> {
    match text {
        Some(text) => put_string(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    let length = i32::try_from(bytes.len()).map_err(|_| EncodeError { bytes: bytes.len() })?;
    out.put_i32(length);
    out.put_slice(bytes);
    Ok(())
}

pub(super) fn put_uvarint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.put_u8(u8::try_from(value).unwrap_or(0));
}

pub(super) fn put_compact_string(out: &mut Vec<u8>, text: &str) -> Result<(), EncodeError> {
    // The limit is that of the older encodings, as in Kafka: every version can store it.
    i16::try_from(text.len()).map_err(|_| EncodeError { bytes: text.len() })?;
    let length = u32::try_from(text.len()).map_err(|_| EncodeError { bytes: text.len() })?;
    put_uvarint(out, length + 1);
    out.put_slice(text.as_bytes());
    Ok(())
}
