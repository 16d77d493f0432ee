//! Who is in sync and who leads: the rules on one partition record.
//!
//! A change is made on a copy in up to three moves (a replica leaves, the ISR is replaced, a
//! leader is elected) and then sealed: [`seal`] alone moves the epochs.
//!
//! # Invariants
//! * Everything committed is on each member of ISR and ELR: a member that leaves while the ISR is
//!   below `min.insync.replicas` holds everything below the high watermark, which stands still
//!   from then on (P-5, KIP-966).
//! * The ELR is empty whenever the ISR has `min.insync.replicas` members.
//! * The only member out of service that an ISR can have is its last one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla_types::{BrokerId, FlushMode, PartitionId};

use crate::settings::TopicRules;
use crate::{BrokerRecord, Image, PartitionRecord, TopicImage};

/// Brokers that may lead, and which of them should not.
#[derive(Debug, Default)]
pub(crate) struct Electable {
    /// In service, with a live stream.
    pub(crate) brokers: BTreeSet<BrokerId>,
    /// Those whose disk is full: elected only where nobody else can be (P-23).
    pub(crate) full: BTreeSet<BrokerId>,
}

impl Electable {
    fn of<'a>(brokers: impl Iterator<Item = &'a BrokerRecord>) -> Electable {
        let mut electable = Electable::default();
        for broker in brokers {
            electable.brokers.insert(broker.broker_id);
            if broker.no_space {
                electable.full.insert(broker.broker_id);
            }
        }
        electable
    }

    fn with_room(&self, broker: BrokerId) -> bool {
        self.brokers.contains(&broker) && !self.full.contains(&broker)
    }

    /// The first of `members` that may lead and has room, else the first that may lead.
    pub(crate) fn first_of(&self, members: &[BrokerId]) -> Option<BrokerId> {
        self.first_with_room(members)
            .or_else(|| members.iter().copied().find(|id| self.brokers.contains(id)))
    }

    fn first_with_room(&self, members: &[BrokerId]) -> Option<BrokerId> {
        members.iter().copied().find(|id| self.with_room(*id))
    }
}

/// Brokers that may be elected: in service, with a live stream.
pub(crate) fn electable(image: &Image, live: &BTreeSet<BrokerId>) -> Electable {
    Electable::of(in_service(&image.brokers).filter(|broker| live.contains(&broker.broker_id)))
}

/// Brokers that may start in the ISR of a new partition, which has nothing to lose yet: as
/// [`electable`], but where no stream is known of, every broker in service.
pub(crate) fn startable(image: &Image, live: &BTreeSet<BrokerId>) -> Electable {
    if live.is_empty() {
        Electable::of(in_service(&image.brokers))
    } else {
        electable(image, live)
    }
}

fn in_service(
    brokers: &BTreeMap<BrokerId, Arc<BrokerRecord>>,
) -> impl Iterator<Item = &BrokerRecord> {
    let brokers = brokers.values().map(AsRef::as_ref);
    brokers.filter(|broker: &&BrokerRecord| broker.in_service())
}

impl PartitionRecord {
    /// Whether this says anything about what the broker's replica is worth.
    pub(crate) fn is_about(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker)
            || self.elr.contains(&broker)
            || self.reported_logs.iter().any(|log| log.broker_id == broker)
    }
}

/// Works out a change for every partition that it concerns; one pass over the cluster.
pub(crate) fn revise(
    image: &Image,
    concerns: impl Fn(&PartitionRecord) -> bool,
    change: impl Fn(&TopicImage, &TopicRules, &mut PartitionRecord),
) -> Vec<(PartitionId, PartitionRecord)> {
    revise_each(image, concerns, |topic, _, rules, record| {
        change(topic, rules, record);
    })
}

/// As [`revise`], for a change that asks which partition it is.
pub(crate) fn revise_each(
    image: &Image,
    concerns: impl Fn(&PartitionRecord) -> bool,
    change: impl Fn(&TopicImage, PartitionId, &TopicRules, &mut PartitionRecord),
) -> Vec<(PartitionId, PartitionRecord)> {
    let mut changed = Vec::new();
    for topic in image.topics.values() {
        let mut rules = None;
        for (&partition, record) in topic
            .partitions
            .iter()
            .filter(|(_, record)| concerns(record))
        {
            let rules = *rules.get_or_insert_with(|| image.topic_rules(&topic.name));
            let id = PartitionId {
                topic_id: topic.topic_id,
                partition,
            };
            let mut next = record.clone();
            change(topic, id, &rules, &mut next);
            if let Some(next) = seal(record, next) {
                changed.push((id, next));
            }
        }
    }
    changed
}

/// Moves the epochs of a changed record (C-6); `None` where nothing changed.
pub(crate) fn seal(
    before: &PartitionRecord,
    mut after: PartitionRecord,
) -> Option<PartitionRecord> {
    if *before == after {
        return None;
    }
    if before.leader != after.leader {
        after.leader_epoch = before.leader_epoch.next();
    }
    after.partition_epoch = before.partition_epoch.next();
    Some(after)
}

