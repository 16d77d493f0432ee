//! A file system in memory that fills up, fails, and loses power.
//!
//! It is stricter than a disk: bytes that were not synced are kept or lost page by page, and names
//! that were not synced are kept up to some point in the order in which they changed. Every choice
//! comes from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::files::{Access, DiskSpace, Entry, File, Files, Lock};

/// Bytes are lost or kept in pieces of this size.
const PAGE: usize = 512;
/// `EIO` of Linux.
const EIO: i32 = 5;
/// `ENOSPC` of Linux.
const ENOSPC: i32 = 28;

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
    /// A write takes a part of what it is given.
    pub short_writes: bool,
    /// After so many calls that change something, the power is off.
    pub calls_left: Option<u64>,
}

#[derive(Debug, Default)]
struct Bytes {
    live: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Node {
    Directory,
    File(Arc<Mutex<Bytes>>),
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, Node),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn within(&self, dir: &Path) -> bool {
        match self {
            NameChange::Create(path, _) | NameChange::Remove(path) => path.parent() == Some(dir),
            NameChange::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn apply(&self, names: &mut Names) {
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
struct Inner {
    live: Names,
    durable: Names,
    /// Changes of names since, in order.
    pending: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    faults: Faults,
    boot: u64,
    syncs: u64,
}

impl Inner {
    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Counts a call that changes something; refuses once the power is off.
    fn step(&mut self) -> io::Result<()> {
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

/// The file system in memory. Clones are the same file system.
#[derive(Clone, Debug, Default)]
pub struct MemFiles {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct MemFile {
    bytes: Arc<Mutex<Bytes>>,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct MemLock {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

impl Lock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.inner.lock().locks.remove(&self.path);
    }
}

/// Numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Seeded(pub u64);

impl Seeded {
    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % (bound.max(1) as u64)).unwrap_or(0)
    }
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

/// What is left of a file: each page that was not synced is new or old.
fn survive(bytes: &Bytes, seeded: &mut Seeded) -> Vec<u8> {
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

impl Files for MemFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut inner = self.inner.lock();
        let bytes = match inner.live.get(path) {
            Some(Node::File(bytes)) => Arc::clone(bytes),
            Some(Node::Directory) => return Err(io::ErrorKind::IsADirectory.into()),
            None if matches!(access, Access::Read | Access::ReadWrite) => {
                return Err(io::ErrorKind::NotFound.into());
            }
            None => {
                inner.step()?;
                let parent = path.parent().unwrap_or(Path::new("/"));
                if !inner.live.contains_key(parent) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                if inner.faults.space_left == Some(0) {
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
                let bytes = Arc::new(Mutex::new(Bytes::default()));
                let node = Node::File(Arc::clone(&bytes));
                inner.change(NameChange::Create(path.to_owned(), node));
                bytes
            }
        };
        if access == Access::Replace {
            bytes.lock().live.clear();
        }
        Ok(Arc::new(MemFile {
            bytes,
            inner: Arc::clone(&self.inner),
        }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        let mut missing: Vec<&Path> = path
            .ancestors()
            .filter(|path| !inner.live.contains_key(*path))
            .collect();
        missing.reverse();
        for path in missing {
            inner.change(NameChange::Create(path.to_owned(), Node::Directory));
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let inner = self.inner.lock();
        if !inner.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = inner
            .live
            .iter()
            .filter(|(name, _)| name.parent() == Some(path));
        Ok(within
            .map(|(name, node)| Entry {
                name: name
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned(),
                is_directory: matches!(node, Node::Directory),
            })
            .collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        if !inner.live.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        if !matches!(inner.live.get(path), Some(Node::File(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        inner.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        inner.change(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        inner.syncs += 1;
        if inner.faults.fail_syncs {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let (synced, pending) = std::mem::take(&mut inner.pending)
            .into_iter()
            .partition(|c| c.within(path));
        inner.pending = pending;
        let synced: Vec<NameChange> = synced;
        for change in synced {
            change.apply(&mut inner.durable);
        }
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<DiskSpace> {
        let usable_bytes = self.inner.lock().faults.space_left.unwrap_or(1 << 40);
        Ok(DiskSpace {
            usable_bytes,
            total_bytes: 1 << 40,
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let mut inner = self.inner.lock();
        if !inner.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock {
            path: path.to_owned(),
            inner: Arc::clone(&self.inner),
        }))
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("boot-{}", self.inner.lock().boot))
    }
}

impl File for MemFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.inner.lock().faults.fail_reads {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let bytes = self.bytes.lock();
        let start = usize::try_from(position)
            .unwrap_or(usize::MAX)
            .min(bytes.live.len());
        let count = buffer.len().min(bytes.live.len() - start);
        buffer[..count].copy_from_slice(&bytes.live[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        let mut inner = self.inner.lock();
        inner.step()?;
        if inner.faults.fail_writes {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut data: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect();
        if inner.faults.short_writes && data.len() > 1 {
            data.truncate(data.len() / 2 + 1);
        }
        let mut bytes = self.bytes.lock();
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        if let Some(left) = &mut inner.faults.space_left {
            let room = usize::try_from(*left).unwrap_or(usize::MAX);
            let free = bytes.live.len().saturating_sub(start);
            if data.len() > free + room {
                data.truncate(free + room);
                if data.is_empty() {
                    return Err(io::Error::from_raw_os_error(ENOSPC));
                }
            }
            let growth = (start + data.len()).saturating_sub(bytes.live.len());
            *left -= growth as u64;
        }
        let end = start + data.len();
        if bytes.live.len() < end {
            bytes.live.resize(end, 0);
        }
        bytes.live[start..end].copy_from_slice(&data);
        Ok(data.len())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().live.len() as u64)
    }

    fn set_size(&self, size: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        let mut bytes = self.bytes.lock();
        let (old, size) = (
            bytes.live.len(),
            usize::try_from(size).unwrap_or(usize::MAX),
        );
        if let Some(left) = &mut inner.faults.space_left {
            *left += old.saturating_sub(size) as u64;
        }
        bytes.live.resize(size, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.step()?;
        inner.syncs += 1;
        if inner.faults.fail_syncs {
            return Err(io::Error::from_raw_os_error(EIO));
        }
        let mut bytes = self.bytes.lock();
        bytes.durable = bytes.live.clone();
        Ok(())
    }

    fn modified_ms(&self) -> io::Result<i64> {
        Ok(0)
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
