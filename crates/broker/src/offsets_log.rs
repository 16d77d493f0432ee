//! The broker as the group coordinator sees it.

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use tokio::{sync::watch, time::Instant};

use ottla_metadata::{Command, Image, Outcome};
use ottla_types::{BrokerId, LeaderEpoch, PartitionId};

use crate::{
    api::{
        Acks, ControllerError, FetchAnswer, FetchRequest, ProduceEntry, ProduceError, Produced,
        ReplicaStatus,
    },
    groups::OffsetsLog,
    handle::BrokerHandle,
};

impl OffsetsLog for BrokerHandle {
    fn broker_id(&self) -> BrokerId {
        BrokerHandle::broker_id(self)
    }

    fn image(&self) -> Arc<Image> {
        BrokerHandle::image(self)
    }

    fn image_changes(&self) -> watch::Receiver<u64> {
        BrokerHandle::image_changes(self)
    }

    fn replica_status(&self, id: PartitionId) -> Option<ReplicaStatus> {
        BrokerHandle::replica_status(self, id)
    }

    fn partition_dir(&self, id: PartitionId) -> Option<PathBuf> {
        let topic = crate::groups::OFFSETS_TOPIC;
        let name = format!("{topic}-{}", id.partition);
        Some(self.shared.config.log_dir.join(name))
    }

    fn produce(
        &self,
        entries: Vec<ProduceEntry>,
        acks: Acks,
        deadline: Instant,
    ) -> BoxFuture<'static, Vec<Result<Produced, ProduceError>>> {
        BrokerHandle::produce(self, entries, acks, deadline).boxed()
    }

    fn fetch(&self, request: FetchRequest) -> BoxFuture<'static, Vec<FetchAnswer>> {
        let broker = self.clone();
        async move { BrokerHandle::fetch(&broker, request).await }.boxed()
    }

    fn confirm_leadership(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        deadline: Instant,
    ) -> BoxFuture<'static, bool> {
        let broker = self.clone();
        async move { BrokerHandle::confirm_leadership(&broker, id, leader_epoch, deadline).await }
            .boxed()
    }

    fn execute(
        &self,
        command: Command,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<(u64, Outcome), ControllerError>> {
        let broker = self.clone();
        async move { BrokerHandle::execute(&broker, command, deadline).await }.boxed()
    }

    fn wait_for_image(&self, index: u64, deadline: Instant) -> BoxFuture<'static, bool> {
        let broker = self.clone();
        async move { BrokerHandle::wait_for_image(&broker, index, deadline).await }.boxed()
    }
}
