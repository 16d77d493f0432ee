//! What all logs of one directory share: the file system, whether it failed, and how far each log
//! is flushed.
//!
//! # Invariants
//! * Once failed, failed for good in this process (S-6): nothing is written any more.
//! * A recovery point is never checkpointed above what its log knows to be flushed *now*: a
//!   truncation lowers that first (S-4).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

use ottla_types::{Offset, PartitionIndex};

use crate::error::DiskError;
use crate::files::{Access, Files, is_no_space, is_too_many_files, write_bytes_at};
use crate::names;

/// `EIO` of Linux.
const EIO: i32 = 5;
/// `EROFS`: what a file system becomes whose device fails.
const EROFS: i32 = 30;

/// How far one open log is flushed, for whoever writes checkpoints.
#[derive(Debug)]
pub(crate) struct FlushedMark {
    flushed: AtomicI64,
    /// Whether only flushed offsets count (mode `ack`), which then bounds the high watermark too.
    counts_flushed_only: AtomicBool,
    /// The log ended cleanly.
    closed: AtomicBool,
}

impl FlushedMark {
    pub(crate) fn set(&self, flushed: Offset) {
        self.flushed.store(flushed.get(), Ordering::SeqCst);
    }

    pub(crate) fn set_counts_flushed_only(&self, only: bool) {
        self.counts_flushed_only.store(only, Ordering::SeqCst);
    }

    pub(crate) fn set_closed(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

/// What may be checkpointed for one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClampedMarks {
    pub(crate) recovery_point: Offset,
    pub(crate) high_watermark: Offset,
    /// Its mode, if it is open: whether the high watermark was lowered to what is flushed.
    pub(crate) counts_flushed_only: Option<bool>,
}

/// The shared state of one log directory.
#[derive(Debug)]
pub(crate) struct DirState {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) path: PathBuf,
    failed: AtomicBool,
    temporary: AtomicU64,
    checkpoints_begun: AtomicU64,
    checkpoints_done: AtomicU64,
    marks: Mutex<HashMap<(String, PartitionIndex), Arc<FlushedMark>>>,
}

