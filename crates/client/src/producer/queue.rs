//! The batches of one partition, from the first record to the acknowledgement. Pure: time comes in.
//!
//! # Invariants
//! * A batch keeps its identity and sequence at every attempt, until the broker has said that it
//!   is not in the log: only then may it be stamped anew, in a later epoch (KIP-360).
//! * After a failure nothing is sent until every batch under way has been answered; then the
//!   failed ones go again, in their first order, before anything new.
//! * A batch is sent only if it is one of the five from the first unsettled one on. Brokers know the
//!   last five batches of a producer: a repetition of the first must find itself among them, even
//!   if it was refused twice while those behind it were taken.
//! * Until the broker has acknowledged a batch of this identity, one is under way at most: a log
//!   that does not know a producer takes any sequence, and so would take the second without the
//!   first.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use ottla_wire::ErrorCode;

use super::batch::{Batch, Identity, Order};
use super::record::DeliveryError;
use crate::backoff::Backoff;

/// What the queue needs to know of the producer's settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueRules {
    pub(super) idempotent: bool,
    pub(super) in_flight_max: usize,
    pub(super) linger: Duration,
    pub(super) batch_bytes: usize,
    pub(super) retry_backoff: Duration,
    pub(super) retry_backoff_max: Duration,
}

/// What became of one attempt.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// It is in the log.
    Written {
        base_offset: Option<i64>,
        log_append_time: Option<i64>,
    },
    /// The log lacks what comes before it; so it is not in the log.
    OutOfOrder { code: ErrorCode },
    /// It is too large to be taken, and not in the log.
    TooLarge { code: ErrorCode },
    /// Try again: after a pause, or at once with a leader just learnt of.
    Retry {
        reason: String,
        may_have_happened: bool,
        at_once: bool,
    },
    /// For good.
    Failed(DeliveryError),
}

/// A batch's place among those sent.
struct Place {
    order: Order,
    is_settled: bool,
}

