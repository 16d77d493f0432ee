//! Whether this controller is the active one.
//!
//! # Invariants
//! * Active means: leads, a majority followed lately, and everything that an earlier leader may
//!   have answered for is applied here (B-17). It does not grant authority by itself: what counts
//!   goes through commit (C-12).
//! * Each period of being active has a token of its own, cancelled when the period ends, with
//!   which all streams of brokers end, so that they try every voter (B-10).

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use ottla_metadata::{AlterConfigOp, Command, ConfigAlteration, ConfigResource};
use ottla_types::TopicId;
use uuid::Uuid;

use crate::{
    cluster::{Cluster, METADATA_VERSION},
    raft::{ProposeError, Quorum, Role},
};

/// A first entry that takes longer is tried again.
const ACTIVATION_LIMIT: Duration = Duration::from_secs(2);
/// How often the age of the majority's answers is looked at.
const CHECK: Duration = Duration::from_millis(50);

/// One period of being active.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) term: u64,
    pub(crate) since: Instant,
    pub(crate) ended: CancellationToken,
}

/// Follows whether this controller is active.
pub(crate) type ActiveWatch = watch::Receiver<Option<Arc<Active>>>;

/// Decides whether this controller is active.
pub(crate) struct Leadership {
    pub(crate) quorum: Arc<Quorum>,
    pub(crate) cluster: Arc<Cluster>,
    /// A leader whose majority is older than this is not active.
    pub(crate) quorum_limit: Duration,
    pub(crate) cluster_id: Option<String>,
    pub(crate) initial_cluster_configs: BTreeMap<String, String>,
    pub(crate) file_configs: BTreeMap<String, String>,
    pub(crate) activations: Arc<AtomicU64>,
    pub(crate) shutdown: CancellationToken,
}

impl Leadership {
    /// Runs until shutdown. `begin` is called with each period, to start what it needs.
    pub(crate) async fn run(
        self,
        publish: watch::Sender<Option<Arc<Active>>>,
        begin: impl Fn(Arc<Active>, &TaskTracker),
    ) {
        let mut changes = self.quorum.changes();
        let mut period: Option<(Arc<Active>, TaskTracker)> = None;
        loop {
            let state = changes.borrow_and_update().clone();
            let leads = state.leads_within(self.quorum_limit);
            let over = period
                .as_ref()
                .filter(|(active, _)| !leads || active.term != state.term);
            if over.is_some() {
                tracing::info!(term = state.term, "no longer the active controller");
                end(&publish, period.take()).await;
            }
            if leads && period.is_none() && self.activate().await {
                let active = Arc::new(Active {
                    term: state.term,
                    since: Instant::now(),
                    ended: CancellationToken::new(),
                });
                tracing::info!(term = state.term, "this is the active controller");
                self.activations.fetch_add(1, Ordering::Relaxed);
                let tasks = TaskTracker::new();
                begin(active.clone(), &tasks);
                publish.send_replace(Some(active.clone()));
                period = Some((active, tasks));
                continue;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(CHECK), if state.role == Role::Leader => {}
            }
        }
        end(&publish, period.take()).await;
    }

    /// Brings the applied state up to the end of the log, and writes a new cluster's first
    /// entries.
    async fn activate(&self) -> bool {
        let steps = async {
            self.quorum.barrier().await?;
            self.bootstrap().await?;
            self.declare_file_configs().await
        };
        tokio::select! {
            () = self.shutdown.cancelled() => false,
            done = tokio::time::timeout(ACTIVATION_LIMIT, steps) => match done {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    tracing::info!(%error, "could not become the active controller");
                    tokio::time::sleep(CHECK).await;
                    false
                }
                Err(_) => false,
            },
        }
    }

    async fn bootstrap(&self) -> Result<(), ProposeError> {
        if self.cluster.read(|image, _| image.cluster_id.is_some()) {
            return Ok(());
        }
        let cluster_id = self.cluster_id.clone().unwrap_or_else(random_cluster_id);
        let features = BTreeMap::from([
            ("metadata.version".to_owned(), METADATA_VERSION),
            ("eligible.leader.replicas.version".to_owned(), 1),
        ]);
        tracing::info!(%cluster_id, "a new cluster begins");
        self.quorum
            .propose(Command::Bootstrap {
                cluster_id,
                features,
            })
            .await?;
        if self.initial_cluster_configs.is_empty() {
            return Ok(());
        }
        let ops = self.initial_cluster_configs.iter();
        let ops = ops
            .map(|(key, value)| (key.clone(), AlterConfigOp::Set(value.clone())))
            .collect();
        self.alter(ConfigResource::ClusterDefault, ops).await
    }

    /// Elections see what is in the state only: what this controller's file says of them gets
    /// there as it becomes active.
    async fn declare_file_configs(&self) -> Result<(), ProposeError> {
        let resource = ConfigResource::ControllerFile;
        let known = self
            .cluster
            .read(|image, _| image.configs_of(&resource).cloned());
        let ops = changes(&known.unwrap_or_default(), &self.file_configs);
        if ops.is_empty() {
            return Ok(());
        }
        tracing::info!(
            ?ops,
            "the configuration file of the active controller differs"
        );
        self.alter(resource, ops).await
    }

    async fn alter(
        &self,
        resource: ConfigResource,
        ops: Vec<(String, AlterConfigOp)>,
    ) -> Result<(), ProposeError> {
        let alterations = vec![ConfigAlteration { resource, ops }];
        let command = Command::AlterConfigs {
            alterations,
            validate_only: false,
        };
        self.quorum.propose(command).await.map(|_| ())
    }
}

/// What turns the configs that are known into those that are wanted.
fn changes(
    known: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Vec<(String, AlterConfigOp)> {
    let set = wanted
        .iter()
        .filter(|(key, value)| known.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), AlterConfigOp::Set(value.clone())));
    let gone = known
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .map(|key| (key.clone(), AlterConfigOp::Delete));
    set.chain(gone).collect()
}

async fn end(
    publish: &watch::Sender<Option<Arc<Active>>>,
    period: Option<(Arc<Active>, TaskTracker)>,
) {
    publish.send_replace(None);
    if let Some((active, tasks)) = period {
        active.ended.cancel();
        tasks.close();
        tasks.wait().await;
    }
}

/// 22 characters of URL-safe base64 that do not begin with a dash, as Kafka draws them.
fn random_cluster_id() -> String {
    loop {
        let drawn = TopicId::new(Uuid::new_v4())
            .map(|id| id.to_string())
            .unwrap_or_default();
        if !drawn.is_empty() && !drawn.starts_with('-') {
            return drawn;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_id_is_22_characters() {
        assert_eq!(random_cluster_id().len(), 22);
        assert_ne!(random_cluster_id(), random_cluster_id());
    }
}
