//! The first formation of the quorum, and the replacement of voters whose disk is blank.
//!
//! # Invariants
//! * A quorum is formed only by the lowest configured node id, and only when every configured
//!   voter has answered that it is blank.
//! * One membership change at a time; a change that a crash left half done is completed before
//!   anything else (C-14).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tonic::Request;

use ottla_rpc::{convert, raft::IdentifyRequest};
use ottla_types::BrokerId;

use crate::{
    config::Voter,
    peers::Peers,
    raft::{Address, ProposeError, Quorum, QuorumState, ReplicaKey},
};

/// Pause between rounds of asking.
const ROUND: Duration = Duration::from_millis(200);
/// How long a voter may take to say who it is.
const IDENTIFY_LIMIT: Duration = Duration::from_millis(500);
/// A voter that answered within this time is whom it was.
const ANSWER_FRESH: Duration = Duration::from_secs(1);
/// A learner this close to the end of the log has caught up.
const CAUGHT_UP_ENTRIES: u64 = 16;

/// Who a configured voter says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identified {
    pub(crate) key: ReplicaKey,
    pub(crate) blank: bool,
}

/// Forms the quorum and mends it.
pub(crate) struct Formation {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) shutdown: CancellationToken,
}

impl Formation {
    /// Forms the quorum if it is this controller's turn; returns once a quorum is known here.
    pub(crate) async fn form(self: Arc<Self>) {
        let lowest = self.peers.voters().keys().next().copied();
        let mut told = false;
        while matches!(self.quorum.is_blank().await, Ok(true)) {
            if lowest == Some(self.quorum.me().node_id)
                && let Some(members) = self.all_blank().await
            {
                tracing::info!(voters = ?members.keys().collect::<Vec<_>>(), "forming the quorum");
                if let Err(error) = self.quorum.form(members).await {
                    tracing::warn!(%error, "the quorum could not be formed");
                }
                continue;
            }
            if !told {
                tracing::info!("waiting for the quorum to form");
                told = true;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    /// Every configured voter, if every one answered and is blank.
    async fn all_blank(&self) -> Option<BTreeMap<ReplicaKey, Address>> {
        let calls = self
            .peers
            .voters()
            .values()
            .map(|voter| self.identify(voter));
        let answers = futures::future::join_all(calls).await;
        let mut members = BTreeMap::new();
        for (voter, answer) in self.peers.voters().values().zip(answers) {
            let identified = answer.filter(|identified| identified.blank)?;
            members.insert(identified.key, address(voter));
        }
        Some(members)
    }

    /// Asks a configured voter who it is; `None` unless it answers under its own node id.
    async fn identify(&self, voter: &Voter) -> Option<Identified> {
        let me = self.quorum.me();
        if voter.node_id == me.node_id {
            let blank = self.quorum.is_blank().await.ok()?;
            return Some(Identified { key: me, blank });
        }
        let mut client = self.peers.client(voter.node_id)?;
        let request = Request::new(IdentifyRequest {
            node_id: me.node_id.get(),
            directory_id: convert::uuid_bytes(me.directory_id),
            cluster_id: self.peers.cluster_id(),
        });
        let reply = match tokio::time::timeout(IDENTIFY_LIMIT, client.identify(request)).await {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) if status.code() == tonic::Code::FailedPrecondition => {
                tracing::warn!(voter = %voter.node_id, reason = status.message(), "voter refused");
                return None;
            }
            Ok(Err(_)) | Err(_) => return None,
        };
        if reply.node_id != voter.node_id.get() {
            let (expected, found) = (voter.node_id.get(), reply.node_id);
            tracing::warn!(expected, found, "another node answers at a voter's address");
            return None;
        }
        if !self.peers.same_cluster(&reply.cluster_id) {
            tracing::warn!(voter = %voter.node_id, "a voter belongs to another cluster");
            return None;
        }
        let directory_id = convert::uuid(&reply.directory_id, "directory_id").ok()?;
        let key = ReplicaKey {
            node_id: voter.node_id,
            directory_id,
        };
        Some(Identified {
            key,
            blank: reply.blank,
        })
    }

    /// As active controller, mends the membership until `ended`.
    pub(crate) async fn mend(self: Arc<Self>, ended: CancellationToken) {
        loop {
            tokio::select! {
                () = ended.cancelled() => return,
                () = tokio::time::sleep(ROUND) => {}
            }
            if let Err(error) = self.mend_once().await {
                tracing::info!(%error, "membership change postponed");
            }
        }
    }

    async fn mend_once(&self) -> Result<(), ProposeError> {
        let state = self.quorum.state();
        if state.voters.len() > 1 {
            tracing::info!("completing a membership change");
            return self.quorum.finish_change().await;
        }
        for voter in self.peers.voters().values() {
            if self.looks_fine(&state, voter.node_id) {
                continue;
            }
            let Some(identified) = self.identify(voter).await else {
                continue;
            };
            if let Some(step) = next_step(&state, identified, self.quorum.me()) {
                return self.take(step, voter).await;
            }
        }
        Ok(())
    }

    /// The voter under this node id answered lately under the identity that votes.
    fn looks_fine(&self, state: &QuorumState, node_id: BrokerId) -> bool {
        if node_id == self.quorum.me().node_id {
            return true;
        }
        let voter = state
            .all_voters()
            .into_iter()
            .find(|key| key.node_id == node_id);
        let answered = voter.and_then(|key| self.peers.last_answer(key));
        answered.is_some_and(|at| at.elapsed() < ANSWER_FRESH)
    }

    async fn take(&self, step: Step, voter: &Voter) -> Result<(), ProposeError> {
        match step {
            Step::RemoveVoter(old) => {
                tracing::warn!(%old, "a voter came back with a blank disk, removing the old one");
                self.quorum.remove_voter(old).await
            }
            Step::RemoveLearner(old) => self.quorum.remove_learner(old).await,
            Step::AddLearner(new) => {
                tracing::info!(%new, "adding a controller as learner");
                self.quorum.add_learner(new, address(voter)).await
            }
            Step::Promote(new) => {
                tracing::info!(%new, "a controller has caught up and gets its vote");
                self.quorum.promote(new).await
            }
        }
    }
}

/// One change of membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    RemoveVoter(ReplicaKey),
    RemoveLearner(ReplicaKey),
    AddLearner(ReplicaKey),
    Promote(ReplicaKey),
}

/// What to do next so that `identified` becomes the voter under its node id.
fn next_step(state: &QuorumState, identified: Identified, me: ReplicaKey) -> Option<Step> {
    let key = identified.key;
    let same_node = |other: &&ReplicaKey| other.node_id == key.node_id && **other != key;
    let voters: BTreeSet<ReplicaKey> = state.all_voters();
    if voters.contains(&key) || key == me {
        return None;
    }
    let learner = state.learners.contains(&key);
    if !identified.blank && !learner {
        return None; // It knows a quorum, but not this one: a person must look.
    }
    if let Some(old) = voters.iter().find(same_node) {
        return Some(Step::RemoveVoter(*old));
    }
    if let Some(old) = state.learners.iter().find(same_node) {
        return Some(Step::RemoveLearner(*old));
    }
    if !learner {
        return Some(Step::AddLearner(key));
    }
    let matched = state.matched.get(&key).copied().flatten()?;
    let last = state.last_log.map_or(0, |id| id.index);
    (matched.saturating_add(CAUGHT_UP_ENTRIES) >= last).then_some(Step::Promote(key))
}

fn address(voter: &Voter) -> Address {
    Address {
        host: voter.host.clone(),
        port: voter.port,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn key(node: i32, directory: u128) -> ReplicaKey {
        ReplicaKey {
            node_id: BrokerId(node),
            directory_id: Uuid::from_u128(directory),
        }
    }

    #[test]
    fn a_blank_disk_is_removed_added_and_promoted_in_single_steps() {
        let me = key(1, 1);
        let mut state = QuorumState {
            voters: vec![BTreeSet::from([me, key(2, 2), key(3, 3)])],
            ..QuorumState::default()
        };
        let blank = Identified {
            key: key(3, 33),
            blank: true,
        };
        assert_eq!(
            next_step(&state, blank, me),
            Some(Step::RemoveVoter(key(3, 3)))
        );
        state.voters = vec![BTreeSet::from([me, key(2, 2)])];
        assert_eq!(
            next_step(&state, blank, me),
            Some(Step::AddLearner(key(3, 33)))
        );
        state.learners = BTreeSet::from([key(3, 33)]);
        let learning = Identified {
            blank: false,
            ..blank
        };
        assert_eq!(next_step(&state, learning, me), None);
        state.matched = BTreeMap::from([(key(3, 33), Some(0))]);
        assert_eq!(
            next_step(&state, learning, me),
            Some(Step::Promote(key(3, 33)))
        );
        state.voters = vec![BTreeSet::from([me, key(2, 2), key(3, 33)])];
        assert_eq!(next_step(&state, learning, me), None);
    }

    #[test]
    fn a_disk_of_another_quorum_is_left_alone() {
        let me = key(1, 1);
        let state = QuorumState {
            voters: vec![BTreeSet::from([me, key(2, 2), key(3, 3)])],
            ..QuorumState::default()
        };
        let stranger = Identified {
            key: key(3, 33),
            blank: false,
        };
        assert_eq!(next_step(&state, stranger, me), None);
        let known = Identified {
            key: key(3, 3),
            blank: false,
        };
        assert_eq!(next_step(&state, known, me), None);
    }
}
