//! When offsets were appended, coarsely: how old is the oldest record that a follower lacks?

use std::collections::VecDeque;

use ottla_types::{MonotonicMs, Offset};

/// Appends closer together than this share a mark.
const RESOLUTION_MS: u64 = 20;
/// Bound on marks kept; beyond it every other one goes, which makes offsets look older.
const MARKS_MAX: usize = 1024;

/// Marks (offset, time), both rising: offsets from one mark up to the next were appended at its
/// time or up to the resolution later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AppendTimes {
    marks: VecDeque<(Offset, MonotonicMs)>,
}

impl AppendTimes {
    /// Everything there already counts as appended now: a new leader gives its followers a full
    /// period before it judges them.
    pub(crate) fn new(now: MonotonicMs) -> AppendTimes {
        AppendTimes {
            marks: VecDeque::from([(Offset::ZERO, now)]),
        }
    }

    /// Offsets from `from` on were appended at `now`.
    pub(crate) fn appended(&mut self, now: MonotonicMs, from: Offset) {
        if self
            .marks
            .back()
            .is_some_and(|(_, at)| now.ms_since(*at) < RESOLUTION_MS)
        {
            return;
        }
        if self.marks.len() >= MARKS_MAX {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((from, now));
    }

    /// When the record at `offset` was appended, or a little earlier.
    pub(crate) fn appended_at(&self, offset: Offset) -> MonotonicMs {
        let after = self.marks.partition_point(|(from, _)| *from <= offset);
        let mark = after.checked_sub(1).and_then(|index| self.marks.get(index));
        mark.or(self.marks.front())
            .map_or(MonotonicMs(0), |(_, at)| *at)
    }

    /// Nobody will ask below `offset` any more.
    pub(crate) fn forget_below(&mut self, offset: Offset) {
        while self.marks.get(1).is_some_and(|(from, _)| *from <= offset) {
            self.marks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_as_old_as_the_mark_before_it() {
        let o = Offset::saturating;
        let mut times = AppendTimes::new(MonotonicMs(100));
        times.appended(MonotonicMs(110), o(5)); // within the resolution
        times.appended(MonotonicMs(200), o(10));
        times.appended(MonotonicMs(300), o(20));
        assert_eq!(times.appended_at(o(7)), MonotonicMs(100));
        assert_eq!(times.appended_at(o(10)), MonotonicMs(200));
        assert_eq!(times.appended_at(o(99)), MonotonicMs(300));
        times.forget_below(o(15));
        assert_eq!(times.appended_at(o(15)), MonotonicMs(200));
    }

    #[test]
    fn marks_are_bounded_and_err_towards_older() {
        let mut times = AppendTimes::new(MonotonicMs(0));
        for step in 1..10_000u64 {
            let offset = Offset::saturating(i64::try_from(step).unwrap());
            times.appended(MonotonicMs(step * 50), offset);
            assert!(times.appended_at(offset) <= MonotonicMs(step * 50));
        }
        assert!(times.marks.len() <= MARKS_MAX);
    }
}