pub(super) struct Queue {
    rules: QueueRules,
    /// Never sent yet; the last one may still take records.
    waiting: VecDeque<Batch>,
    /// Sent and failed, in order.
    retry: VecDeque<Batch>,
    /// Orders of those under way.
    in_flight: Vec<Order>,
    /// What was sent, from the first unsettled batch on.
    window: VecDeque<Place>,
    is_draining: bool,
    must_bump: bool,
    identity: Option<Identity>,
    next_sequence: i32,
    is_proven: bool,
    next_order: u64,
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Queue {
    pub(super) fn new(rules: QueueRules) -> Queue {
        Queue {
            waiting: VecDeque::new(),
            retry: VecDeque::new(),
            in_flight: Vec::new(),
            window: VecDeque::new(),
            is_draining: false,
            must_bump: false,
            identity: None,
            next_sequence: 0,
            is_proven: false,
            next_order: 0,
            backoff: Backoff::new(rules.retry_backoff, rules.retry_backoff_max),
            not_before: None,
            rules,
        }
    }

    /// The batch that takes the next record, if there is one with room.
    pub(super) fn open_batch(&mut self, bytes: usize) -> Option<&mut Batch> {
        let limit = self.rules.batch_bytes;
        let last = self.waiting.back_mut()?;
        (last.size_bytes() + bytes <= limit).then_some(last)
    }

    pub(super) fn push(&mut self, batch: Batch) {
        self.waiting.push_back(batch);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.retry.is_empty() && self.in_flight.is_empty()
    }

    /// Whether a batch may be sent now; `hurry` ignores the linger.
    pub(super) fn is_ready(&self, now: Instant, hurry: bool) -> bool {
        if self.not_before.is_some_and(|not_before| now < not_before) || !self.may_send_another() {
            return false;
        }
        if let Some(first) = self.retry.front() {
            let before = self
                .window
                .iter()
                .position(|place| Some(place.order) == first.order);
            return before.is_none_or(|before| before < self.rules.in_flight_max);
        }
        if self.window.len() >= self.rules.in_flight_max {
            return false;
        }
        self.waiting.front().is_some_and(|first| {
            hurry
                || self.waiting.len() > 1
                || first.size_bytes() >= self.rules.batch_bytes
                || now >= first.created + self.rules.linger
        })
    }

    fn may_send_another(&self) -> bool {
        if self.is_draining && !self.in_flight.is_empty() {
            return false;
        }
        let limit = if self.rules.idempotent && !self.is_proven {
            1
        } else {
            self.rules.in_flight_max
        };
        self.in_flight.len() < limit
    }

    /// When something changes here after `now` without an answer: a linger, a pause or a deadline
    /// ends. What could be sent by `now` has been, or waits for an answer.
    pub(super) fn next_wakeup(&self, now: Instant) -> Option<Instant> {
        let batches = self.retry.iter().chain(&self.waiting);
        let deadlines = batches.map(|batch| batch.deadline);
        let linger = self
            .waiting
            .front()
            .map(|first| first.created + self.rules.linger);
        let times = deadlines.chain(linger).chain(self.not_before);
        times.filter(|at| *at > now).min()
    }

    /// Takes the next batch to send; [`Queue::is_ready`] has just said that there is one.
    /// `fresh` is the producer's identity, for partitions that have none yet.
    pub(super) fn take(&mut self, fresh: Option<Identity>) -> Option<Batch> {
        if self.in_flight.is_empty() {
            self.is_draining = false;
            if std::mem::take(&mut self.must_bump) {
                self.bump();
            }
        }
        if self.rules.idempotent && self.identity.is_none() {
            self.identity = Some(fresh?);
        }
        let mut batch = self
            .retry
            .pop_front()
            .or_else(|| self.waiting.pop_front())?;
        if batch.stamp.is_none()
            && let Some(identity) = self.identity
        {
            batch.restamp(Some((identity, self.next_sequence)));
            self.next_sequence = batch.sequence_after(self.next_sequence);
        }
        let order = match batch.order {
            Some(order) => order,
            None => {
                let order = Order(self.next_order, 0);
                self.next_order += 1;
                self.window.push_back(Place {
                    order,
                    is_settled: false,
                });
                order
            }
        };
        batch.order = Some(order);
        self.in_flight.push(order);
        Some(batch)
    }

    /// Puts an attempt to its end.
    pub(super) fn complete(&mut self, mut batch: Batch, outcome: Outcome, now: Instant) {
        let order = batch.order.unwrap_or(Order(0, 0));
        self.in_flight.retain(|under_way| *under_way != order);
        match outcome {
            Outcome::Written {
                base_offset,
                log_append_time,
            } => {
                // An answer to an earlier life says nothing of this one.
                let is_current = batch
                    .stamp
                    .is_none_or(|(identity, _)| Some(identity) == self.identity);
                self.is_proven |= is_current;
                self.backoff.reset();
                self.settle(order);
                batch.succeed(base_offset, log_append_time);
            }
            Outcome::OutOfOrder { code } => {
                self.out_of_order(&batch, order, code);
                batch.last_error = Some(code.to_string());
                self.again(batch, now, false);
            }
            Outcome::TooLarge { .. } if batch.is_expired => {
                self.is_draining = true;
                self.settle(order);
            }
            Outcome::TooLarge { code } => match batch.split() {
                Ok((first, second)) => {
                    self.is_draining = true;
                    self.widen(order, second.order);
                    self.insert_retry(second);
                    self.insert_retry(first);
                }
                Err(mut single) => {
                    single.fail(&refused(code, single.may_have_happened));
                    self.is_draining = true;
                    self.settle(order);
                }
            },
            Outcome::Retry {
                reason,
                may_have_happened,
                at_once,
            } => {
                batch.may_have_happened |= may_have_happened;
                batch.last_error = Some(reason);
                self.again(batch, now, at_once);
            }
            Outcome::Failed(error) => {
                // What follows it in the sequence will be told that it is out of order.
                self.is_draining = true;
                self.settle(order);
                batch.fail(&with_history(error, batch.may_have_happened));
            }
        }
    }

    fn out_of_order(&mut self, batch: &Batch, order: Order, code: ErrorCode) {
        let earlier_is_open = self
            .in_flight
            .iter()
            .copied()
            .chain(self.retry.iter().filter_map(|earlier| earlier.order))
            .any(|earlier| earlier < order);
        let is_current = batch
            .stamp
            .is_none_or(|(identity, _)| Some(identity) == self.identity);
        if !earlier_is_open && is_current {
            // All before it is settled, so this gap will not close: a new epoch begins with it.
            tracing::debug!(partition = %batch.partition, %code, "sequence has a gap, epoch is bumped");
            self.must_bump = true;
        }
    }

    fn again(&mut self, batch: Batch, now: Instant, at_once: bool) {
        self.is_draining = true;
        if batch.is_expired {
            // Nobody waits for it any more.
            if let Some(order) = batch.order {
                self.settle(order);
            }
            return;
        }
        self.not_before = if at_once {
            None
        } else {
            Some(now + self.backoff.next())
        };
        self.insert_retry(batch);
    }

    /// A batch will not be sent again: the window moves on if it was the first.
    fn settle(&mut self, order: Order) {
        if let Some(place) = self.window.iter_mut().find(|place| place.order == order) {
            place.is_settled = true;
        }
        while self.window.front().is_some_and(|first| first.is_settled) {
            self.window.pop_front();
        }
    }

    /// The second half of a split batch has a place of its own.
    fn widen(&mut self, first: Order, second: Option<Order>) {
        let at = self.window.iter().position(|place| place.order == first);
        if let (Some(at), Some(order)) = (at, second) {
            let place = Place {
                order,
                is_settled: false,
            };
            self.window.insert(at + 1, place);
        }
    }

    fn insert_retry(&mut self, batch: Batch) {
        let place = self
            .retry
            .partition_point(|earlier| earlier.order < batch.order);
        self.retry.insert(place, batch);
    }

    /// Holds everything for a pause: there is no leader to send to.
    pub(super) fn pause(&mut self, now: Instant) {
        self.not_before = Some(now + self.backoff.next());
    }

    /// A new life: everything not in the log is stamped again from sequence 0.
    fn bump(&mut self) {
        self.identity = self.identity.and_then(|old| {
            // After the last epoch comes a new producer id, which the sender asks for.
            (old.epoch.get() < i16::MAX - 1).then(|| Identity {
                id: old.id,
                epoch: old.epoch.next(),
            })
        });
        self.next_sequence = 0;
        self.is_proven = false;
        for batch in &mut self.retry {
            batch.restamp(None);
        }
        // In its new life the producer has sent nothing yet.
        self.window.retain(|place| !place.is_settled);
    }

    /// Whether the identity is used up and the producer needs a new one.
    pub(super) fn wants_other_than(&self, identity: Identity) -> bool {
        self.must_bump
            && self
                .identity
                .is_some_and(|own| own.id == identity.id && own.epoch.get() >= i16::MAX - 1)
    }

    /// Fails what is not under way and whose time is over.
    pub(super) fn expire(&mut self, now: Instant, failed: &mut Vec<u64>) {
        let mut settled = Vec::new();
        for list in [&mut self.retry, &mut self.waiting] {
            list.retain_mut(|batch| {
                if now < batch.deadline {
                    return true;
                }
                batch.expire(false);
                failed.push(batch.id);
                settled.extend(batch.order);
                false
            });
        }
        for order in settled {
            self.settle(order);
        }
    }

    /// Fails everything that is not under way.
    pub(super) fn fail_all(
        &mut self,
        error: impl Fn(&Batch) -> DeliveryError,
        failed: &mut Vec<u64>,
    ) {
        self.window.clear();
        for mut batch in self.retry.drain(..).chain(self.waiting.drain(..)) {
            let error = error(&batch);
            batch.fail(&error);
            failed.push(batch.id);
        }
    }
}

fn refused(code: ErrorCode, may_have_happened: bool) -> DeliveryError {
    DeliveryError::Refused {
        code,
        message: None,
        may_have_happened,
    }
}

/// The error of the last attempt, not forgetting that an earlier one may have succeeded.
fn with_history(error: DeliveryError, earlier: bool) -> DeliveryError {
    match error {
        DeliveryError::Refused {
            code,
            message,
            may_have_happened,
        } => DeliveryError::Refused {
            code,
            message,
            may_have_happened: may_have_happened || earlier,
        },
        DeliveryError::Unsupported(what) if earlier => DeliveryError::TimedOut {
            last_error: Some(what),
            may_have_happened: true,
        },
        other @ (DeliveryError::TimedOut { .. }
        | DeliveryError::Closed { .. }
        | DeliveryError::Unsupported(_)) => other,
    }
}

#[cfg(test)]
mod tests;
