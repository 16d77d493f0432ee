//! Reading: from published views, files on the I/O pool, and a wait for what is not there yet.
//!
//! A fetch needs no shard: it looks at each partition's view, reads if something is readable, and
//! otherwise registers with the partitions and looks again when one of them moves.
//!
//! # Invariant
//! Nothing at or above the reader's bound is ever given out (P-41, R-17): the bound is taken from
//! the view before the file is read.

use std::sync::{Arc, atomic::Ordering};

use tokio::time::Instant;
use tracing::warn;

use ottla_replication::lineage::{self, Position};
use ottla_storage::ReadError;
use ottla_types::Offset;

use crate::{
    api::{
        FetchAnswer, FetchError, FetchPartition, FetchRequest, FetchedPartition, FetchedRecords,
        Isolation, LeaderHint, Reader, ReplicaRole,
    },
    handle::BrokerHandle,
    partition::view::{PartitionHandle, View, Waiter},
    residency::make_resident,
};

/// What a look at one partition's view found.
enum Look {
    /// Answer this; nothing is to be read.
    Done(Result<FetchedPartition, FetchError>),
    /// Nothing readable yet.
    Empty(FetchedPartition),
    /// Records below `upper` can be read.
    Readable {
        answer: FetchedPartition,
        view: Arc<View>,
        upper: Offset,
    },
}

/// Counts a waiting fetch while it waits, and retires its waiter.
struct Waiting<'a> {
    broker: &'a BrokerHandle,
    waiter: Arc<Waiter>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.waiter.finish();
        self.broker
            .shared
            .registry
            .purgatory_size
            .fetch_sub(1, Ordering::Relaxed);
    }
}

impl BrokerHandle {
    /// Reads partitions; waits until `min_bytes` are there, an answer cannot wait, or the deadline
    /// has passed.
    pub async fn fetch(&self, request: FetchRequest) -> Vec<FetchAnswer> {
        let handles: Vec<Option<Arc<PartitionHandle>>> = request
            .partitions
            .iter()
            .map(|partition| self.shared.registry.get(partition.id))
            .collect();
        let may_wait = request.min_bytes > 0
            && !request.partitions.is_empty()
            && request.deadline > Instant::now();
        let (answers, done) = self.look_and_read(&request, &handles).await;
        if done || !may_wait {
            return self.counted(&request, answers);
        }
        self.shared
            .registry
            .purgatory_size
            .fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting {
            broker: self,
            waiter: Arc::new(Waiter::new(handles.len())),
        };
        loop {
            // Register first, look second: a move in between is not missed.
            for (slot, handle) in handles.iter().enumerate() {
                if let Some(handle) = handle {
                    handle.register(&waiting.waiter, slot);
                }
            }
            let (answers, done) = self.look_and_read(&request, &handles).await;
            if done {
                return self.counted(&request, answers);
            }
            let woken = waiting.waiter.notify.notified();
            if tokio::time::timeout_at(request.deadline, woken)
                .await
                .is_err()
            {
                return self.counted(&request, answers);
            }
        }
    }

    fn counted(&self, request: &FetchRequest, answers: Vec<FetchAnswer>) -> Vec<FetchAnswer> {
        let metrics = &self.shared.metrics;
        for answer in &answers {
            match &answer.result {
                Ok(partition) if !matches!(request.reader, Reader::LocalReplica) => {
                    metrics.bytes_out.add_len(partition.records.len());
                }
                Ok(_) => {}
                Err(_) => metrics.failed_fetch_requests.one(),
            }
        }
        answers
    }

    /// The answers as of now, and whether they should be given without waiting for more.
    async fn look_and_read(
        &self,
        request: &FetchRequest,
        handles: &[Option<Arc<PartitionHandle>>],
    ) -> (Vec<FetchAnswer>, bool) {
        let looks: Vec<Look> = request
            .partitions
            .iter()
            .zip(handles)
            .map(|(partition, handle)| self.look(request, partition, handle.as_deref()))
            .collect();
        let urgent = looks.iter().any(|look| matches!(look, Look::Done(_)));
        let readable = looks
            .iter()
            .any(|look| matches!(look, Look::Readable { .. }));
        let results = if readable {
            self.read(request, looks).await
        } else {
            looks.into_iter().map(Look::without_records).collect()
        };
        let bytes: usize = results
            .iter()
            .flatten()
            .map(|partition| partition.records.len())
            .sum();
        let done = urgent || bytes >= request.min_bytes || results.iter().any(Result::is_err);
        let ids = request.partitions.iter().map(|partition| partition.id);
        (
            ids.zip(results)
                .map(|(id, result)| FetchAnswer { id, result })
                .collect(),
            done,
        )
    }

    fn look(
        &self,
        request: &FetchRequest,
        partition: &FetchPartition,
        handle: Option<&PartitionHandle>,
    ) -> Look {
        let Some(handle) = handle else {
            return Look::Done(Err(self.not_here(partition)));
        };
        let view = handle.view.load_full();
        match check(&view, request, partition) {
            Err(error) => Look::Done(Err(error)),
            Ok(()) => look_at(view, request, partition),
        }
    }

    fn not_here(&self, partition: &FetchPartition) -> FetchError {
        match self.shared.image.load().partition(partition.id) {
            Some(record) => FetchError::NotLeader {
                leader: record.leader.map(|leader| (leader, record.leader_epoch)),
            },
            None => FetchError::UnknownPartition,
        }
    }

