//! When this controller stands for election, and how it shows itself alive as leader.
//!
//! openraft's own timers are off: it waits a lease plus a timeout drawn once per process. Here a
//! follower stands when the lease has ended, after a short random wait, which is shorter still
//! when the leader's process is known to have died; and only once a majority has said that it
//! would vote for it (a pre-vote), so that a controller that cannot be heard, or cannot hear,
//! does not raise terms (P-19, F-3).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use rand::Rng;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::{
    config::QuorumTiming,
    contact::Contact,
    peers::{Dial, Peers},
    raft::{PreVoteReply, PreVoteRequest, Quorum, QuorumState, ReplicaKey, Role, decode_body},
};

/// Random wait before standing when the leader is known to be gone.
const JITTER_LEADER_GONE: Duration = Duration::from_millis(40);
/// Pause before the stream to the leader is opened again.
const WATCH_RETRY: Duration = Duration::from_millis(50);
/// A local or nearby process that does not accept within this time says nothing.
const DIAL_LIMIT: Duration = Duration::from_millis(200);

/// Decides when to stand.
pub(crate) struct Elections {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) contact: Arc<Contact>,
    pub(crate) timing: QuorumTiming,
    /// This controller is about to stop and must not lead again.
    pub(crate) resigning: CancellationToken,
    pub(crate) shutdown: CancellationToken,
}

impl Elections {
    /// As leader, sends heartbeats.
    pub(crate) async fn send_heartbeats(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(self.timing.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if self.quorum.state().role == Role::Leader {
                self.quorum.heartbeat().await;
            }
        }
    }

    /// Stands for election whenever there is no leader.
    pub(crate) async fn stand(self: Arc<Self>) {
        let mut changes = self.quorum.changes();
        let mut not_before = Instant::now();
        let mut led = false;
        loop {
            let state = changes.borrow_and_update().clone();
            if led && state.role != Role::Leader {
                // It was deposed: whoever did that gets the time to lead.
                self.contact.hold();
            }
            led = state.role == Role::Leader;
            let alone = state.all_voters() == BTreeSet::from([self.quorum.me()]);
            let may_stand = matches!(state.role, Role::Follower | Role::Candidate)
                && state.is_voter(self.quorum.me())
                && !self.resigning.is_cancelled();
            let at = if alone {
                not_before
            } else {
                self.stand_at().max(not_before)
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep_until(at), if may_stand => {}
                () = self.contact.changed(), if may_stand => continue,
                changed = changes.changed() => {
                    if changed.is_err() { return }
                    continue;
                }
            }
            if self.resigning.is_cancelled() || (!alone && self.contact.ends().0 > Instant::now()) {
                continue; // A leader was heard while waiting, or a vote given.
            }
            not_before = self.campaign(&state).await;
        }
    }

    /// When the lease has ended and nobody else's turn lasts, and a random wait.
    fn stand_at(&self) -> Instant {
        let (lease_end, gone) = self.contact.ends();
        let jitter = if gone {
            JITTER_LEADER_GONE
        } else {
            self.timing.election_jitter
        };
        lease_end + random(jitter)
    }

    /// Asks for a pre-vote and, given a majority, stands. Tells when to try again at the
    /// earliest.
    async fn campaign(&self, state: &QuorumState) -> Instant {
        if self.pre_vote(state).await {
            tracing::info!(term = state.term + 1, "standing for election");
            self.quorum.elect().await;
            return Instant::now() + self.timing.vote_timeout + random(self.timing.election_jitter);
        }
        Instant::now() + self.timing.heartbeat + random(self.timing.election_jitter)
    }

    async fn pre_vote(&self, state: &QuorumState) -> bool {
        let mut granted = BTreeSet::from([self.quorum.me()]);
        let body = ottla_metadata::encode(&PreVoteRequest {
            last_log_id: state.last_log,
        });
        let mut calls: FuturesUnordered<_> = state
            .all_voters()
            .into_iter()
            .filter(|voter| *voter != self.quorum.me())
            .map(|voter| self.ask(voter, body.clone()))
            .collect();
        while !state.is_majority(&granted) {
            match calls.next().await {
                Some(Some(voter)) => granted.insert(voter),
                Some(None) => continue,
                None => return false,
            };
        }
        true
    }

