//! Decoding a whole batch into owned records, for readers that look inside: group state, the
//! offset of a timestamp, tools.

use bytes::Bytes;

use crate::compression::decompress;
use crate::header::{BATCH_OVERHEAD, BatchError, BatchHeader};
use crate::record::RecordIter;

/// One header of a record, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedHeader {
    /// Its key, UTF-8 by convention.
    pub key: Bytes,
    /// Its value.
    pub value: Option<Bytes>,
}

/// One record, sharing the memory of the decompressed batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedRecord {
    /// Its offset in the log.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers, in order.
    pub headers: Vec<OwnedHeader>,
}

/// Decodes all records of one whole batch; decompressed they may take `max_bytes`.
///
/// # Errors
/// The batch or one of its records is malformed, or too large. The CRC is not checked.
pub fn decode_records(batch: &[u8], max_bytes: usize) -> Result<Vec<OwnedRecord>, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let body = batch
        .get(BATCH_OVERHEAD..header.size_bytes())
        .ok_or(BatchError::Short {
            needed: header.size_bytes(),
            have: batch.len(),
        })?;
    let records = Bytes::from(decompress(header.attributes.codec()?, body, max_bytes)?);
    let owned = |field: &[u8]| records.slice_ref(field);
    RecordIter::new(&header, &records)
        .map(|record| {
            let record = record?;
            Ok(OwnedRecord {
                offset: record.offset,
                timestamp: record.timestamp,
                key: record.key.map(owned),
                value: record.value.map(owned),
                headers: record
                    .headers
                    .iter()
                    .map(|h| OwnedHeader {
                        key: owned(h.key),
                        value: h.value.map(owned),
                    })
                    .collect(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{BatchBuilder, Codec};

    type Fields = (
        i64,
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(String, Option<Vec<u8>>)>,
    );

    fn fields() -> impl Strategy<Value = Fields> {
        let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
        (
            any::<i64>(),
            bytes(),
            bytes(),
            proptest::collection::vec((".{0,8}", bytes()), 0..3),
        )
    }

    proptest! {
        #[test]
        fn what_is_built_is_decoded(
            base in 0i64..4_000_000_000_000,
            records in proptest::collection::vec(fields(), 0..30),
            codec in prop_oneof![
                Just(Codec::None), Just(Codec::Gzip), Just(Codec::Snappy), Just(Codec::Lz4),
                Just(Codec::Zstd)
            ],
        ) {
            let mut builder = BatchBuilder::new(base).codec(codec);
            for (delta, key, value, headers) in &records {
                let headers: Vec<_> =
                    headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
                builder.push(
                    base.saturating_add(delta / 4), key.as_deref(), value.as_deref(), &headers,
                );
            }
            let batch = builder.build();
            prop_assert!(crate::check_crc(&batch));
            let decoded = decode_records(&batch, 1 << 24).unwrap();
            prop_assert_eq!(decoded.len(), records.len());
            for (index, (got, (delta, key, value, headers))) in
                decoded.iter().zip(&records).enumerate()
            {
                prop_assert_eq!(got.offset, i64::try_from(index).unwrap());
                prop_assert_eq!(got.timestamp, base.saturating_add(delta / 4));
                prop_assert_eq!(got.key.as_deref(), key.as_deref());
                prop_assert_eq!(got.value.as_deref(), value.as_deref());
                prop_assert_eq!(got.headers.len(), headers.len());
                for (h, (k, v)) in got.headers.iter().zip(headers) {
                    prop_assert_eq!(&h.key[..], k.as_bytes());
                    prop_assert_eq!(h.value.as_deref(), v.as_deref());
                }
            }
        }

        #[test]
        fn x2_damaged_batches_never_panic(
            at in 0usize..400, byte: u8, cut in 0usize..400,
        ) {
            let mut builder = BatchBuilder::new(7);
            for n in 0..5u8 {
                builder.push(7, Some(&[n]), Some(&[n; 40]), &[("h", Some(&[n]))]);
            }
            let mut batch = builder.build();
            if let Some(slot) = batch.get_mut(at) {
                *slot = byte;
            }
            let end = batch.len().saturating_sub(cut);
            let _ = decode_records(&batch[..end], 1 << 16);
        }
    }
}
