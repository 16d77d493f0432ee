//! The schedule: who does what next, drawn from a seed, and what must hold after each step.

use std::collections::BTreeMap;

use ottla_replication::{FollowerReport, FrameFacts, FrameKind, IsrAnswer, IsrProposal, Settings};
use ottla_types::{BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, MonotonicMs, Offset};

use super::{
    controller::Controller,
    node::{Entry, Node, index, offset},
};

/// A small deterministic generator (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let drawn = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % n
    }
}

#[derive(Clone)]
pub(super) enum Message {
    Subscribe {
        from: BrokerId,
        incarnation: BrokerEpoch,
        leader_epoch: LeaderEpoch,
        subscription: u64,
        log_end: Offset,
        last_epoch: Option<LeaderEpoch>,
        flushed: Offset,
    },
    Report {
        report: FollowerReport,
        subscription: u64,
    },
    Frame {
        facts: FrameFacts,
        entries: Vec<Entry>,
    },
    Propose {
        from: BrokerId,
        proposal: IsrProposal,
        /// The proposer has been told that the outcome is unknown.
        given_up: bool,
    },
    Answer {
        leader_epoch: LeaderEpoch,
        answer: IsrAnswer,
    },
}

pub(crate) struct Cluster {
    pub(super) mode: FlushMode,
    pub(super) settings: Settings,
    pub(super) dice: Dice,
    pub(super) now: MonotonicMs,
    pub(crate) controller: Controller,
    pub(super) nodes: BTreeMap<BrokerId, Node>,
    pub(super) network: Vec<(BrokerId, Message)>,
    pub(crate) committed: Vec<Entry>,
    pub(super) next_value: u64,
    /// Highest high watermark seen, by leader and epoch.
    pub(super) led: BTreeMap<(BrokerId, LeaderEpoch), Offset>,
}

/// Stands for the controller in the network.
pub(super) const CONTROLLER: BrokerId = BrokerId(99);

impl Cluster {
    pub(crate) fn new(mode: FlushMode, dice: Dice) -> Cluster {
        let settings = Settings {
            flush_mode: mode,
            min_insync_replicas: 2,
            replica_lag_time_ms_max: 1_000,
        };
        let ids = [BrokerId(0), BrokerId(1), BrokerId(2)];
        Cluster {
            mode,
            settings,
            dice,
            now: MonotonicMs(1),
            controller: Controller::new(&ids),
            nodes: ids
                .iter()
                .map(|id| (*id, Node::new(*id, settings)))
                .collect(),
            network: Vec::new(),
            committed: Vec::new(),
            next_value: 0,
            led: BTreeMap::new(),
        }
    }

    fn pick(&mut self) -> BrokerId {
        BrokerId(i32::try_from(self.dice.below(3)).unwrap())
    }

    pub(crate) fn step(&mut self) {
        let id = self.pick();
        match self.dice.below(100) {
            0..10 => self.produce(id),
            10..20 => self.flush(id),
            20..62 => self.deliver(),
            62 => self.lose(),
            63 => self.repeat(),
            64..74 => self.learn(id),
            74..84 => self.push(id),
            84..88 => self.pass_time(),
            88..92 => self.toggle_link(id),
            92 => {
                if self.dice.below(3) == 0 {
                    self.controller.fence(id);
                }
            }
            93..95 => {
                if self.nodes[&id].up {
                    self.controller.unfence(id);
                }
            }
            95 if self.dice.below(2) == 0 => {
                let kept = self.dice.below(4);
                let mode = self.mode;
                let node = self.nodes.get_mut(&id).unwrap();
                if node.up {
                    node.checkpointed_hw = node.replica.high_watermark().min(offset(node.flushed));
                    node.crash(kept, mode);
                }
            }
            96..99 => {
                if !self.nodes[&id].up {
                    self.restart(id);
                }
            }
            99 if self.dice.below(4) == 0 => self.reset_streams(id),
            _ => self.deliver(),
        }
    }

    fn restart(&mut self, id: BrokerId) {
        let incarnation = self.controller.register(id);
        let cursor = self.controller.versions.len() - 1;
        self.nodes
            .get_mut(&id)
            .unwrap()
            .restart(incarnation, cursor, self.settings);
    }

    fn produce(&mut self, id: BrokerId) {
        let now = self.now;
        let value = self.next_value;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(leader) = node.replica.leader().filter(|_| node.up) else {
            return;
        };
        let epoch = leader.leader_epoch();
        self.next_value += 1;
        node.append(&[(epoch, value)]);
        let mut effects = Vec::new();
        node.replica.on_log(now, node.marks(), &mut effects);
        self.perform(id, effects);
    }

    fn flush(&mut self, id: BrokerId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.up || node.flushed == node.log.len() {
            return;
        }
        node.flushed = node.log.len();
        let mut effects = Vec::new();
        node.replica.on_log(now, node.marks(), &mut effects);
        self.perform(id, effects);
        self.report(id);
    }

    /// A follower tells its leader how far it is.
    pub(super) fn report(&mut self, id: BrokerId) {
        let node = &self.nodes[&id];
        let Some(follower) = node
            .replica
            .follower()
            .filter(|f| node.up && f.is_subscribed())
        else {
            return;
        };
        let Some(leader) = follower.leader() else {
            return;
        };
        let report = FollowerReport {
            broker_id: id,
            incarnation: node.incarnation,
            leader_epoch: follower.leader_epoch(),
            log_end_offset: offset(node.log.len()),
            flushed_offset: offset(node.flushed),
            no_space: false,
        };
        let subscription = follower.subscription();
        self.network.push((
            leader,
            Message::Report {
                report,
                subscription,
            },
        ));
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        // Mostly in order, sometimes not.
        let at = match self.dice.below(4) {
            0 => self.dice.below(self.network.len()),
            _ => 0,
        };
        let (to, message) = self.network.remove(at);
        self.receive(to, message);
    }

