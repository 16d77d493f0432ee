//! Fetch: records to consumers, as chunks of memory and ranges of files.

use std::{io, os::fd::BorrowedFd, sync::Arc};

use tokio::time::Instant;
use uuid::Uuid;

use ottla_broker::{
    FetchAnswer, FetchError, FetchPartition, FetchedPartition, FetchedRecords, Isolation, LogSlice,
    Reader,
};
use ottla_metadata::Image;
use ottla_types::{LeaderEpoch, Offset, PartitionId, PartitionIndex, TopicId};
use ottla_wire::{
    EpochEnd, ErrorCode, FetchPartitionResponse, FetchResponse, FetchTopicResponse, Records,
    TopicKey,
    messages::{FetchRequest, TopicName},
};

use crate::{
    connection::Answer,
    context::RequestContext,
    error_code,
    fetch_session::{PartitionKey, SessionRequest, Told, Wanted},
    leader_hint::{current_leader, node_endpoints},
    outbox::FileSlice,
};

/// The replica id of a debugging consumer.
const DEBUG_REPLICA: i32 = -2;
/// The replica id of an ordinary consumer.
const CONSUMER: i32 = -1;

/// Piece by which a file without a descriptor is copied to the socket.
const COPY_BYTES: usize = 64 * 1024;

/// A range of a segment file on its way to a socket.
#[derive(Debug)]
pub(crate) struct File(LogSlice);

impl FileSlice for File {
    fn send_to(&self, socket: BorrowedFd<'_>, skip: usize, bytes: usize) -> io::Result<usize> {
        let Some(file) = self.0.descriptor() else {
            let mut buffer = vec![0; bytes.min(COPY_BYTES)];
            let read = self.0.read_at(skip, &mut buffer)?;
            return Ok(rustix::io::write(
                socket,
                buffer.get(..read).unwrap_or_default(),
            )?);
        };
        let mut position = self.0.position + u64::try_from(skip).unwrap_or(u64::MAX);
        Ok(rustix::fs::sendfile(
            socket,
            file,
            Some(&mut position),
            bytes,
        )?)
    }
}

pub(super) async fn handle(cx: &RequestContext, request: FetchRequest) -> Answer<File> {
    let response = respond(cx, request).await;
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let errors = partitions
        .filter(|row| row.error_code != ErrorCode::None)
        .count();
    cx.count(errors + usize::from(response.error_code != ErrorCode::None));
    response
        .encode(cx.version(), cx.header.correlation_id)
        .map_or_else(Answer::from, Answer::Chunks)
}

async fn respond(cx: &RequestContext, request: FetchRequest) -> FetchResponse<File> {
    let session = SessionRequest {
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        by_topic_id: cx.version() >= 13,
    };
    let by_id = session.by_topic_id;
    let reader = match reader(cx, &request) {
        Ok(reader) => reader,
        Err(code) => return failed(code),
    };
    let (limits, wanted, forgotten) = (
        Limits::of(cx, &request),
        wanted(&request, by_id),
        forgotten(&request, by_id),
    );
    let sessions = &cx.shared.sessions;
    let begun = match sessions.begin(session, wanted, &forgotten, cx.arrived) {
        Ok(begun) => begun,
        Err(error) => return failed(error_code::session(error)),
    };
    let read = read(cx, &begun.partitions, reader, limits).await;
    let told: Vec<Told> = read.iter().map(told).collect();
    let fresh_id = || rand::random_range(1..=i32::MAX);
    let (session_id, listed) = match sessions.end(&begun, &told, Instant::now(), fresh_id) {
        Ok(ended) => ended,
        Err(error) => return failed(error_code::session(error)),
    };
    let rows = begun.partitions.into_iter().zip(read).zip(listed);
    let rows = rows
        .filter(|(_, listed)| *listed)
        .map(|(((key, _), row), _)| (key.topic, row));
    answer(cx, session_id, rows)
}

/// A response that is an error as a whole.
fn failed(error_code: ErrorCode) -> FetchResponse<File> {
    FetchResponse {
        throttle_time_ms: 0,
        error_code,
        session_id: 0,
        topics: Vec::new(),
        node_endpoints: Vec::new(),
    }
}

/// Clients read as consumers. One that names a broker's id is refused.
fn reader(cx: &RequestContext, request: &FetchRequest) -> Result<Reader, ErrorCode> {
    let replica_id = if cx.version() >= 15 {
        request.replica_state.replica_id.0
    } else {
        request.replica_id.0
    };
    match replica_id {
        CONSUMER => Ok(Reader::Consumer {
            rack: (!request.rack_id.is_empty()).then(|| request.rack_id.to_string()),
        }),
        DEBUG_REPLICA => Ok(Reader::Debug),
        _ => Err(ErrorCode::ClusterAuthorizationFailed),
    }
}

