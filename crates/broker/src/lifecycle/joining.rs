//! From registered to running: logs are recovered, metadata is current, the controller unfences.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use ottla_metadata::{Image, Registration};
use ottla_storage::{LogDir, OpenedDir};

use crate::{
    api::BrokerState, clock::Clock, config::BrokerConfig, feed::MetadataFeed, handle::Shared,
    recovery,
};

use super::state_number;

/// What this life of the broker tells the controller.
pub(super) fn registration(config: &BrokerConfig, opened: &OpenedDir) -> Registration {
    let default_mode = (config.topic_settings)(&Image::default(), "").flush_mode;
    let power_cut = !opened.clean_shutdown && opened.boot_id_changed && !opened.new_directory;
    Registration {
        broker_id: config.broker_id,
        cluster_id: config.cluster_id.clone(),
        incarnation: Uuid::new_v4(),
        directory_ids: vec![opened.directory_id],
        endpoints: config.endpoints.clone(),
        replication_address: config.replication_address.clone(),
        rack: config.rack.clone(),
        unclean: opened.new_directory,
        damaged: std::collections::BTreeSet::new(),
        power_cut: power_cut.then_some(default_mode),
        default_flush_mode: default_mode,
        // Filled in with each attempt.
        offline_directories: Vec::new(),
        live: std::collections::BTreeSet::new(),
    }
}

/// From registered to running.
pub(super) struct Joining {
    pub(super) shared: Arc<Shared>,
    pub(super) log_dir: Arc<LogDir>,
    pub(super) feed: Arc<MetadataFeed>,
    pub(super) clock: Clock,
    pub(super) stop: CancellationToken,
}

impl Joining {
    pub(super) async fn run(self) {
        let state = |state| {
            self.shared
                .state
                .store(state_number(state), Ordering::SeqCst)
        };
        state(BrokerState::Recovering);
        let (config, log_dir) = (Arc::clone(&self.shared.config), Arc::clone(&self.log_dir));
        let (router, clock) = (Arc::clone(&self.shared.router), self.clock);
        let stop = self.stop.clone();
        let recovering = tokio::task::spawn_blocking(move || {
            recovery::recover(&config, &log_dir, &router, clock, &stop)
        });
        match recovering.await {
            // Given up, not found damaged.
            Ok(Ok(_)) if self.stop.is_cancelled() => return,
            Ok(Ok(recovered)) => self.shared.link.report_damage(&recovered.damaged),
            Ok(Err(error)) => {
                error!(%error, "logs are not recovered");
                return;
            }
            Err(error) => {
                error!(%error, "recovery");
                return;
            }
        }
        self.feed.open();
        let mut indexes = self.shared.image_index.subscribe();
        while !self.feed.is_fed() {
            let turn = tokio::time::timeout(Duration::from_millis(20), indexes.changed());
            let _ = turn.await;
        }
        self.keep_cluster_id().await;
        self.shared.link.set_ready();
        let mut session = self.shared.link.session();
        if session.wait_for(|session| session.unfenced).await.is_ok() {
            let starting = state_number(BrokerState::Recovering);
            let running = state_number(BrokerState::Running);
            let moved = self.shared.state.compare_exchange(
                starting,
                running,
                Ordering::SeqCst,
                Ordering::SeqCst,
            );
            if moved.is_ok() {
                info!("running");
            }
        }
    }

    /// The directory remembers which cluster it belongs to (S-10).
    async fn keep_cluster_id(&self) {
        let Some(cluster_id) = self.shared.image.load().cluster_id.clone() else {
            return;
        };
        let log_dir = Arc::clone(&self.log_dir);
        let kept = self.shared.io_pool.run(move || {
            log_dir.set_cluster_id(&cluster_id)?;
            // The registration that told how the last life ended has been taken.
            log_dir.confirm_boot()
        });
        if let Some(Err(error)) = kept.await {
            warn!(%error, "remember the cluster and the boot");
        }
    }
}
