//! The controller's RocksDB: vote, log, committed index and snapshots.
//!
//! Synchronous; lives on the thread of [`super::disk`].
//!
//! # Invariants
//! * Nothing returns `Ok` before it is in the synced WAL, snapshot chunks excepted, which count
//!   only once their head is (C-5, S-11).
//! * Writes happen in the order in which they were asked for: a vote is never behind a later log
//!   write.
//! * The log is never purged beyond the durable snapshot: openraft purges before it has installed
//!   a snapshot it received, so such a purge is remembered and done in the batch that makes the
//!   snapshot durable (C-3).
//! * After a failed write nothing is written any more (S-6, S-11).

use std::{fs::File, path::Path};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBRecoveryMode, Direction, IteratorMode,
    LogLevel, Options, WriteBatch, WriteOptions,
};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use ottla_types::BrokerId;

use super::layout::{
    self, BadValue, Identity, KEY_COMMITTED, KEY_IDENTITY, KEY_PURGED, KEY_SNAPSHOT, KEY_VOTE, LOG,
    META, SNAPSHOT, SnapshotHead,
};
use super::types::{LogId, Vote};

/// Why the store cannot do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The directory cannot be made.
    #[error("create {path}: {reason}")]
    Directory { path: String, reason: String },
    /// RocksDB refused.
    #[error("rocksdb: {0}")]
    Database(#[from] rocksdb::Error),
    /// Stored bytes make no sense.
    #[error(transparent)]
    BadValue(#[from] BadValue),
    /// Something that must be there is not.
    #[error("the controller's store lacks {0}")]
    Missing(&'static str),
    /// The store belongs to another node.
    #[error("the controller's store belongs to node {found}, this is node {expected}")]
    OtherNode { found: BrokerId, expected: BrokerId },
    /// An earlier write failed.
    #[error("the controller's store has failed: {0}")]
    Failed(String),
    /// The store is closed.
    #[error("the controller's store is closed")]
    Closed,
}

/// First and last of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogBounds {
    pub(crate) purged: Option<LogId>,
    pub(crate) last: Option<LogId>,
}

/// The open store.
pub(crate) struct Store {
    db: DB,
    identity: Identity,
    /// What openraft regards as purged; at least what is durably purged.
    purged: Option<LogId>,
    snapshot: Option<SnapshotHead>,
    /// The number of the newest snapshot, finished or not.
    snapshot_number: u64,
    failed: Option<String>,
}

impl Store {
    /// Opens or creates the store of `node_id`.
    pub(crate) fn open(path: &Path, node_id: BrokerId) -> Result<Store, StoreError> {
        let directory = |error: std::io::Error| StoreError::Directory {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        std::fs::create_dir_all(path).map_err(directory)?;
        if let Some(parent) = path.parent() {
            File::open(parent)
                .and_then(|file| file.sync_all())
                .map_err(directory)?;
        }
        let families = [META, LOG, SNAPSHOT]
            .map(|name| ColumnFamilyDescriptor::new(name, family_options(name)));
        let db = DB::open_cf_descriptors(&database_options(), path, families)?;
        let fresh = Identity {
            node_id,
            directory_id: Uuid::new_v4(),
        };
        let mut store = Store {
            db,
            identity: fresh,
            purged: None,
            snapshot: None,
            snapshot_number: 0,
            failed: None,
        };
        match store.read_meta::<Identity>(KEY_IDENTITY)? {
            Some(identity) if identity.node_id != node_id => {
                return Err(StoreError::OtherNode {
                    found: identity.node_id,
                    expected: node_id,
                });
            }
            Some(identity) => store.identity = identity,
            None => store.write_meta(KEY_IDENTITY, &fresh)?,
        }
        store.purged = store.read_meta(KEY_PURGED)?;
        store.snapshot = store.read_meta(KEY_SNAPSHOT)?;
        store.snapshot_number = store.snapshot.as_ref().map_or(0, |head| head.number);
        store.drop_unfinished_snapshots()?;
        Ok(store)
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Nobody has voted here and nothing was replicated to here.
    pub(crate) fn is_blank(&self) -> Result<bool, StoreError> {
        let bounds = self.bounds()?;
        Ok(self.vote()?.is_none() && bounds.last.is_none() && self.snapshot.is_none())
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote>, StoreError> {
        self.read_meta(KEY_VOTE)
    }

    pub(crate) fn save_vote(&mut self, vote: &Vote) -> Result<(), StoreError> {
        self.write_meta(KEY_VOTE, vote)
    }

    pub(crate) fn committed(&self) -> Result<Option<LogId>, StoreError> {
        Ok(self.read_meta::<Option<LogId>>(KEY_COMMITTED)?.flatten())
    }

    pub(crate) fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StoreError> {
        self.write_meta(KEY_COMMITTED, &committed)
    }

    pub(crate) fn bounds(&self) -> Result<LogBounds, StoreError> {
        let newest = self
            .db
            .iterator_cf(self.family(LOG)?, IteratorMode::End)
            .next();
        let last = match newest.transpose()? {
            Some((_, value)) => {
                Some(layout::decode::<super::types::Entry>("entry", &value)?.log_id)
            }
            None => None,
        };
        let purged_to = self.purged.map(|id| id.index);
        let last = last.filter(|id| purged_to.is_none_or(|purged| id.index > purged));
        Ok(LogBounds {
            purged: self.purged,
            last: last.or(self.purged),
        })
    }

    /// Entries of `[start, end)` in order, encoded, until `bytes_max` is reached; the first one
    /// is given whatever its size.
    pub(crate) fn entries(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<Box<[u8]>>, StoreError> {
        let start = self
            .purged
            .map_or(start, |purged| start.max(purged.index.saturating_add(1)));
        let from = layout::log_key(start);
        let mode = IteratorMode::From(&from, Direction::Forward);
        let mut found = Vec::new();
        let mut bytes = 0usize;
        for item in self.db.iterator_cf(self.family(LOG)?, mode) {
            let (key, value) = item?;
            if layout::log_index(&key)? >= end {
                break;
            }
            bytes = bytes.saturating_add(value.len());
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(value);
        }
        Ok(found)
    }

    /// Appends encoded entries.
    pub(crate) fn append(&mut self, entries: &[(u64, Vec<u8>)]) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let log = self.family(LOG)?;
        for (index, value) in entries {
            batch.put_cf(log, layout::log_key(*index), value);
        }
        self.write(batch)
    }

    /// Removes the entry at `since` and all later ones.
    pub(crate) fn truncate(&mut self, since: u64) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let log = self.family(LOG)?;
        batch.delete_range_cf(log, layout::log_key(since), layout::log_key(u64::MAX));
        self.write(batch)
    }

    /// Removes everything up to and including `upto`, or remembers to, if no durable snapshot
    /// covers it yet.
    pub(crate) fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        let covered = self
            .snapshot
            .as_ref()
            .and_then(|head| head.meta.last_log_id);
        if covered.is_some_and(|last| last.index >= upto.index) {
            let mut batch = WriteBatch::default();
            self.add_purge(&mut batch, upto)?;
            self.write(batch)?;
        }
        self.purged = Some(upto);
        Ok(())
    }

    fn add_purge(&self, batch: &mut WriteBatch, upto: LogId) -> Result<(), StoreError> {
        let end = layout::log_key(upto.index.saturating_add(1));
        batch.delete_range_cf(self.family(LOG)?, layout::log_key(0), end);
        batch.put_cf(self.family(META)?, KEY_PURGED, layout::encode(&upto));
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Option<&SnapshotHead> {
        self.snapshot.as_ref()
    }

    /// A number for a snapshot that is to be written.
    pub(crate) fn next_snapshot_number(&mut self) -> u64 {
        self.snapshot_number = self.snapshot_number.saturating_add(1);
        self.snapshot_number
    }

    /// Removes chunks that a crash left without a head.
    fn drop_unfinished_snapshots(&mut self) -> Result<(), StoreError> {
        let first = layout::chunk_key(self.snapshot_number.saturating_add(1), 0);
        let last = layout::chunk_key(u64::MAX, u32::MAX);
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.family(SNAPSHOT)?, first, last);
        self.write(batch)
    }

    /// One chunk of the current snapshot, or of one being written.
    pub(crate) fn snapshot_chunk(&self, number: u64, chunk: u32) -> Result<Vec<u8>, StoreError> {
        let key = layout::chunk_key(number, chunk);
        let found = self.db.get_cf(self.family(SNAPSHOT)?, key)?;
        found.ok_or(StoreError::Missing("a snapshot chunk"))
    }

    /// Writes one chunk of a snapshot that does not count yet.
    pub(crate) fn put_snapshot_chunk(
        &mut self,
        number: u64,
        chunk: u32,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(
            self.family(SNAPSHOT)?,
            layout::chunk_key(number, chunk),
            bytes,
        );
        self.write_batch(batch, false)
    }

    /// Makes a written snapshot the current one, unless a later one already is. Syncing this
    /// write syncs its chunks, which stand before it in the WAL. For a snapshot `received` from
    /// the leader the log that it replaces goes in the same batch.
    pub(crate) fn commit_snapshot(
        &mut self,
        head: SnapshotHead,
        received: bool,
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        let chunks = self.family(SNAPSHOT)?;
        let current = self
            .snapshot
            .as_ref()
            .and_then(|head| head.meta.last_log_id);
        if self.snapshot.is_some() && current > head.meta.last_log_id {
            let own = layout::chunk_key(head.number, 0)..layout::chunk_key(head.number, u32::MAX);
            batch.delete_range_cf(chunks, own.start, own.end);
            return self.write(batch);
        }
        batch.put_cf(self.family(META)?, KEY_SNAPSHOT, layout::encode(&head));
        batch.delete_range_cf(
            chunks,
            layout::chunk_key(0, 0),
            layout::chunk_key(head.number, 0),
        );
        if received && let Some(last) = head.meta.last_log_id {
            self.add_purge(&mut batch, last)?;
        }
        self.write(batch)?;
        if received {
            self.purged = self.purged.max(head.meta.last_log_id);
        }
        self.snapshot = Some(head);
        Ok(())
    }

    fn family(&self, name: &'static str) -> Result<&rocksdb::ColumnFamily, StoreError> {
        self.db.cf_handle(name).ok_or(StoreError::Missing(name))
    }

    fn read_meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.db.get_cf(self.family(META)?, key)? {
            Some(bytes) => Ok(Some(layout::decode("meta", &bytes)?)),
            None => Ok(None),
        }
    }

    fn write_meta<T: Serialize>(&mut self, key: &[u8], value: &T) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(META)?, key, layout::encode(value));
        self.write(batch)
    }

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        self.write_batch(batch, true)
    }

    fn write_batch(&mut self, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed(reason.clone()));
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| {
            self.failed = Some(error.to_string());
            StoreError::Database(error)
        })
    }
}

fn database_options() -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    // Stops at the first bad WAL record. Never the mode that skips it and goes on (S-11).
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_recycle_log_file_num(0); // B-19
    options.set_max_total_wal_size(32 << 20);
    options.set_max_open_files(64);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options
}

fn family_options(name: &str) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(if name == META { 1 << 20 } else { 8 << 20 });
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(2 << 20));
    options.set_block_based_table_factory(&table);
    options
}
