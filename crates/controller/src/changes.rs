//! The records of recent entries, kept in memory so that a broker that follows closely, or
//! returns soon, needs no image.
//!
//! # Invariant
//! Entries are contiguous in effect: everything decided after `start` and up to the last entry is
//! here. A broker whose image ends before `start` needs a new image.

use std::collections::VecDeque;

use bytes::Bytes;

/// Entries kept.
const ENTRIES_MAX: usize = 10_000;
/// Bytes kept.
const BYTES_MAX: usize = 32 << 20;

/// A bounded tail of decided records.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Records up to and including this index are not here.
    start: u64,
    entries: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

impl Changes {
    /// Nothing is known of what happened up to `start`.
    pub(crate) fn starting_at(start: u64) -> Changes {
        Changes {
            start,
            ..Changes::default()
        }
    }

    /// Adds the encoded records of one entry.
    pub(crate) fn push(&mut self, index: u64, records: Bytes) {
        self.bytes += records.len();
        self.entries.push_back((index, records));
        while self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX {
            let Some((index, records)) = self.entries.pop_front() else {
                break;
            };
            self.start = index;
            self.bytes -= records.len();
        }
    }

    /// The entries after `index`; `None` if some of them are no longer here.
    pub(crate) fn after(&self, index: u64) -> Option<Vec<(u64, Bytes)>> {
        if index < self.start {
            return None;
        }
        let from = self.entries.partition_point(|(at, _)| *at <= index);
        Some(self.entries.range(from..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_not_passed_over_in_silence() {
        let mut changes = Changes::starting_at(5);
        assert_eq!(changes.after(4), None);
        assert_eq!(changes.after(5), Some(Vec::new()));
        for index in 6..6 + 2 * ENTRIES_MAX as u64 {
            changes.push(index, Bytes::from_static(b"r"));
        }
        let start = changes.start;
        assert!(changes.after(start - 1).is_none());
        let tail = changes.after(start).unwrap();
        assert_eq!((tail.len(), tail[0].0), (ENTRIES_MAX, start + 1));
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut changes = Changes::default();
        for index in 1..=100 {
            changes.push(index, Bytes::from(vec![0; 1 << 20]));
        }
        assert!(changes.bytes <= BYTES_MAX);
        assert_eq!(changes.after(99).unwrap().len(), 1);
    }
}
