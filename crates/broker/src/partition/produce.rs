//! Appending for producers, and answering them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::BytesMut;

use ottla_records::{BatchHeader, next_sequence};
use ottla_storage::{AppendError, Appended, SequenceVerdict};
use ottla_types::{LeaderEpoch, Offset, WallClockMs};

use crate::{
    api::{Acks, ProduceError, Produced},
    completion::Completion,
    shard::{env::Env, input::ProduceInput},
};

use super::{Now, Partition};

/// Bytes that one vectored write takes at most.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// A batch that arrived in this round.
pub(super) struct QueuedProduce {
    pub(super) batch: BytesMut,
    pub(super) header: BatchHeader,
    pub(super) ticket: Ticket,
}

/// Where an answer goes, and when it is due.
pub(super) struct Ticket {
    acks: Acks,
    completion: Arc<Completion>,
    slot: usize,
}

/// An appended batch whose producer waits for the high watermark.
pub(super) struct WaitingProduce {
    /// Answered once the high watermark is here.
    reach: Offset,
    produced: Produced,
    ticket: Ticket,
}

impl QueuedProduce {
    pub(super) fn header(&self) -> &BatchHeader {
        &self.header
    }

    pub(super) fn refuse(self, error: ProduceError) {
        self.ticket.answer(Err(error));
    }
}

impl Ticket {
    fn answer(&self, answer: Result<Produced, ProduceError>) {
        self.completion.answer(self.slot, answer);
    }
}

impl WaitingProduce {
    pub(super) fn refuse(self, error: ProduceError) {
        self.ticket.answer(Err(error));
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.ticket.completion.is_abandoned()
    }
}

/// Batches that become one write.
#[derive(Default)]
struct Group {
    batches: Vec<BytesMut>,
    tickets: Vec<(Ticket, BatchHeader)>,
    bytes: usize,
    /// Epoch and last sequence of each producer in the group: its next batch continues from here.
    producers: BTreeMap<i64, (i16, i32)>,
}

impl Partition {
    /// Takes a batch for the end of this round's inputs.
    pub(crate) fn queue(&mut self, input: ProduceInput) {
        let ticket = Ticket {
            acks: input.acks,
            completion: input.completion,
            slot: input.slot,
        };
        self.queued.push(QueuedProduce {
            batch: input.batch,
            header: input.header,
            ticket,
        });
    }

    pub(crate) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Appends what was queued, in order, in as few writes as sequence checks allow.
    pub(crate) fn append_queued(&mut self, env: &Env, now: Now) {
        let mut group = Group::default();
        for queued in std::mem::take(&mut self.queued) {
            if let Err(error) = self.check_may_append(env, &queued) {
                env.metrics.failed_produce_requests.one();
                if !matches!(error, ProduceError::BatchTooLargeForSegment) {
                    self.refused.note(now.at, &queued.header);
                }
                queued.refuse(error);
                continue;
            }
            if !self.check_sequence(env, now, &mut group, &queued) {
                continue;
            }
            let QueuedProduce {
                batch,
                header,
                ticket,
            } = queued;
            group.bytes += batch.len();
            if header.producer_id >= 0 {
                let last = (header.producer_epoch, header.last_sequence());
                group.producers.insert(header.producer_id, last);
            }
            group.batches.push(batch);
            group.tickets.push((ticket, header));
            if group.bytes >= GROUP_BYTES_MAX {
                self.append_group(env, now, &mut group);
            }
        }
        self.append_group(env, now, &mut group);
    }

    fn check_may_append(&self, env: &Env, queued: &QueuedProduce) -> Result<(), ProduceError> {
        if self.log.is_none() {
            // Once the controller has moved the leadership, its clients are told where to.
            let elsewhere = self.leader_hint.filter(|hint| hint.0 != env.broker_id);
            return Err(match elsewhere {
                Some(hint) => ProduceError::NotLeader { leader: Some(hint) },
                None => ProduceError::Storage,
            });
        }
        let Some(leader) = self.replica.leader() else {
            return Err(ProduceError::NotLeader {
                leader: self.leader_hint,
            });
        };
        if queued.ticket.acks == Acks::All && !leader.has_min_isr() {
            let (in_sync, required) = (leader.isr().len(), leader.min_isr());
            return Err(ProduceError::NotEnoughReplicas { in_sync, required });
        }
        if env.space.produce_blocked() {
            env.metrics.no_space_rejections.one();
            return Err(ProduceError::NoSpace);
        }
        // Here, because a group of batches is refused as one.
        let size_bytes = u64::try_from(queued.batch.len()).unwrap_or(u64::MAX);
        if size_bytes > self.settings.log.segment_bytes {
            return Err(ProduceError::BatchTooLargeForSegment);
        }
        Ok(())
    }

