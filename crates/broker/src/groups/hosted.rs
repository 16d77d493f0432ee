//! One offsets partition as this broker hosts it.
//!
//! # Invariants
//! * `position` only moves over records that are committed, in the order of the log.
//! * Writes are settled in the order in which they were appended.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use ottla_coordinator::{Coordinator, GroupError, GroupRules, Now, OffsetsRecord, PersistToken};
use ottla_types::{LeaderEpoch, Offset, PartitionId};

use super::{
    checkpoint::{Checkpoint, Draft},
    confirm::Unconfirmed,
    tail::{Chunk, Entry, Position},
    write::Batch,
};

/// What this broker is to the partition's groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Another broker coordinates; the base is kept up to date.
    Standby,
    /// Leads, but has not applied everything below its epoch's start.
    Loading(LeaderEpoch),
    /// Coordinates.
    Active(LeaderEpoch),
}

/// An append under way.
#[derive(Debug)]
struct Write {
    number: u64,
    records: Vec<OffsetsRecord>,
    tokens: Vec<PersistToken>,
    outcome: Option<Result<Offset, GroupError>>,
}

/// How many batches a token still waits for, and whether one of them failed.
#[derive(Debug, Default)]
struct Progress {
    batches: usize,
    failed: Option<GroupError>,
}

/// One offsets partition.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) id: PartitionId,
    pub(super) role: Role,
    pub(super) coordinator: Coordinator,
    /// `None` until the replica is known, and its checkpoint has been looked for.
    position: Option<Position>,
    /// The log has shown that what was folded is its history.
    fits_log: bool,
    /// Its checkpoint is being read.
    pub(super) is_reading: bool,
    /// The checkpoint being made.
    pub(super) draft: Option<Draft>,
    /// Where the last one was begun.
    checkpointed: Offset,
    writes: VecDeque<Write>,
    next_write: u64,
    progress: BTreeMap<PersistToken, Progress>,
    /// A committed write lies beyond the position: what is between must be read first.
    gap: bool,
    /// Answers that wait until this broker is known to coordinate still.
    pub(super) unconfirmed: Unconfirmed,
    /// No read before this instant: the last one failed.
    pub(super) tail_after: Option<Instant>,
}

impl Hosted {
    pub(super) fn new(id: PartitionId, rules: GroupRules) -> Hosted {
        Hosted {
            id,
            role: Role::Standby,
            coordinator: Coordinator::new(rules),
            position: None,
            fits_log: false,
            is_reading: false,
            draft: None,
            checkpointed: Offset::ZERO,
            writes: VecDeque::new(),
            next_write: 0,
            progress: BTreeMap::new(),
            gap: false,
            unconfirmed: Unconfirmed::default(),
            tail_after: None,
        }
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.position
    }

    /// Begins at the start of the log.
    fn begin(&mut self, log_start: Offset) {
        self.position = Some(Position {
            offset: log_start,
            epoch: None,
        });
        self.fits_log = true;
        self.checkpointed = log_start;
    }

    /// Begins where the checkpoint ends, or at the start of the log. Whether the checkpoint is of
    /// this log's history is seen with the first read.
    pub(super) fn restore(
        &mut self,
        now: Now,
        log_start: Offset,
        log_end: Offset,
        checkpoint: Option<Checkpoint>,
    ) {
        self.is_reading = false;
        let in_log = |at: Offset| log_start <= at && at <= log_end;
        match checkpoint.filter(|found| in_log(found.position.offset)) {
            Some(checkpoint) => {
                self.position = Some(checkpoint.position);
                self.checkpointed = checkpoint.position.offset;
                checkpoint.apply(now, &mut self.coordinator);
            }
            None => self.begin(log_start),
        }
    }

    /// Whether all that was folded is known to be this log's history.
    pub(super) fn fits_log(&self) -> bool {
        self.fits_log
    }

    /// How many records a restart would replay.
    pub(super) fn since_checkpoint(&self) -> i64 {
        let position = self
            .position
            .map_or(Offset::ZERO, |position| position.offset);
        position.since(self.checkpointed)
    }

    /// Begins a checkpoint of what is folded now; false if there is nothing to write down.
    pub(super) fn begin_checkpoint(&mut self) -> bool {
        let draft = self
            .position
            .and_then(|position| Draft::begin(self.id, position));
        if let Some(draft) = &draft {
            self.checkpointed = draft.offset;
        }
        self.draft = draft;
        self.draft.is_some()
    }

    /// Forgets everything and reads the log anew.
    pub(super) fn reset(&mut self, rules: GroupRules, log_start: Offset) {
        let id = self.id;
        *self = Hosted::new(id, rules);
        self.begin(log_start);
    }

