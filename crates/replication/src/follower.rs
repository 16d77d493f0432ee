//! The follower's half of one partition: its subscription, and what it makes of each frame.
//!
//! Pure. The runtime appends and cuts; this says what is to be appended and where to cut.
//!
//! # Invariants
//! * A frame counts only if its leader epoch and subscription are the current ones.
//! * Only batches that begin at the log end are appended, or hold the start of a log without
//!   records; none of a newer epoch than followed.
//! * A truncation point comes from epoch lineage, and after each the follower asks again.

use ottla_types::{BrokerId, LeaderEpoch, MonotonicMs, Offset};

use crate::{Effect, FrameFacts, FrameKind, LogMarks, lineage, lineage::EpochStart};

/// How long a refused follower waits before it asks again.
const BACK_OFF_MS: u64 = 50;

/// What the runtime does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameVerdict {
    /// Nothing: it is late, or not ours.
    Ignore,
    /// Append its batches, then tell `on_log`, then take over the marks.
    Append,
    /// Take over the marks only.
    Marks,
    /// Cut the log here, durably, then tell `on_truncated`.
    Truncate {
        /// The new log end.
        to: Offset,
    },
    /// Drop the whole log and start at this offset, durably, then tell `on_truncated`.
    RestartAt {
        /// The new log start and end.
        offset: Offset,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No stream to the leader.
    Disconnected,
    /// Asked for records from the log end on.
    Subscribed,
    /// Refused; asks again then.
    BackingOff { until: MonotonicMs },
}

/// A partition's follower, for one leader epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    leader: Option<BrokerId>,
    leader_epoch: LeaderEpoch,
    subscription: u64,
    phase: Phase,
}

impl Follower {
    pub(crate) fn new(
        leader: Option<BrokerId>,
        leader_epoch: LeaderEpoch,
        subscription: u64,
    ) -> Follower {
        Follower {
            leader,
            leader_epoch,
            subscription,
            phase: Phase::Disconnected,
        }
    }

    /// Whom it follows.
    #[must_use]
    pub fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    /// In which epoch.
    #[must_use]
    pub fn leader_epoch(&self) -> LeaderEpoch {
        self.leader_epoch
    }

    /// Its current subscription.
    #[must_use]
    pub fn subscription(&self) -> u64 {
        self.subscription
    }

    /// True while a subscription is standing.
    #[must_use]
    pub fn is_subscribed(&self) -> bool {
        self.phase == Phase::Subscribed
    }

    /// A stream to `leader` is there: subscribe on it.
    pub(crate) fn on_link_up(&mut self, leader: BrokerId, effects: &mut Vec<Effect>) {
        if self.leader == Some(leader) {
            self.subscribe(effects);
        }
    }

    pub(crate) fn on_link_down(&mut self, leader: BrokerId) {
        if self.leader == Some(leader) {
            self.phase = Phase::Disconnected;
        }
    }

    /// The log was cut or restarted as a verdict said; ask again (R-8: until common).
    pub(crate) fn on_truncated(&mut self, effects: &mut Vec<Effect>) {
        self.subscribe(effects);
    }

    pub(crate) fn on_tick(&mut self, now: MonotonicMs, effects: &mut Vec<Effect>) {
        if let Phase::BackingOff { until } = self.phase
            && now >= until
        {
            self.subscribe(effects);
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<MonotonicMs> {
        match self.phase {
            Phase::BackingOff { until } => Some(until),
            Phase::Disconnected | Phase::Subscribed => None,
        }
    }

    /// The runtime could not use a frame (full disk, damage on the way): ask again later.
    pub(crate) fn back_off(&mut self, now: MonotonicMs, ms: u64) {
        if self.phase == Phase::Subscribed {
            self.phase = Phase::BackingOff {
                until: now.plus_ms(ms.max(BACK_OFF_MS)),
            };
        }
    }

    pub(crate) fn on_frame(
        &mut self,
        now: MonotonicMs,
        frame: &FrameFacts,
        marks: LogMarks,
        epochs: &[EpochStart],
        effects: &mut Vec<Effect>,
    ) -> FrameVerdict {
        let current = frame.leader_epoch == self.leader_epoch
            && frame.subscription == self.subscription
            && self.phase == Phase::Subscribed;
        if !current {
            return FrameVerdict::Ignore;
        }
        let log_end = marks.log_end_offset;
        match frame.kind {
            FrameKind::Marks => FrameVerdict::Marks,
            FrameKind::Data {
                base_offset,
                next_offset,
                batch_epoch,
            } => {
                if next_offset <= log_end || batch_epoch > self.leader_epoch {
                    return FrameVerdict::Ignore;
                }
                // DeleteRecords may have moved the leader's log start into the batch: a log that
                // has nothing yet begins with it, below its own start.
                let holds_start = marks.log_start_offset == log_end && base_offset < log_end;
                if base_offset != log_end && !holds_start {
                    // Something between was lost: only a new subscription closes the gap.
                    self.subscribe(effects);
                    return FrameVerdict::Ignore;
                }
                FrameVerdict::Append
            }
            FrameKind::Diverging { epoch, end } => {
                let to = lineage::truncation_point(epochs, log_end, epoch, end);
                if to < log_end {
                    return FrameVerdict::Truncate { to };
                }
                // Cannot be: the answer was given for our own last epoch. Do not spin on it.
                self.back_off(now, BACK_OFF_MS);
                FrameVerdict::Ignore
            }
            FrameKind::OutOfRange => FrameVerdict::RestartAt {
                offset: frame.log_start_offset,
            },
            FrameKind::Refused => {
                self.back_off(now, BACK_OFF_MS);
                FrameVerdict::Ignore
            }
        }
    }

    fn subscribe(&mut self, effects: &mut Vec<Effect>) {
        let Some(leader) = self.leader else { return };
        self.subscription += 1;
        self.phase = Phase::Subscribed;
        effects.push(Effect::Subscribe {
            leader,
            leader_epoch: self.leader_epoch,
            subscription: self.subscription,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_without_records_may_begin_inside_a_batch() {
        let o = Offset::saturating;
        let (leader, epoch) = (BrokerId(1), LeaderEpoch::saturating(3));
        let mut effects = Vec::new();
        let mut follower = Follower::new(Some(leader), epoch, 0);
        follower.on_link_up(leader, &mut effects);
        let frame = |follower: &Follower| FrameFacts {
            leader_epoch: epoch,
            subscription: follower.subscription(),
            high_watermark: o(20),
            log_start_offset: o(15),
            kind: FrameKind::Data {
                base_offset: o(10),
                next_offset: o(20),
                batch_epoch: epoch,
            },
        };
        let marks = |start| LogMarks {
            log_start_offset: o(start),
            flushed_offset: o(15),
            log_end_offset: o(15),
        };
        let now = MonotonicMs(0);
        effects.clear();
        let facts = frame(&follower);
        let verdict = follower.on_frame(now, &facts, marks(15), &[], &mut effects);
        assert_eq!((verdict, effects.len()), (FrameVerdict::Append, 0));
        // One that has records does not continue there: it asks again.
        let verdict = follower.on_frame(now, &facts, marks(12), &[], &mut effects);
        assert_eq!(verdict, FrameVerdict::Ignore);
        assert!(matches!(effects[..], [Effect::Subscribe { .. }]));
    }
}
