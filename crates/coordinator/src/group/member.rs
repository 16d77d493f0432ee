//! One member of a group.

use bytes::Bytes;

use ottla_types::MonotonicMs;

use crate::{GroupError, JoinRequest, MemberMetadata, Protocol, ReplyToken, outbox::Outbox};

/// A member with its session, and whom it owes an answer.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) member_id: String,
    pub(super) group_instance_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: i32,
    pub(super) rebalance_timeout_ms: i32,
    /// The most preferred first.
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// It rejoined this round and waits for the generation.
    pub(super) awaiting_join: Option<ReplyToken>,
    /// It waits for its assignment.
    pub(super) awaiting_sync: Option<ReplyToken>,
    pub(super) session_deadline: MonotonicMs,
    /// It has not been told its first generation yet.
    pub(super) is_new: bool,
    /// The member that joined first leads.
    pub(super) join_order: u64,
}

fn positive_ms(ms: i32) -> u64 {
    u64::try_from(ms).unwrap_or(0)
}

impl Member {
    pub(super) fn new(member_id: String, request: &JoinRequest, deadline: MonotonicMs) -> Member {
        Member {
            member_id,
            group_instance_id: request.group_instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request
                .rebalance_timeout_ms
                .unwrap_or(request.session_timeout_ms),
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            session_deadline: deadline,
            is_new: true,
            join_order: 0,
        }
    }

    /// A member as it was stored. Only its subscription under the chosen protocol is known.
    pub(super) fn load(
        now: MonotonicMs,
        stored: &MemberMetadata,
        protocol: Option<&str>,
    ) -> Member {
        let known = |name: &str| Protocol {
            name: name.to_owned(),
            metadata: stored.subscription.clone(),
        };
        Member {
            member_id: stored.member_id.clone(),
            group_instance_id: stored.group_instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            session_timeout_ms: stored.session_timeout_ms,
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            protocols: protocol.map(known).into_iter().collect(),
            assignment: stored.assignment.clone(),
            awaiting_join: None,
            awaiting_sync: None,
            session_deadline: now.plus_ms(positive_ms(stored.session_timeout_ms)),
            is_new: false,
            join_order: 0,
        }
    }

    pub(super) fn stored(&self, protocol: Option<&str>, assignment: Bytes) -> MemberMetadata {
        MemberMetadata {
            member_id: self.member_id.clone(),
            group_instance_id: self.group_instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            session_timeout_ms: self.session_timeout_ms,
            subscription: protocol.map(|name| self.metadata(name)).unwrap_or_default(),
            assignment,
        }
    }

    /// Takes over what a rejoin says about the member.
    pub(super) fn update(&mut self, request: &JoinRequest) {
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = request
            .rebalance_timeout_ms
            .unwrap_or(request.session_timeout_ms);
        self.protocols.clone_from(&request.protocols);
    }

    pub(super) fn rebalance_timeout(&self) -> u64 {
        positive_ms(self.rebalance_timeout_ms)
    }

    /// It showed life.
    pub(super) fn alive(&mut self, now: MonotonicMs) {
        self.session_deadline = now.plus_ms(positive_ms(self.session_timeout_ms));
    }

    /// Whether it fell silent. A member whose join or sync is parked cannot send heartbeats, so
    /// it counts as alive; one that is new has a long deadline of its own.
    pub(super) fn is_silent(&self, now: MonotonicMs) -> bool {
        let parked = self.awaiting_join.is_some() || self.awaiting_sync.is_some();
        self.session_deadline <= now && (self.is_new || !parked)
    }

    /// Its subscription under this protocol.
    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        let named = self
            .protocols
            .iter()
            .find(|candidate| candidate.name == protocol);
        named
            .map(|protocol| protocol.metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols
            .iter()
            .any(|candidate| candidate.name == protocol)
    }

    /// Parks its join. An earlier one of the same member was given up by the client; it is
    /// answered all the same, so that nobody waits for ever.
    pub(super) fn park_join(&mut self, token: ReplyToken, out: &mut Outbox) {
        if let Some(earlier) = self.awaiting_join.replace(token) {
            out.join(earlier, Err(GroupError::RebalanceInProgress));
        }
    }

    /// Parks its sync, like [`Member::park_join`].
    pub(super) fn park_sync(&mut self, token: ReplyToken, out: &mut Outbox) {
        if let Some(earlier) = self.awaiting_sync.replace(token) {
            out.sync(earlier, Err(GroupError::RebalanceInProgress));
        }
    }

    /// Answers whatever it waits for with an error.
    pub(super) fn fail(&mut self, error: &GroupError, out: &mut Outbox) {
        if let Some(token) = self.awaiting_join.take() {
            out.join(token, Err(error.clone()));
        }
        if let Some(token) = self.awaiting_sync.take() {
            out.sync(token, Err(error.clone()));
        }
    }
}