/// How much to read and how long to wait for it.
struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    deadline: Instant,
    isolation: Isolation,
}

impl Limits {
    fn of(cx: &RequestContext, request: &FetchRequest) -> Limits {
        let bytes = |bytes: i32| usize::try_from(bytes).unwrap_or(0);
        Limits {
            max_bytes: bytes(request.max_bytes).min(cx.config().server.network.fetch_max_bytes),
            min_bytes: bytes(request.min_bytes),
            deadline: cx.deadline(request.max_wait_ms),
            isolation: match request.isolation_level {
                1 => Isolation::ReadCommitted,
                _ => Isolation::ReadUncommitted,
            },
        }
    }
}

/// As this version names topics, and as its answer must: an id of zero is an unknown id.
fn topic_key(by_id: bool, name: &TopicName, id: Uuid) -> TopicKey {
    if by_id {
        TopicKey::Id(id)
    } else {
        TopicKey::Name(name.0.clone())
    }
}

fn wanted(request: &FetchRequest, by_id: bool) -> Vec<(PartitionKey, Wanted)> {
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let topic = topic_key(by_id, &topic.topic, topic.topic_id);
            let wanted = Wanted {
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            };
            (
                PartitionKey {
                    topic,
                    partition: partition.partition,
                },
                wanted,
            )
        })
    });
    partitions.collect()
}

fn forgotten(request: &FetchRequest, by_id: bool) -> Vec<PartitionKey> {
    let partitions = request.forgotten_topics_data.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| PartitionKey {
            topic: topic_key(by_id, &topic.topic, topic.topic_id),
            partition: *partition,
        })
    });
    partitions.collect()
}

type Row = FetchPartitionResponse<File>;

/// Reads what can be read; waits only if nothing is wrong with any partition.
async fn read(
    cx: &RequestContext,
    partitions: &[(PartitionKey, Wanted)],
    reader: Reader,
    limits: Limits,
) -> Vec<Row> {
    let image = cx.image();
    let found: Vec<Result<FetchPartition, ErrorCode>> = partitions
        .iter()
        .map(|(key, wanted)| fetch_partition(find(&image, key)?, wanted))
        .collect();
    let good: Vec<FetchPartition> = found
        .iter()
        .filter_map(|found| found.as_ref().ok().cloned())
        .collect();
    let all_good = !found.is_empty() && good.len() == found.len();
    let committed_only = limits.isolation == Isolation::ReadCommitted;
    let mut answers = if good.is_empty() {
        Vec::new()
    } else {
        let request = ottla_broker::FetchRequest {
            partitions: good,
            max_bytes: limits.max_bytes,
            min_bytes: if all_good { limits.min_bytes } else { 0 },
            deadline: if all_good {
                limits.deadline
            } else {
                cx.arrived
            },
            isolation: limits.isolation,
            reader,
        };
        cx.broker().fetch(request).await
    }
    .into_iter();
    let image = cx.image(); // The wait may have been long.
    let rows = found
        .into_iter()
        .zip(partitions)
        .map(|(found, (key, _))| match found {
            Err(code) => error_row(key.partition, code),
            Ok(_) => match answers.next() {
                Some(answer) => row(&image, cx.version(), key.partition, answer, committed_only),
                None => error_row(key.partition, ErrorCode::UnknownServerError),
            },
        });
    rows.collect()
}

