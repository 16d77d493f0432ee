//! Finding where to begin, and whether the position still belongs to the log: in tasks that report.

use std::collections::BTreeMap;

use tokio::{sync::mpsc, time::Instant};

use super::{
    Consumer, Event,
    config::OffsetReset,
    partition::{Phase, Position},
    record::ConsumerError,
};
use crate::{
    error::RequestError,
    group::{self, CommittedOffset, GroupError},
    leaders::PartitionError,
    metadata::TopicPartition,
    offsets::{self, EpochEnd, ListedOffset, OffsetSpec},
};

/// Partitions asked about and the generation of each at that time.
pub(super) type Asked = BTreeMap<TopicPartition, u64>;

/// A position to be checked against the log of the current leadership.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check {
    generation: u64,
    position: Position,
    leader_epoch: i32,
}

/// What a question brought.
pub(super) enum Found {
    Committed {
        asked: Asked,
        result: Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError>,
    },
    Listed {
        asked: Asked,
        answers: BTreeMap<TopicPartition, Result<ListedOffset, PartitionError>>,
    },
    Checked {
        asked: BTreeMap<TopicPartition, Check>,
        answers: BTreeMap<TopicPartition, Result<EpochEnd, PartitionError>>,
    },
}

impl Consumer {
    /// Starts whatever has to be asked before partitions can be fetched.
    pub(super) fn look_up(&mut self, now: Instant) {
        let (mut committed, mut listed, mut checked) =
            (Asked::new(), BTreeMap::new(), BTreeMap::new());
        let metadata = self.cluster.metadata();
        for (partition, state) in &mut self.partitions {
            let waits = state.not_before.is_some_and(|not_before| now < not_before);
            if state.is_asking || state.is_leaving || waits {
                continue;
            }
            match state.phase {
                Phase::NeedsCommitted if self.coordinator.is_some() => {
                    committed.insert(partition.clone(), state.generation);
                }
                Phase::NeedsCommitted => match reset(self.config.offset_reset) {
                    Some(spec) => state.phase = Phase::NeedsOffset(spec),
                    None => {
                        state.is_asking = true;
                        self.errors
                            .push_back(ConsumerError::NoOffset(partition.clone()));
                        continue;
                    }
                },
                Phase::NeedsOffset(_) | Phase::Ready(_) => {}
            }
            match state.phase {
                Phase::NeedsOffset(spec) => {
                    listed.insert(partition.clone(), (spec, state.generation));
                }
                Phase::Ready(position) => {
                    let leader_epoch = metadata
                        .partition(partition)
                        .and_then(|known| known.leader_epoch);
                    let (Some(leader_epoch), Some(_)) = (leader_epoch, position.offset_epoch)
                    else {
                        continue;
                    };
                    // Buffered records come first, even those of a paused partition: they were
                    // read under the old leadership, and a cut must not lead past them.
                    if position.validated_in != Some(leader_epoch) && !state.has_buffered() {
                        let check = Check {
                            generation: state.generation,
                            position,
                            leader_epoch,
                        };
                        checked.insert(partition.clone(), check);
                    }
                }
                Phase::NeedsCommitted => {}
            }
        }
        let asking = committed.keys().chain(listed.keys()).chain(checked.keys());
        for partition in asking {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.is_asking = true;
            }
        }
        self.spawn_committed(committed, now);
        self.spawn_listed(listed, now);
        self.spawn_checked(checked, now);
    }

    fn spawn_committed(&self, asked: Asked, now: Instant) {
        let Some(coordinator) = self.coordinator.clone().filter(|_| !asked.is_empty()) else {
            return;
        };
        let deadline = now + self.config.client.request_timeout;
        self.spawn(|report| async move {
            let partitions: Vec<TopicPartition> = asked.keys().cloned().collect();
            let result = group::committed(&coordinator, Some(&partitions), deadline).await;
            tell(report, Found::Committed { asked, result }).await;
        });
    }

    fn spawn_listed(&self, wanted: BTreeMap<TopicPartition, (OffsetSpec, u64)>, now: Instant) {
        if wanted.is_empty() {
            return;
        }
        let deadline = now + self.config.client.request_timeout;
        let (cluster, isolation) = (self.cluster.clone(), self.config.isolation);
        // Each on its own: a partition without a leader must not hold up the others.
        for (partition, (spec, generation)) in wanted {
            let cluster = cluster.clone();
            self.spawn(|report| async move {
                let asked = Asked::from([(partition.clone(), generation)]);
                let specs = BTreeMap::from([(partition, spec)]);
                let answers = offsets::list_offsets(&cluster, specs, isolation, deadline).await;
                tell(report, Found::Listed { asked, answers }).await;
            });
        }
    }

    fn spawn_checked(&self, asked: BTreeMap<TopicPartition, Check>, now: Instant) {
        let deadline = now + self.config.client.request_timeout;
        for (partition, check) in asked {
            let Some(epoch) = check.position.offset_epoch else {
                continue;
            };
            let cluster = self.cluster.clone();
            self.spawn(|report| async move {
                let epochs = BTreeMap::from([(partition.clone(), epoch)]);
                let asked = BTreeMap::from([(partition, check)]);
                let answers = offsets::epoch_ends(&cluster, epochs, deadline).await;
                tell(report, Found::Checked { asked, answers }).await;
            });
        }
    }

    pub(super) fn on_found(&mut self, found: Found) {
        match found {
            Found::Committed { asked, result } => self.on_committed(&asked, result),
            Found::Listed { asked, answers } => {
                for (partition, answer) in answers {
                    self.on_listed(&asked, &partition, answer);
                }
            }
            Found::Checked { asked, answers } => {
                for (partition, answer) in answers {
                    if let Some(check) = asked.get(&partition) {
                        self.on_checked(&partition, *check, answer);
                    }
                }
            }
        }
    }

    fn on_committed(
        &mut self,
        asked: &Asked,
        result: Result<BTreeMap<TopicPartition, CommittedOffset>, GroupError>,
    ) {
        let committed = match result {
            Ok(committed) => committed,
            Err(error) => {
                let again = Instant::now() + self.config.client.retry_backoff_max;
                for (partition, generation) in asked {
                    if let Some(state) = self.partitions.get_mut(partition)
                        && state.generation == *generation
                    {
                        state.is_asking = false;
                        state.not_before = Some(again);
                    }
                }
                if let GroupError::NotInTime(last) = &error {
                    tracing::debug!(?last, "committed offsets are not known yet");
                } else {
                    self.errors.push_back(error.into());
                }
                return;
            }
        };
        for (partition, generation) in asked {
            let Some(state) = self.partitions.get_mut(partition) else {
                continue;
            };
            if state.generation != *generation {
                continue;
            }
            state.is_asking = false;
            match (committed.get(partition), reset(self.config.offset_reset)) {
                (Some(found), _) => state.begin_at(Position::at(found.offset, found.leader_epoch)),
                (None, Some(spec)) => state.phase = Phase::NeedsOffset(spec),
                (None, None) => {
                    state.is_asking = true; // Until somebody seeks.
                    self.errors
                        .push_back(ConsumerError::NoOffset(partition.clone()));
                }
            }
        }
    }

    fn on_listed(
        &mut self,
        asked: &Asked,
        partition: &TopicPartition,
        answer: Result<ListedOffset, PartitionError>,
    ) {
        let leader_epoch = self
            .cluster
            .metadata()
            .partition(partition)
            .and_then(|known| known.leader_epoch);
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        if asked.get(partition) != Some(&state.generation) {
            return;
        }
        state.is_asking = false;
        match answer {
            Ok(ListedOffset {
                offset: Some(offset),
                leader_epoch: epoch,
                ..
            }) => {
                state.begin_at(Position {
                    offset,
                    offset_epoch: epoch,
                    validated_in: leader_epoch,
                });
            }
            // No record is that late: the end it is.
            Ok(ListedOffset { offset: None, .. }) => {
                state.phase = Phase::NeedsOffset(OffsetSpec::Latest)
            }
            Err(PartitionError::NotInTime(last)) => {
                tracing::debug!(%partition, ?last, "offset is not known yet");
            }
            Err(error) => {
                state.not_before = Some(Instant::now() + self.config.client.retry_backoff_max);
                self.errors.push_back(ConsumerError::Partition {
                    partition: partition.clone(),
                    error,
                });
            }
        }
    }

    fn on_checked(
        &mut self,
        partition: &TopicPartition,
        check: Check,
        answer: Result<EpochEnd, PartitionError>,
    ) {
        let Some(state) = self.partitions.get_mut(partition) else {
            return;
        };
        if state.generation != check.generation {
            return;
        }
        state.is_asking = false;
        let position = check.position;
        let sound = Position {
            validated_in: Some(check.leader_epoch),
            ..position
        };
        match answer {
            Ok(end) if end.epoch >= 0 && end.end_offset >= position.offset => {
                state.phase = Phase::Ready(sound);
            }
            Ok(end) => {
                tracing::warn!(%partition, offset = position.offset, end_offset = end.end_offset,
                    "the log was cut below the position");
                match reset(self.config.offset_reset) {
                    // Where the logs parted, if the leader knows; else by the rule.
                    Some(_) if end.epoch >= 0 && end.end_offset >= 0 => {
                        let parted = Position {
                            offset: end.end_offset,
                            offset_epoch: Some(end.epoch),
                            validated_in: Some(check.leader_epoch),
                        };
                        state.restart(Phase::Ready(parted), self.generations.next());
                    }
                    Some(spec) => {
                        state.restart(Phase::NeedsOffset(spec), self.generations.next());
                    }
                    None => {
                        state.is_asking = true;
                        self.errors.push_back(ConsumerError::Truncated {
                            partition: partition.clone(),
                            offset: position.offset,
                            end_offset: end.end_offset,
                        });
                    }
                }
            }
            // A broker that cannot tell is believed.
            Err(PartitionError::Request(RequestError::UnsupportedVersion { .. })) => {
                state.phase = Phase::Ready(sound);
            }
            Err(error) => {
                tracing::debug!(%partition, %error, "position is not checked yet");
                state.not_before = Some(Instant::now() + self.config.client.retry_backoff_max);
            }
        }
    }
}

/// The rule for a partition without an offset.
pub(super) const fn reset(rule: OffsetReset) -> Option<OffsetSpec> {
    match rule {
        OffsetReset::Earliest => Some(OffsetSpec::Earliest),
        OffsetReset::Latest => Some(OffsetSpec::Latest),
        OffsetReset::None => None,
    }
}

async fn tell(report: mpsc::Sender<Event>, found: Found) {
    // A consumer that is gone does not want to know.
    let _ = report.send(Event::Found(found)).await;
}
