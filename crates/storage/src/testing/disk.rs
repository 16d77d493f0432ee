//! What the disk in memory holds: names and bytes, as they are and as they would survive.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Faults, Seeded};

/// Bytes are lost or kept in pieces of this size.
const PAGE: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Bytes {
    pub(super) live: Vec<u8>,
    pub(super) durable: Vec<u8>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    Directory,
    File(Arc<Mutex<Bytes>>),
}

pub(super) type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Create(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    pub(super) fn within(&self, dir: &Path) -> bool {
        match self {
            NameChange::Create(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            NameChange::Create(path, node) => {
                names.insert(path.clone(), node.clone());
            }
            NameChange::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
            NameChange::Rename(from, to) => {
                let moved: Vec<PathBuf> = names
                    .keys()
                    .filter(|name| name.starts_with(from))
                    .cloned()
                    .collect();
                for old in moved {
                    let rest = old.strip_prefix(from).unwrap_or(Path::new(""));
                    let new = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    if let Some(node) = names.remove(&old) {
                        names.insert(new, node);
                    }
                }
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) live: Names,
    pub(super) durable: Names,
    /// Changes of names since, in order.
    pub(super) pending: Vec<NameChange>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) faults: Faults,
    pub(super) boot: u64,
    pub(super) syncs: u64,
}

impl Inner {
    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Counts a call that changes something; refuses once the power is off.
    pub(super) fn step(&mut self) -> io::Result<()> {
        match &mut self.faults.calls_left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// What is left of a file: each page that was not synced is new or old.
pub(super) fn survive(bytes: &Bytes, seeded: &mut Seeded) -> Vec<u8> {
    let (live, durable) = (&bytes.live, &bytes.durable);
    if live == durable {
        return durable.clone();
    }
    let (short, long) = (live.len().min(durable.len()), live.len().max(durable.len()));
    let size = match seeded.below(3) {
        0 => durable.len(),
        1 => live.len(),
        _ => short + seeded.below(long - short + 1),
    };
    let mut survived = durable.clone();
    survived.resize(size, 0);
    for start in (0..size).step_by(PAGE) {
        if seeded.below(2) == 0 {
            let end = (start + PAGE).min(size).min(live.len());
            if start < end {
                survived[start..end].copy_from_slice(&live[start..end]);
            }
        }
    }
    survived
}
