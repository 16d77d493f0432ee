//! What must hold after each step, and once faults have ended.

use ottla_replication::Role;
use ottla_types::{BrokerId, FlushMode};

use super::{
    cluster::Cluster,
    node::{Entry, Node, index, offset},
};

impl Cluster {
    pub(crate) fn check(&mut self) {
        self.check_committed();
        for node in self.nodes.values() {
            let hw = node.replica.high_watermark();
            assert!(!node.up || hw <= offset(node.log.len()), "R-17");
            if let Role::Leader(leader) = node.replica.role() {
                let seen = self
                    .led
                    .entry((node.id, leader.leader_epoch()))
                    .or_default();
                assert!(hw >= *seen, "R-6: {} fell from {seen} to {hw}", node.id);
                *seen = hw;
                self.check_maximal(node);
            }
        }
        self.check_log_matching();
    }

    /// what any leader calls committed agrees, and the committed ISR stores it.
    fn check_committed(&mut self) {
        for node in self.nodes.values().filter(|node| node.up) {
            let Some(leader) = node.replica.leader() else {
                continue;
            };
            let hw = index(leader.high_watermark());
            let known = hw.min(self.committed.len());
            assert_eq!(
                node.log[..known],
                self.committed[..known],
                "P-2: leader {}",
                node.id
            );
            self.committed.extend_from_slice(&node.log[known..hw]);
        }
        let current = self.controller.current();
        for member in &current.isr {
            let node = &self.nodes[member];
            let stored = match self.mode {
                FlushMode::Ack => node.flushed,
                FlushMode::Page => node.log.len(),
            };
            let count = self.committed.len();
            assert!(
                stored >= count,
                "R-4: {member} stores {stored} of {count} committed"
            );
            assert_eq!(node.log[..count], self.committed[..], "R-4: {member}");
        }
    }

    /// a leader whose record is the current one counts every committed member.
    fn check_maximal(&self, node: &Node) {
        let current = self.controller.current();
        let leader = node.replica.leader().unwrap();
        if leader.leader_epoch() != current.leader_epoch {
            return;
        }
        if leader.partition_epoch() == current.partition_epoch {
            assert_eq!(leader.isr(), sorted(&current.isr), "R-12");
        }
        if leader.partition_epoch().next() == current.partition_epoch {
            let removed_elsewhere = current.isr.len() < leader.isr().len();
            let covered = current.isr.iter().all(|b| leader.maximal_isr().contains(b));
            assert!(
                covered || removed_elsewhere,
                "R-12: an addition does not bind"
            );
        }
    }

    /// equal offset and epoch means equal logs up to there.
    fn check_log_matching(&self) {
        let logs: Vec<&Vec<Entry>> = self.nodes.values().map(|node| &node.log).collect();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let shared = logs[a].iter().zip(logs[b]).rposition_equal_epoch();
            assert_eq!(logs[a][..shared], logs[b][..shared], "R-2");
        }
    }

    /// full ISR, high watermark at the log end, equal logs.
    pub(crate) fn check_converged(&self) {
        let current = self.controller.current();
        assert_eq!(sorted(&current.isr).len(), 3, "R-19: full isr, {current:?}");
        let leader = &self.nodes[&current.leader.expect("R-19: a leader")];
        assert!(leader.log.len() > self.committed.len().saturating_sub(1));
        for node in self.nodes.values() {
            assert_eq!(node.log, leader.log, "R-19: equal logs");
            assert_eq!(
                node.replica.high_watermark(),
                offset(leader.log.len()),
                "R-19: idle"
            );
        }
    }
}

fn sorted(brokers: &[BrokerId]) -> Vec<BrokerId> {
    let mut brokers = brokers.to_vec();
    brokers.sort_unstable();
    brokers
}

trait SharedPrefix {
    /// One past the last position at which both entries have the same epoch.
    fn rposition_equal_epoch(self) -> usize;
}

impl<'a, I: Iterator<Item = (&'a Entry, &'a Entry)>> SharedPrefix for I {
    fn rposition_equal_epoch(self) -> usize {
        let mut shared = 0;
        for (position, (a, b)) in self.enumerate() {
            if a.0 == b.0 {
                shared = position + 1;
            }
        }
        shared
    }
}
