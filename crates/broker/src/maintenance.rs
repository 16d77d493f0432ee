//! Regular work on the log directory: checkpoints, free space, files of deleted segments.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use ottla_storage::{LogDir, PartitionMarks};

use crate::{
    clock::Clock,
    handle::Shared,
    shard::{
        env::{Space, Trash},
        input::Input,
    },
};

const TURN: Duration = Duration::from_millis(500);

/// The regular work of one log directory.
pub(crate) struct Maintenance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) space: Arc<Space>,
    pub(crate) trash: Arc<Trash>,
    pub(crate) clock: Clock,
    pub(crate) shutdown: CancellationToken,
}

impl Maintenance {
    pub(crate) async fn run(self) {
        let every_ms = self.shared.config.high_watermark_checkpoint_interval_ms;
        let mut next_checkpoint = self.clock.now().plus_ms(every_ms);
        let mut written = Vec::new();
        loop {
            self.check_space().await;
            let (trash, now) = (Arc::clone(&self.trash), self.clock.now());
            self.shared.io_pool.submit(move || trash.empty(now));
            if now >= next_checkpoint {
                next_checkpoint = now.plus_ms(every_ms);
                self.checkpoint(&mut written).await;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    /// Derived state, so late or lost is no harm; not written again where nothing moved (S-4).
    async fn checkpoint(&self, written: &mut Vec<PartitionMarks>) {
        let marks = published_marks(&self.shared);
        if marks == *written {
            return;
        }
        let (log_dir, to_write) = (Arc::clone(&self.log_dir), marks.clone());
        let outcome = self
            .shared
            .io_pool
            .run(move || log_dir.write_checkpoints(&to_write))
            .await;
        match outcome {
            Some(Ok(())) => *written = marks,
            Some(Err(error)) => warn!(%error, "write checkpoints"),
            None => {}
        }
    }

    async fn check_space(&self) {
        let log_dir = Arc::clone(&self.log_dir);
        let Some(Ok(found)) = self.shared.io_pool.run(move || log_dir.space()).await else {
            return;
        };
        let config = &self.shared.config;
        *self.shared.space_bytes.lock() = Some((found.total_bytes, found.usable_bytes));
        let before = (
            self.space.produce_blocked(),
            self.space.replication_blocked(),
        );
        let after = (
            found.usable_bytes < config.produce_free_bytes_min,
            found.usable_bytes < config.replication_free_bytes_min,
        );
        if before != after {
            self.space.set(after.0, after.1);
            info!(
                usable_bytes = found.usable_bytes,
                produce_blocked = after.0,
                replication_blocked = after.1,
                "free space"
            );
            self.shared.router.post_all(|| Input::SpaceChanged);
        }
    }
}

/// The marks of every healthy log, as published.
fn published_marks(shared: &Shared) -> Vec<PartitionMarks> {
    let all = shared.registry.all();
    let mut marks: Vec<PartitionMarks> = all
        .values()
        .filter_map(|handle| {
            let view = handle.view.load();
            view.reader.as_ref()?;
            Some(PartitionMarks {
                topic: handle.topic.to_string(),
                id: handle.id,
                recovery_point: view.flushed_offset,
                log_start_offset: view.log_start_offset,
                high_watermark: view.high_watermark,
            })
        })
        .collect();
    marks.sort_by(|a, b| (&a.topic, a.id).cmp(&(&b.topic, b.id)));
    marks
}
