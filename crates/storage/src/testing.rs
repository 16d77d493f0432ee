//! A file system in memory that fills up, fails, and loses power.
//!
//! It is stricter than a disk: bytes that were not synced are kept or lost page by page, and names
//! that were not synced are kept up to some point in the order in which they changed. Every choice
//! comes from a seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

mod calls;
mod disk;
mod seeded;

pub use seeded::Seeded;

use disk::{Bytes, Inner, Node, survive};

/// What goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Bytes that files may still grow by.
    pub space_left: Option<u64>,
    /// Every sync fails.
    pub fail_syncs: bool,
    /// Every write fails with an error that is not "no space".
    pub fail_writes: bool,
    /// Every read fails.
    pub fail_reads: bool,
    /// No file can be opened or created, nor a directory for its sync.
    pub fail_opens: bool,
    /// A write takes a part of what it is given.
    pub short_writes: bool,
    /// After so many calls that change something, the power is off.
    pub calls_left: Option<u64>,
}

/// The file system in memory. Clones are the same file system.
#[derive(Clone, Debug, Default)]
pub struct MemFiles {
    inner: Arc<Mutex<Inner>>,
}

impl MemFiles {
    /// An empty file system.
    #[must_use]
    pub fn new() -> MemFiles {
        MemFiles::default()
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.lock().faults = faults;
    }

    /// Number of syncs so far, of files and directories.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.inner.lock().syncs
    }

    /// The file system as the next process finds it after this one was killed.
    #[must_use]
    pub fn after_kill(&self) -> MemFiles {
        let inner = self.inner.lock();
        let next = Inner {
            live: inner.live.clone(),
            durable: inner.durable.clone(),
            pending: inner.pending.clone(),
            boot: inner.boot,
            ..Inner::default()
        };
        MemFiles {
            inner: Arc::new(Mutex::new(next)),
        }
    }

    /// The file system after the power was cut: what was synced, and of the rest what `seed` says.
    #[must_use]
    pub fn after_power_cut(&self, seed: u64) -> MemFiles {
        let mut seeded = Seeded(seed);
        let inner = self.inner.lock();
        let mut names = inner.durable.clone();
        let kept = seeded.below(inner.pending.len() + 1);
        for change in inner.pending.iter().take(kept) {
            change.apply(&mut names);
        }
        for node in names.values_mut() {
            if let Node::File(bytes) = node {
                let survived = survive(&bytes.lock(), &mut seeded);
                let bytes = Bytes {
                    live: survived.clone(),
                    durable: survived,
                };
                *node = Node::File(Arc::new(Mutex::new(bytes)));
            }
        }
        let boot = inner.boot + 1;
        let next = Inner {
            live: names.clone(),
            durable: names,
            boot,
            ..Inner::default()
        };
        MemFiles {
            inner: Arc::new(Mutex::new(next)),
        }
    }

    /// The content of a file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        match self.inner.lock().live.get(path)? {
            Node::File(bytes) => Some(bytes.lock().live.clone()),
            Node::Directory => None,
        }
    }

    /// Replaces the content of a file behind everybody's back, durably.
    pub fn corrupt(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some(Node::File(bytes)) = self.inner.lock().live.get(path) {
            let mut bytes = bytes.lock();
            change(&mut bytes.live);
            bytes.durable = bytes.live.clone();
        }
    }

    /// Removes a file behind everybody's back, durably.
    pub fn lose(&self, path: &Path) {
        let mut inner = self.inner.lock();
        inner.live.remove(path);
        inner.durable.remove(path);
    }

    /// All files below a directory.
    #[must_use]
    pub fn paths(&self, dir: &Path) -> Vec<PathBuf> {
        let inner = self.inner.lock();
        let files = inner
            .live
            .iter()
            .filter(|(_, node)| matches!(node, Node::File(_)));
        files
            .map(|(path, _)| path.clone())
            .filter(|path| path.starts_with(dir))
            .collect()
    }
}