    /// Whether records have to be read from the log: always on a standby, on an active coordinator
    /// only those that did not come from its own appends.
    pub(super) fn wants_tail(&self, high_watermark: Option<Offset>) -> Option<Position> {
        let position = self.position?;
        let wants = match self.role {
            Role::Standby | Role::Loading(_) => true,
            Role::Active(_) => {
                let behind = high_watermark.is_some_and(|hw| hw > position.offset);
                self.gap || (behind && self.writes.is_empty())
            }
        };
        wants.then_some(position)
    }

    /// A committed write waits for records before it.
    pub(super) fn has_gap(&self) -> bool {
        self.gap
    }

    /// Folds what was read; chunks that are known already are skipped.
    pub(super) fn fold(&mut self, now: Now, chunks: Vec<Chunk>) {
        self.fits_log = true; // Else the read would have said that it diverged.
        for chunk in chunks {
            let Some(position) = &mut self.position else {
                return;
            };
            if chunk.next <= position.offset {
                continue;
            }
            for entry in chunk.entries {
                match entry {
                    Entry::Record(record) => self.coordinator.apply(now, record),
                    Entry::Transactional(producer_id, record) => {
                        self.coordinator.apply_transactional(producer_id, record);
                    }
                    Entry::EndTransaction(producer_id, commit) => {
                        self.coordinator.end_transaction(now, producer_id, commit);
                    }
                }
            }
            *position = Position {
                offset: chunk.next,
                epoch: chunk.epoch,
            };
        }
        self.settle_writes(now);
    }

    /// Notes an append that begins; its number names it when its outcome comes.
    pub(super) fn add_write(&mut self, batch: Batch) -> u64 {
        let number = self.next_write;
        self.next_write += 1;
        for token in &batch.tokens {
            self.progress.entry(*token).or_default().batches += 1;
        }
        self.writes.push_back(Write {
            number,
            records: batch.records,
            tokens: batch.tokens,
            outcome: None,
        });
        number
    }

    /// An append is committed at this offset, or may not be.
    pub(super) fn on_written(
        &mut self,
        now: Now,
        number: u64,
        outcome: Result<Offset, GroupError>,
    ) {
        // Unknown are those of a leadership that ended.
        if let Some(write) = self.writes.iter_mut().find(|write| write.number == number) {
            write.outcome = Some(outcome);
            self.settle_writes(now);
        }
    }

    fn settle_writes(&mut self, now: Now) {
        self.gap = false;
        while let Some(write) = self.writes.front_mut() {
            let Some(position) = &mut self.position else {
                return;
            };
            let result = match write.outcome.clone() {
                None => return,
                Some(Err(error)) => Err(error),
                Some(Ok(base)) => {
                    let count = i64::try_from(write.records.len()).unwrap_or(i64::MAX);
                    let next = base.plus(count);
                    if base == position.offset {
                        for record in std::mem::take(&mut write.records) {
                            self.coordinator.apply(now, record);
                        }
                        position.offset = next;
                        if let Role::Active(epoch) = self.role {
                            position.epoch = Some(epoch);
                        }
                    } else if next > position.offset {
                        // Something else was appended before it, a write whose outcome was not
                        // known for example: it comes first.
                        self.gap = true;
                        return;
                    }
                    Ok(())
                }
            };
            let tokens = self
                .writes
                .pop_front()
                .map(|write| write.tokens)
                .unwrap_or_default();
            for token in tokens {
                self.finish_batch(now, token, &result);
            }
        }
    }

    fn finish_batch(&mut self, now: Now, token: PersistToken, result: &Result<(), GroupError>) {
        let Some(progress) = self.progress.get_mut(&token) else {
            return;
        };
        progress.batches = progress.batches.saturating_sub(1);
        if let Err(error) = result {
            progress.failed.get_or_insert_with(|| error.clone());
        }
        if progress.batches == 0 {
            let failed = self
                .progress
                .remove(&token)
                .and_then(|progress| progress.failed);
            self.coordinator
                .on_persisted(now, token, failed.map_or(Ok(()), Err));
        }
    }

    /// Coordinates from here on.
    pub(super) fn activate(&mut self, now: Now, epoch: LeaderEpoch) {
        self.role = Role::Active(epoch);
        self.coordinator.activate(now);
    }

    /// The leadership is gone: everybody who waits is told, whatever is pending is dropped. What
    /// of it gets committed all the same comes back through the log.
    pub(super) fn deactivate(&mut self) {
        if matches!(self.role, Role::Active(_)) {
            self.coordinator.deactivate();
        }
        self.role = Role::Standby;
        self.unconfirmed.refuse();
        self.writes.clear();
        self.progress.clear();
        self.gap = false;
    }
}