/// A replica stops with its log intact: it leaves the ISR where others remain, and leads no more.
/// The last member stays: it is the one that is known to hold everything.
pub(crate) fn leave(record: &mut PartitionRecord, broker: BrokerId, min_isr: usize) {
    if record.leader == Some(broker) {
        record.leader = None;
    }
    if record.isr.len() > 1 && record.isr.contains(&broker) {
        let isr = record
            .isr
            .iter()
            .copied()
            .filter(|&member| member != broker)
            .collect();
        replace_isr(record, isr, min_isr);
    }
}

/// A replica may have lost what it had: whatever it was part of, it is no more (R-14, B-4).
/// Where nobody is left to lead, it is remembered as last known.
pub(crate) fn leave_unclean(record: &mut PartitionRecord, broker: BrokerId) {
    if record.leader == Some(broker) {
        record.leader = None;
    }
    let counted = record.isr.contains(&broker) || record.elr.contains(&broker);
    record.isr.retain(|&member| member != broker);
    record.elr.retain(|&member| member != broker);
    if counted && record.leader.is_none() && !record.last_known_elr.contains(&broker) {
        record.last_known_elr.push(broker);
        sort_by_assignment(&record.replicas, &mut record.last_known_elr);
    }
}

/// A replica's log directory failed. What it counted in mode `ack` was flushed before: where it is
/// the last one known it stays, because it may come back whole; elsewhere the others go on
/// without it. In mode `page` what it counted may be gone (P-25).
pub(crate) fn leave_failed(record: &mut PartitionRecord, broker: BrokerId, mode: FlushMode) {
    forget_report(record, broker);
    let mut members = record.isr.iter().chain(&record.elr);
    if mode == FlushMode::Ack && members.all(|member| *member == broker) {
        if record.leader == Some(broker) {
            record.leader = None;
        }
    } else {
        leave_unclean(record, broker);
    }
}

/// What a broker said of its log in a former registration counts no more.
pub(crate) fn forget_report(record: &mut PartitionRecord, broker: BrokerId) {
    record.reported_logs.retain(|log| log.broker_id != broker);
}

/// Puts a new ISR in place. Who leaves it while it is below min ISR becomes an eligible leader
/// replica; with enough members there are none.
pub(crate) fn replace_isr(record: &mut PartitionRecord, isr: Vec<BrokerId>, min_isr: usize) {
    let former = std::mem::replace(&mut record.isr, isr);
    sort_by_assignment(&record.replicas, &mut record.isr);
    for broker in former {
        if !record.elr.contains(&broker) {
            record.elr.push(broker);
        }
    }
    record.elr.retain(|broker| !record.isr.contains(broker));
    sort_by_assignment(&record.replicas, &mut record.elr);
    forget_elr_if_enough(record, min_isr);
}

/// Drops the ELR once the ISR suffices: from here on records are committed without it.
pub(crate) fn forget_elr_if_enough(record: &mut PartitionRecord, min_isr: usize) {
    if record.isr.len() >= min_isr {
        record.elr.clear();
    }
}

/// Elects a leader for a partition that has none: in assignment order the first of the ISR, else
/// the first of the ELR, else the longest log of the last known members, else, if that is
/// allowed, any replica. Leaves it without one where nobody qualifies.
///
/// ISR, ELR and last known members are kept in assignment order; of each, a member with room on
/// its disk comes before one without.
pub(crate) fn elect(
    record: &mut PartitionRecord,
    electable: &Electable,
    min_isr: usize,
    unclean: bool,
) {
    if record.leader.is_some() {
        return;
    }
    if let Some(leader) = electable.first_of(&record.isr) {
        lead(record, leader);
    } else if let Some(leader) = electable.first_of(&record.elr) {
        lead(record, leader);
        replace_isr(record, vec![leader], min_isr);
    } else if let Some(leader) = electable.first_of(&longest_logs(record)) {
        lead_alone(record, leader);
        record.possible_loss = true;
    } else if unclean {
        let last_known = electable.first_of(&record.last_known_elr);
        if let Some(leader) = last_known.or_else(|| electable.first_of(&record.replicas)) {
            lead_alone(record, leader);
        }
    }
}

/// Makes a member of the ISR, or whoever becomes one next, the leader.
pub(crate) fn lead(record: &mut PartitionRecord, leader: BrokerId) {
    record.leader = Some(leader);
    record.last_known_elr.clear();
    record.reported_logs.clear();
    record.possible_loss = false;
}

/// Its log is the truth now: nobody else is known to agree with it.
fn lead_alone(record: &mut PartitionRecord, leader: BrokerId) {
    lead(record, leader);
    record.isr = vec![leader];
    record.elr.clear();
    record.recovering = true;
}

/// Whose logs are the longest (last epoch, then end), once every last known member has said how
/// long its own is; none while anybody in ISR or ELR may still come back whole.
fn longest_logs(record: &PartitionRecord) -> Vec<BrokerId> {
    if !record.isr.is_empty() || !record.elr.is_empty() {
        return Vec::new();
    }
    let length = |broker: &BrokerId| {
        let mut reports = record.reported_logs.iter();
        let log = reports.find(|log| log.broker_id == *broker)?;
        Some((log.last_epoch, log.log_end_offset))
    };
    let lengths: Option<Vec<_>> = record.last_known_elr.iter().map(length).collect();
    let longest = lengths.and_then(|lengths| lengths.into_iter().max());
    let last_known = record.last_known_elr.iter().copied();
    last_known
        .filter(|broker| longest.is_some() && length(broker) == longest)
        .collect()
}

