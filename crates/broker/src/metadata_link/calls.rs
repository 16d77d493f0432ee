//! Finding the active controller, and single calls to it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tracing::debug;

use ottla_metadata::{Command, Outcome, decode, encode};
use ottla_rpc::{
    controller::{
        DescribeQuorumRequest, ExecuteRequest, LeaderHint, QuorumReplica as WireReplica,
        controller_client::ControllerClient, execute_reply,
    },
    convert,
};
use ottla_types::BrokerId;

use crate::api::{ControllerError, QuorumDescription, QuorumReplica};

use super::Inner;

const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(50);
/// Applying waits for a quorum; one attempt waits no longer than this.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// A controller that could not be connected to is asked after the others for this long.
const BELIEVED_UNREACHABLE: Duration = Duration::from_millis(500);
/// An image may be large.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// What one attempt came to.
enum Attempt {
    Applied(u64, Outcome),
    /// Nothing was decided there: ask another.
    NotActive,
    /// Nobody knows what became of it.
    Unknown(String),
}

impl Inner {
    pub(super) fn cluster_id(&self) -> String {
        let known = self.image.load().cluster_id.clone();
        known
            .or_else(|| self.config.cluster_id.clone())
            .unwrap_or_default()
    }

    /// The active controller's address, or the next voter to ask: of those that could be
    /// connected to lately, if there are any.
    pub(super) fn controller(&self) -> Option<(BrokerId, String)> {
        if let Some(active) = self.active.borrow().clone() {
            return Some(active);
        }
        let turn = self.next_voter.load(Ordering::Relaxed);
        let voters = &self.config.controllers;
        let start = turn.checked_rem(voters.len())?;
        let mut round = voters.iter().cycle().skip(start).take(voters.len());
        let reachable = round.find(|(_, address)| !self.is_unreachable(address));
        reachable.or_else(|| voters.get(start)).cloned()
    }

    fn is_unreachable(&self, address: &str) -> bool {
        let unreachable = self.unreachable.lock();
        unreachable
            .get(address)
            .is_some_and(|since| since.elapsed() < BELIEVED_UNREACHABLE)
    }

    /// `address` did not help; whoever else was found active meanwhile stays.
    pub(super) fn rotate(&self, address: &str) {
        self.next_voter.fetch_add(1, Ordering::Relaxed);
        self.active.send_if_modified(|active| {
            let same = active.as_ref().is_some_and(|(_, known)| known == address);
            if same {
                *active = None;
            }
            same
        });
    }

    pub(super) fn found_active(&self, id: BrokerId, address: &str) {
        self.active.send_if_modified(|active| {
            let new = (id, address.to_owned());
            let changed = active.as_ref() != Some(&new);
            *active = Some(new);
            changed
        });
    }

    /// Follows a hint; without one, asks the next voter.
    pub(super) fn follow_hint(&self, from: &str, hint: &LeaderHint) {
        let id = BrokerId(hint.node_id);
        let configured = self
            .config
            .controllers
            .iter()
            .find(|(voter, _)| *voter == id);
        let address = match configured {
            Some((_, address)) => Some(address.clone()),
            None => (!hint.address.is_empty()).then(|| hint.address.clone()),
        };
        match address {
            // Followers name a leader that has died until they have another.
            Some(address)
                if hint.node_id >= 0 && address != from && !self.is_unreachable(&address) =>
            {
                self.found_active(id, &address);
            }
            Some(_) | None => self.rotate(from),
        }
    }

