//! The applied state of the cluster, shared between the state machine that writes it and the
//! services that read it.
//!
//! # Invariants
//! * Only committed entries get in, in order; `index` is the last of them (C-1).
//! * The lock guards memory only and is never held across an await or a disk access.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::watch;

use ottla_metadata::{ClusterState, Command, Image, Outcome, Record};

use crate::{changes::Changes, tally::Tally};

/// The newest `metadata.version` whose commands this code knows how to apply.
pub(crate) const METADATA_VERSION: i16 = 27;

/// What a subscriber must be sent to reach the newest index.
#[derive(Debug)]
pub(crate) enum Update {
    /// Encoded records by index; the subscriber is then at `index`.
    Records {
        entries: Vec<(u64, Bytes)>,
        index: u64,
    },
    /// A whole image.
    Image(Box<Image>),
}

struct Applied {
    state: ClusterState,
    index: u64,
    changes: Changes,
    tally: Tally,
}

/// Why an entry cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApplyError {
    /// Another version of this program decided to go further than we can follow.
    #[error("metadata.version {found} is finalized, this program knows {METADATA_VERSION}")]
    UnknownMetadataVersion { found: i16 },
}

/// The shared state.
pub(crate) struct Cluster {
    applied: RwLock<Applied>,
    index: watch::Sender<u64>,
    cluster_id: Arc<OnceLock<String>>,
}

impl Cluster {
    /// An empty cluster. `cluster_id` is filled in once it is known.
    pub(crate) fn new(cluster_id: Arc<OnceLock<String>>) -> Cluster {
        let applied = Applied {
            state: ClusterState::default(),
            index: 0,
            changes: Changes::default(),
            tally: Tally::default(),
        };
        Cluster {
            applied: RwLock::new(applied),
            index: watch::Sender::new(0),
            cluster_id,
        }
    }

    /// Applies one committed command. Subscribers hear of it at [`Cluster::publish`].
    pub(crate) fn apply(&self, index: u64, command: &Command) -> Result<Outcome, ApplyError> {
        let mut guard = self.applied.write();
        let applied = &mut *guard;
        let decided = applied.state.apply(index, command);
        check_version(applied.state.image())?;
        for record in &decided.records {
            applied.tally.record(record);
        }
        if !decided.records.is_empty() {
            applied
                .changes
                .push(index, Bytes::from(ottla_metadata::encode(&decided.records)));
        }
        applied.index = index;
        Ok(decided.outcome)
    }

    /// Tells subscribers that everything up to `index` is applied, entries without a command
    /// included.
    pub(crate) fn publish(&self, index: u64) {
        let known = {
            let mut applied = self.applied.write();
            applied.index = applied.index.max(index);
            applied.state.image().cluster_id.clone()
        };
        if let Some(known) = known {
            // The id never changes; setting it again does nothing.
            self.cluster_id.get_or_init(|| known);
        }
        self.index.send_replace(index);
    }

    /// Replaces everything by a snapshot taken at `index`.
    pub(crate) fn install(&self, state: ClusterState, index: u64) -> Result<(), ApplyError> {
        check_version(state.image())?;
        {
            let mut applied = self.applied.write();
            applied.tally = Tally::of(state.image());
            applied.changes = Changes::starting_at(index);
            applied.state = state;
            applied.index = index;
        }
        self.publish(index);
        Ok(())
    }

    /// A copy of the state and its index, for a snapshot.
    pub(crate) fn state(&self) -> (ClusterState, u64) {
        let applied = self.applied.read();
        (applied.state.clone(), applied.index)
    }

    /// Follows the applied index.
    pub(crate) fn index_changes(&self) -> watch::Receiver<u64> {
        self.index.subscribe()
    }

    /// The applied index.
    pub(crate) fn index(&self) -> u64 {
        *self.index.borrow()
    }

    /// What brings a subscriber at `from` up to date.
    pub(crate) fn update_from(&self, from: u64) -> Update {
        let applied = self.applied.read();
        match applied.changes.after(from) {
            Some(entries) if from > 0 => Update::Records {
                entries,
                index: applied.index,
            },
            _ => {
                let mut image = applied.state.image().clone();
                image.index = applied.index;
                Update::Image(Box::new(image))
            }
        }
    }

    /// Looks at the image and the counts, briefly.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Image, &Tally) -> T) -> T {
        let applied = self.applied.read();
        look(applied.state.image(), &applied.tally)
    }
}

fn check_version(image: &Image) -> Result<(), ApplyError> {
    match image.features.get("metadata.version") {
        Some(&found) if found > METADATA_VERSION => {
            Err(ApplyError::UnknownMetadataVersion { found })
        }
        Some(_) | None => Ok(()),
    }
}

/// An encoded list of no records.
pub(crate) fn no_records() -> Bytes {
    Bytes::from(ottla_metadata::encode::<Vec<Record>>(&Vec::new()))
}
