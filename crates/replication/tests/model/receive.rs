//! What a node does with a message, and with the effects of its replica.

use ottla_replication::{
    Effect, FollowerReport, FrameFacts, FrameKind, FrameVerdict, IsrAnswer,
    lineage::{self, Position},
};
use ottla_types::{BrokerId, Offset};

use super::{
    cluster::{CONTROLLER, Cluster, Message},
    node::{Entry, Session, offset},
};

impl Cluster {
    pub(super) fn receive(&mut self, to: BrokerId, message: Message) {
        if to == CONTROLLER {
            let Message::Propose {
                from,
                proposal,
                given_up,
            } = message
            else {
                return;
            };
            let answer = self.controller.alter(from, &proposal);
            if given_up {
                return;
            }
            // The answer may be lost: then the leader is told that it does not know.
            let answer = if self.dice.below(4) == 0 {
                IsrAnswer::Unknown
            } else {
                answer
            };
            let leader_epoch = proposal.leader_epoch;
            self.network.push((
                from,
                Message::Answer {
                    leader_epoch,
                    answer,
                },
            ));
            return;
        }
        if !self.nodes[&to].up {
            return;
        }
        let now = self.now;
        let mut effects = Vec::new();
        let node = self.nodes.get_mut(&to).unwrap();
        match message {
            Message::Subscribe { .. } => self.on_subscribe(to, message),
            Message::Report {
                report,
                subscription,
            } => {
                let session = node.sessions.get(&report.broker_id);
                if session.is_some_and(|s| s.subscription == subscription) {
                    let _ = node.replica.on_report(now, report, &mut effects);
                }
                self.perform(to, effects);
            }
            Message::Frame { facts, entries } => self.on_frame(to, facts, &entries),
            Message::Answer {
                leader_epoch,
                answer,
            } => {
                node.replica
                    .on_isr_answer(now, leader_epoch, &answer, &mut effects);
                self.perform(to, effects);
            }
            Message::Propose { .. } => {}
        }
    }

    pub(super) fn on_subscribe(&mut self, to: BrokerId, message: Message) {
        let Message::Subscribe {
            from,
            incarnation,
            leader_epoch,
            subscription,
            log_end,
            last_epoch,
            flushed,
        } = message
        else {
            return;
        };
        let now = self.now;
        let node = self.nodes.get_mut(&to).unwrap();
        let Some(leader) = node.replica.leader() else {
            return;
        };
        let newer = node
            .sessions
            .get(&from)
            .is_some_and(|s| s.subscription > subscription);
        if leader.leader_epoch() != leader_epoch || newer {
            return;
        }
        let high_watermark = leader.high_watermark();
        let end = offset(node.log.len());
        let kind = match lineage::compare(&node.epochs, Offset::ZERO, end, last_epoch, log_end) {
            Position::Matches => FrameKind::Marks,
            Position::Diverges { epoch, end } => FrameKind::Diverging { epoch, end },
            Position::OutOfRange => FrameKind::OutOfRange,
        };
        let mut effects = Vec::new();
        if kind == FrameKind::Marks {
            let session = Session {
                subscription,
                next: log_end,
                sent_high_watermark: high_watermark,
            };
            node.sessions.insert(from, session);
            let report = FollowerReport {
                broker_id: from,
                incarnation,
                leader_epoch,
                log_end_offset: log_end,
                flushed_offset: flushed,
                no_space: false,
            };
            let _ = node.replica.on_report(now, report, &mut effects);
        }
        let facts = FrameFacts {
            leader_epoch,
            subscription,
            high_watermark,
            log_start_offset: Offset::ZERO,
            kind,
        };
        self.network.push((
            from,
            Message::Frame {
                facts,
                entries: Vec::new(),
            },
        ));
        self.perform(to, effects);
    }

    pub(super) fn on_frame(&mut self, to: BrokerId, facts: FrameFacts, entries: &[Entry]) {
        let now = self.now;
        let node = self.nodes.get_mut(&to).unwrap();
        let mut effects = Vec::new();
        let verdict = node
            .replica
            .on_frame(now, &facts, &node.epochs, &mut effects);
        match verdict {
            FrameVerdict::Ignore => {}
            FrameVerdict::Append => {
                node.append(entries);
                node.replica.on_log(now, node.marks(), &mut effects);
                node.replica.on_leader_marks(&facts, &mut effects);
            }
            FrameVerdict::Marks => node.replica.on_leader_marks(&facts, &mut effects),
            FrameVerdict::Truncate { to: cut } => {
                // never below what it knew as committed.
                assert!(
                    cut >= node.replica.high_watermark(),
                    "{to} would cut to {cut}, below its high watermark {}",
                    node.replica.high_watermark()
                );
                node.truncate(cut);
                node.flushed = node.log.len();
                node.replica.on_truncated(node.marks(), &mut effects);
            }
            FrameVerdict::RestartAt { .. } => panic!("no log start ever moves in this model"),
        }
        self.perform(to, effects);
        self.report(to);
    }

    pub(super) fn perform(&mut self, id: BrokerId, effects: Vec<Effect>) {
        for effect in effects {
            let node = self.nodes.get_mut(&id).unwrap();
            match effect {
                Effect::BecameLeader {
                    leader_epoch,
                    start,
                } => {
                    node.sessions.clear();
                    if node
                        .epochs
                        .last()
                        .is_none_or(|(epoch, _)| *epoch < leader_epoch)
                    {
                        node.drop_empty_epochs();
                        node.epochs.push((leader_epoch, start));
                    }
                }
                Effect::LeadershipEnded => node.sessions.clear(),
                Effect::BecameFollower { .. } => node.drop_empty_epochs(),
                Effect::HighWatermark(_) | Effect::IsrChanged { .. } => {}
                Effect::ProposeIsr(proposal) => {
                    self.network.push((
                        CONTROLLER,
                        Message::Propose {
                            from: id,
                            proposal,
                            given_up: false,
                        },
                    ));
                }
                Effect::Subscribe {
                    leader,
                    leader_epoch,
                    subscription,
                } => {
                    let message = Message::Subscribe {
                        from: id,
                        incarnation: node.incarnation,
                        leader_epoch,
                        subscription,
                        log_end: offset(node.log.len()),
                        last_epoch: node.last_record_epoch(),
                        flushed: offset(node.flushed),
                    };
                    self.network.push((leader, message));
                }
            }
        }
    }
}
