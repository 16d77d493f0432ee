//! The in-sync replicas: as committed, and as they may be once a proposal's outcome is known.
//!
//! # Invariants
//! * One proposal in flight, compare-and-set on the partition epoch.
//! * [`Isr::maximal`] holds every member that any outcome of the proposals in flight could commit:
//!   an addition binds at once, a removal only when committed, an unknown outcome keeps the union.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, MonotonicMs, PartitionEpoch};

/// How long an unanswered proposal waits before it is sent again.
const RETRY_MS: u64 = 100;
/// How long nothing is proposed after a refusal.
const HOLD_OFF_MS: u64 = 500;

/// A proposal whose outcome is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pending {
    /// The ISR last proposed.
    proposed: BTreeSet<BrokerId>,
    /// Every member of any proposal on this partition epoch that may yet be committed.
    binding: BTreeSet<BrokerId>,
    /// An attempt before the last one may have been decided either way.
    earlier_unknown: bool,
    /// When to send it again; `None` while an answer is expected.
    retry_at: Option<MonotonicMs>,
}

/// The ISR of one partition, as its leader tracks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Isr {
    committed: BTreeSet<BrokerId>,
    partition_epoch: PartitionEpoch,
    pending: Option<Pending>,
    /// No new proposal before this.
    hold_until: MonotonicMs,
}

/// A committed change of membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IsrDelta {
    pub(crate) joined: Vec<BrokerId>,
    pub(crate) left: Vec<BrokerId>,
}

impl IsrDelta {
    pub(crate) fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty()
    }
}

impl Isr {
    pub(crate) fn new(committed: &[BrokerId], partition_epoch: PartitionEpoch) -> Isr {
        Isr {
            committed: committed.iter().copied().collect(),
            partition_epoch,
            pending: None,
            hold_until: MonotonicMs(0),
        }
    }

    pub(crate) fn committed(&self) -> &BTreeSet<BrokerId> {
        &self.committed
    }

    pub(crate) fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Committed members and those that a proposal in flight may add.
    pub(crate) fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let binding = self
            .pending
            .iter()
            .flat_map(|pending| pending.binding.iter());
        let added = binding.filter(|member| !self.committed.contains(member));
        self.committed.iter().chain(added).copied()
    }

    pub(crate) fn in_maximal(&self, broker: BrokerId) -> bool {
        self.committed.contains(&broker)
            || self
                .pending
                .as_ref()
                .is_some_and(|pending| pending.binding.contains(&broker))
    }

    pub(crate) fn may_propose(&self, now: MonotonicMs) -> bool {
        self.pending.is_none() && now >= self.hold_until
    }

    /// Notes that `proposed` is on its way to the controller.
    pub(crate) fn propose(&mut self, proposed: BTreeSet<BrokerId>) {
        self.pending = Some(Pending {
            binding: proposed.clone(),
            proposed,
            earlier_unknown: false,
            retry_at: None,
        });
    }

    /// The proposal to send again, if it is time.
    pub(crate) fn retry(&mut self, now: MonotonicMs) -> Option<BTreeSet<BrokerId>> {
        let pending = self.pending.as_mut()?;
        if pending.retry_at.is_none_or(|at| now < at) {
            return None;
        }
        pending.retry_at = None;
        Some(pending.proposed.clone())
    }

    /// When `retry` or a proposal held off may be due.
    pub(crate) fn next_deadline(&self, now: MonotonicMs) -> Option<MonotonicMs> {
        match &self.pending {
            Some(pending) => pending.retry_at,
            None if self.hold_until > now => Some(self.hold_until),
            None => None,
        }
    }

    /// The controller has committed a record; an older one than known changes nothing.
    pub(crate) fn on_committed(
        &mut self,
        partition_epoch: PartitionEpoch,
        isr: &[BrokerId],
    ) -> IsrDelta {
        if partition_epoch <= self.partition_epoch {
            return IsrDelta::default();
        }
        // Whatever was proposed on the older epoch is decided: it is this record or it failed.
        self.pending = None;
        self.partition_epoch = partition_epoch;
        let isr: BTreeSet<BrokerId> = isr.iter().copied().collect();
        let delta = IsrDelta {
            joined: isr.difference(&self.committed).copied().collect(),
            left: self.committed.difference(&isr).copied().collect(),
        };
        self.committed = isr;
        delta
    }

    /// The last attempt was committed, if `partition_epoch` is new; if not, it changed nothing and
    /// some earlier one may still be decided.
    pub(crate) fn on_answered(
        &mut self,
        now: MonotonicMs,
        partition_epoch: PartitionEpoch,
        isr: &[BrokerId],
    ) -> IsrDelta {
        let delta = self.on_committed(partition_epoch, isr);
        if let Some(pending) = self.pending.as_mut() {
            pending.retry_at.get_or_insert(now.plus_ms(RETRY_MS));
        }
        delta
    }

    /// The last attempt was refused for what it proposes; nothing of it was committed.
    pub(crate) fn on_refused(&mut self, now: MonotonicMs) {
        let Some(pending) = self.pending.as_mut() else {
            return;
        };
        if !pending.earlier_unknown {
            self.pending = None;
            self.hold_until = now.plus_ms(HOLD_OFF_MS);
            return;
        }
        // An earlier attempt may still be decided: its members keep binding. Proposing the
        // committed ISR on the same partition epoch settles it: one of the two must lose.
        pending.proposed = self.committed.clone();
        pending.retry_at = Some(now.plus_ms(RETRY_MS));
    }

    /// The outcome of the last attempt is not known, or will be told by metadata.
    pub(crate) fn on_unknown(&mut self, now: MonotonicMs) {
        if let Some(pending) = self.pending.as_mut() {
            pending.earlier_unknown = true;
            pending.retry_at = Some(now.plus_ms(RETRY_MS));
        }
    }

    /// The record has changed under the proposal: metadata tells, and until then it binds.
    pub(crate) fn on_outdated(&mut self, now: MonotonicMs) {
        if let Some(pending) = self.pending.as_mut() {
            pending.earlier_unknown = true;
            pending.retry_at = Some(now.plus_ms(HOLD_OFF_MS));
        }
    }
}