fn find(image: &Image, key: &PartitionKey) -> Result<PartitionId, ErrorCode> {
    let (topic, unknown) = match &key.topic {
        TopicKey::Name(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
        TopicKey::Id(id) => {
            let topic = TopicId::new(*id).and_then(|id| image.topics.get(&id));
            (topic, ErrorCode::UnknownTopicId)
        }
    };
    let topic: &Arc<_> = topic.ok_or(unknown)?;
    PartitionIndex::new(key.partition)
        .filter(|partition| topic.partitions.contains_key(partition))
        .map(|partition| PartitionId {
            topic_id: topic.topic_id,
            partition,
        })
        .ok_or(ErrorCode::UnknownTopicOrPartition)
}

fn fetch_partition(id: PartitionId, wanted: &Wanted) -> Result<FetchPartition, ErrorCode> {
    Ok(FetchPartition {
        id,
        offset: Offset::new(wanted.fetch_offset).ok_or(ErrorCode::OffsetOutOfRange)?,
        max_bytes: usize::try_from(wanted.max_bytes).unwrap_or(0),
        current_leader_epoch: LeaderEpoch::new(wanted.current_leader_epoch),
        last_fetched_epoch: LeaderEpoch::new(wanted.last_fetched_epoch),
    })
}

fn error_row(partition_index: i32, error_code: ErrorCode) -> Row {
    FetchPartitionResponse {
        partition_index,
        error_code,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        diverging_epoch: None,
        current_leader: None,
        aborted_transactions: None,
        preferred_read_replica: -1,
        records: Records::Empty,
    }
}

fn row(image: &Image, version: i16, index: i32, answer: FetchAnswer, committed_only: bool) -> Row {
    match answer.result {
        Ok(fetched) => fetched_row(index, fetched, committed_only),
        Err(error) => {
            let mut code = error_code::fetch(&error, version);
            if error == FetchError::UnknownPartition && image.partition(answer.id).is_some() {
                code = ErrorCode::NotLeaderOrFollower; // It exists, but not here.
            }
            let mut row = error_row(index, code);
            if matches!(
                code,
                ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch
            ) {
                let hint = error_code::fetch_hint(&error);
                row.current_leader = current_leader(image, answer.id, hint);
            }
            row
        }
    }
}

fn fetched_row(index: i32, fetched: FetchedPartition, committed_only: bool) -> Row {
    let aborted = || {
        let pairs = fetched.aborted.iter();
        pairs
            .map(|aborted| (aborted.producer_id.get(), aborted.first_offset.get()))
            .collect()
    };
    FetchPartitionResponse {
        partition_index: index,
        error_code: ErrorCode::None,
        high_watermark: fetched.high_watermark.get(),
        last_stable_offset: fetched.last_stable_offset.get(),
        log_start_offset: fetched.log_start_offset.get(),
        diverging_epoch: fetched.diverging.map(|(epoch, end)| EpochEnd {
            epoch: epoch.get(),
            end_offset: end.get(),
        }),
        current_leader: None,
        aborted_transactions: committed_only.then(aborted),
        preferred_read_replica: -1,
        records: match fetched.records {
            FetchedRecords::Empty => Records::Empty,
            FetchedRecords::Memory(bytes) => Records::Memory(bytes),
            FetchedRecords::File(slice) => Records::File {
                bytes: slice.len,
                slice: File(slice),
            },
        },
    }
}

fn told(row: &Row) -> Told {
    Told {
        high_watermark: row.high_watermark,
        log_start_offset: row.log_start_offset,
        has_records: !row.records.is_empty(),
        must_tell: row.error_code != ErrorCode::None
            || row.diverging_epoch.is_some()
            || row.preferred_read_replica >= 0,
    }
}

/// Groups neighbouring partitions of a topic and adds the addresses of the leaders named.
fn answer(
    cx: &RequestContext,
    session_id: i32,
    rows: impl Iterator<Item = (TopicKey, Row)>,
) -> FetchResponse<File> {
    let mut topics: Vec<FetchTopicResponse<File>> = Vec::new();
    let mut leaders = Vec::new();
    for (topic, row) in rows {
        leaders.extend(row.current_leader.map(|leader| leader.leader_id));
        match topics.last_mut() {
            Some(last) if last.topic == topic => last.partitions.push(row),
            _ => topics.push(FetchTopicResponse {
                topic,
                partitions: vec![row],
            }),
        }
    }
    let node_endpoints = if leaders.is_empty() || cx.version() < 16 {
        Vec::new()
    } else {
        node_endpoints(&cx.image(), &cx.peer.listener, leaders)
    };
    let error_code = ErrorCode::None;
    FetchResponse {
        throttle_time_ms: 0,
        error_code,
        session_id,
        topics,
        node_endpoints,
    }
}

#[cfg(test)]
mod tests {
    use ottla_wire::messages::fetch_request::{FetchPartition, FetchTopic};

    use super::*;

    #[test]
    fn an_id_of_zero_is_an_unknown_id_and_never_a_name() {
        let topic = FetchTopic::default().with_partitions(vec![FetchPartition::default()]);
        let request = FetchRequest::default().with_topics(vec![topic]);
        let (key, _) = wanted(&request, true).remove(0);
        assert_eq!(key.topic, TopicKey::Id(Uuid::nil()));
        let found = find(&Image::default(), &key);
        assert_eq!(found, Err(ErrorCode::UnknownTopicId));
        let (key, _) = wanted(&request, false).remove(0);
        assert!(matches!(key.topic, TopicKey::Name(_)));
    }
}
