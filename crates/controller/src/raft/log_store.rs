//! openraft's log storage over the store's thread.

use std::{fmt::Debug, io, ops::Bound, ops::RangeBounds};

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogReader};

use super::disk::Disk;
use super::layout;
use super::store::StoreError;
use super::types::{Entry, LogId, StorageError, StorageIoError, TypeConfig, Vote};

/// Bytes of entries read for one append call: it must fit its deadline on a slow network.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// The log, the vote and the committed index.
#[derive(Clone)]
pub(crate) struct LogStore {
    disk: Disk,
}

impl LogStore {
    pub(crate) fn new(disk: Disk) -> LogStore {
        LogStore { disk }
    }

    async fn read(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, StorageError> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        if start >= end {
            return Ok(Vec::new());
        }
        let job = move |store: &mut super::store::Store| store.entries(start, end, bytes_max);
        let values = self.disk.run(job).await.map_err(read_failed)?;
        let decoded = values
            .iter()
            .map(|value| layout::decode::<Entry>("entry", value));
        decoded
            .collect::<Result<_, _>>()
            .map_err(|error| read_failed(error.into()))
    }
}

fn read_failed(error: StoreError) -> StorageError {
    StorageIoError::read_logs(AnyError::new(&error)).into()
}

fn write_failed(error: StoreError) -> StorageError {
    StorageIoError::write_logs(AnyError::new(&error)).into()
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(range, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.read(start..end, APPEND_BYTES_MAX).await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let bounds = self
            .disk
            .run(|store| store.bounds())
            .await
            .map_err(read_failed)?;
        Ok(LogState {
            last_purged_log_id: bounds.purged,
            last_log_id: bounds.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let vote = *vote;
        let saved = self.disk.run(move |store| store.save_vote(&vote)).await;
        saved.map_err(|error| StorageIoError::write_vote(AnyError::new(&error)).into())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        let vote = self.disk.run(|store| store.vote()).await;
        vote.map_err(|error| StorageIoError::read_vote(AnyError::new(&error)).into())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.disk
            .run(move |store| store.save_committed(committed))
            .await
            .map_err(write_failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        self.disk
            .run(|store| store.committed())
            .await
            .map_err(read_failed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<(u64, Vec<u8>)> = entries
            .into_iter()
            .map(|entry| (entry.log_id.index, layout::encode(&entry)))
            .collect();
        match self.disk.run(move |store| store.append(&entries)).await {
            Ok(()) => {
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(io::Error::other(error.to_string())));
                Err(write_failed(error))
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.disk
            .run(move |store| store.truncate(log_id.index))
            .await
            .map_err(write_failed)
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.disk
            .run(move |store| store.purge(log_id))
            .await
            .map_err(write_failed)
    }
}
