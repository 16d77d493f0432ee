//! What hosted groups need of the broker around them.

use std::{path::PathBuf, sync::Arc};

use futures::future::BoxFuture;
use tokio::{sync::watch, time::Instant};

use ottla_metadata::{Command, Image, Outcome};
use ottla_types::{BrokerId, LeaderEpoch, PartitionId};

use crate::{
    Acks, ControllerError, FetchAnswer, FetchRequest, ProduceEntry, ProduceError, Produced,
    ReplicaStatus,
};

/// The replicated log of the internal topic, and the cluster's metadata.
pub trait OffsetsLog: Send + Sync + 'static {
    /// This broker.
    fn broker_id(&self) -> BrokerId;

    /// The cluster as this broker knows it.
    fn image(&self) -> Arc<Image>;

    /// The index of the image, whenever it changes.
    fn image_changes(&self) -> watch::Receiver<u64>;

    /// A local replica as last published; `None` if there is none here.
    fn replica_status(&self, id: PartitionId) -> Option<ReplicaStatus>;

    /// Where the partition's files are, for a checkpoint of what was folded; `None` for nowhere.
    fn partition_dir(&self, id: PartitionId) -> Option<PathBuf>;

    /// Appends batches. The order of calls is the order in each log; the future only waits, and
    /// ends no later than the deadline.
    fn produce(
        &self,
        entries: Vec<ProduceEntry>,
        acks: Acks,
        deadline: Instant,
    ) -> BoxFuture<'static, Vec<Result<Produced, ProduceError>>>;

    /// Reads local replicas, leading or following, below their high watermarks; waits for data
    /// until the deadline.
    fn fetch(&self, request: FetchRequest) -> BoxFuture<'static, Vec<FetchAnswer>>;

    /// True if this broker led the partition in this epoch at some instant after the call (C-12);
    /// false if it did not, or nobody knew before the deadline.
    fn confirm_leadership(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> BoxFuture<'static, bool>;

    /// Asks the active controller for a change.
    fn execute(
        &self,
        command: Command,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<(u64, Outcome), ControllerError>>;

    /// Waits until the image has reached this index; false at the deadline.
    fn wait_for_image(&self, index: u64, deadline: Instant) -> BoxFuture<'static, bool>;
}
