//! Reading big-endian numbers and varints off a slice; never past its end, never a panic.

/// The bytes end before the value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortRead;

pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], ShortRead> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(ShortRead)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ShortRead> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(ShortRead)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i16(&mut self) -> Result<i16, ShortRead> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, ShortRead> {
        self.array().map(i32::from_be_bytes)
    }

    /// An unsigned varint of at most 32 bits.
    pub(crate) fn unsigned_varint(&mut self) -> Result<u32, ShortRead> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && byte > 0x0f {
                return Err(ShortRead); // More than 32 bits.
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ShortRead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_within_32_bits() {
        assert_eq!(Reader::new(&[0]).unsigned_varint(), Ok(0));
        assert_eq!(Reader::new(&[0xac, 0x02]).unsigned_varint(), Ok(300));
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).unsigned_varint(),
            Ok(u32::MAX)
        );
        assert_eq!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).unsigned_varint(),
            Err(ShortRead)
        );
        assert_eq!(Reader::new(&[0x80]).unsigned_varint(), Err(ShortRead));
    }
}
