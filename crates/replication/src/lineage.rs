//! Where two logs part: leader epochs and the offsets at which they begin (KIP-101, KIP-279).
//!
//! A truncation point comes from here and never from a high watermark (R-8, B-1). Entries are
//! (epoch, start offset), both strictly rising; the last one may be of an epoch without batches:
//! a leader that has written nothing yet.

use ottla_types::{LeaderEpoch, Offset};

/// An epoch and the offset of its first record.
pub type EpochStart = (LeaderEpoch, Offset);

/// What a leader says of the position at which a follower asks to continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The follower's log is a prefix of ours.
    Matches,
    /// It is not: `epoch` is our largest epoch not above the follower's last, and ends here.
    Diverges {
        /// Our largest epoch not above the follower's.
        epoch: LeaderEpoch,
        /// Where it ends in our log.
        end: Offset,
    },
    /// The follower ends below our log start, or beyond our end without a record to compare.
    OutOfRange,
}

/// The largest epoch known that is not above `asked`, and where it ends.
///
/// The latest epoch ends at the log end; an epoch below the first known one ends where that
/// begins; one above the latest is unknown.
#[must_use]
pub fn end_offset_for_epoch(
    epochs: &[EpochStart],
    log_end: Offset,
    asked: LeaderEpoch,
) -> Option<EpochStart> {
    let after = epochs.partition_point(|(epoch, _)| *epoch <= asked);
    if after == 0 {
        return epochs.first().map(|(_, start)| (asked, *start));
    }
    let (epoch, _) = epochs.get(after.checked_sub(1)?)?;
    match epochs.get(after) {
        Some((_, next_start)) => Some((*epoch, *next_start)),
        None if *epoch == asked => Some((*epoch, log_end)),
        None => None,
    }
}

/// Epoch of the last record below `log_end`; `None` for an empty log. A trailing entry without
/// batches says nothing about records and is passed over (B-8).
#[must_use]
pub fn last_record_epoch(
    epochs: &[EpochStart],
    log_start: Offset,
    log_end: Offset,
) -> Option<LeaderEpoch> {
    if log_start >= log_end {
        return None;
    }
    epochs
        .iter()
        .rev()
        .find(|(_, start)| *start < log_end)
        .map(|(epoch, _)| *epoch)
}

/// Epoch of the record at `offset`.
#[must_use]
pub fn epoch_at(epochs: &[EpochStart], offset: Offset) -> Option<LeaderEpoch> {
    epochs
        .iter()
        .rev()
        .find(|(_, start)| *start <= offset)
        .map(|(epoch, _)| *epoch)
}

/// The leader's judgement of a follower's position.
#[must_use]
pub fn compare(
    epochs: &[EpochStart],
    log_start: Offset,
    log_end: Offset,
    follower_epoch: Option<LeaderEpoch>,
    follower_end: Offset,
) -> Position {
    if follower_end < log_start {
        return Position::OutOfRange;
    }
    let Some(asked) = follower_epoch else {
        // Nothing to compare: an empty log may begin anywhere within ours.
        return if follower_end > log_end {
            Position::OutOfRange
        } else {
            Position::Matches
        };
    };
    match end_offset_for_epoch(epochs, log_end, asked) {
        Some((epoch, end)) if epoch == asked && follower_end <= end => Position::Matches,
        Some((epoch, end)) => Position::Diverges { epoch, end },
        None => match epochs.last() {
            Some((epoch, _)) => Position::Diverges {
                epoch: *epoch,
                end: log_end,
            },
            None => Position::OutOfRange,
        },
    }
}