    pub(super) async fn client(
        &self,
        address: &str,
    ) -> Result<ControllerClient<Channel>, tonic::transport::Error> {
        let known = self.channels.lock().get(address).cloned();
        let channel = match known {
            Some(channel) => channel,
            None => {
                let connected = Endpoint::from_shared(format!("http://{address}"))?
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(Duration::from_secs(1))
                    .keep_alive_timeout(Duration::from_secs(1))
                    .keep_alive_while_idle(true)
                    .connect()
                    .await;
                let channel = connected.inspect_err(|_| {
                    let (address, now) = (address.to_owned(), Instant::now());
                    self.unreachable.lock().insert(address, now);
                })?;
                self.unreachable.lock().remove(address);
                self.channels
                    .lock()
                    .insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(ControllerClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The connection is of no more use.
    pub(super) fn forget(&self, address: &str) {
        self.channels.lock().remove(address);
    }
}

async fn attempt(inner: &Inner, command: &Bytes, limit: Duration) -> Attempt {
    let Some((id, address)) = inner.controller() else {
        return Attempt::Unknown("no controller is configured".to_owned());
    };
    let call = async {
        let mut client = match inner.client(&address).await {
            Ok(client) => client,
            // Nothing was sent.
            Err(error) => return Err((true, error.to_string())),
        };
        let request = ExecuteRequest {
            cluster_id: inner.cluster_id(),
            command: command.clone(),
        };
        match client.execute(request).await {
            Ok(reply) => Ok(reply.into_inner().result),
            Err(status) => Err((false, status.to_string())),
        }
    };
    let reply = tokio::time::timeout(limit, call).await;
    match reply {
        Ok(Ok(Some(execute_reply::Result::Applied(applied)))) => {
            inner.found_active(id, &address);
            match decode(&applied.outcome) {
                Ok(outcome) => Attempt::Applied(applied.index, outcome),
                Err(error) => Attempt::Unknown(format!("outcome: {error}")),
            }
        }
        Ok(Ok(Some(execute_reply::Result::NotActive(hint)))) => {
            inner.follow_hint(&address, &hint);
            Attempt::NotActive
        }
        Ok(Ok(Some(execute_reply::Result::Unavailable(reason)))) => {
            inner.rotate(&address);
            Attempt::Unknown(reason)
        }
        Ok(Ok(None)) => {
            inner.rotate(&address);
            Attempt::Unknown("an empty answer".to_owned())
        }
        Ok(Err((unsent, reason))) => {
            inner.forget(&address);
            inner.rotate(&address);
            debug!(%address, %reason, "controller call");
            if unsent {
                Attempt::NotActive
            } else {
                Attempt::Unknown(reason)
            }
        }
        Err(_) => {
            inner.rotate(&address);
            Attempt::Unknown(format!("{address} did not answer"))
        }
    }
}

/// Repeats the command until it is decided or the deadline passes.
pub(super) async fn execute_until(
    inner: &Arc<Inner>,
    command: &Command,
    deadline: Instant,
) -> Result<(u64, Outcome), ControllerError> {
    let bytes = Bytes::from(encode(command));
    let mut back_off = BACK_OFF_MIN;
    let mut unknown = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(if unknown {
                ControllerError::TimedOut
            } else {
                ControllerError::Unavailable("no controller is active".to_owned())
            });
        }
        match attempt(inner, &bytes, left.min(ATTEMPT_TIMEOUT)).await {
            Attempt::Applied(index, outcome) => return Ok((index, outcome)),
            Attempt::NotActive => {}
            Attempt::Unknown(reason) => {
                debug!(%reason, "command not decided");
                unknown = true;
            }
        }
        tokio::time::sleep(back_off.min(left)).await;
        back_off = (back_off * 2).min(BACK_OFF_MAX);
    }
}

/// One decision or none: follows hints while nothing was decided, and gives up at the first doubt.
pub(super) async fn execute_once(
    inner: &Arc<Inner>,
    command: &Command,
    limit: Duration,
) -> Option<(u64, Outcome)> {
    let bytes = Bytes::from(encode(command));
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        match attempt(inner, &bytes, left).await {
            Attempt::Applied(index, outcome) => return Some((index, outcome)),
            Attempt::Unknown(reason) => {
                debug!(%reason, "command not decided");
                return None;
            }
            Attempt::NotActive => tokio::time::sleep(BACK_OFF_MIN.min(left)).await,
        }
    }
}

pub(super) async fn describe_quorum(
    inner: &Arc<Inner>,
    deadline: Instant,
) -> Result<QuorumDescription, ControllerError> {
    let mut last = "no controller is configured".to_owned();
    while let Some((_, address)) = inner.controller() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let call = async {
            let mut client = inner
                .client(&address)
                .await
                .map_err(|error| error.to_string())?;
            let request = DescribeQuorumRequest {
                cluster_id: inner.cluster_id(),
            };
            let reply = client.describe_quorum(request).await;
            reply
                .map(tonic::Response::into_inner)
                .map_err(|status| status.to_string())
        };
        match tokio::time::timeout(left.min(ATTEMPT_TIMEOUT), call).await {
            Ok(Ok(reply)) if reply.leader_id >= 0 => {
                return Ok(QuorumDescription {
                    leader: BrokerId(reply.leader_id),
                    term: reply.term,
                    committed_index: reply.committed_index,
                    voters: reply.voters.iter().filter_map(quorum_replica).collect(),
                    observers: reply.observers.iter().filter_map(quorum_replica).collect(),
                });
            }
            Ok(Ok(_)) => last = "no controller is active".to_owned(),
            Ok(Err(reason)) => last = reason,
            Err(_) => last = format!("{address} did not answer"),
        }
        inner.rotate(&address);
        tokio::time::sleep(BACK_OFF_MIN.min(left)).await;
    }
    Err(ControllerError::Unavailable(last))
}

fn quorum_replica(replica: &WireReplica) -> Option<QuorumReplica> {
    Some(QuorumReplica {
        node_id: BrokerId::new(replica.node_id)?,
        directory_id: convert::uuid(&replica.directory_id, "directory_id").ok()?,
        log_end_index: u64::try_from(replica.log_end_index).ok(),
        last_answer_ms_ago: u64::try_from(replica.last_answer_ms_ago).ok(),
    })
}
