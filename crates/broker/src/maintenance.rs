//! Regular work on the log directory: checkpoints, free space, files of deleted segments, and a
//! look whether it has failed where no shard would notice.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use ottla_storage::{LogDir, PartitionMarks};
use ottla_types::MonotonicMs;

use crate::{
    clock::Clock,
    handle::Shared,
    shard::{
        env::{Space, Trash},
        input::Input,
    },
};

const TURN: Duration = Duration::from_millis(500);
/// A disk that refused a write although it seems to have room is tried again after this long.
const DENIED_MS: u64 = 10_000;

/// The regular work of one log directory.
pub(crate) struct Maintenance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) space: Arc<Space>,
    pub(crate) trash: Arc<Trash>,
    pub(crate) clock: Clock,
    /// Told when the directory has failed.
    pub(crate) directory_failed: Arc<Notify>,
    pub(crate) shutdown: CancellationToken,
}

impl Maintenance {
    pub(crate) async fn run(self) {
        let every_ms = self.shared.config.high_watermark_checkpoint_interval_ms;
        let mut next_checkpoint = self.clock.now().plus_ms(every_ms);
        let mut written = Vec::new();
        let mut floors = Floors::default();
        loop {
            if self.log_dir.failed() {
                // For good in this process: there is nothing left to do (S-6).
                self.directory_failed.notify_one();
                return;
            }
            self.check_space(&mut floors).await;
            let (trash, now) = (Arc::clone(&self.trash), self.clock.now());
            self.shared.io_pool.submit(move || trash.empty(now));
            if now >= next_checkpoint {
                next_checkpoint = now.plus_ms(every_ms);
                self.checkpoint(&mut written).await;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(TURN) => {}
                () = self.space.denied() => floors.denied(self.clock.now()),
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

    async fn check_space(&self, floors: &mut Floors) {
        let log_dir = Arc::clone(&self.log_dir);
        let Some(Ok(found)) = self.shared.io_pool.run(move || log_dir.space()).await else {
            return;
        };
        let config = &self.shared.config;
        *self.shared.space_bytes.lock() = Some((found.total_bytes, found.usable_bytes));
        let minima = (
            config.produce_free_bytes_min,
            config.replication_free_bytes_min,
        );
        let before = floors.blocked;
        let after = floors.judge(found.usable_bytes, minima, self.clock.now());
        self.space.set(after.0, after.1);
        self.shared.link.set_no_space(after.0);
        if before != after {
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

/// Whether there is room, with some slack between running out of it and having it again, so that
/// a disk at the edge does not move leaderships to and fro.
#[derive(Debug, Default)]
struct Floors {
    /// Produce, replication.
    blocked: (bool, bool),
    /// A write was refused then, and what was usable when that was looked at.
    denied: Option<(MonotonicMs, Option<u64>)>,
}

impl Floors {
    fn denied(&mut self, now: MonotonicMs) {
        self.blocked = (true, true);
        self.denied = Some((now, None));
    }

    fn judge(&mut self, usable_bytes: u64, minima: (u64, u64), now: MonotonicMs) -> (bool, bool) {
        if let Some((since, seen)) = &mut self.denied {
            let seen = *seen.get_or_insert(usable_bytes);
            if usable_bytes <= with_slack(seen) && now.ms_since(*since) < DENIED_MS {
                return self.blocked;
            }
            self.denied = None;
        }
        let lacks = |blocked: bool, minimum: u64| {
            usable_bytes
                < if blocked {
                    with_slack(minimum)
                } else {
                    minimum
                }
        };
        self.blocked = (
            lacks(self.blocked.0, minima.0),
            lacks(self.blocked.1, minima.1),
        );
        self.blocked
    }
}

fn with_slack(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 4)
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

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMA: (u64, u64) = (1_000, 400);

    #[test]
    fn produce_stops_before_replication_and_both_need_more_than_the_minimum_to_go_on() {
        let mut floors = Floors::default();
        let mut judge = |usable| floors.judge(usable, MINIMA, MonotonicMs(0));
        assert_eq!(judge(1_000), (false, false));
        assert_eq!(judge(999), (true, false));
        assert_eq!(judge(399), (true, true));
        assert_eq!(judge(499), (true, true));
        assert_eq!(judge(500), (true, false));
        assert_eq!(judge(1_249), (true, false));
        assert_eq!(judge(1_250), (false, false));
        assert_eq!(judge(1_000), (false, false));
    }

    #[test]
    fn a_refused_write_blocks_until_there_is_more_room_or_it_is_time_to_try_again() {
        let mut floors = Floors::default();
        floors.denied(MonotonicMs(0));
        let mut judge = |usable, at| floors.judge(usable, MINIMA, MonotonicMs(at));
        // As a quota does it: the disk seems to have room.
        assert_eq!(judge(4_000, 10), (true, true));
        assert_eq!(judge(5_000, 500), (true, true));
        assert_eq!(judge(5_001, 1_000), (false, false));
        floors.denied(MonotonicMs(2_000));
        let mut judge = |usable, at| floors.judge(usable, MINIMA, MonotonicMs(at));
        assert_eq!(judge(4_000, 2_010), (true, true));
        assert_eq!(judge(4_000, 11_999), (true, true));
        assert_eq!(judge(4_000, 12_000), (false, false));
    }
}
