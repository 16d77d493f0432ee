//! Walking the batches of a byte range and checking that each is what was written.

use crate::header::{BatchError, BatchHeader, CRC_AT, CRC_FROM};

/// Whole batches one after another, as they stand in a log segment or a fetch answer.
///
/// Ends after the last whole batch; a short tail or a head that cannot be is one error, and then
/// the end. CRCs are not checked: see [`check_crc`].
#[must_use]
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// The iterator of [`batches`].
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let header = match BatchHeader::parse(self.rest) {
            Ok(header) => header,
            Err(error) => {
                self.rest = &[];
                return Some(Err(error));
            }
        };
        let size = header.size_bytes();
        if let Some((batch, rest)) = self.rest.split_at_checked(size) {
            self.rest = rest;
            return Some(Ok((header, batch)));
        }
        let have = self.rest.len();
        self.rest = &[];
        Some(Err(BatchError::Short { needed: size, have }))
    }
}

/// Whether the CRC in the head of `batch` (one whole batch) matches its bytes.
#[must_use]
pub fn check_crc(batch: &[u8]) -> bool {
    stored_crc(batch).is_some_and(|crc| compute_crc(batch) == crc)
}

fn stored_crc(batch: &[u8]) -> Option<u32> {
    batch
        .get(CRC_AT..)?
        .first_chunk()
        .map(|bytes| u32::from_be_bytes(*bytes))
}

/// CRC-32C of the bytes that it covers.
pub(crate) fn compute_crc(batch: &[u8]) -> u32 {
    crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BatchBuilder;

    #[test]
    fn a_short_tail_is_an_error_and_then_the_end() {
        let mut bytes = Vec::new();
        for value in [&b"one"[..], b"two"] {
            let mut builder = BatchBuilder::new(5);
            builder.push(5, None, Some(value), &[]);
            bytes.extend_from_slice(&builder.build());
        }
        let whole: Vec<_> = batches(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(whole.len(), 2);
        let mut cut = batches(&bytes[..bytes.len() - 1]);
        assert!(cut.next().unwrap().is_ok());
        assert!(matches!(cut.next(), Some(Err(BatchError::Short { .. }))));
        assert!(cut.next().is_none());
    }

    #[test]
    fn every_flipped_bit_behind_the_crc_is_found() {
        let mut builder = BatchBuilder::new(5);
        builder.push(5, Some(b"k"), Some(b"value"), &[]);
        let batch = builder.build();
        assert!(check_crc(&batch));
        for at in CRC_AT..batch.len() {
            for bit in 0..8 {
                let mut bad = batch.clone();
                bad[at] ^= 1 << bit;
                assert!(!check_crc(&bad), "byte {at} bit {bit}");
            }
        }
        assert!(!check_crc(&[]));
        assert!(!check_crc(&batch[..20]));
    }
}
