//! Partition logs on disk, laid out as Apache Kafka does, over a small [`Files`] trait.
//!
//! Everything here is synchronous and belongs to somebody: a [`Log`] to the shard thread that
//! appends to it, a [`FlushJob`] to a thread of the flush pool, a [`LogReader`] to whoever reads.
//! Nothing here knows of leadership, of the network or of the time of day: they come in with the
//! call.
//!
//! # Invariants
//! * After a crash the log is a prefix of what was appended, holds everything that was reported
//!   flushed, and has no hole (S-1).
//! * What lies below the durable mark is never cut silently (S-2). Everything but the batches is
//!   derived: indexes, snapshots and epoch lists can be deleted (S-3).
//! * A sync that failed is never believed again: the directory is failed for good (S-6). A full
//!   disk fails nothing (S-7).
//! * An offset is reported flushed only when its bytes and the names that lead to them are
//!   durable (S-8), and only within the generation of the log that they were flushed in.
//!
//! Start with [`LogDir`], then [`Log`].

mod active;
mod checkpoint;
mod config;
mod derived;
mod dir_state;
mod epoch_cache;
mod error;
mod files;
mod index;
mod log;
mod log_dir;
mod memory_index;
mod meta;
mod names;
mod producer_snapshot;
mod producers;
mod reader;
mod scan;
mod segment;

#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;

pub use config::LogConfig;
pub use epoch_cache::{EpochCache, EpochEntry};
pub use error::{AppendError, DiskError, LogDirError, LogError, ReadError};
pub use files::{Access, DiskSpace, Entry, File, Files, Lock, OsFiles};
pub use log::{Appended, DeletedSegment, FlushDone, FlushJob, Log, Recovery};
pub use log_dir::{LogDir, OpenedDir, PartitionMarks};
pub use producers::{ActiveProducer, SequenceChecks, SequenceVerdict};
pub use reader::{LogReader, LogSlice};
