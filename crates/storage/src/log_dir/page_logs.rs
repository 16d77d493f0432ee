//! Which logs are in mode `page`: their checkpointed high watermark says nothing of what is
//! durable, and a recovery has to know that before it knows any topic's settings.
//!
//! # Invariants
//! * A log is on the list before a high watermark beyond its flushed offset is checkpointed, and
//!   leaves it after one that is not.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::checkpoints::Key;
use ottla_types::PartitionIndex;

/// First word of the file.
const MAGIC: &str = "ottla-page-logs-1";

/// Magic and CRC, then `topic partition` a line.
pub(super) fn encode(logs: &BTreeSet<Key>) -> Vec<u8> {
    let mut body = String::new();
    for (topic, partition) in logs {
        // Writing to a string does not fail.
        let _ = writeln!(body, "{topic} {partition}");
    }
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{MAGIC} {crc:08x}\n{body}").into_bytes()
}

/// Reads the list; `None` if it is damaged.
pub(super) fn decode(bytes: &[u8]) -> Option<BTreeSet<Key>> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, body) = text.split_once('\n')?;
    let mut logs = BTreeSet::new();
    for line in body.lines() {
        let (topic, partition) = line.split_once(' ')?;
        let partition = PartitionIndex::new(partition.parse().ok()?)?;
        logs.insert((topic.to_owned(), partition));
    }
    (encode(&logs) == bytes).then_some(logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_reads_as_it_was_written_or_not_at_all() {
        let logs = [("a", 0), ("a", 10), ("b.c", 3)];
        let logs = logs.map(|(topic, number)| (topic.to_owned(), PartitionIndex(number)));
        for count in 0..=logs.len() {
            let logs: BTreeSet<Key> = logs[..count].iter().cloned().collect();
            let bytes = encode(&logs);
            assert_eq!(decode(&bytes), Some(logs));
            for at in 0..bytes.len() {
                let mut torn = bytes.clone();
                torn[at] ^= 1;
                assert_eq!(decode(&torn), None, "byte {at}");
                assert_eq!(decode(&bytes[..at]), None, "cut at {at}");
            }
        }
    }
}
