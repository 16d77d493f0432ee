//! Keeping fetches under way and folding their answers into the partitions.

use std::collections::BTreeMap;

use tokio::time::Instant;

use ottla_types::BrokerId;
use ottla_wire::ErrorCode;

use super::{
    Consumer, Event, FetchUnderWay,
    decode::decode,
    fetch::{self, Data, Fetched, Wanted, WantedPartitions},
    lookup::reset,
    partition::Phase,
    record::ConsumerError,
};
use crate::{
    cluster::Lane,
    error::is_stale_metadata,
    metadata::{Node, TopicPartition},
    offsets::IsolationLevel,
};

impl Consumer {
    /// One fetch to each broker that leads a partition with nothing buffered.
    pub(super) fn start_fetches(&mut self, now: Instant) {
        let metadata = self.cluster.metadata();
        let mut by_broker: BTreeMap<BrokerId, WantedPartitions> = BTreeMap::new();
        let mut is_leaderless = false;
        for (partition, state) in &mut self.partitions {
            let Some(position) = state.fetches_from(now) else {
                continue;
            };
            let leader_epoch = metadata
                .partition(partition)
                .and_then(|known| known.leader_epoch);
            let preferred = state
                .preferred
                .filter(|(broker, until)| now < *until && metadata.brokers.contains_key(broker));
            let broker = preferred
                .map(|(broker, _)| broker)
                .or_else(|| metadata.leader(partition));
            let Some(broker) = broker else {
                state.not_before = Some(now + self.config.client.retry_backoff_max);
                is_leaderless = true;
                continue;
            };
            if self.fetching.contains_key(&broker) {
                continue;
            }
            let wanted = Wanted {
                position,
                generation: state.generation,
                leader_epoch,
            };
            by_broker
                .entry(broker)
                .or_default()
                .insert(partition.clone(), wanted);
        }
        if is_leaderless {
            self.cluster.request_refresh();
        }
        for (broker, wanted) in by_broker {
            for partition in wanted.keys() {
                if let Some(state) = self.partitions.get_mut(partition) {
                    state.is_asking = true;
                }
            }
            let under_way = FetchUnderWay {
                since: now,
                probe_at: now + self.config.fetch_wait_max + self.config.client.stall_probe_after,
                address: metadata.brokers.get(&broker).map(Node::address),
                partitions: wanted.keys().cloned().collect(),
            };
            self.fetching.insert(broker, under_way);
            let (cluster, config) = (self.cluster.clone(), self.config.clone());
            self.spawn(|report| async move {
                let fetched = fetch::fetch(&cluster, &config, broker, wanted).await;
                let _ = report.send(Event::Fetched(fetched)).await;
            });
        }
    }

    /// A broker that is silent for longer than it may wait has perhaps been replaced.
    pub(super) fn probe_silent_leaders(&mut self, now: Instant) {
        let metadata = self.cluster.metadata();
        let mut deposed = Vec::new();
        for (broker, under_way) in &mut self.fetching {
            if now < under_way.probe_at {
                continue;
            }
            let moved = under_way.partitions.iter().any(|partition| {
                metadata
                    .leader(partition)
                    .is_some_and(|leader| leader != *broker)
            });
            if moved {
                deposed.extend(under_way.address.clone());
            }
            tracing::debug!(%broker, silent_ms = now.duration_since(under_way.since).as_millis(),
                moved, "fetch is not answered");
            under_way.probe_at = now + self.config.client.stall_probe_after;
            self.cluster.request_refresh();
        }
        for address in deposed {
            self.cluster
                .disconnect(&address, Lane::Data, "another broker leads now");
        }
    }

    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        self.fetching.remove(&fetched.broker);
        let mut answered = match fetched.result {
            Ok(answered) => answered.into_iter().collect::<BTreeMap<_, _>>(),
            Err(error) => {
                tracing::debug!(broker = %fetched.broker, %error, "fetch got no answer");
                self.cluster.request_refresh();
                if !error.is_retriable() {
                    self.errors.push_back(error.into());
                }
                BTreeMap::new()
            }
        };
        let has_failed = answered.is_empty();
        let now = Instant::now();
        for (partition, wanted) in fetched.wanted {
            let Some(state) = self.partitions.get_mut(&partition) else {
                continue;
            };
            if state.generation != wanted.generation {
                continue;
            }
            state.is_asking = false;
            match answered.remove(&partition) {
                Some(data) => self.on_data(&partition, wanted, data, fetched.broker, now),
                None if has_failed => {
                    state.preferred = None;
                    state.not_before = Some(now + self.config.client.retry_backoff);
                }
                None => {}
            }
        }
    }

    fn on_data(
        &mut self,
        partition: &TopicPartition,
        wanted: Wanted,
        data: Data,
        broker: BrokerId,
        now: Instant,
    ) {
        let config = &self.config;
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        let was_preferred = state.preferred.is_some_and(|(nearby, _)| nearby == broker);
        if data.error == ErrorCode::None {
            state.high_watermark = data.high_watermark.or(state.high_watermark);
            state.last_stable_offset = data.last_stable_offset.or(state.last_stable_offset);
            state.log_start_offset = data.log_start_offset.or(state.log_start_offset);
            if let Some(preferred) = data.preferred {
                state.preferred = Some((preferred, now + config.client.metadata_max_age));
                return;
            }
            let hides = config.isolation == IsolationLevel::ReadCommitted;
            let aborted = hides.then_some(data.aborted.as_slice());
            let from = wanted.position.offset;
            match decode(
                partition,
                &data.records,
                from,
                aborted,
                config.batch_bytes_max,
            ) {
                Ok(decoded) if was_preferred => state.buffer(decoded, None),
                Ok(decoded) => state.buffer(decoded, wanted.leader_epoch),
                Err(corrupt) => {
                    // Another attempt may be answered by another replica.
                    state.not_before = Some(now + config.client.retry_backoff_max);
                    self.errors.push_back(ConsumerError::Corrupt {
                        partition: partition.clone(),
                        reason: corrupt.to_string(),
                    });
                }
            }
            return;
        }
        state.preferred = None;
        match data.error {
            // A replica nearby may be behind: the leader is asked before anything is reset.
            ErrorCode::OffsetOutOfRange if was_preferred => {}
            ErrorCode::OffsetOutOfRange => match reset(config.offset_reset) {
                Some(spec) => {
                    tracing::info!(%partition, offset = wanted.position.offset, "offset is out of range");
                    state.restart(Phase::NeedsOffset(spec), self.generations.next());
                }
                None => {
                    state.is_asking = true; // Until somebody seeks.
                    self.errors.push_back(ConsumerError::OutOfRange {
                        partition: partition.clone(),
                        offset: wanted.position.offset,
                    });
                }
            },
            error if error.is_retriable() || is_stale_metadata(error) => {
                if !data.has_learnt_leader {
                    state.not_before = Some(now + config.client.retry_backoff);
                    self.cluster.request_refresh();
                }
            }
            code => {
                state.not_before = Some(now + config.client.retry_backoff_max);
                self.errors.push_back(ConsumerError::Refused {
                    partition: partition.clone(),
                    code,
                });
            }
        }
    }
}
