//! Whether this replica still leads, asked of those who would know (P-18, P-29, C-12).
//!
//! A leader that was paused or cut off believes in an epoch that may be over. It asks every other
//! member of the maximal ISR whether it still follows in this epoch. Whoever led next would have
//! been one of them, and by following elsewhere it would not answer; so when all have answered, no
//! later epoch had committed anything before the round began. No clock is trusted, nothing is
//! written, and no controller is needed.
//!
//! # Invariants
//! * A round's number is drawn after everybody who waits for it had asked, and a follower repeats
//!   only numbers that it saw while it followed in this epoch.
//! * Where somebody outside the maximal ISR may be elected (below `min.insync.replicas`, where
//!   eligible leader replicas exist, KIP-966), the ISR's word proves nothing: the controller's is
//!   needed.

use std::collections::BTreeMap;

use tokio::sync::oneshot;

use ottla_types::{BrokerId, LeaderEpoch};

use crate::shard::env::Env;

use super::Partition;

/// What is known about the leadership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// It held at some instant after the question.
    Leads,
    /// It is over, or was never ours.
    NotLeader,
    /// Only the controllers know.
    AskController,
}

type Reply = oneshot::Sender<Confirmation>;

/// Who waits for which round.
#[derive(Default)]
pub(super) struct Confirmations {
    /// Number of the last round begun; rises over all epochs.
    round: u64,
    /// Those whom the round in flight answers; none if there is none.
    asked: Vec<Reply>,
    /// Those who came after it had begun.
    next: Vec<Reply>,
    /// The newest round that each follower has repeated, in this epoch.
    heard: BTreeMap<BrokerId, u64>,
}

impl Confirmations {
    /// The number that frames carry.
    pub(super) fn last_round(&self) -> u64 {
        self.round
    }

    /// A follower has seen this round.
    pub(super) fn heard(&mut self, follower: BrokerId, round: u64) {
        let heard = self.heard.entry(follower).or_default();
        *heard = round.max(*heard);
    }

    /// The epoch is over.
    pub(super) fn refuse(&mut self) {
        self.heard.clear();
        self.answer_all(Confirmation::NotLeader);
    }

    fn answer_all(&mut self, confirmation: Confirmation) {
        for reply in self.asked.drain(..).chain(self.next.drain(..)) {
            let _ = reply.send(confirmation);
        }
    }

    fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.next.is_empty()
    }

    /// Begins the next round; false if nobody waits for it.
    fn begin(&mut self) -> bool {
        self.next.retain(|reply| !reply.is_closed());
        if self.next.is_empty() {
            return false;
        }
        self.asked = std::mem::take(&mut self.next);
        self.round += 1;
        true
    }

    fn is_heard_by(&self, follower: BrokerId) -> bool {
        self.heard
            .get(&follower)
            .is_some_and(|heard| *heard >= self.round)
    }
}

impl Partition {
    /// Somebody must know whether this replica leads in `leader_epoch`.
    pub(crate) fn on_confirm(&mut self, leader_epoch: LeaderEpoch, reply: Reply) {
        let leads = self.replica.leader().map(|leader| leader.leader_epoch());
        if leads == Some(leader_epoch) {
            // Answered when the shard's round ends.
            self.confirmations.next.push(reply);
        } else {
            let _ = reply.send(Confirmation::NotLeader);
        }
    }

    /// As follower: the leader has begun this round.
    pub(super) fn see_confirmation(&mut self, round: u64) {
        if round > self.confirm_seen {
            self.confirm_seen = round;
            self.ack_due = true;
        }
    }

    /// Begins rounds and answers those that everybody has heard of.
    pub(super) fn settle_confirmations(&mut self, env: &Env) {
        while !self.confirmations.is_idle() {
            let Some(leader) = self.replica.leader() else {
                self.confirmations.refuse();
                return;
            };
            if !leader.has_min_isr() || self.has_eligible_outside_isr {
                self.confirmations.answer_all(Confirmation::AskController);
                return;
            }
            self.confirmations.asked.retain(|reply| !reply.is_closed());
            if self.confirmations.asked.is_empty() {
                if !self.confirmations.begin() {
                    return;
                }
                // At once, not with the next marks: somebody waits. A follower that subscribes
                // later hears of it with the answer to its subscription.
                for session in self.sessions.values() {
                    session.lane.push_control(self.frame(session.subscription));
                }
            }
            let Some(leader) = self.replica.leader() else {
                return;
            };
            let mut others = leader.maximal_isr();
            others.remove(&env.broker_id);
            if !others
                .iter()
                .all(|member| self.confirmations.is_heard_by(*member))
            {
                return;
            }
            for reply in self.confirmations.asked.drain(..) {
                let _ = reply.send(Confirmation::Leads);
            }
        }
    }
}
