//! Answers that may only be given by a broker that still coordinates (P-29, P-44, C-12).
//!
//! A coordinator that was paused or cut off has a base that others may have moved on from. What it
//! answers without storing anything, and what would let a member or a consumer go on, is held until
//! its leadership has been confirmed after the question came. One confirmation of a partition is
//! under way at a time; whoever asks meanwhile shares the next one.

use futures::FutureExt;
use tokio::time::Instant;

use ottla_coordinator::GroupError;
use ottla_types::PartitionIndex;

use crate::confirm::CONFIRMATION_WAIT;

use super::{
    hosted::Role,
    owner::{Confirmation, Owner},
};

/// An answer; it is told whether this broker still coordinates.
pub(super) type Held = Box<dyn FnOnce(Result<(), GroupError>) + Send>;

/// The answers that one partition holds back.
#[derive(Default)]
pub(super) struct Unconfirmed {
    /// Wait for the confirmation under way; none if there is none.
    asked: Vec<Held>,
    /// Came after it had begun.
    next: Vec<Held>,
}

impl Unconfirmed {
    pub(super) fn hold(&mut self, answer: Held) {
        self.next.push(answer);
    }

    /// True if a confirmation is to be begun now, for all who have asked so far.
    pub(super) fn begin(&mut self) -> bool {
        if !self.asked.is_empty() || self.next.is_empty() {
            return false;
        }
        self.asked = std::mem::take(&mut self.next);
        true
    }

    /// The confirmation under way is over.
    pub(super) fn finish(&mut self, result: &Result<(), GroupError>) {
        for answer in self.asked.drain(..) {
            answer(result.clone());
        }
    }

    /// This broker does not coordinate any more.
    pub(super) fn refuse(&mut self) {
        for answer in self.asked.drain(..).chain(self.next.drain(..)) {
            answer(Err(GroupError::NotCoordinator));
        }
    }
}

impl Owner {
    /// Finds out whether this broker still coordinates, for those who asked since the last time.
    pub(super) fn begin_confirmation(&mut self, index: PartitionIndex) {
        let Some(hosted) = self.partitions.get_mut(&index) else {
            return;
        };
        let Role::Active(epoch) = hosted.role else {
            return;
        };
        if hosted.unconfirmed.begin() {
            let id = hosted.id;
            let deadline = Instant::now() + CONFIRMATION_WAIT;
            let confirmed = self.log.confirm_leadership(id, epoch, deadline);
            let confirmed = confirmed.map(move |leads| (id, epoch, leads));
            self.confirmations.push(confirmed.boxed());
        }
    }

    pub(super) fn on_confirmed(&mut self, (id, epoch, leads): Confirmation) {
        let hosted = self.partitions.get_mut(&id.partition);
        // Those who asked in an earlier epoch were answered when it ended.
        let Some(hosted) = hosted.filter(|h| h.id == id && h.role == Role::Active(epoch)) else {
            return;
        };
        let result = if leads {
            Ok(())
        } else {
            Err(GroupError::NotCoordinator)
        };
        hosted.unconfirmed.finish(&result);
        self.touched.insert(id.partition);
    }
}

impl std::fmt::Debug for Unconfirmed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unconfirmed")
            .field("asked", &self.asked.len())
            .field("next", &self.next.len())
            .finish()
    }
}
