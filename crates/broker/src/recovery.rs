//! Opening every log found on disk, several at a time, before this broker serves anything.
//!
//! Of a log that is damaged or cannot be opened the controller is told, so that this replica leads
//! nothing; one that only lacks room is tried again, and the broker stays fenced meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use ottla_metadata::Image;
use ottla_storage::{Log, LogDir, LogDirError, LogError, Recovery};
use ottla_types::PartitionId;

use crate::{
    clock::Clock,
    config::BrokerConfig,
    shard::{
        env::Router,
        input::{Input, RecoveredLog},
    },
};

/// Between two attempts to open a log that lacks room.
const RETRY: Duration = Duration::from_millis(500);

/// What recovery came to.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// Replicas that are damaged below what was durable, or whose log cannot be opened.
    pub(crate) damaged: Vec<PartitionId>,
}

/// Opens every log and gives each to its shard; waits for the disk, so never on an async thread.
pub(crate) fn recover(
    config: &BrokerConfig,
    log_dir: &LogDir,
    router: &Router,
    clock: Clock,
    stop: &CancellationToken,
) -> Result<Recovered, LogDirError> {
    let found = log_dir.list_partitions()?;
    let begun = clock.now();
    let next = AtomicUsize::new(0);
    let damaged = Mutex::new(Vec::new());
    let truncated = AtomicUsize::new(0);
    let logs: Vec<Mutex<Vec<RecoveredLog>>> = router
        .all()
        .iter()
        .map(|_| Mutex::new(Vec::new()))
        .collect();
    let image = Image::default();
    let open_one = || {
        while let Some((topic, id)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let open = || {
                // Metadata comes later, and with it the topic's own settings.
                let settings = (config.topic_settings)(&image, topic);
                log_dir.open_log(topic, *id, settings.log, clock.wall())
            };
            match open_patiently(open, topic, *id, stop) {
                Ok((log, recovery)) => {
                    if recovery.damaged_below_durable {
                        warn!(%topic, partition = %id.partition, "damaged below what was durable");
                        damaged.lock().push(*id);
                    }
                    if recovery.truncated_bytes > 0 {
                        truncated.fetch_add(1, Ordering::Relaxed);
                        info!(%topic, partition = %id.partition,
                            bytes = recovery.truncated_bytes, end = %log.log_end_offset(),
                            "cut a torn tail");
                    }
                    logs[router.shard_of(*id)].lock().push(RecoveredLog {
                        id: *id,
                        topic: Arc::from(topic.as_str()),
                        log,
                        high_watermark: recovery.high_watermark,
                        damaged: recovery.damaged_below_durable,
                    });
                }
                // Its shard opens it again when metadata assigns it; until then it is offline.
                Err(error) => {
                    damaged.lock().push(*id);
                    error!(%topic, partition = %id.partition, %error, "recover log");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..config.recovery_threads.max(1) {
            scope.spawn(open_one);
        }
        open_one();
    });
    info!(
        logs = found.len(),
        truncated = truncated.into_inner(),
        damaged = damaged.lock().len(),
        ms = clock.now().ms_since(begun),
        "logs recovered"
    );
    for (shard, logs) in logs.into_iter().enumerate() {
        router.mailbox(shard).post(Input::Adopt(logs.into_inner()));
    }
    Ok(Recovered {
        damaged: damaged.into_inner(),
    })
}

/// Opens a log, again and again while only room is missing.
fn open_patiently(
    open: impl Fn() -> Result<(Log, Recovery), LogError>,
    topic: &str,
    id: PartitionId,
    stop: &CancellationToken,
) -> Result<(Log, Recovery), LogError> {
    loop {
        match open() {
            Err(error) if error.is_transient() && !stop.is_cancelled() => {
                warn!(%topic, partition = %id.partition, %error, "recover log, trying again");
                std::thread::sleep(RETRY);
            }
            answer => return answer,
        }
    }
}
