//! From the bytes of a fetch to records: checked, decompressed, without what must not be seen.

use std::collections::BTreeSet;

use bytes::Bytes;

use ottla_records::{BatchError, ControlType, batches, check_crc, control_type, decode_records};

use super::record::ConsumerRecord;
use crate::metadata::TopicPartition;

/// What a fetch gave for one partition.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    pub(super) records: Vec<ConsumerRecord>,
    /// Where to read next, and the leader epoch before it; `None` if there was no whole batch.
    pub(super) next: Option<(i64, i32)>,
}

/// Why bytes cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("batch at offset {offset}: {error}")]
pub(super) struct Corrupt {
    pub(super) offset: i64,
    pub(super) error: BatchError,
}

/// Reads whole batches from `from` on. `aborted` is given for readers of committed records.
///
/// # Errors
/// The first batch is damaged. One further on ends the answer before it: what is sound is not lost,
/// and the next fetch begins with the damage.
pub(super) fn decode(
    partition: &TopicPartition,
    bytes: &Bytes,
    from: i64,
    aborted: Option<&[(i64, i64)]>,
    batch_bytes_max: usize,
) -> Result<Decoded, Corrupt> {
    let mut decoded = Decoded::default();
    match decode_into(
        &mut decoded,
        partition,
        bytes,
        from,
        aborted,
        batch_bytes_max,
    ) {
        Err(corrupt) if decoded.next.is_none() => Err(corrupt),
        Ok(()) | Err(_) => Ok(decoded),
    }
}

/// Reads up to the end or to the first damage.
fn decode_into(
    decoded: &mut Decoded,
    partition: &TopicPartition,
    bytes: &Bytes,
    from: i64,
    aborted: Option<&[(i64, i64)]>,
    batch_bytes_max: usize,
) -> Result<(), Corrupt> {
    let mut open_aborted = Aborted::new(aborted);
    for batch in batches(bytes) {
        let at = decoded.next.map_or(from, |(next, _)| next);
        let corrupt = |error: BatchError| Corrupt { offset: at, error };
        let (head, batch) = match batch {
            Ok(found) => found,
            // The end of an answer may be cut anywhere.
            Err(BatchError::Short { .. }) => break,
            Err(error) => return Err(corrupt(error)),
        };
        if !check_crc(batch) {
            return Err(corrupt(BatchError::Crc));
        }
        let next = head.last_offset().get() + 1;
        if next > from {
            let is_hidden = open_aborted.is_hidden(
                head.producer_id,
                head.base_offset,
                head.attributes.is_transactional(),
            );
            if head.attributes.is_control() {
                if let Some(ControlType::Abort) = control_type(batch).map_err(corrupt)? {
                    open_aborted.end(head.producer_id);
                }
            } else if !is_hidden {
                let records = decode_records(batch, batch_bytes_max).map_err(corrupt)?;
                let visible = records.into_iter().filter(|record| record.offset >= from);
                decoded.records.extend(visible.map(|record| {
                    ConsumerRecord {
                        partition: partition.clone(),
                        offset: record.offset,
                        timestamp: record.timestamp,
                        leader_epoch: (head.partition_leader_epoch >= 0)
                            .then_some(head.partition_leader_epoch),
                        key: record.key,
                        value: record.value,
                        headers: record
                            .headers
                            .into_iter()
                            .map(|h| (h.key, h.value))
                            .collect(),
                    }
                }));
            }
            decoded.next = Some((next, head.partition_leader_epoch));
        }
    }
    Ok(())
}

/// The aborted transactions whose records may be met, in the order of their first offsets.
struct Aborted<'a> {
    coming: Option<Vec<&'a (i64, i64)>>,
    open: BTreeSet<i64>,
}