    /// True if the batch is to be appended; otherwise it has been answered.
    fn check_sequence(
        &mut self,
        env: &Env,
        now: Now,
        group: &mut Group,
        queued: &QueuedProduce,
    ) -> bool {
        let header = &queued.header;
        if header.producer_id < 0 {
            return true;
        }
        if let Some((epoch, last)) = group.producers.get(&header.producer_id) {
            if *epoch == header.producer_epoch && next_sequence(*last) == header.base_sequence {
                return true;
            }
            // Not the plain continuation: judge it against the log, with the group in it.
            self.append_group(env, now, group);
        }
        let Some(log) = self.log.as_ref() else {
            queued.ticket.answer(Err(ProduceError::Storage));
            return false;
        };
        let error = match log.check_sequence(header) {
            SequenceVerdict::New => return self.may_begin(env, now, queued),
            SequenceVerdict::Duplicate {
                base_offset,
                last_offset,
                timestamp,
            } => {
                self.answer_duplicate(queued, base_offset, last_offset, timestamp);
                return false;
            }
            SequenceVerdict::OutOfOrder { .. } => ProduceError::OutOfOrderSequence,
            SequenceVerdict::FencedEpoch { .. } => ProduceError::InvalidProducerEpoch,
            SequenceVerdict::TransactionOpen => ProduceError::InvalidTxnState,
        };
        env.metrics.failed_produce_requests.one();
        queued.ticket.answer(Err(error));
        false
    }

    /// A batch that the log has no objection to: true unless it is the first of its producer here
    /// and an earlier one was refused, which has to come again first (P-8).
    fn may_begin(&mut self, env: &Env, now: Now, queued: &QueuedProduce) -> bool {
        if self.refused.is_empty() {
            return true;
        }
        let header = &queued.header;
        let known = self
            .log
            .as_ref()
            .is_some_and(|log| log.knows_producer(header.producer_id));
        if !known && self.refused.forbids(now.at, header) {
            env.metrics.failed_produce_requests.one();
            queued.ticket.answer(Err(ProduceError::OutOfOrderSequence));
            return false;
        }
        self.refused.accepted(header.producer_id);
        true
    }

    /// Written once, earlier (P-8): the original's offset, and for acks=all its replication.
    fn answer_duplicate(
        &mut self,
        queued: &QueuedProduce,
        base_offset: Offset,
        last_offset: Offset,
        timestamp: i64,
    ) {
        let ticket = Ticket {
            acks: queued.ticket.acks,
            completion: Arc::clone(&queued.ticket.completion),
            slot: queued.ticket.slot,
        };
        let produced = Produced {
            base_offset,
            log_append_time: Some(WallClockMs(timestamp)),
            log_start_offset: self.replica.marks().log_start_offset,
        };
        self.appended(ticket, produced, last_offset.next());
    }

    fn append_group(&mut self, env: &Env, now: Now, group: &mut Group) {
        let Group {
            batches, tickets, ..
        } = std::mem::take(group);
        if batches.is_empty() {
            return;
        }
        let epoch = self.replica.leader_epoch().unwrap_or_default();
        let Some(log) = self.log.as_mut() else {
            for (ticket, _) in tickets {
                ticket.answer(Err(ProduceError::Storage));
            }
            return;
        };
        if batches.len() == 1 {
            let outcome = batches
                .into_iter()
                .map(|batch| log.append_as_leader(batch, epoch, now.wall))
                .collect::<Result<Vec<_>, _>>();
            self.on_appended(env, now, tickets, outcome);
            return;
        }
        let outcome = log.append_many_as_leader(batches, epoch, now.wall);
        self.on_appended(env, now, tickets, outcome);
    }