/// Where a follower cuts its log after the answer that it diverges (KIP-279).
///
/// The follower asks again after every cut, until the answer is [`Position::Matches`]. Each cut
/// is below the log end, because the last record's epoch is above the answered one or ends
/// earlier at the leader, so the dialogue ends.
#[must_use]
pub fn truncation_point(
    epochs: &[EpochStart],
    log_end: Offset,
    leader_epoch: LeaderEpoch,
    leader_end: Offset,
) -> Offset {
    let after = epochs.partition_point(|(epoch, _)| *epoch <= leader_epoch);
    let own_end = epochs.get(after).map_or(log_end, |(_, start)| *start);
    let common = after.checked_sub(1).and_then(|last| epochs.get(last));
    match common {
        // The leader's end speaks of another epoch than ours: only our own end counts, for now.
        Some((epoch, _)) if *epoch != leader_epoch => own_end.min(log_end),
        // Nothing of ours is as old as what the leader has there: all of it goes.
        Some(_) | None => own_end.min(leader_end).min(log_end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn e(epoch: i32) -> LeaderEpoch {
        LeaderEpoch::saturating(epoch)
    }

    fn o(offset: i64) -> Offset {
        Offset::saturating(offset)
    }

    #[test]
    fn the_lookup_of_kip_101() {
        let epochs = [(e(2), o(10)), (e(4), o(20)), (e(7), o(30))];
        assert_eq!(
            end_offset_for_epoch(&epochs, o(50), e(7)),
            Some((e(7), o(50)))
        );
        assert_eq!(end_offset_for_epoch(&epochs, o(50), e(8)), None);
        assert_eq!(
            end_offset_for_epoch(&epochs, o(50), e(5)),
            Some((e(4), o(30)))
        );
        assert_eq!(
            end_offset_for_epoch(&epochs, o(50), e(2)),
            Some((e(2), o(20)))
        );
        assert_eq!(
            end_offset_for_epoch(&epochs, o(50), e(1)),
            Some((e(1), o(10)))
        );
        assert_eq!(end_offset_for_epoch(&[], o(0), e(1)), None);
    }

    #[test]
    fn a_trailing_epoch_without_batches_is_not_the_last_records_epoch() {
        let epochs = [(e(2), o(10)), (e(4), o(20))];
        assert_eq!(last_record_epoch(&epochs, o(10), o(20)), Some(e(2)));
        assert_eq!(last_record_epoch(&epochs, o(10), o(21)), Some(e(4)));
        assert_eq!(last_record_epoch(&epochs, o(20), o(20)), None);
    }

    #[test]
    fn fast_double_failover_converges() {
        // B-2: the follower knows epochs 3 and 4 that the leader never had.
        let leader = [(e(1), o(0)), (e(2), o(10)), (e(5), o(15))];
        let follower = [(e(1), o(0)), (e(3), o(8)), (e(4), o(12))];
        let Position::Diverges { epoch, end } = compare(&leader, o(0), o(20), Some(e(4)), o(14))
        else {
            panic!("logs diverge");
        };
        assert_eq!((epoch, end), (e(2), o(15)));
        let cut = truncation_point(&follower, o(14), epoch, end);
        assert_eq!(cut, o(8));
        assert_eq!(
            compare(&leader, o(0), o(20), Some(e(1)), cut),
            Position::Matches
        );
    }

    #[test]
    fn a_leader_that_has_written_nothing_still_gives_a_truncation_point() {
        // B-8: epoch 6 begins at the leader's end; the follower has more of epoch 5.
        let leader = [(e(5), o(0)), (e(6), o(10))];
        let at = compare(&leader, o(0), o(10), Some(e(5)), o(13));
        assert_eq!(
            at,
            Position::Diverges {
                epoch: e(5),
                end: o(10)
            }
        );
        assert_eq!(truncation_point(&[(e(5), o(0))], o(13), e(5), o(10)), o(10));
    }

    #[test]
    fn a_log_without_any_epoch_of_the_leaders_is_cut_to_its_start() {
        // The follower led epoch 1 from offset 0; the leader never heard of it.
        let leader = [(e(0), o(0)), (e(4), o(9))];
        let at = compare(&leader, o(0), o(10), Some(e(1)), o(1));
        assert_eq!(
            at,
            Position::Diverges {
                epoch: e(0),
                end: o(9)
            }
        );
        assert_eq!(truncation_point(&[(e(1), o(0))], o(1), e(0), o(9)), o(0));
    }

    #[test]
    fn an_empty_follower_may_start_anywhere_within_the_log() {
        let leader = [(e(5), o(0))];
        assert_eq!(compare(&leader, o(3), o(10), None, o(3)), Position::Matches);
        assert_eq!(
            compare(&leader, o(3), o(10), None, o(2)),
            Position::OutOfRange
        );
        assert_eq!(
            compare(&leader, o(3), o(10), None, o(11)),
            Position::OutOfRange
        );
    }
}