impl<'a> Aborted<'a> {
    fn new(aborted: Option<&'a [(i64, i64)]>) -> Aborted<'a> {
        let coming = aborted.map(|aborted| {
            let mut coming: Vec<&(i64, i64)> = aborted.iter().collect();
            coming.sort_by_key(|(_, first)| std::cmp::Reverse(*first));
            coming
        });
        Aborted {
            coming,
            open: BTreeSet::new(),
        }
    }

    fn is_hidden(&mut self, producer_id: i64, base_offset: i64, is_transactional: bool) -> bool {
        let Some(coming) = &mut self.coming else {
            return false;
        };
        while let Some((producer, _)) = coming.pop_if(|(_, first)| *first <= base_offset) {
            self.open.insert(*producer);
        }
        is_transactional && self.open.contains(&producer_id)
    }

    fn end(&mut self, producer_id: i64) {
        self.open.remove(&producer_id);
    }
}

#[cfg(test)]
mod tests {
    use ottla_records::{BatchBuilder, Codec, end_transaction_marker, stamp};
    use ottla_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

    use super::*;

    fn batch(base: i64, values: &[&str], transaction_of: Option<i64>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(5).codec(Codec::Lz4);
        if let Some(producer) = transaction_of {
            builder = builder
                .producer(ProducerId(producer), ProducerEpoch::ZERO, 0)
                .transactional();
        }
        for value in values {
            builder.push(5, None, Some(value.as_bytes()), &[]);
        }
        stamped(builder.build(), base)
    }

    fn stamped(mut batch: bytes::BytesMut, base: i64) -> Vec<u8> {
        stamp(
            &mut batch,
            Offset::new(base).unwrap(),
            LeaderEpoch::saturating(3),
        );
        batch.to_vec()
    }

    fn marker(base: i64, producer: i64, commit: bool) -> Vec<u8> {
        let marker =
            end_transaction_marker(5, ProducerId(producer), ProducerEpoch::ZERO, commit, 0);
        stamped(marker, base)
    }

    fn values(
        bytes: &[Vec<u8>],
        from: i64,
        aborted: Option<&[(i64, i64)]>,
    ) -> (Vec<String>, Option<(i64, i32)>) {
        let bytes = Bytes::from(bytes.concat());
        let decoded = decode(&TopicPartition::new("t", 0), &bytes, from, aborted, 1 << 20).unwrap();
        let text = |record: &ConsumerRecord| {
            let value = record.value.as_deref().unwrap();
            format!("{}={}", record.offset, std::str::from_utf8(value).unwrap())
        };
        (decoded.records.iter().map(text).collect(), decoded.next)
    }

    #[test]
    fn a_fetch_begins_at_the_offset_asked_for_and_ends_with_the_last_whole_batch() {
        let mut cut = batch(7, &["x"], None);
        cut.truncate(70);
        let bytes = [
            batch(3, &["a", "b", "c"], None),
            batch(6, &["d"], None),
            cut,
        ];
        assert_eq!(
            values(&bytes, 4, None),
            (vec!["4=b".into(), "5=c".into(), "6=d".into()], Some((7, 3)))
        );
    }

    #[test]
    fn aborted_records_and_markers_are_skipped_and_the_position_moves_past_them() {
        let bytes = [
            batch(0, &["aborted"], Some(1)),
            batch(1, &["committed"], Some(2)),
            marker(2, 1, false),
            batch(3, &["of the next"], Some(1)),
            marker(4, 2, true),
            marker(5, 1, true),
        ];
        let (seen, next) = values(&bytes, 0, Some(&[(1, 0)]));
        assert_eq!(seen, ["1=committed", "3=of the next"]);
        assert_eq!(next, Some((6, 3)));
        let (seen, _) = values(&bytes, 0, None);
        assert_eq!(seen, ["0=aborted", "1=committed", "3=of the next"]);
    }

    #[test]
    fn damage_is_an_error_with_its_offset_once_what_is_before_it_was_read() {
        let mut damaged = batch(4, &["abc"], None);
        *damaged.last_mut().unwrap() ^= 1;
        let bytes = [batch(3, &["a"], None), damaged];
        assert_eq!(values(&bytes, 3, None), (vec!["3=a".into()], Some((4, 3))));
        // The next fetch: by then nothing sound is before it, or only what was read.
        let bytes = Bytes::from(bytes.concat());
        let error = decode(&TopicPartition::new("t", 0), &bytes, 4, None, 1 << 20).unwrap_err();
        assert_eq!((error.offset, error.error), (4, BatchError::Crc));
    }
}
