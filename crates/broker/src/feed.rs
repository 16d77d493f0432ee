//! Hands metadata to the shards, once it may count.
//!
//! # Invariants
//! * No shard acts on metadata before its logs are recovered, nor on an image older than this
//!   broker's registration: a restart ends every leadership.
//! * The first image under a registration is handed over whole.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use ottla_metadata::Image;

use crate::shard::{
    env::Router,
    input::{Changed, Input},
};

#[derive(Default)]
struct State {
    recovered: bool,
    /// The registration whose first image has been handed over.
    fed_epoch: Option<i64>,
}

/// The way of metadata into the shards.
pub(crate) struct MetadataFeed {
    image: Arc<ArcSwap<Image>>,
    broker_epoch: Arc<AtomicI64>,
    router: Arc<Router>,
    state: Mutex<State>,
}

impl MetadataFeed {
    pub(crate) fn new(
        image: Arc<ArcSwap<Image>>,
        broker_epoch: Arc<AtomicI64>,
        router: Arc<Router>,
    ) -> MetadataFeed {
        MetadataFeed {
            image,
            broker_epoch,
            router,
            state: Mutex::new(State::default()),
        }
    }

    /// The logs are recovered and adopted by their shards.
    pub(crate) fn open(&self) {
        self.state.lock().recovered = true;
        self.feed(Changed::default());
    }

    /// Hands the current image over; the lock keeps updates in order.
    pub(crate) fn feed(&self, mut changed: Changed) {
        let mut state = self.state.lock();
        let image = self.image.load_full();
        let epoch = self.broker_epoch.load(Ordering::SeqCst);
        let current = epoch >= 0 && image.index >= epoch.unsigned_abs();
        if !state.recovered || !current {
            // Dropped: the first image of the registration brings everything.
            state.fed_epoch = None;
            return;
        }
        if state.fed_epoch != Some(epoch) {
            changed.all = true;
            state.fed_epoch = Some(epoch);
        }
        let changed = Arc::new(changed);
        self.router.post_all(|| Input::Image {
            image: Arc::clone(&image),
            changed: Arc::clone(&changed),
        });
    }

    /// True once an image has been handed over under the current registration.
    pub(crate) fn is_fed(&self) -> bool {
        let epoch = self.broker_epoch.load(Ordering::SeqCst);
        epoch >= 0 && self.state.lock().fed_epoch == Some(epoch)
    }
}
