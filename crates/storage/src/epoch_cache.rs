//! Which leader epoch began at which offset (KIP-101): the lineage that truncation follows.
//!
//! # Invariants
//! * Entries rise strictly in epoch and in start offset.
//! * They are those that a scan of the log's batches yields, plus at most one last entry for an
//!   epoch without batches.

use ottla_types::{LeaderEpoch, Offset};

/// The first offset of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// Offset of its first record.
    pub start_offset: Offset,
}

/// The epochs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The oldest entry.
    #[must_use]
    pub fn first(&self) -> Option<EpochEntry> {
        self.entries.first().copied()
    }

    /// The epoch of the record at `offset`.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self
            .entries
            .partition_point(|entry| entry.start_offset <= offset);
        after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index))
            .map(|entry| entry.epoch)
    }

    /// The largest known epoch that is not above `epoch`.
    #[must_use]
    pub fn floor(&self, epoch: LeaderEpoch) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.epoch <= epoch);
        after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index))
            .map(|entry| entry.epoch)
    }

    /// Where the asked epoch ends: the largest known epoch that is not above it, and the start of
    /// the next one. The newest epoch ends at the log's end; an epoch below the first known one
    /// ends where that begins (B-8); one above all is unknown.
    #[must_use]
    pub fn end_offset(
        &self,
        asked: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if asked > latest {
            return None;
        }
        let after = self.entries.partition_point(|entry| entry.epoch <= asked);
        let end = self
            .entries
            .get(after)
            .map_or(log_end_offset, |next| next.start_offset);
        let known = after
            .checked_sub(1)
            .and_then(|index| self.entries.get(index));
        Some((known.map_or(asked, |entry| entry.epoch), end))
    }

    /// Says that `epoch` begins at `start_offset`; returns whether anything changed. Entries that
    /// contradict the new one go.
    pub fn assign(&mut self, epoch: LeaderEpoch, start_offset: Offset) -> bool {
        match self.entries.last() {
            Some(last) if last.epoch == epoch && last.start_offset <= start_offset => return false,
            _ => {}
        }
        self.entries
            .retain(|entry| entry.epoch < epoch && entry.start_offset < start_offset);
        self.entries.push(EpochEntry {
            epoch,
            start_offset,
        });
        true
    }

    /// Forgets epochs that begin at or after `end_offset`; returns whether anything changed.
    pub fn truncate_from_end(&mut self, end_offset: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end_offset);
        before != self.entries.len()
    }

    /// Forgets what lies below `start_offset`: the epoch that is open there begins there. Returns
    /// whether anything changed.
    pub fn truncate_from_start(&mut self, start_offset: Offset) -> bool {
        let after = self
            .entries
            .partition_point(|entry| entry.start_offset <= start_offset);
        let Some(open) = after.checked_sub(1) else {
            return false;
        };
        if open == 0 && self.entries[0].start_offset == start_offset {
            return false;
        }
        self.entries.drain(..open);
        self.entries[0].start_offset = start_offset;
        true
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The text of `leader-epoch-checkpoint`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        use std::fmt::Write as _;
        let mut text = format!("0\n{}\n", self.entries.len());
        for entry in &self.entries {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {}", entry.epoch, entry.start_offset);
        }
        text.into_bytes()
    }

    /// Reads `leader-epoch-checkpoint`; `None` if it breaks the format or the invariant.
    pub(crate) fn decode(bytes: &[u8]) -> Option<EpochCache> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next()?.trim() != "0" {
            return None;
        }
        let count: usize = lines.next()?.trim().parse().ok()?;
        let mut entries: Vec<EpochEntry> = Vec::new();
        for line in lines {
            let (epoch, start) = line.trim().split_once(' ')?;
            let entry = EpochEntry {
                epoch: LeaderEpoch::new(epoch.parse().ok()?)?,
                start_offset: Offset::new(start.parse().ok()?)?,
            };
            let rises = entries.last().is_none_or(|last| {
                last.epoch < entry.epoch && last.start_offset < entry.start_offset
            });
            if !rises {
                return None;
            }
            entries.push(entry);
        }
        (entries.len() == count).then_some(EpochCache { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(n: i32) -> LeaderEpoch {
        LeaderEpoch::saturating(n)
    }

    fn offset(n: i64) -> Offset {
        Offset::saturating(n)
    }

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for (e, start) in entries {
            cache.assign(epoch(*e), offset(*start));
        }
        cache
    }

    #[test]
    fn r8_an_epoch_ends_where_the_next_begins() {
        let cache = cache(&[(2, 10), (4, 20), (7, 30)]);
        let end = |e| {
            cache
                .end_offset(epoch(e), offset(99))
                .map(|(e, o)| (e.get(), o.get()))
        };
        assert_eq!(end(2), Some((2, 20)));
        assert_eq!(end(3), Some((2, 20)));
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(6), Some((4, 30)));
        assert_eq!(end(7), Some((7, 99)));
        assert_eq!(end(8), None);
        // B-8: below the first known epoch.
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(EpochCache::default().end_offset(epoch(0), offset(5)), None);
    }

    #[test]
    fn r9_a_new_entry_drops_what_contradicts_it() {
        let mut entries = cache(&[(1, 0), (2, 10), (3, 20)]);
        assert!(!entries.assign(epoch(3), offset(25)));
        // An epoch without batches is replaced by the next one.
        assert!(entries.assign(epoch(5), offset(20)));
        assert_eq!(entries, cache(&[(1, 0), (2, 10), (5, 20)]));
        assert!(entries.assign(epoch(6), offset(5)));
        assert_eq!(entries, cache(&[(1, 0), (6, 5)]));
    }

    #[test]
    fn truncation_keeps_the_epochs_that_still_have_records() {
        let mut entries = cache(&[(1, 0), (2, 10), (3, 20)]);
        assert!(entries.truncate_from_end(offset(20)));
        assert_eq!(entries, cache(&[(1, 0), (2, 10)]));
        assert!(!entries.truncate_from_end(offset(11)));
        assert!(entries.truncate_from_start(offset(12)));
        assert_eq!(entries, cache(&[(2, 12)]));
        assert!(!entries.truncate_from_start(offset(12)));
        assert_eq!(entries.epoch_at(offset(13)), Some(epoch(2)));
        assert_eq!(entries.epoch_at(offset(11)), None);
    }

    #[test]
    fn the_text_round_trips_and_odd_text_is_refused() {
        let entries = cache(&[(1, 0), (2, 10), (30, 20_000_000_000)]);
        let text = entries.encode();
        assert_eq!(text, b"0\n3\n1 0\n2 10\n30 20000000000\n");
        assert_eq!(EpochCache::decode(&text), Some(entries));
        for odd in [
            "",
            "1\n0\n",
            "0\n1\n",
            "0\n2\n1 5\n2 5\n",
            "0\n2\n2 1\n1 5\n",
            "0\n1\n-1 0\n",
        ] {
            assert_eq!(EpochCache::decode(odd.as_bytes()), None, "{odd:?}");
        }
    }
}