    fn on_appended(
        &mut self,
        env: &Env,
        now: Now,
        tickets: Vec<(Ticket, BatchHeader)>,
        outcome: Result<Vec<Appended>, AppendError>,
    ) {
        let appended = match outcome {
            Ok(appended) => appended,
            Err(error) => {
                let answer = produce_error(&error);
                env.metrics.failed_produce_requests.add_len(tickets.len());
                for (ticket, header) in tickets {
                    self.refused.note(now.at, &header);
                    ticket.answer(Err(answer.clone()));
                }
                match &error {
                    AppendError::Io(_) => self.fail(env, &error),
                    AppendError::NoSpace => env.space.deny(),
                    AppendError::Corrupt(_)
                    | AppendError::TooManyFiles
                    | AppendError::BatchTooLarge { .. }
                    | AppendError::OutOfOrder { .. }
                    | AppendError::EpochRegressed { .. }
                    | AppendError::OffsetsExhausted => {}
                }
                return;
            }
        };
        self.count_appended(env, &tickets, &appended);
        self.push_appended(env, &appended);
        let log_start_offset = self.replica.marks().log_start_offset;
        for ((ticket, _), appended) in tickets.into_iter().zip(&appended) {
            let produced = Produced {
                base_offset: appended.base_offset,
                log_append_time: appended.log_append_time,
                log_start_offset,
            };
            self.appended(ticket, produced, appended.last_offset.next());
        }
        self.note_unflushed(env, now);
        self.on_log_changed(env, now);
    }

    fn count_appended(&self, env: &Env, tickets: &[(Ticket, BatchHeader)], appended: &[Appended]) {
        let records = tickets
            .iter()
            .map(|(_, header)| header.record_count.unsigned_abs());
        env.metrics.messages_in.add(records.map(u64::from).sum());
        env.metrics.batches_in.add_len(appended.len());
        env.metrics
            .bytes_in
            .add_len(appended.iter().map(|one| one.bytes.len()).sum());
    }

    fn appended(&mut self, ticket: Ticket, produced: Produced, reach: Offset) {
        match ticket.acks {
            Acks::None | Acks::Leader => self.ready.push((ticket, produced)),
            Acks::All if reach <= self.replica.high_watermark() => {
                self.ready.push((ticket, produced));
            }
            Acks::All => {
                let waiting = WaitingProduce {
                    reach,
                    produced,
                    ticket,
                };
                // Duplicates may wait for less than what was appended since.
                let at = self.waiting.partition_point(|other| other.reach <= reach);
                self.waiting.insert(at, waiting);
            }
        }
    }

    /// Answers those who wait for nothing but the publication of what was appended.
    pub(super) fn answer_ready(&mut self) {
        for (ticket, produced) in self.ready.drain(..) {
            ticket.answer(Ok(produced));
        }
    }

    /// Answers everybody whose records the high watermark has passed (P-1).
    pub(super) fn answer_waiting(&mut self) {
        self.answer_ready();
        let high_watermark = self.replica.high_watermark();
        let Some(leader) = self.replica.leader() else {
            return;
        };
        let enough = leader.has_min_isr();
        while self
            .waiting
            .front()
            .is_some_and(|waiting| waiting.reach <= high_watermark)
        {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            let answer = if enough {
                Ok(waiting.produced)
            } else {
                Err(ProduceError::NotEnoughReplicasAfterAppend)
            };
            waiting.ticket.answer(answer);
        }
    }

    /// The epoch in which this replica leads.
    pub(super) fn leader_epoch(&self) -> LeaderEpoch {
        self.replica.leader_epoch().unwrap_or_default()
    }
}

fn produce_error(error: &AppendError) -> ProduceError {
    match error {
        AppendError::NoSpace => ProduceError::NoSpace,
        AppendError::TooManyFiles => ProduceError::Throttled,
        AppendError::Io(_) => ProduceError::Storage,
        AppendError::BatchTooLarge { .. } => ProduceError::BatchTooLargeForSegment,
        AppendError::Corrupt(_)
        | AppendError::OutOfOrder { .. }
        | AppendError::EpochRegressed { .. }
        | AppendError::OffsetsExhausted => ProduceError::Corrupt,
    }
}
