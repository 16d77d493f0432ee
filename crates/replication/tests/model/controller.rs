//! The controller's part, as far as one partition sees it: every version of its record in order.

use std::collections::BTreeMap;

use ottla_replication::{Assignment, IsrAnswer, IsrProposal, Registered};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch};

pub(crate) struct Controller {
    pub(crate) versions: Vec<Assignment>,
    next_broker_epoch: i64,
    pub(crate) elections: usize,
}

impl Controller {
    pub(crate) fn new(brokers: &[BrokerId]) -> Controller {
        let registered = brokers.iter().map(|b| {
            (
                *b,
                Registered {
                    epoch: BrokerEpoch::saturating(1),
                    eligible: true,
                },
            )
        });
        let first = Assignment {
            replicas: brokers.to_vec(),
            isr: brokers.to_vec(),
            leader: Some(brokers[0]),
            leader_epoch: LeaderEpoch::ZERO,
            partition_epoch: PartitionEpoch::ZERO,
            recovering: false,
            registered: registered.collect::<BTreeMap<_, _>>(),
        };
        Controller {
            versions: vec![first],
            next_broker_epoch: 2,
            elections: 0,
        }
    }

    pub(crate) fn current(&self) -> &Assignment {
        self.versions.last().unwrap()
    }

    fn eligible(&self, broker: BrokerId) -> bool {
        self.current()
            .registered
            .get(&broker)
            .is_some_and(|r| r.eligible)
    }

    /// Leaves the ISR unless it is the last member, and leads no more.
    pub(crate) fn fence(&mut self, broker: BrokerId) {
        let mut next = self.current().clone();
        if let Some(registered) = next.registered.get_mut(&broker) {
            registered.eligible = false;
        }
        if next.isr.len() > 1 {
            next.isr.retain(|member| *member != broker);
        }
        self.push(next, |leader| leader != broker);
    }

    pub(crate) fn unfence(&mut self, broker: BrokerId) {
        let mut next = self.current().clone();
        if let Some(registered) = next.registered.get_mut(&broker) {
            registered.eligible = true;
        }
        self.push(next, |_| true);
    }

    /// A new incarnation supersedes the old one, fenced; returns its epoch.
    pub(crate) fn register(&mut self, broker: BrokerId) -> BrokerEpoch {
        self.fence(broker);
        let epoch = BrokerEpoch::saturating(self.next_broker_epoch);
        self.next_broker_epoch += 1;
        let mut next = self.current().clone();
        next.registered.insert(
            broker,
            Registered {
                epoch,
                eligible: false,
            },
        );
        self.push(next, |_| true);
        epoch
    }

    fn push(&mut self, mut next: Assignment, may_lead: impl Fn(BrokerId) -> bool) {
        let live = |broker: &BrokerId| {
            next.registered.get(broker).is_some_and(|r| r.eligible) && may_lead(*broker)
        };
        let stays = next
            .leader
            .filter(|leader| live(leader) && next.isr.contains(leader));
        let leader = stays.or_else(|| {
            next.replicas
                .iter()
                .copied()
                .find(|b| next.isr.contains(b) && live(b))
        });
        if leader != next.leader {
            next.leader = leader;
            next.leader_epoch = next.leader_epoch.next();
            self.elections += 1;
        }
        let before = self.current();
        if next.leader_epoch != before.leader_epoch || next.isr != before.isr {
            next.partition_epoch = next.partition_epoch.next();
        }
        self.versions.push(next);
    }

    pub(crate) fn alter(&mut self, from: BrokerId, proposal: &IsrProposal) -> IsrAnswer {
        let current = self.current();
        let outdated = proposal.leader_epoch != current.leader_epoch
            || proposal.partition_epoch != current.partition_epoch
            || current.leader != Some(from);
        if outdated {
            return IsrAnswer::Outdated;
        }
        for (member, epoch) in &proposal.isr {
            let registered = current.registered.get(member).map(|r| r.epoch);
            if registered != *epoch || !self.eligible(*member) {
                return IsrAnswer::Refused;
            }
        }
        let mut next = current.clone();
        next.isr = proposal.isr.iter().map(|(member, _)| *member).collect();
        next.partition_epoch = next.partition_epoch.next();
        let answer = IsrAnswer::Committed {
            partition_epoch: next.partition_epoch,
            isr: next.isr.clone(),
        };
        self.versions.push(next);
        answer
    }
}
