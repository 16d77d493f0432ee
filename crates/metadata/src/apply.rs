//! The state of a controller and the one way to change it.
//!
//! # Invariants
//! * State is the fold of the records that were returned: [`Draft::emit`] is the only writer.
//! * A refused command, and a refused item of one, leaves nothing behind.

mod alter_partition;
mod brokers;
mod cluster;
mod configs;
mod disks;
mod election_requests;
mod partitions;
mod topic_names;
mod topics;

use std::{collections::BTreeMap, fmt};

use ottla_types::PartitionId;
use serde::{Deserialize, Serialize};

pub use cluster::PRODUCER_ID_BLOCK;
pub use partitions::PARTITIONS_PER_REQUEST_MAX;

use crate::{Command, CommandError, Image, Outcome, PartitionRecord, Record};

/// What every controller agrees on at one index of its log.
///
/// Cheap to clone: see [`Image`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterState {
    image: Image,
}

/// What applying a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer for whoever asked.
    pub outcome: Outcome,
    /// What was decided, for the brokers; to be folded as one.
    pub records: Vec<Record>,
}

impl ClusterState {
    /// Applies the command at one index of the controllers' log.
    ///
    /// # Panics
    /// If the index is not above that of the last command: applying one twice would split the
    /// controllers' states for good (C-2).
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let last = self.image.index;
        assert!(index > last, "index {index} applied after {last}");
        let mut draft = Draft {
            image: &mut self.image,
            records: Vec::new(),
        };
        let outcome = draft.decide(index, command);
        let records = draft.records;
        self.image.index = index;
        Applied { outcome, records }
    }

    /// The cluster as brokers see it.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The whole state as records: folded into an empty image they give [`ClusterState::image`].
    #[must_use]
    pub fn to_records(&self) -> Vec<Record> {
        self.image.to_records()
    }

    /// A number that is equal where the states are equal (C-2).
    #[must_use]
    pub fn state_hash(&self) -> u64 {
        let mut hash = Fnv1a::default();
        rmp_serde::encode::write_named(&mut hash, self)
            .expect("plain data into a hash cannot fail to encode");
        hash.0
    }
}

/// The image while a command is applied, and the records that have changed it so far.
struct Draft<'a> {
    image: &'a mut Image,
    records: Vec<Record>,
}

impl Draft<'_> {
    fn decide(&mut self, index: u64, command: &Command) -> Outcome {
        match command {
            Command::Bootstrap {
                cluster_id,
                features,
            } => self.bootstrap(cluster_id, features),
            Command::RegisterBroker(registration) => self.register_broker(index, registration),
            Command::FenceBroker {
                broker_id,
                broker_epoch,
                live,
            } => self.fence_broker(*broker_id, *broker_epoch, live),
            Command::UnfenceBroker {
                broker_id,
                broker_epoch,
                live,
            } => self.unfence_broker(*broker_id, *broker_epoch, live),
            Command::BeginControlledShutdown {
                broker_id,
                broker_epoch,
                live,
            } => self.begin_controlled_shutdown(*broker_id, *broker_epoch, live),
            Command::FailDirectories {
                broker_id,
                broker_epoch,
                directories,
                live,
            } => self.fail_directories(*broker_id, *broker_epoch, directories, live),
            Command::ReportSpace {
                broker_id,
                broker_epoch,
                no_space,
                live,
            } => self.report_space(*broker_id, *broker_epoch, *no_space, live),
            Command::ReportLogs {
                broker_id,
                broker_epoch,
                logs,
                live,
            } => self.report_logs(*broker_id, *broker_epoch, logs, live),
            Command::UnregisterBroker { broker_id } => self.unregister_broker(*broker_id),
            Command::CreateTopics {
                topics,
                validate_only,
                live,
            } => self.tentative(*validate_only, |draft| draft.create_topics(topics, live)),
            Command::DeleteTopics { topics } => self.delete_topics(topics),
            Command::CreatePartitions {
                topics,
                validate_only,
                live,
            } => self.tentative(*validate_only, |draft| {
                draft.create_partitions(topics, live)
            }),
            Command::AlterConfigs {
                alterations,
                validate_only,
            } => self.tentative(*validate_only, |draft| draft.alter_configs(alterations)),
            Command::AlterPartition {
                broker_id,
                broker_epoch,
                partitions,
                live,
            } => self.alter_partitions(*broker_id, *broker_epoch, partitions, live),
            Command::ElectLeaders { request, live } => self.elect_leaders(request, live),
            Command::AllocateProducerIds {
                broker_id,
                broker_epoch,
            } => self.allocate_producer_ids(*broker_id, *broker_epoch),
        }
    }

    /// Runs `change` for real, or on a copy that is thrown away where it is only to be checked.
    fn tentative(
        &mut self,
        validate_only: bool,
        change: impl FnOnce(&mut Draft<'_>) -> Outcome,
    ) -> Outcome {
        if !validate_only {
            return change(self);
        }
        let mut scratch = self.image.clone();
        change(&mut Draft {
            image: &mut scratch,
            records: Vec::new(),
        })
    }

    fn emit(&mut self, record: Record) {
        self.image.apply(&record);
        self.records.push(record);
    }

    fn emit_partitions(&mut self, changed: Vec<(PartitionId, PartitionRecord)>) {
        for (id, state) in changed {
            self.emit(Record::Partition { id, state });
        }
    }
}

/// How often one request names each thing: what it names twice contradicts itself.
struct Named<K>(BTreeMap<K, usize>);

impl<K: Ord> Named<K> {
    fn count(keys: impl Iterator<Item = K>) -> Named<K> {
        let mut times = BTreeMap::new();
        for key in keys {
            *times.entry(key).or_default() += 1;
        }
        Named(times)
    }

    fn once(&self, key: &K, what: &dyn fmt::Display) -> Result<(), CommandError> {
        if self.0.get(key).is_some_and(|&times| times > 1) {
            let reason = format!("{what} is named twice");
            return Err(CommandError::InvalidRequest(reason));
        }
        Ok(())
    }
}

/// The 64-bit FNV-1a hash of what is written to it: the same in every version of every build.
struct Fnv1a(u64);

impl Default for Fnv1a {
    fn default() -> Fnv1a {
        Fnv1a(0xcbf2_9ce4_8422_2325)
    }
}

impl std::io::Write for Fnv1a {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
