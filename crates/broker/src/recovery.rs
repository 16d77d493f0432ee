//! Opening every log found on disk, several at a time, before this broker serves anything.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tracing::{error, info, warn};

use ottla_metadata::Image;
use ottla_storage::{LogDir, LogDirError};

use crate::{
    clock::Clock,
    config::BrokerConfig,
    shard::{
        env::Router,
        input::{Input, RecoveredLog},
    },
};

/// What recovery came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovered {
    /// Damage was found below what was durable: this life is unclean.
    pub(crate) damaged: bool,
}

/// Opens every log and gives each to its shard; waits for the disk, so never on an async thread.
pub(crate) fn recover(
    config: &BrokerConfig,
    log_dir: &LogDir,
    router: &Router,
    clock: Clock,
) -> Result<Recovered, LogDirError> {
    let found = log_dir.list_partitions()?;
    let begun = clock.now();
    let next = AtomicUsize::new(0);
    let damaged = AtomicBool::new(false);
    let truncated = AtomicUsize::new(0);
    let logs: Vec<Mutex<Vec<RecoveredLog>>> = router
        .all()
        .iter()
        .map(|_| Mutex::new(Vec::new()))
        .collect();
    let image = Image::default();
    let open_one = || {
        while let Some((topic, id)) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
            let settings = (config.topic_settings)(&image, topic);
            match log_dir.open_log(topic, *id, settings.log, clock.wall()) {
                Ok((log, recovery)) => {
                    damaged.fetch_or(recovery.damaged_below_durable, Ordering::Relaxed);
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
    let damaged = damaged.into_inner();
    if damaged {
        warn!("damage below what was durable: this life counts as unclean");
    }
    info!(
        logs = found.len(),
        truncated = truncated.into_inner(),
        ms = clock.now().ms_since(begun),
        "logs recovered"
    );
    for (shard, logs) in logs.into_iter().enumerate() {
        router.mailbox(shard).post(Input::Adopt(logs.into_inner()));
    }
    Ok(Recovered { damaged })
}
