//! A quorum of controllers on loopback, and clients for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

use ottla_metadata::{Command, CreateTopic, Outcome};
use ottla_rpc::controller::{ExecuteRequest, controller_client::ControllerClient, execute_reply};
use ottla_types::{BrokerId, TopicId};

use crate::{Controller, ControllerConfig, ControllerHandle, StartError, Voter, raft::QuorumState};

/// Nothing here takes that long unless it never comes.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);

struct Node {
    config: ControllerConfig,
    address: SocketAddr,
    /// Bound until the node starts, so that nobody takes its port.
    reserved: Option<TcpListener>,
    running: Option<Controller>,
}

/// Controllers 1 to n.
pub(super) struct Net {
    directory: TempDir,
    nodes: BTreeMap<i32, Node>,
}

impl Net {
    pub(super) fn new(size: i32) -> Net {
        let directory = tempfile::tempdir().unwrap();
        let listeners: BTreeMap<i32, TcpListener> = (1..=size)
            .map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap()))
            .collect();
        let voter = |(id, listener): (&i32, &TcpListener)| Voter {
            node_id: BrokerId(*id),
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        };
        let voters: Vec<Voter> = listeners.iter().map(voter).collect();
        let nodes = listeners.into_iter().map(|(id, listener)| {
            let path = directory.path().join(id.to_string());
            let config = ControllerConfig::new(BrokerId(id), voters.clone(), path);
            let address = listener.local_addr().unwrap();
            (
                id,
                Node {
                    config,
                    address,
                    reserved: Some(listener),
                    running: None,
                },
            )
        });
        Net {
            nodes: nodes.collect(),
            directory,
        }
    }

    pub(super) fn configure(&mut self, change: impl Fn(&mut ControllerConfig)) {
        self.nodes
            .values_mut()
            .for_each(|node| change(&mut node.config));
    }

    pub(super) async fn start_all(&mut self) {
        let ids: Vec<i32> = self.nodes.keys().copied().collect();
        for id in ids {
            self.start(id).await;
        }
    }

    pub(super) async fn start(&mut self, id: i32) {
        self.try_start(id).await.unwrap();
    }

    pub(super) async fn try_start(&mut self, id: i32) -> Result<(), StartError> {
        let node = self.nodes.get_mut(&id).unwrap();
        let listener = match node.reserved.take() {
            Some(listener) => listener,
            None => rebind(node.address).await,
        };
        let started = Controller::start(node.config.clone(), listener, CancellationToken::new());
        node.running = Some(started.await?);
        Ok(())
    }

    pub(super) async fn stop(&mut self, id: i32) {
        let controller = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        controller.stop().await;
    }

    pub(super) async fn kill(&mut self, id: i32) {
        let controller = self.nodes.get_mut(&id).unwrap().running.take().unwrap();
        controller.kill().await;
    }

    pub(super) async fn stop_all(&mut self) {
        let running: Vec<Controller> = self
            .nodes
            .values_mut()
            .filter_map(|node| node.running.take())
            .collect();
        futures::future::join_all(running.into_iter().map(Controller::kill)).await;
    }

    pub(super) fn wipe(&self, id: i32) {
        let path: PathBuf = self.directory.path().join(id.to_string());
        std::fs::remove_dir_all(path).unwrap();
    }

    pub(super) fn handle(&self, id: i32) -> ControllerHandle {
        self.nodes[&id].running.as_ref().unwrap().handle()
    }

    /// The term in which this one is active, if it is.
    pub(super) fn active_term(&self, id: i32) -> Option<u64> {
        self.handle(id)
            .active
            .borrow()
            .as_ref()
            .map(|active| active.term)
    }

    fn running(&self) -> Vec<i32> {
        let running = self.nodes.iter().filter(|(_, node)| node.running.is_some());
        running.map(|(id, _)| *id).collect()
    }

    pub(super) fn followers(&self, active: i32) -> Vec<i32> {
        self.running()
            .into_iter()
            .filter(|id| *id != active)
            .collect()
    }

    /// Waits for an active controller among those that run.
    pub(super) async fn active(&self) -> i32 {
        let waits = self.running().into_iter().map(|id| {
            let handle = self.handle(id);
            Box::pin(async move {
                assert!(handle.wait_active().await);
                id
            })
        });
        let first = futures::future::select_all(waits);
        tokio::time::timeout(LIMIT, first)
            .await
            .expect("an active controller")
            .0
    }

    pub(super) async fn quorum_becomes(&self, id: i32, done: impl Fn(&QuorumState) -> bool) {
        let handle = self.handle(id);
        let mut changes = handle.quorum.changes();
        let becomes = changes.wait_for(|state: &Arc<QuorumState>| done(state));
        if tokio::time::timeout(LIMIT, becomes).await.is_err() {
            panic!("the quorum stays {:?}", handle.quorum.state());
        }
    }

    pub(super) fn client(&self, id: i32) -> ControllerClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.nodes[&id].address));
        ControllerClient::new(endpoint.unwrap().connect_lazy()).max_decoding_message_size(256 << 20)
    }

    /// Executes a command at whoever is active.
    pub(super) async fn execute(&self, command: Command) -> (u64, Outcome) {
        let body = bytes::Bytes::from(ottla_metadata::encode(&command));
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            for id in self.running() {
                let request = ExecuteRequest {
                    cluster_id: String::new(),
                    command: body.clone(),
                };
                let Ok(reply) = self.client(id).execute(request).await else {
                    continue;
                };
                if let Some(execute_reply::Result::Applied(applied)) = reply.into_inner().result {
                    return (
                        applied.index,
                        ottla_metadata::decode(&applied.outcome).unwrap(),
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("the command was not decided");
    }

    /// Waits until all have applied the same entries, and compares their states (C-2).
    pub(super) async fn converge(&self, ids: &[i32]) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let hashes: BTreeSet<(u64, u64)> =
                ids.iter().map(|id| self.handle(*id).state_hash()).collect();
            let indices: BTreeSet<u64> = hashes.iter().map(|(index, _)| *index).collect();
            if indices.len() == 1 && !indices.contains(&0) {
                assert_eq!(hashes.len(), 1, "equal index, different state");
                return;
            }
            assert!(Instant::now() < deadline, "applied: {hashes:?}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The port may be held for a moment by connections of the node that was killed.
async fn rebind(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) fn create_topic(name: &str, partitions: i32) -> Command {
    let topic = CreateTopic {
        name: name.replace(' ', "-"),
        topic_id: TopicId::new(Uuid::new_v4()).unwrap(),
        partitions: Some(partitions),
        replication_factor: None,
        assignments: BTreeMap::new(),
        configs: BTreeMap::new(),
        seed: 0,
    };
    Command::CreateTopics {
        topics: vec![topic],
        validate_only: false,
        live: BTreeSet::new(),
    }
}
