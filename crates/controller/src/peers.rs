//! The other controllers: where they listen, connections to them, when they last answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{net::TcpStream, time::Instant};
use tonic::transport::{Channel, Endpoint};

use ottla_rpc::{
    convert,
    raft::{RaftMessage, raft_client::RaftClient},
};
use ottla_types::BrokerId;

use crate::{config::Voter, raft::ReplicaKey};

/// Largest raft message: one append of about 1 MiB, or one entry however large it is.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection that takes longer is given up; the next call tries again.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// An idle connection to a machine that vanished is noticed after interval plus timeout.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_000);

/// What a bare TCP connect tells of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dial {
    /// Somebody listens.
    Accepted,
    /// The machine answers, the process does not: it is gone.
    Refused,
    /// Nothing can be said.
    Unknown,
}

/// Names that are being looked up: one whose name server does not answer holds one thread, not
/// one for each attempt.
#[derive(Clone, Default)]
struct Lookups(Arc<Mutex<BTreeSet<String>>>);

impl Lookups {
    /// The addresses of a name; `None` where a lookup of it is still under way, or failed.
    async fn resolve(&self, address: &str) -> Option<Vec<SocketAddr>> {
        if let Ok(literal) = address.parse() {
            return Some(vec![literal]);
        }
        if !self.0.lock().insert(address.to_owned()) {
            return None;
        }
        let (name, under_way) = (address.to_owned(), self.0.clone());
        let looking_up = tokio::task::spawn_blocking(move || {
            let found = name.to_socket_addrs().map(Iterator::collect);
            under_way.lock().remove(&name);
            found.ok()
        });
        looking_up.await.ok()?
    }
}

async fn connect(lookups: &Lookups, address: &str) -> Dial {
    let Some(found) = lookups.resolve(address).await else {
        return Dial::Unknown;
    };
    match TcpStream::connect(found.as_slice()).await {
        Ok(_) => Dial::Accepted,
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Dial::Refused,
            _ => Dial::Unknown,
        },
    }
}

/// Channels to the other controllers, by address.
pub(crate) struct Peers {
    me: ReplicaKey,
    voters: BTreeMap<BrokerId, Voter>,
    cluster_id: Arc<OnceLock<String>>,
    channels: Mutex<BTreeMap<(String, u16), Channel>>,
    answers: Mutex<BTreeMap<ReplicaKey, Instant>>,
    /// When a connection to the controller of a node broke.
    broken: Mutex<BTreeMap<BrokerId, Instant>>,
    lookups: Lookups,
}

impl Peers {
    pub(crate) fn new(
        me: ReplicaKey,
        voters: &[Voter],
        cluster_id: Arc<OnceLock<String>>,
    ) -> Peers {
        let voters = voters
            .iter()
            .map(|voter| (voter.node_id, voter.clone()))
            .collect();
        Peers {
            me,
            voters,
            cluster_id,
            channels: Mutex::default(),
            answers: Mutex::default(),
            broken: Mutex::default(),
            lookups: Lookups::default(),
        }
    }

    /// This controller.
    pub(crate) fn me(&self) -> ReplicaKey {
        self.me
    }

    /// The configured voters.
    pub(crate) fn voters(&self) -> &BTreeMap<BrokerId, Voter> {
        &self.voters
    }

    /// The cluster's id, empty while unknown.
    pub(crate) fn cluster_id(&self) -> String {
        self.cluster_id.get().cloned().unwrap_or_default()
    }

    /// Whether a message that names `cluster_id` may come from this cluster.
    pub(crate) fn same_cluster(&self, cluster_id: &str) -> bool {
        cluster_id.is_empty() || self.cluster_id.get().is_none_or(|own| own == cluster_id)
    }

    /// `host:port` of a configured controller.
    pub(crate) fn address(&self, node_id: BrokerId) -> Option<String> {
        self.voters
            .get(&node_id)
            .map(|voter| authority(&voter.host, voter.port))
    }

    /// A client for the controller `node_id`; `None` if it is not configured.
    pub(crate) fn client(&self, node_id: BrokerId) -> Option<RaftClient<Channel>> {
        let voter = self.voters.get(&node_id)?;
        self.client_at(&voter.host, voter.port)
    }

