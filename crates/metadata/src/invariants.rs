//! What is always true of an image (C-7), and of two images in a row (C-6, C-8, R-1).
//!
//! For tests, the simulator and checks of a live cluster; `apply` itself relies on none of it.

use std::collections::BTreeSet;

use ottla_types::{BrokerId, PartitionId};

use crate::{BrokerRecord, Image, PartitionRecord};

impl Image {
    /// Every way in which this image is not well formed; empty for a sound one.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (name, topic_id) in &self.topic_ids {
            if self.topic_name(*topic_id) != Some(name) {
                found.push(format!(
                    "topic name {name:?} leads to no topic of that name"
                ));
            }
        }
        if self.topic_ids.len() != self.topics.len() {
            found.push("some topic cannot be found by name".to_owned());
        }
        for broker in self.brokers.values() {
            if u64::try_from(broker.epoch.get()).is_ok_and(|epoch| epoch > self.index) {
                found.push(format!(
                    "C-6: broker {} comes from the future",
                    broker.broker_id
                ));
            }
        }
        for topic in self.topics.values() {
            let numbers = topic.partitions.keys().map(|partition| partition.get());
            if !numbers.eq((0..).take(topic.partitions.len())) {
                found.push(format!(
                    "partitions of {:?} are not numbered without gaps",
                    topic.name
                ));
            }
            for (partition, record) in &topic.partitions {
                let min_isr = self.min_insync_replicas(&topic.name, record.replicas.len());
                for what in self.partition_violations(record, min_isr) {
                    let name = &topic.name;
                    found.push(format!("C-7: {name}-{partition}: {what}: {record:?}"));
                }
            }
        }
        found
    }

    fn partition_violations(&self, record: &PartitionRecord, min_isr: usize) -> Vec<&'static str> {
        let set = |members: &[BrokerId]| members.iter().copied().collect::<BTreeSet<_>>();
        let (replicas, isr, elr) = (set(&record.replicas), set(&record.isr), set(&record.elr));
        let last_known = set(&record.last_known_elr);
        let serves = |id: &BrokerId| self.broker(*id).is_some_and(BrokerRecord::in_service);
        let reports_count = record.reported_logs.iter().all(|log| {
            let broker = self.broker(log.broker_id);
            last_known.contains(&log.broker_id)
                && broker.is_some_and(|broker| broker.epoch == log.broker_epoch)
        });
        let distinct = replicas.len() == record.replicas.len()
            && isr.len() == record.isr.len()
            && elr.len() == record.elr.len();
        let registered = replicas.iter().all(|id| self.brokers.contains_key(id));
        let leader_serves = record
            .leader
            .is_none_or(|leader| isr.contains(&leader) && isr.iter().all(serves));
        [
            (!replicas.is_empty(), "no replicas"),
            (distinct, "a broker is named twice"),
            (registered, "a replica is not registered"),
            (
                isr.is_subset(&replicas),
                "the isr is not within the replicas",
            ),
            (
                elr.is_subset(&replicas),
                "the elr is not within the replicas",
            ),
            (
                last_known.is_subset(&replicas),
                "the last known are not within the replicas",
            ),
            (isr.is_disjoint(&elr), "isr and elr overlap"),
            (
                leader_serves,
                "the leader is not in sync, or the isr has members out of service",
            ),
            (
                isr.len() < 2 || isr.iter().all(serves),
                "a member out of service could leave",
            ),
            (
                elr.is_empty() || isr.len() < min_isr,
                "an elr beside a sufficient isr",
            ),
            (
                !record.recovering || isr.len() < 2,
                "in sync with a leader that recovers",
            ),
            (
                record.leader.is_none() || last_known.is_empty(),
                "last known ones beside a leader",
            ),
            (reports_count, "a log reported by nobody it is asked of"),
        ]
        .into_iter()
        .filter_map(|(holds, what)| (!holds).then_some(what))
        .collect()
    }
}

/// Every way in which the later of two images contradicts the earlier one.
#[must_use]
pub fn violations_between(before: &Image, after: &Image) -> Vec<String> {
    let mut found = Vec::new();
    if after.index < before.index {
        found.push(format!("C-6: index {} after {}", after.index, before.index));
    }
    if after.next_producer_id < before.next_producer_id {
        found.push("C-11: producer ids are handed out again".to_owned());
    }
    if before.cluster_id.is_some() && before.cluster_id != after.cluster_id {
        found.push("the cluster id changed".to_owned());
    }
    for (id, former) in &before.brokers {
        if let Some(broker) = after.broker(*id) {
            found.extend(broker_violations(former, broker));
        }
    }
    for (id, former) in before.partitions() {
        match after.partition(id) {
            Some(record) => found.extend(partition_violations(before, after, id, former, record)),
            None if after.topics.contains_key(&id.topic_id) => {
                found.push(format!("partition {id} is gone from a topic that is not"));
            }
            None => {}
        }
    }
    found
}

fn broker_violations(former: &BrokerRecord, broker: &BrokerRecord) -> Option<String> {
    let id = broker.broker_id;
    if broker.epoch < former.epoch {
        return Some(format!("C-6: the epoch of broker {id} fell"));
    }
    if broker.epoch == former.epoch && broker.incarnation != former.incarnation {
        return Some(format!("C-6: two incarnations of broker {id} in one epoch"));
    }
    let same_disk = former
        .directory_ids
        .iter()
        .any(|disk| broker.directory_ids.contains(disk))
        || (former.directory_ids.is_empty() && broker.directory_ids.is_empty());
    if broker.epoch > former.epoch && !former.fenced && !same_disk {
        return Some(format!(
            "C-8: broker {id} was superseded by a process with other disks"
        ));
    }
    None
}

fn partition_violations(
    before: &Image,
    after: &Image,
    id: PartitionId,
    former: &PartitionRecord,
    record: &PartitionRecord,
) -> Vec<String> {
    let mut found = Vec::new();
    if record.leader_epoch < former.leader_epoch || record.partition_epoch < former.partition_epoch
    {
        found.push(format!(
            "C-6: an epoch of {id} fell: {former:?} to {record:?}"
        ));
    }
    if record != former && record.partition_epoch <= former.partition_epoch {
        found.push(format!(
            "C-6: {id} changed in one partition epoch: {former:?} to {record:?}"
        ));
    }
    let same_epoch = record.leader_epoch == former.leader_epoch;
    if same_epoch && record.leader != former.leader {
        found.push(format!(
            "R-1: two leaders of {id} in one epoch: {former:?} to {record:?}"
        ));
    }
    let epoch_of = |image: &Image, leader| image.broker(leader).map(|broker| broker.epoch);
    if let Some(leader) = record.leader
        && same_epoch
        && record.leader == former.leader
        && epoch_of(before, leader) != epoch_of(after, leader)
    {
        found.push(format!(
            "R-1: broker {leader} leads {id} on through a restart"
        ));
    }
    found
}
