//! The calls to the file system in memory, each with its faults.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::MemFiles;
use super::disk::{Bytes, Inner, NameChange, Node};
use crate::files::{Access, DiskSpace, Entry, File, Files, Lock};

/// `EIO` of Linux.
const EIO: i32 = 5;
/// `EMFILE` of Linux.
const EMFILE: i32 = 24;
/// `ENOSPC` of Linux.
const ENOSPC: i32 = 28;

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

impl Files for MemFiles {
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let mut inner = self.inner.lock();
        if inner.faults.fail_opens {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
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
        if inner.faults.fail_opens {
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
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