    /// A client for whoever listens at this address; `None` if it cannot be one.
    pub(crate) fn client_at(&self, host: &str, port: u16) -> Option<RaftClient<Channel>> {
        let mut channels = self.channels.lock();
        let key = (host.to_owned(), port);
        let channel = match channels.get(&key) {
            Some(channel) => channel.clone(),
            None => {
                let channel = endpoint(host, port)?.connect_lazy();
                channels.insert(key, channel.clone());
                channel
            }
        };
        let client = RaftClient::new(channel);
        Some(
            client
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
    }

    /// A message from here to `to`.
    pub(crate) fn envelope(&self, to: ReplicaKey, body: impl Into<bytes::Bytes>) -> RaftMessage {
        RaftMessage {
            cluster_id: self.cluster_id(),
            from_node_id: self.me.node_id.get(),
            from_directory_id: convert::uuid_bytes(self.me.directory_id),
            to_node_id: to.node_id.get(),
            to_directory_id: convert::uuid_bytes(to.directory_id),
            body: body.into(),
        }
    }

    /// `replica` answered a call just now.
    pub(crate) fn answered(&self, replica: ReplicaKey) {
        self.answers.lock().insert(replica, Instant::now());
    }

    /// Connects to `address` and hangs up.
    pub(crate) async fn dial(&self, address: &str, limit: Duration) -> Dial {
        let dialing = tokio::time::timeout(limit, connect(&self.lookups, address));
        dialing.await.unwrap_or(Dial::Unknown)
    }

    /// The stream to the controller of `node_id` ended, as it does when its process dies.
    pub(crate) fn broke(&self, node_id: BrokerId) {
        self.broken.lock().insert(node_id, Instant::now());
    }

    /// Whether the connection to the controller of `node_id` broke and it has not answered since.
    pub(crate) fn is_lost(&self, node_id: BrokerId) -> bool {
        let Some(broke) = self.broken.lock().get(&node_id).copied() else {
            return false;
        };
        let answers = self.answers.lock();
        !answers
            .iter()
            .any(|(replica, at)| replica.node_id == node_id && *at > broke)
    }

    /// When `replica` last answered.
    pub(crate) fn last_answer(&self, replica: ReplicaKey) -> Option<Instant> {
        self.answers.lock().get(&replica).copied()
    }
}

fn endpoint(host: &str, port: u16) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{}", authority(host, port))).ok()?;
    Some(
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true),
    )
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_refuses_and_an_open_one_accepts() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let lookups = Lookups::default();
        assert_eq!(connect(&lookups, &address).await, Dial::Accepted);
        drop(listener);
        assert_eq!(connect(&lookups, &address).await, Dial::Refused);
        let named = address.replace("127.0.0.1", "localhost");
        assert_eq!(connect(&lookups, &named).await, Dial::Refused);
        assert!(lookups.0.lock().is_empty());
        assert_eq!(authority("::1", 9093), "[::1]:9093");
    }

    #[tokio::test]
    async fn a_name_that_is_being_looked_up_is_not_looked_up_again() {
        let lookups = Lookups::default();
        lookups.0.lock().insert("localhost:1".to_owned());
        assert_eq!(connect(&lookups, "localhost:1").await, Dial::Unknown);
    }

    #[tokio::test]
    async fn a_node_is_lost_from_the_end_of_its_stream_to_its_next_answer() {
        let replica = |node| ReplicaKey {
            node_id: BrokerId(node),
            directory_id: uuid::Uuid::nil(),
        };
        let peers = Peers::new(replica(1), &[], Arc::default());
        assert!(!peers.is_lost(BrokerId(2)));
        peers.answered(replica(2));
        peers.broke(BrokerId(2));
        assert!(peers.is_lost(BrokerId(2)) && !peers.is_lost(BrokerId(3)));
        peers.answered(replica(3));
        assert!(peers.is_lost(BrokerId(2)));
        peers.answered(replica(2));
        assert!(!peers.is_lost(BrokerId(2)));
    }
}
