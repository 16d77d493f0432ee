//! The metadata stream of one broker: an image if it is far behind, then every decided record as
//! soon as it is applied.
//!
//! # Invariant
//! Indices on a stream only rise, and nothing between two of them is left out: the bytes of an
//! entry are encoded once, when it is applied, and shared by all subscribers.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use ottla_rpc::controller::MetadataUpdate;

use super::{Answers, ControllerService};
use crate::{
    cluster::{Update, no_records},
    leadership::Active,
};

/// Updates that may wait for a slow broker; it falls back on the ring behind them.
const UPDATES_MAX: usize = 64;

type Sender = mpsc::Sender<Result<MetadataUpdate, Status>>;

impl ControllerService {
    pub(super) fn open_subscription(
        &self,
        active: Arc<Active>,
        from_index: u64,
    ) -> Answers<MetadataUpdate> {
        let (updates, receiver) = mpsc::channel(UPDATES_MAX);
        let service = self.clone();
        self.tasks.spawn(async move {
            let ended = tokio::select! {
                () = service.shutdown.cancelled() => "the controller stops",
                () = active.ended.cancelled() => "the leadership ended",
                () = service.push_updates(&updates, from_index) => return,
            };
            // Full or gone: the end of the stream says the same.
            let _ = updates.try_send(Err(Status::unavailable(ended)));
        });
        Box::pin(ReceiverStream::new(receiver))
    }

    /// Returns when the broker is gone.
    async fn push_updates(&self, updates: &Sender, mut at: u64) {
        let mut index = self.cluster.index_changes();
        let mut first = true;
        loop {
            let applied = *index.borrow_and_update();
            if applied > at || (first && applied == at) {
                let Some(reached) = self.push(updates, at).await else {
                    return;
                };
                at = reached.max(at);
                first = false;
            }
            tokio::select! {
                () = updates.closed() => return,
                changed = index.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Sends what leads from `at` to the present, and tells which index that is.
    async fn push(&self, updates: &Sender, at: u64) -> Option<u64> {
        match self.cluster.update_from(at) {
            Update::Records { entries, index } => {
                let last = entries.last().map(|(last, _)| *last);
                for (entry, records) in entries {
                    self.send(updates, entry, None, records).await?;
                }
                if last != Some(index) {
                    self.send(updates, index, None, no_records()).await?;
                }
                Some(index)
            }
            Update::Image(image) => {
                let index = image.index;
                let encoding = tokio::task::spawn_blocking(move || ottla_metadata::encode(&*image));
                let image = Bytes::from(encoding.await.ok()?);
                self.send(updates, index, Some(image), no_records()).await?;
                Some(index)
            }
        }
    }

    async fn send(
        &self,
        updates: &Sender,
        index: u64,
        image: Option<Bytes>,
        records: Bytes,
    ) -> Option<()> {
        let update = MetadataUpdate {
            index,
            image,
            records,
            applied_index: self.cluster.index(),
            active_controller_id: self.quorum.me().node_id.get(),
        };
        updates.send(Ok(update)).await.ok()
    }
}
