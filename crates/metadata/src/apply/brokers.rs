//! The life of a broker: registered, unfenced, shutting down, fenced, forgotten.
//!
//! # Invariants
//! * One live incarnation per broker id (C-8).
//! * A broker that stops serving loses every leadership in the very command that says so, and its
//!   successors are elected in it; so a restart ends every leadership.

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId, FlushMode};
use uuid::Uuid;

use super::Draft;
use crate::elections::{
    elect, electable, forget_report, leave, leave_failed, leave_unclean, revise, revise_each,
};
use crate::{BrokerRecord, CommandError, Outcome, Record, Registration};

impl Draft<'_> {
    /// Registers a process as a broker: fenced, until it says that it is ready.
    pub(super) fn register_broker(&mut self, index: u64, registration: &Registration) -> Outcome {
        if let Err(error) = self.check_registration(registration) {
            return Outcome::Refused(error);
        }
        let broker_id = registration.broker_id;
        let former = self.image.brokers.get(&broker_id).cloned();
        if let Some(former) = &former {
            if is_same_process(former, registration) {
                // The answer to its first attempt was lost.
                return Outcome::Registered {
                    broker_epoch: former.epoch,
                };
            }
            let same_directories =
                share_a_directory(&former.directory_ids, &registration.directory_ids);
            if !former.fenced && !same_directories {
                return Outcome::Refused(CommandError::DuplicateBroker(broker_id));
            }
        }
        let broker_epoch = BrokerEpoch::saturating(i64::try_from(index).unwrap_or(i64::MAX));
        self.emit(Record::Broker(BrokerRecord {
            broker_id,
            epoch: broker_epoch,
            incarnation: registration.incarnation,
            directory_ids: registration.directory_ids.clone(),
            endpoints: registration.endpoints.clone(),
            replication_address: registration.replication_address.clone(),
            rack: registration.rack.clone(),
            fenced: true,
            in_controlled_shutdown: false,
            offline_directories: registration.offline_directories.clone(),
            no_space: false,
            default_flush_mode: registration.default_flush_mode,
        }));
        // Another set of directories may lack any replica that the old set held.
        let other_disks = former.is_none_or(|former| {
            as_set(&former.directory_ids) != as_set(&registration.directory_ids)
        });
        self.restart_replicas(registration, registration.unclean || other_disks);
        Outcome::Registered { broker_epoch }
    }

    fn check_registration(&self, registration: &Registration) -> Result<(), CommandError> {
        if let (Some(ours), Some(theirs)) = (&self.image.cluster_id, &registration.cluster_id)
            && ours != theirs
        {
            return Err(CommandError::InconsistentClusterId {
                expected: ours.clone(),
            });
        }
        if registration.broker_id.get() < 0 {
            let reason = format!("broker id {} is negative", registration.broker_id);
            return Err(CommandError::InvalidRequest(reason));
        }
        Ok(())
    }

    /// The broker's former life is over: what its replicas are worth depends on how it ended.
    fn restart_replicas(&mut self, registration: &Registration, unclean: bool) {
        let broker_id = registration.broker_id;
        let electable = electable(self.image, &registration.live);
        let lost_its_tail = |topic: &str| {
            registration.power_cut.is_some_and(|unset| {
                self.image.flush_mode(topic, broker_id, unset) == FlushMode::Page
            })
        };
        let changed = revise_each(
            self.image,
            |record| record.is_about(broker_id),
            |topic, id, rules, record| {
                let min_isr = rules.min_isr(record.replicas.len());
                forget_report(record, broker_id);
                if unclean || registration.damaged.contains(&id) || lost_its_tail(&topic.name) {
                    leave_unclean(record, broker_id);
                } else if !registration.offline_directories.is_empty() {
                    let unset = registration.default_flush_mode;
                    let mode = self.image.flush_mode(&topic.name, broker_id, unset);
                    leave_failed(record, broker_id, mode);
                } else {
                    leave(record, broker_id, min_isr);
                }
                elect(record, &electable, min_isr, rules.unclean_leader_election);
            },
        );
        self.emit_partitions(changed);
    }

    /// Takes a broker out of service. Of another registration, or of one that is fenced already,
    /// there is nothing to do.
    pub(super) fn fence_broker(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let Some(broker) = self.image.broker(broker_id) else {
            return Outcome::Done;
        };
        if broker.epoch != broker_epoch || broker.fenced {
            return Outcome::Done;
        }
        let fenced = BrokerRecord {
            fenced: true,
            ..broker.clone()
        };
        self.emit(Record::Broker(fenced));
        self.stop_replicas(broker_id, live);
        Outcome::Done
    }

    /// Brings a broker into service, and with it the partitions that waited for it. For a broker
    /// that is in service already, only the latter.
    pub(super) fn unfence_broker(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let broker = match self.current(broker_id, broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return Outcome::Refused(error),
        };
        if broker.in_controlled_shutdown {
            let reason = format!("broker {broker_id} is shutting down");
            return Outcome::Refused(CommandError::InvalidRequest(reason));
        }
        if broker.fenced {
            let unfenced = BrokerRecord {
                fenced: false,
                ..broker.clone()
            };
            self.emit(Record::Broker(unfenced));
        }
        // It asked over its stream.
        let mut live = live.clone();
        live.insert(broker_id);
        let electable = electable(self.image, &live);
        let changed = revise(
            self.image,
            |record| record.leader.is_none() && record.replicas.contains(&broker_id),
            |_, rules, record| {
                let min_isr = rules.min_isr(record.replicas.len());
                elect(record, &electable, min_isr, rules.unclean_leader_election);
            },
        );
        self.emit_partitions(changed);
        Outcome::Done
    }

    /// Moves everything that can be moved off a broker that is about to stop. What it led alone
    /// is led by nobody from here on (C-7): there is nothing to wait for.
    pub(super) fn begin_controlled_shutdown(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let broker = match self.current(broker_id, broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return Outcome::Refused(error),
        };
        if !broker.in_controlled_shutdown {
            let leaving = BrokerRecord {
                in_controlled_shutdown: true,
                ..broker.clone()
            };
            self.emit(Record::Broker(leaving));
        }
        self.stop_replicas(broker_id, live);
        Outcome::Done
    }

    /// Forgets a broker that neither runs nor holds a replica (C-7).
    pub(super) fn unregister_broker(&mut self, broker_id: BrokerId) -> Outcome {
        let Some(broker) = self.image.broker(broker_id) else {
            return Outcome::Refused(CommandError::BrokerNotRegistered(broker_id));
        };
        if !broker.fenced {
            let reason = format!("broker {broker_id} is running: stop it first");
            return Outcome::Refused(CommandError::InvalidRequest(reason));
        }
        let replicas = self.image.partitions_of(broker_id).count();
        if replicas > 0 {
            let reason =
                format!("broker {broker_id} still holds replicas of {replicas} partitions");
            return Outcome::Refused(CommandError::InvalidRequest(reason));
        }
        self.emit(Record::RemoveBroker { broker_id });
        Outcome::Done
    }

    /// The broker serves no more: it leaves every ISR it can, and its leaderships pass on.
    fn stop_replicas(&mut self, broker_id: BrokerId, live: &BTreeSet<BrokerId>) {
        let electable = electable(self.image, live);
        let changed = revise(
            self.image,
            |record| record.is_about(broker_id),
            |_, rules, record| {
                let min_isr = rules.min_isr(record.replicas.len());
                leave(record, broker_id, min_isr);
                elect(record, &electable, min_isr, rules.unclean_leader_election);
            },
        );
        self.emit_partitions(changed);
    }

    pub(super) fn current(
        &self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<&BrokerRecord, CommandError> {
        let broker = self.image.broker(broker_id);
        let broker = broker.ok_or(CommandError::BrokerNotRegistered(broker_id))?;
        if broker.epoch == broker_epoch {
            Ok(broker)
        } else {
            Err(CommandError::StaleBrokerEpoch)
        }
    }
}

fn is_same_process(former: &BrokerRecord, registration: &Registration) -> bool {
    former.incarnation == registration.incarnation
        && as_set(&former.directory_ids) == as_set(&registration.directory_ids)
        && former.endpoints == registration.endpoints
        && former.replication_address == registration.replication_address
        && former.rack == registration.rack
}

/// Holding the lock of one directory proves that the process that held it before has ended.
fn share_a_directory(former: &[Uuid], now: &[Uuid]) -> bool {
    former.iter().any(|directory| now.contains(directory)) || (former.is_empty() && now.is_empty())
}

fn as_set(directories: &[Uuid]) -> BTreeSet<Uuid> {
    directories.iter().copied().collect()
}
