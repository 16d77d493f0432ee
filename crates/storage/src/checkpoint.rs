//! Kafka's checkpoint files of a log directory: one offset for each partition, as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ottla_types::{Offset, PartitionIndex};

/// Offsets by topic name and partition.
pub(crate) type Offsets = BTreeMap<(String, PartitionIndex), Offset>;

/// `version`, number of entries, then `topic partition offset` a line.
pub(crate) fn encode(offsets: &Offsets) -> Vec<u8> {
    let mut text = format!("0\n{}\n", offsets.len());
    for ((topic, partition), offset) in offsets {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{topic} {partition} {offset}");
    }
    text.into_bytes()
}

/// Reads a checkpoint; `None` if it is damaged, and then nothing of it is believed.
pub(crate) fn decode(bytes: &[u8]) -> Option<Offsets> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.lines();
    if lines.next()?.trim() != "0" {
        return None;
    }
    let count: usize = lines.next()?.trim().parse().ok()?;
    let mut offsets = Offsets::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
        let partition = PartitionIndex::new(partition.parse().ok()?)?;
        offsets.insert(
            (topic.to_owned(), partition),
            Offset::new(offset.parse().ok()?)?,
        );
    }
    (offsets.len() == count).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_as_it_was_written() {
        let mut offsets = Offsets::new();
        offsets.insert(("a".to_owned(), PartitionIndex(0)), Offset::saturating(5));
        offsets.insert(
            ("a".to_owned(), PartitionIndex(10)),
            Offset::saturating(1 << 40),
        );
        let text = encode(&offsets);
        assert_eq!(text, b"0\n2\na 0 5\na 10 1099511627776\n");
        assert_eq!(decode(&text), Some(offsets));
    }

    #[test]
    fn s3_a_damaged_checkpoint_says_nothing() {
        for odd in [
            "",
            "1\n0\n",
            "0\n2\na 0 5\n",
            "0\n1\na 0\n",
            "0\n1\na 0 -5\n",
            "0\nx\n",
        ] {
            assert_eq!(decode(odd.as_bytes()), None, "{odd:?}");
        }
    }
}
