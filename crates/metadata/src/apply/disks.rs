//! What brokers say of their disks: a directory failed, there is no room, how long the logs are.
//!
//! # Invariants
//! * A replica on a failed directory neither leads nor is in sync until its broker registers anew
//!   with all its directories healthy (P-25).
//! * Room only chooses among members in sync; it makes nobody a member and nobody leave (P-23).
//! * A log that was reported in another registration says nothing.

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId, FlushMode};
use uuid::Uuid;

use super::Draft;
use crate::elections::{elect, electable, leave_failed, relieve, revise, seal};
use crate::{BrokerRecord, CommandError, LogReport, Outcome, PartitionRecord, Record, ReportedLog};

impl Draft<'_> {
    /// Takes a broker's replicas out of service, of all partitions that say anything about them.
    pub(super) fn fail_directories(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        directories: &[Uuid],
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let broker = match self.current(broker_id, broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return Outcome::Refused(error),
        };
        let mut offline = broker.offline_directories.clone();
        let known = |directory: &&Uuid| broker.directory_ids.contains(directory);
        for directory in directories.iter().filter(known) {
            if !offline.contains(directory) {
                offline.push(*directory);
            }
        }
        if offline == broker.offline_directories {
            return Outcome::Done;
        }
        let mode = broker.default_flush_mode;
        let failed = BrokerRecord {
            offline_directories: offline,
            ..broker.clone()
        };
        self.emit(Record::Broker(failed));
        let electable = electable(self.image, live);
        let changed = revise(
            self.image,
            |record| record.is_about(broker_id),
            |topic, rules, record| {
                let mode = self.image.flush_mode(&topic.name, broker_id, mode);
                leave_failed(record, broker_id, mode);
                let min_isr = rules.min_isr(record.replicas.len());
                elect(record, &electable, min_isr, rules.unclean_leader_election);
            },
        );
        self.emit_partitions(changed);
        Outcome::Done
    }

    /// Notes whether a broker has room. What it leads without room passes to members that have
    /// some; with room again, it takes over from members that have none.
    pub(super) fn report_space(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        no_space: bool,
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        let broker = match self.current(broker_id, broker_epoch) {
            Ok(broker) => broker,
            Err(error) => return Outcome::Refused(error),
        };
        if broker.no_space == no_space {
            return Outcome::Done;
        }
        let told = BrokerRecord {
            no_space,
            ..broker.clone()
        };
        self.emit(Record::Broker(told));
        let electable = electable(self.image, live);
        let changed = revise(
            self.image,
            |record| record.leader.is_some() && record.isr.contains(&broker_id),
            |_, _, record| relieve(record, &electable),
        );
        self.emit_partitions(changed);
        Outcome::Done
    }

    /// Takes down how long logs are, and elects the longest where all that count have spoken.
    pub(super) fn report_logs(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
        logs: &[LogReport],
        live: &BTreeSet<BrokerId>,
    ) -> Outcome {
        match self.current(broker_id, broker_epoch) {
            Ok(broker) if !broker.offline_directories.is_empty() => {
                let reason = format!("a log directory of broker {broker_id} has failed");
                return Outcome::Refused(CommandError::InvalidRequest(reason));
            }
            Ok(_) => {}
            Err(error) => return Outcome::Refused(error),
        }
        let electable = electable(self.image, live);
        for log in logs {
            let Some(before) = self.image.partition(log.id) else {
                continue;
            };
            let Some(topic) = self.image.topic_name(log.id.topic_id) else {
                continue;
            };
            if !self.image.asks_for_log(topic, before, broker_id) {
                continue;
            }
            let rules = self.image.topic_rules(topic);
            let min_isr = rules.min_isr(before.replicas.len());
            let mut after = before.clone();
            take_report(&mut after, broker_id, broker_epoch, log);
            elect(
                &mut after,
                &electable,
                min_isr,
                rules.unclean_leader_election,
            );
            if let Some(state) = seal(before, after) {
                self.emit(Record::Partition { id: log.id, state });
            }
        }
        Outcome::Done
    }
}

impl crate::Image {
    /// Whether nobody can lead the partition before this broker has said how long its log is:
    /// it is among the last known members, and its replica counted records before their flush.
    #[must_use]
    pub fn asks_for_log(&self, topic: &str, record: &PartitionRecord, broker_id: BrokerId) -> bool {
        record.leader.is_none()
            && record.isr.is_empty()
            && record.elr.is_empty()
            && record.last_known_elr.contains(&broker_id)
            && self.broker(broker_id).is_some_and(|broker| {
                let unset = broker.default_flush_mode;
                self.flush_mode(topic, broker_id, unset) == FlushMode::Page
            })
    }
}

fn take_report(
    record: &mut PartitionRecord,
    broker_id: BrokerId,
    broker_epoch: BrokerEpoch,
    log: &LogReport,
) {
    record
        .reported_logs
        .retain(|known| known.broker_id != broker_id);
    record.reported_logs.push(ReportedLog {
        broker_id,
        broker_epoch,
        last_epoch: log.last_epoch,
        log_end_offset: log.log_end_offset,
    });
    record.reported_logs.sort_by_key(|known| known.broker_id);
}
