//! A shard's inbox: bounded admission for clients, and a door beside it for everything else.
//!
//! # Invariants
//! * Client requests have a budget in entries and bytes; beyond it they are refused at once.
//! * Replication, completions and metadata never wait behind that budget: two brokers whose
//!   producers wait for each other's acknowledgements cannot block each other.
//! * Followers' acknowledgements are coalesced: one per partition and follower, the latest of the
//!   newest subscription. Two lanes of one follower may overlap for a moment, in any order.

use std::collections::{HashMap, hash_map::Entry};

use parking_lot::{Condvar, Mutex};

use ottla_types::{BrokerId, PartitionId};

use super::input::{AckInput, Input, ProduceInput};

/// Everything that had arrived when the shard looked.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) inputs: Vec<Input>,
    pub(crate) acks: HashMap<(PartitionId, BrokerId), AckInput>,
    pub(crate) produces: Vec<ProduceInput>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.acks.is_empty() && self.produces.is_empty()
    }
}

#[derive(Default)]
struct State {
    batch: Batch,
    produce_bytes: usize,
    sleeping: bool,
    closed: bool,
}

/// A shard's inbox.
pub(crate) struct Mailbox {
    state: Mutex<State>,
    wake: Condvar,
    produce_bytes_max: usize,
    produce_entries_max: usize,
}

impl Mailbox {
    pub(crate) fn new(produce_bytes_max: usize, produce_entries_max: usize) -> Mailbox {
        Mailbox {
            state: Mutex::new(State::default()),
            wake: Condvar::new(),
            produce_bytes_max,
            produce_entries_max,
        }
    }

    /// Admits all entries of one request for this shard, or gives them back.
    pub(crate) fn admit(&self, produces: Vec<ProduceInput>) -> Result<(), Vec<ProduceInput>> {
        let bytes: usize = produces.iter().map(|produce| produce.batch.len()).sum();
        let mut state = self.state.lock();
        let queued = state.batch.produces.len();
        // One request always fits an empty queue, whatever its size.
        let full = queued > 0
            && (state.produce_bytes.saturating_add(bytes) > self.produce_bytes_max
                || queued.saturating_add(produces.len()) > self.produce_entries_max);
        if full || state.closed {
            return Err(produces);
        }
        state.produce_bytes += bytes;
        state.batch.produces.extend(produces);
        self.notify(state);
        Ok(())
    }

    /// Puts in what must not wait.
    pub(crate) fn post(&self, input: Input) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.batch.inputs.push(input);
        self.notify(state);
    }

    /// Puts in acknowledgements; a later one of the same partition and follower replaces it,
    /// unless it is of an earlier registration or subscription.
    pub(crate) fn post_acks(&self, acks: impl Iterator<Item = AckInput>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        for ack in acks {
            let of = |ack: &AckInput| (ack.incarnation, ack.subscription);
            match state.batch.acks.entry((ack.id, ack.follower)) {
                Entry::Occupied(known) if of(known.get()) > of(&ack) => {}
                Entry::Occupied(mut known) => {
                    known.insert(ack);
                }
                Entry::Vacant(slot) => {
                    slot.insert(ack);
                }
            }
        }
        self.notify(state);
    }

    fn notify(&self, state: parking_lot::MutexGuard<'_, State>) {
        let sleeping = state.sleeping;
        drop(state);
        if sleeping {
            self.wake.notify_one();
        }
    }

    /// Waits for inputs, at most `patience`; empty when that has passed.
    pub(crate) fn next_batch(&self, patience: std::time::Duration) -> Batch {
        let mut state = self.state.lock();
        if state.batch.is_empty() {
            state.sleeping = true;
            let _timed_out = self.wake.wait_for(&mut state, patience);
            state.sleeping = false;
        }
        state.produce_bytes = 0;
        std::mem::take(&mut state.batch)
    }

    /// Takes nothing more; gives what was left.
    pub(crate) fn close(&self) -> Batch {
        let mut state = self.state.lock();
        state.closed = true;
        state.produce_bytes = 0;
        std::mem::take(&mut state.batch)
    }

    pub(crate) fn produce_bytes(&self) -> usize {
        self.state.lock().produce_bytes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::BytesMut;

    use ottla_types::{BrokerEpoch, LeaderEpoch, Offset, PartitionIndex, TopicId};

    use super::*;
    use crate::{api::Acks, completion::Completion};

    fn produce(bytes: usize) -> ProduceInput {
        let topic_id = TopicId::new(uuid::Uuid::from_u128(1)).unwrap();
        ProduceInput {
            id: PartitionId {
                topic_id,
                partition: PartitionIndex(0),
            },
            batch: BytesMut::zeroed(bytes),
            header: crate::testing::any_header(),
            acks: Acks::All,
            completion: Completion::new(1),
            slot: 0,
        }
    }

    #[test]
    fn a_late_acknowledgement_of_an_old_lane_does_not_hide_a_newer_one() {
        let ack = |incarnation, subscription, log_end| AckInput {
            id: produce(0).id,
            follower: BrokerId(2),
            incarnation: BrokerEpoch::saturating(incarnation),
            leader_epoch: LeaderEpoch::ZERO,
            subscription,
            log_end_offset: Offset::saturating(log_end),
            flushed_offset: Offset::ZERO,
            no_space: false,
            confirm: 0,
        };
        let mailbox = Mailbox::new(100, 10);
        let taken = |acks: &[AckInput]| {
            mailbox.post_acks(acks.iter().copied());
            let batch = mailbox.next_batch(Duration::ZERO);
            let ack = batch.acks.values().next().copied().unwrap();
            (
                ack.incarnation.get(),
                ack.subscription,
                ack.log_end_offset.get(),
            )
        };
        assert_eq!(taken(&[ack(1, 7, 5), ack(1, 7, 6)]), (1, 7, 6));
        assert_eq!(taken(&[ack(1, 8, 5), ack(1, 7, 6)]), (1, 8, 5));
        assert_eq!(taken(&[ack(2, 1, 5), ack(1, 9, 6)]), (2, 1, 5));
    }

    #[test]
    fn a_full_budget_refuses_clients_but_not_the_rest() {
        let mailbox = Mailbox::new(100, 10);
        assert!(mailbox.admit(vec![produce(90)]).is_ok());
        assert!(mailbox.admit(vec![produce(20)]).is_err());
        mailbox.post(Input::SpaceChanged);
        let batch = mailbox.next_batch(Duration::ZERO);
        assert_eq!((batch.produces.len(), batch.inputs.len()), (1, 1));
        assert!(
            mailbox.admit(vec![produce(500)]).is_ok(),
            "an empty queue takes any size"
        );
        assert_eq!(mailbox.next_batch(Duration::ZERO).produces.len(), 1);
        assert!(mailbox.next_batch(Duration::from_millis(1)).is_empty());
    }
}