    /// Reads what is readable, in order, sharing the request's byte limit.
    async fn read(
        &self,
        request: &FetchRequest,
        looks: Vec<Look>,
    ) -> Vec<Result<FetchedPartition, FetchError>> {
        let wanted: Vec<(Offset, usize)> = request
            .partitions
            .iter()
            .map(|p| (p.offset, p.max_bytes))
            .collect();
        let max_bytes = request.max_bytes;
        let in_memory = matches!(request.reader, Reader::LocalReplica);
        let count = looks.len();
        let job = move || read_all(looks, &wanted, max_bytes, in_memory);
        let results = self.shared.io_pool.run(job).await;
        results.unwrap_or_else(|| (0..count).map(|_| Err(FetchError::ShuttingDown)).collect())
    }
}

impl Look {
    fn without_records(self) -> Result<FetchedPartition, FetchError> {
        match self {
            Look::Done(result) => result,
            Look::Empty(answer) | Look::Readable { answer, .. } => Ok(answer),
        }
    }
}

/// Role and epoch checks.
fn check(
    view: &View,
    request: &FetchRequest,
    partition: &FetchPartition,
) -> Result<(), FetchError> {
    if view.failed || view.reader.is_none() {
        return Err(FetchError::Storage);
    }
    let any_replica = matches!(request.reader, Reader::Debug | Reader::LocalReplica);
    if view.role != ReplicaRole::Leader && !any_replica {
        return Err(FetchError::NotLeader {
            leader: view.leader,
        });
    }
    match partition.current_leader_epoch {
        Some(asked) if asked < view.leader_epoch => Err(FetchError::FencedLeaderEpoch {
            leader: leader_of(view),
        }),
        Some(asked) if asked > view.leader_epoch => Err(FetchError::UnknownLeaderEpoch),
        Some(_) | None => Ok(()),
    }
}

pub(crate) fn leader_of(view: &View) -> LeaderHint {
    view.leader
}

fn look_at(view: Arc<View>, request: &FetchRequest, partition: &FetchPartition) -> Look {
    let upper = match request.reader {
        Reader::Debug => view.log_end_offset,
        Reader::LocalReplica => view.high_watermark,
        Reader::Consumer { .. } => match request.isolation {
            Isolation::ReadUncommitted => view.high_watermark,
            Isolation::ReadCommitted => view.last_stable_offset(),
        },
    };
    let answer = FetchedPartition {
        high_watermark: view.high_watermark,
        last_stable_offset: view.last_stable_offset(),
        log_start_offset: view.log_start_offset,
        records: FetchedRecords::Empty,
        diverging: None,
        aborted: Vec::new(),
    };
    let out_of_range = || {
        let (log_start, end) = (view.log_start_offset, view.log_end_offset);
        Look::Done(Err(FetchError::OffsetOutOfRange { log_start, end }))
    };
    if let Some(epoch) = partition.last_fetched_epoch {
        match lineage::compare(
            &view.epochs,
            view.log_start_offset,
            view.log_end_offset,
            Some(epoch),
            partition.offset,
        ) {
            Position::Matches => {}
            Position::Diverges { epoch, end } => {
                let diverging = Some((epoch, end));
                return Look::Done(Ok(FetchedPartition {
                    diverging,
                    ..answer
                }));
            }
            Position::OutOfRange => return out_of_range(),
        }
    }
    if partition.offset < view.log_start_offset || partition.offset > view.log_end_offset {
        return out_of_range();
    }
    if partition.offset >= upper {
        return Look::Empty(answer);
    }
    Look::Readable {
        answer,
        view,
        upper,
    }
}

fn read_all(
    looks: Vec<Look>,
    wanted: &[(Offset, usize)],
    max_bytes: usize,
    in_memory: bool,
) -> Vec<Result<FetchedPartition, FetchError>> {
    let mut left = max_bytes;
    let mut first = true;
    let mut results = Vec::with_capacity(looks.len());
    for (look, (offset, partition_bytes)) in looks.into_iter().zip(wanted) {
        let Look::Readable {
            mut answer,
            view,
            upper,
        } = look
        else {
            results.push(look.without_records());
            continue;
        };
        let Some(reader) = view.reader.as_ref() else {
            results.push(Err(FetchError::Storage));
            continue;
        };
        let limit = left.min(*partition_bytes);
        if limit == 0 && !first {
            results.push(Ok(answer));
            continue;
        }
        let read = if in_memory {
            reader.read(*offset, upper, limit, first).map(|(bytes, _)| {
                if bytes.is_empty() {
                    FetchedRecords::Empty
                } else {
                    FetchedRecords::Memory(bytes)
                }
            })
        } else {
            reader.locate(*offset, upper, limit, first).map(|slice| {
                if slice.is_empty() {
                    FetchedRecords::Empty
                } else {
                    // Here, because whoever sends it must not wait for the disk.
                    if let Some(file) = slice.descriptor() {
                        make_resident(file, slice.position, slice.len);
                    }
                    FetchedRecords::File(slice)
                }
            })
        };
        match read {
            Ok(records) => {
                // KIP-74: the first partition with data gives at least one batch, later ones may not.
                first &= records.is_empty();
                left = left.saturating_sub(records.len());
                answer.records = records;
                results.push(Ok(answer));
            }
            Err(error) => results.push(read_failed(answer, &view, &error)),
        }
    }
    results
}

fn read_failed(
    answer: FetchedPartition,
    view: &View,
    error: &ReadError,
) -> Result<FetchedPartition, FetchError> {
    match error {
        ReadError::OutOfRange { .. } => Err(FetchError::OffsetOutOfRange {
            log_start: view.log_start_offset,
            end: view.log_end_offset,
        }),
        // A truncation is under way: the reader asks again.
        ReadError::Truncated => Ok(answer),
        ReadError::Corrupt { .. } | ReadError::Io(_) => {
            warn!(%error, "read failed");
            Err(FetchError::Storage)
        }
    }
}
