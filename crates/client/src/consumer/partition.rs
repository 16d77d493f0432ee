//! One partition being read: where it stands, what is buffered, what is being asked.

use std::collections::VecDeque;

use tokio::time::Instant;

use ottla_types::BrokerId;

use super::{decode::Decoded, record::ConsumerRecord};
use crate::offsets::OffsetSpec;

/// The next offset to read, and what it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    /// Epoch of the record before it, if known: what truncation is recognised by (KIP-320).
    pub(super) offset_epoch: Option<i32>,
    /// Leadership under which the position was last found right.
    pub(super) validated_in: Option<i32>,
}

impl Position {
    pub(super) const fn at(offset: i64, offset_epoch: Option<i32>) -> Position {
        Position {
            offset,
            offset_epoch,
            validated_in: None,
        }
    }
}

/// What has to happen before the next fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Look for a committed offset.
    NeedsCommitted,
    /// Look for an offset.
    NeedsOffset(OffsetSpec),
    /// Nothing but to fetch from here.
    Ready(Position),
}

/// Numbers for what is asked of partitions, never used twice by one consumer: a partition that was
/// given up and is taken again does not take answers to its earlier life for its own.
#[derive(Debug, Default)]
pub(super) struct Generations(u64);

impl Generations {
    pub(super) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

#[derive(Debug)]
pub(super) struct PartitionState {
    /// Where the next fetch begins.
    pub(super) phase: Phase,
    /// What the user will see next.
    consumed: Option<Position>,
    pub(super) is_paused: bool,
    /// Given up at the next poll.
    pub(super) is_leaving: bool,
    /// Changes with every seek and every assignment; answers to older questions do not count.
    pub(super) generation: u64,
    /// A fetch or a question is under way.
    pub(super) is_asking: bool,
    /// No question before this.
    pub(super) not_before: Option<Instant>,
    pub(super) high_watermark: Option<i64>,
    pub(super) last_stable_offset: Option<i64>,
    pub(super) log_start_offset: Option<i64>,
    /// A replica nearby, until then (KIP-392).
    pub(super) preferred: Option<(BrokerId, Instant)>,
    buffered: VecDeque<ConsumerRecord>,
    /// Where the buffered records end.
    buffered_until: Option<Position>,
}

impl PartitionState {
    pub(super) fn new(phase: Phase, generation: u64) -> PartitionState {
        let consumed = match phase {
            Phase::Ready(position) => Some(position),
            Phase::NeedsCommitted | Phase::NeedsOffset(_) => None,
        };
        PartitionState {
            phase,
            consumed,
            is_paused: false,
            is_leaving: false,
            generation,
            is_asking: false,
            not_before: None,
            high_watermark: None,
            last_stable_offset: None,
            log_start_offset: None,
            preferred: None,
            buffered: VecDeque::new(),
            buffered_until: None,
        }
    }

    /// Begins anew; what is buffered or under way no longer counts.
    pub(super) fn restart(&mut self, phase: Phase, generation: u64) {
        let fresh = PartitionState::new(phase, generation);
        *self = PartitionState {
            is_paused: self.is_paused,
            is_leaving: self.is_leaving,
            high_watermark: self.high_watermark,
            last_stable_offset: self.last_stable_offset,
            log_start_offset: self.log_start_offset,
            ..fresh
        };
    }

    /// The next offset that the user gets to see; what a commit stores.
    pub(super) fn position(&self) -> Option<Position> {
        self.consumed
    }

    /// An offset was found to begin from.
    pub(super) fn begin_at(&mut self, position: Position) {
        self.phase = Phase::Ready(position);
        self.consumed = Some(position);
    }

    /// Whether a fetch may be sent: one answer ahead of the user at most.
    pub(super) fn fetches_from(&self, now: Instant) -> Option<Position> {
        let Phase::Ready(position) = self.phase else {
            return None;
        };
        let is_held = self.is_paused || self.is_leaving || self.is_asking;
        let waits = self.not_before.is_some_and(|not_before| now < not_before);
        (!is_held && !waits && self.buffered.is_empty()).then_some(position)
    }

    /// Records of an answer, to be handed out later. They are in the log of the leadership that
    /// was asked: what follows them need not be checked against it again.
    pub(super) fn buffer(&mut self, decoded: Decoded, leader_epoch: Option<i32>) {
        let (Some((next, epoch)), Phase::Ready(from)) = (decoded.next, self.phase) else {
            return;
        };
        let until = Position {
            offset: next,
            offset_epoch: (epoch >= 0).then_some(epoch),
            validated_in: leader_epoch.or(from.validated_in),
        };
        self.phase = Phase::Ready(until);
        self.buffered_until = Some(until);
        self.buffered.extend(decoded.records);
        if self.buffered.is_empty() {
            // Only what must not be seen: the position moves past it all the same.
            self.consumed = Some(until);
        }
    }

    /// Hands out at most `max` records.
    pub(super) fn take(&mut self, max: usize, records: &mut Vec<ConsumerRecord>) {
        if self.is_paused || self.is_leaving {
            return;
        }
        let count = max.min(self.buffered.len());
        for record in self.buffered.drain(..count) {
            self.consumed = Some(Position {
                offset: record.offset + 1,
                offset_epoch: record.leader_epoch,
                validated_in: self.consumed.and_then(|position| position.validated_in),
            });
            records.push(record);
        }
        if count > 0
            && self.buffered.is_empty()
            && let Some(until) = self.buffered_until
        {
            self.consumed = Some(until);
        }
    }

    /// Whether there are records that the user has not seen, paused or not.
    pub(super) fn has_buffered(&self) -> bool {
        !self.buffered.is_empty()
    }
}