impl DirState {
    pub(crate) fn new(files: Arc<dyn Files>, path: PathBuf) -> DirState {
        DirState {
            files,
            path,
            failed: AtomicBool::new(false),
            temporary: AtomicU64::new(0),
            checkpoints_begun: AtomicU64::new(0),
            checkpoints_done: AtomicU64::new(0),
            marks: Mutex::new(HashMap::new()),
        }
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Refuses once the directory has failed.
    pub(crate) fn refuse_if_failed(&self) -> Result<(), DiskError> {
        if self.failed() {
            Err(DiskError::DirectoryFailed)
        } else {
            Ok(())
        }
    }

    fn fail(&self, operation: &'static str, path: &Path, error: &io::Error) {
        if !self.failed.swap(true, Ordering::SeqCst) {
            tracing::error!(operation, path = %path.display(), %error, "log directory failed");
        }
    }

    /// Judges the answer to a write, a rename or a sync: anything but a full disk fails the
    /// directory (S-6, P-25).
    pub(crate) fn written<T>(
        &self,
        operation: &'static str,
        path: &Path,
        answer: io::Result<T>,
    ) -> Result<T, DiskError> {
        answer.map_err(|source| {
            if is_no_space(&source) {
                return DiskError::NoSpace;
            }
            if is_too_many_files(&source) {
                return DiskError::TooManyFiles;
            }
            self.fail(operation, path, &source);
            DiskError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Judges the answer to a sync: any error fails the directory, a full disk too, because
    /// nothing is known of what is durable (S-6, B-18). Not so where there was no sync, because
    /// what was to be synced could not be opened.
    pub(crate) fn synced<T>(
        &self,
        operation: &'static str,
        path: &Path,
        answer: io::Result<T>,
    ) -> Result<T, DiskError> {
        answer.map_err(|source| {
            if is_too_many_files(&source) {
                return DiskError::TooManyFiles;
            }
            self.fail(operation, path, &source);
            DiskError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Judges the answer to a read or an open: only a device that fails, fails the directory.
    pub(crate) fn read<T>(
        &self,
        operation: &'static str,
        path: &Path,
        answer: io::Result<T>,
    ) -> Result<T, DiskError> {
        answer.map_err(|source| {
            if is_no_space(&source) {
                return DiskError::NoSpace;
            }
            if is_too_many_files(&source) {
                return DiskError::TooManyFiles;
            }
            self.note_read_error(path, &source);
            DiskError::Io {
                operation,
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Fails the directory if a read failed because the device did.
    pub(crate) fn note_read_error(&self, path: &Path, error: &io::Error) {
        if matches!(error.raw_os_error(), Some(EIO | EROFS)) {
            self.fail("read", path, error);
        }
    }

    /// Puts `bytes` into `path`: all of them or, after a crash, what was there before. The caller
    /// syncs the directory.
    pub(crate) fn replace_file(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(path, bytes, true)
    }

    /// As [`DirState::replace_file`], but after a power cut the file may be torn: for what has a
    /// checksum and can be had from elsewhere.
    pub(crate) fn replace_derived(&self, path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
        self.replace(path, bytes, false)
    }

    fn replace(&self, path: &Path, bytes: &[u8], sync: bool) -> Result<(), DiskError> {
        self.refuse_if_failed()?;
        let serial = self.temporary.fetch_add(1, Ordering::Relaxed);
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{serial}{}", names::TEMPORARY));
        let temporary = path.with_file_name(name);
        let written = (|| {
            let file = self.read(
                "create",
                &temporary,
                self.files.open(&temporary, Access::Replace),
            )?;
            self.written("write", &temporary, write_bytes_at(&*file, bytes, 0))?;
            if sync {
                self.synced("sync", &temporary, file.sync())?;
            }
            self.written("rename", path, self.files.rename(&temporary, path))
        })();
        if written.is_err() {
            let _ = self.files.remove_file(&temporary);
        }
        written
    }

    /// Makes the names in `dir` durable.
    pub(crate) fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.synced("sync", dir, self.files.sync_dir(dir))
    }

    /// Removes a file that may be missing.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<(), DiskError> {
        match self.files.remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            answer => self.written("remove", path, answer),
        }
    }

    /// Registers an open log.
    pub(crate) fn register(
        &self,
        topic: &str,
        partition: PartitionIndex,
        flushed: Offset,
        counts_flushed_only: bool,
    ) -> Arc<FlushedMark> {
        let mark = Arc::new(FlushedMark {
            flushed: AtomicI64::new(flushed.get()),
            counts_flushed_only: AtomicBool::new(counts_flushed_only),
            closed: AtomicBool::new(false),
        });
        self.marks
            .lock()
            .insert((topic.to_owned(), partition), Arc::clone(&mark));
        mark
    }

    /// Forgets a log that was deleted.
    pub(crate) fn deregister(&self, topic: &str, partition: PartitionIndex) {
        self.marks.lock().remove(&(topic.to_owned(), partition));
    }

    /// Whether a log was opened and has ended cleanly since.
    pub(crate) fn is_closed(&self, topic: &str, partition: PartitionIndex) -> bool {
        let marks = self.marks.lock();
        let mark = marks.get(&(topic.to_owned(), partition));
        mark.is_some_and(|mark| mark.closed.load(Ordering::SeqCst))
    }

    /// Lowers a recovery point and a high watermark to what may be checkpointed for this log.
    pub(crate) fn clamp_marks(
        &self,
        topic: &str,
        partition: PartitionIndex,
        recovery_point: Offset,
        high_watermark: Offset,
    ) -> ClampedMarks {
        let marks = self.marks.lock();
        let Some(mark) = marks.get(&(topic.to_owned(), partition)) else {
            return ClampedMarks {
                recovery_point,
                high_watermark,
                counts_flushed_only: None,
            };
        };
        let flushed = Offset::saturating(mark.flushed.load(Ordering::SeqCst));
        let counts_flushed_only = mark.counts_flushed_only.load(Ordering::SeqCst);
        ClampedMarks {
            recovery_point: recovery_point.min(flushed),
            high_watermark: if counts_flushed_only {
                high_watermark.min(flushed)
            } else {
                high_watermark
            },
            counts_flushed_only: Some(counts_flushed_only),
        }
    }

    /// A checkpoint begins: from now on it sees every mark as it is.
    pub(crate) fn checkpoint_begins(&self) -> u64 {
        self.checkpoints_begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn checkpoint_done(&self, serial: u64) {
        self.checkpoints_done.fetch_max(serial, Ordering::SeqCst);
    }

    /// The newest checkpoint begun.
    pub(crate) fn checkpoints_begun(&self) -> u64 {
        self.checkpoints_begun.load(Ordering::SeqCst)
    }

    /// The newest checkpoint on disk.
    pub(crate) fn checkpoints_done(&self) -> u64 {
        self.checkpoints_done.load(Ordering::SeqCst)
    }
}