    fn lose(&mut self) {
        if !self.network.is_empty() {
            let at = self.dice.below(self.network.len());
            // A proposal may be decided long after its sender gave up on it.
            let late = self.dice.below(2) == 0;
            if let (_, Message::Propose { .. }) = &self.network[at]
                && late
            {
                self.give_up(at);
                return;
            }
            self.give_up(at);
            self.network.remove(at);
        }
    }

    /// A proposer whose answer does not come knows that it does not know, exactly once.
    fn give_up(&mut self, at: usize) {
        let (to, leader_epoch) = match &mut self.network[at] {
            (
                _,
                Message::Propose {
                    from,
                    proposal,
                    given_up,
                },
            ) if !*given_up => {
                *given_up = true;
                (*from, proposal.leader_epoch)
            }
            (to, Message::Answer { leader_epoch, .. }) => (*to, *leader_epoch),
            _ => return,
        };
        let answer = IsrAnswer::Unknown;
        self.network.push((
            to,
            Message::Answer {
                leader_epoch,
                answer,
            },
        ));
    }

    fn repeat(&mut self) {
        if !self.network.is_empty() {
            let at = self.dice.below(self.network.len());
            // Proposals and their answers are remote calls: one answer each.
            if !matches!(
                self.network[at].1,
                Message::Propose { .. } | Message::Answer { .. }
            ) {
                self.network.push(self.network[at].clone());
            }
        }
    }

    fn learn(&mut self, id: BrokerId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.up || node.cursor >= self.controller.versions.len() {
            return;
        }
        let version = self.controller.versions[node.cursor].clone();
        node.cursor += 1;
        let mut effects = Vec::new();
        node.replica.on_assignment(now, &version, &mut effects);
        self.perform(id, effects);
    }

    fn toggle_link(&mut self, id: BrokerId) {
        let other = self.pick();
        let up = self.dice.below(5) > 0;
        self.set_link(id, other, up);
    }

    fn set_link(&mut self, id: BrokerId, other: BrokerId, up: bool) {
        let node = self.nodes.get_mut(&id).unwrap();
        if id == other || !node.up {
            return;
        }
        let mut effects = Vec::new();
        if up {
            node.replica.on_link_up(other, &mut effects);
        } else {
            node.replica.on_link_down(other);
        }
        self.perform(id, effects);
    }

    fn reset_streams(&mut self, id: BrokerId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let mut effects = Vec::new();
        for follower in std::mem::take(&mut node.sessions).into_keys() {
            node.replica
                .on_follower_disconnected(now, follower, &mut effects);
        }
        self.perform(id, effects);
    }

    fn pass_time(&mut self) {
        self.now = self
            .now
            .plus_ms(50 + u64::try_from(self.dice.below(400)).unwrap());
        self.tick_all();
    }

    fn tick_all(&mut self) {
        for id in [BrokerId(0), BrokerId(1), BrokerId(2)] {
            let node = self.nodes.get_mut(&id).unwrap();
            if node.up {
                let mut effects = Vec::new();
                node.replica.on_tick(self.now, &mut effects);
                self.perform(id, effects);
            }
        }
    }

    /// A leader sends each session what it has appended since.
    fn push(&mut self, id: BrokerId) {
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(leader) = node.replica.leader().filter(|_| node.up) else {
            return;
        };
        let (leader_epoch, high_watermark) = (leader.leader_epoch(), leader.high_watermark());
        let end = offset(node.log.len());
        for (follower, session) in &mut node.sessions {
            let entries = node.log[index(session.next)..].to_vec();
            if entries.is_empty() && session.sent_high_watermark == high_watermark {
                continue;
            }
            session.sent_high_watermark = high_watermark;
            let kind = match entries.last() {
                None => FrameKind::Marks,
                Some((batch_epoch, _)) => FrameKind::Data {
                    base_offset: session.next,
                    next_offset: end,
                    batch_epoch: *batch_epoch,
                },
            };
            session.next = end;
            let facts = FrameFacts {
                leader_epoch,
                subscription: session.subscription,
                high_watermark,
                log_start_offset: Offset::ZERO,
                kind,
            };
            self.network
                .push((*follower, Message::Frame { facts, entries }));
        }
    }

    /// Faults end: everybody up, unfenced, connected; messages arrive in order.
    pub(crate) fn heal(&mut self) {
        for at in 0..self.network.len() {
            self.give_up(at);
        }
        self.network.retain(|(_, message)| {
            matches!(
                message,
                Message::Answer {
                    answer: IsrAnswer::Unknown,
                    ..
                }
            )
        });
        let ids = [BrokerId(0), BrokerId(1), BrokerId(2)];
        for id in ids {
            if !self.nodes[&id].up {
                self.restart(id);
            }
            self.reset_streams(id);
            self.controller.unfence(id);
        }
        for round in 0..80 {
            for id in ids {
                while self.nodes[&id].cursor < self.controller.versions.len() {
                    self.learn(id);
                }
                for other in ids {
                    if round % 10 == 0 {
                        self.set_link(id, other, false);
                        self.set_link(id, other, true);
                    }
                }
                if round == 40 {
                    self.produce(id);
                }
                self.push(id);
                self.flush(id);
            }
            while !self.network.is_empty() {
                let (to, message) = self.network.remove(0);
                self.receive(to, message);
            }
            self.now = self.now.plus_ms(60);
            self.tick_all();
            self.check();
        }
    }

    pub(crate) fn fingerprint(&self) -> Vec<(Vec<Entry>, Offset)> {
        self.nodes
            .values()
            .map(|n| (n.log.clone(), n.replica.high_watermark()))
            .collect()
    }
}