/// A leader whose disk is full gives way to a member in sync that has room (P-23); where nobody
/// has any, nothing changes.
pub(crate) fn relieve(record: &mut PartitionRecord, electable: &Electable) {
    if record
        .leader
        .is_some_and(|leader| electable.full.contains(&leader))
        && let Some(successor) = electable.first_with_room(&record.isr)
    {
        lead(record, successor);
    }
}

fn sort_by_assignment(replicas: &[BrokerId], members: &mut [BrokerId]) {
    members.sort_by_key(|member| replicas.iter().position(|replica| replica == member));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn set(ids: &[i32]) -> Electable {
        Electable {
            brokers: ids.iter().copied().map(BrokerId).collect(),
            full: BTreeSet::new(),
        }
    }

    fn partition(isr: &[i32], elr: &[i32], leader: Option<i32>) -> PartitionRecord {
        PartitionRecord {
            replicas: brokers(&[1, 2, 3]),
            isr: brokers(isr),
            elr: brokers(elr),
            leader: leader.map(BrokerId),
            ..PartitionRecord::default()
        }
    }

    #[test]
    fn who_leaves_below_min_isr_stays_eligible() {
        let mut record = partition(&[1, 2, 3], &[], Some(1));
        leave(&mut record, BrokerId(3), 2);
        assert_eq!(
            (&record.isr, &record.elr),
            (&brokers(&[1, 2]), &brokers(&[]))
        );
        leave(&mut record, BrokerId(2), 2);
        assert_eq!((&record.isr, &record.elr), (&brokers(&[1]), &brokers(&[2])));
        leave(&mut record, BrokerId(1), 2);
        assert_eq!((&record.isr, &record.elr), (&brokers(&[1]), &brokers(&[2])));
        assert_eq!(record.leader, None);
    }

    #[test]
    fn the_isr_is_asked_before_the_elr() {
        let mut record = partition(&[3], &[1, 2], None);
        elect(&mut record, &set(&[1, 2, 3]), 2, false);
        assert_eq!(record.leader, Some(BrokerId(3)));
        assert_eq!(
            (&record.isr, &record.elr),
            (&brokers(&[3]), &brokers(&[1, 2]))
        );
    }

    #[test]
    fn an_eligible_replica_leads_where_the_last_in_sync_one_cannot() {
        let mut record = partition(&[3], &[2], None);
        elect(&mut record, &set(&[1, 2]), 2, false);
        assert_eq!(record.leader, Some(BrokerId(2)));
        // The former last one holds everything committed too.
        assert_eq!((&record.isr, &record.elr), (&brokers(&[2]), &brokers(&[3])));
        assert!(!record.recovering);
    }

    #[test]
    fn an_unclean_leader_makes_everybody_else_doubtful() {
        let mut record = partition(&[3], &[2], None);
        elect(&mut record, &set(&[1]), 2, false);
        assert_eq!(record.leader, None);
        elect(&mut record, &set(&[1]), 2, true);
        assert_eq!(record.leader, Some(BrokerId(1)));
        assert_eq!((&record.isr, &record.elr), (&brokers(&[1]), &brokers(&[])));
        assert!(record.recovering);
    }

    #[test]
    fn an_unclean_restart_of_the_last_one_leaves_a_memory_and_no_candidate() {
        let mut record = partition(&[3], &[], None);
        leave_unclean(&mut record, BrokerId(3));
        assert!(record.isr.is_empty() && record.elr.is_empty());
        assert_eq!(record.last_known_elr, brokers(&[3]));
        elect(&mut record, &set(&[1, 2, 3]), 2, false);
        assert_eq!(record.leader, None);
        // Asked to take a loss, the last known one is the least bad choice.
        elect(&mut record, &set(&[1, 2, 3]), 2, true);
        assert_eq!(record.leader, Some(BrokerId(3)));
        assert!(record.last_known_elr.is_empty());
    }

    #[test]
    fn only_a_new_leader_moves_the_leader_epoch() {
        let before = partition(&[1, 2, 3], &[], Some(1));
        assert_eq!(seal(&before, before.clone()), None);
        let mut shrunk = before.clone();
        leave(&mut shrunk, BrokerId(3), 2);
        let shrunk = seal(&before, shrunk).unwrap();
        assert_eq!(
            (shrunk.leader_epoch.get(), shrunk.partition_epoch.get()),
            (0, 1)
        );
        let mut led = shrunk.clone();
        leave(&mut led, BrokerId(1), 2);
        elect(&mut led, &set(&[2]), 2, false);
        let led = seal(&shrunk, led).unwrap();
        assert_eq!((led.leader_epoch.get(), led.partition_epoch.get()), (1, 2));
    }
}