    async fn ask(&self, voter: ReplicaKey, body: Vec<u8>) -> Option<ReplicaKey> {
        let mut client = self.peers.client(voter.node_id)?;
        let request = Request::new(self.peers.envelope(voter, body));
        let call = tokio::time::timeout(self.timing.vote_timeout, client.pre_vote(request));
        let reply = call.await.ok()?.ok()?.into_inner();
        let reply: PreVoteReply = decode_body(&reply.body).ok()?;
        reply.granted.then_some(voter)
    }

    /// As follower, keeps a stream open to the leader: its end, and a refused connection after
    /// it, say that the leader's process is gone.
    pub(crate) async fn watch_leader(self: Arc<Self>) {
        let mut changes = self.quorum.changes();
        loop {
            let leader = changes.borrow_and_update().leader;
            let watching = async {
                match leader {
                    Some(leader) if leader != self.quorum.me() => self.watch(leader).await,
                    Some(_) | None => std::future::pending().await,
                }
            };
            tokio::pin!(watching);
            loop {
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = &mut watching => break,
                    changed = changes.changed() => {
                        if changed.is_err() { return }
                        if changes.borrow_and_update().leader != leader { break }
                    }
                }
            }
        }
    }

    /// Returns when the stream has ended, after a pause.
    async fn watch(&self, leader: ReplicaKey) {
        if let Some(mut client) = self.peers.client(leader.node_id) {
            let request = Request::new(self.peers.envelope(leader, Vec::new()));
            if let Ok(stream) = client.watch(request).await {
                self.peers.answered(leader);
                let mut stream = stream.into_inner();
                while let Ok(Some(_)) = stream.message().await {}
                self.peers.broke(leader.node_id);
            }
            if let Some(address) = self.peers.address(leader.node_id)
                && self.peers.dial(&address, DIAL_LIMIT).await == Dial::Refused
            {
                tracing::debug!(%leader, "the leader's process is gone");
                self.contact.gone(leader);
            }
        }
        tokio::time::sleep(WATCH_RETRY).await;
    }

    /// As leader that stops and proposes nothing any more, asks the followers to take over.
    ///
    /// openraft's own lease makes the others refuse a single candidate: they are all asked to
    /// stand, which ends their lease, and among equal terms and logs the highest id wins, so it
    /// is asked last.
    pub(crate) async fn resign(&self) {
        let mut changes = self.quorum.changes();
        let state = changes.borrow_and_update().clone();
        let me = self.quorum.me();
        let reachable = |voter: &ReplicaKey| {
            self.peers
                .last_answer(*voter)
                .is_some_and(|at| at.elapsed() < self.timing.lease)
        };
        let mut others = state.all_voters();
        others.retain(|voter| *voter != me && reachable(voter));
        if state.role != Role::Leader || others.is_empty() {
            return;
        }
        let level = changes.wait_for(|state| {
            let last = state.last_log.map(|id| id.index);
            others
                .iter()
                .all(|voter| state.matched.get(voter).copied().flatten() == last)
        });
        let level = tokio::time::timeout(self.timing.append_timeout, level)
            .await
            .is_ok();
        tracing::debug!(level, "giving up leadership");
        for voter in others {
            let Some(mut client) = self.peers.client(voter.node_id) else {
                continue;
            };
            let request = Request::new(self.peers.envelope(voter, Vec::new()));
            let call = tokio::time::timeout(self.timing.vote_timeout, client.take_over(request));
            if !matches!(call.await, Ok(Ok(_))) {
                tracing::debug!(%voter, "could not ask to take over");
            }
        }
        let successor = changes.wait_for(|state| state.leader.is_some_and(|leader| leader != me));
        let waited = tokio::time::timeout(self.timing.lease, successor)
            .await
            .is_ok();
        tracing::info!(successor = waited, "leadership given up");
    }
}

fn random(limit: Duration) -> Duration {
    limit.mul_f64(rand::rng().random_range(0.0..1.0))
}
