//! openraft's state machine over the cluster state, and its snapshots on disk.
//!
//! The state itself lives in memory; at start the last snapshot is loaded and openraft applies the
//! log from there to the saved committed index.
//!
//! # Invariants
//! * A snapshot counts once its head is durable, and then all of it is (C-3).
//! * `purged <= snapshot <= applied` (C-4): see [`super::store`].

use std::{io::Cursor, sync::Arc};

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use ottla_metadata::{ClusterState, Outcome};

use super::disk::Disk;
use super::layout::{self, SNAPSHOT_CHUNK_BYTES, SnapshotHead};
use super::store::StoreError;
use super::types::{
    Decision, Entry, LogId, Membership, Proposal, Snapshot, SnapshotMeta, StorageError,
    StorageIoError, TypeConfig,
};
use crate::cluster::{ApplyError, Cluster};

/// A snapshot's content; its metadata travels beside it.
#[derive(Serialize, Deserialize)]
struct Body {
    state: ClusterState,
}

/// Position in the log and membership, in openraft's terms.
#[derive(Clone, Default)]
struct Position {
    last_applied: Option<LogId>,
    membership: Membership,
}

/// Applies committed entries to the shared [`Cluster`].
pub(crate) struct StateMachine {
    disk: Disk,
    cluster: Arc<Cluster>,
    position: Arc<Mutex<Position>>,
}

impl StateMachine {
    /// Loads the last snapshot, if there is one.
    pub(crate) async fn open(
        disk: Disk,
        cluster: Arc<Cluster>,
    ) -> Result<StateMachine, StoreError> {
        let position = Arc::new(Mutex::new(Position::default()));
        let machine = StateMachine {
            disk,
            cluster,
            position,
        };
        if let Some((meta, bytes)) = load(&machine.disk).await? {
            let (body, _) = decode(bytes).await.map_err(StoreError::Failed)?;
            machine.adopt(&meta, body).map_err(StoreError::Failed)?;
        }
        Ok(machine)
    }

    fn adopt(&self, meta: &SnapshotMeta, body: Body) -> Result<(), String> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.cluster
            .install(body.state, index)
            .map_err(|error| error.to_string())?;
        *self.position.lock() = Position {
            last_applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
        };
        Ok(())
    }

    fn apply_one(&self, entry: &Entry) -> Result<Option<Outcome>, ApplyError> {
        let mut membership = None;
        let outcome = match &entry.payload {
            EntryPayload::Blank | EntryPayload::Normal(Proposal::Activate) => None,
            EntryPayload::Normal(Proposal::Command(command)) => {
                Some(self.cluster.apply(entry.log_id.index, command)?)
            }
            EntryPayload::Membership(members) => {
                membership = Some(Membership::new(Some(entry.log_id), members.clone()));
                None
            }
        };
        let mut position = self.position.lock();
        position.last_applied = Some(entry.log_id);
        if let Some(membership) = membership {
            position.membership = membership;
        }
        Ok(outcome)
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        let position = self.position.lock().clone();
        Ok((position.last_applied, position.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Decision>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut decisions = Vec::new();
        for entry in entries {
            let outcome = self.apply_one(&entry).map_err(|error| {
                StorageError::from(StorageIoError::apply(entry.log_id, AnyError::new(&error)))
            })?;
            decisions.push(Decision { outcome });
            self.cluster.publish(entry.log_id.index);
        }
        Ok(decisions)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let (state, _) = self.cluster.state();
        let position = self.position.lock().clone();
        SnapshotBuilder {
            disk: self.disk.clone(),
            state,
            position,
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: AnyError| -> StorageError {
            StorageIoError::write_snapshot(Some(meta.signature()), error).into()
        };
        let refused = |reason: String| failed(AnyError::error(reason));
        // First of all: a snapshot that cannot be read must not replace one that can.
        let (body, bytes) = decode(snapshot.into_inner()).await.map_err(refused)?;
        store(&self.disk, meta.clone(), bytes, true)
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        self.adopt(meta, body).map_err(refused)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let loaded = load(&self.disk).await.map_err(|error| {
            StorageError::from(StorageIoError::read_snapshot(None, AnyError::new(&error)))
        })?;
        Ok(loaded.map(|(meta, bytes)| Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }
}

/// Decodes a snapshot; off the threads that heartbeats need, because a large cluster takes longer
/// than they may wait.
async fn decode(bytes: Vec<u8>) -> Result<(Body, Vec<u8>), String> {
    let decoding = tokio::task::spawn_blocking(move || {
        let body = layout::decode::<Body>("snapshot", &bytes);
        body.map(|body| (body, bytes))
            .map_err(|error| error.to_string())
    });
    decoding.await.map_err(|error| error.to_string())?
}

/// Writes a snapshot of the state as it was when the builder was made.
pub(crate) struct SnapshotBuilder {
    disk: Disk,
    state: ClusterState,
    position: Position,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let last = self.position.last_applied;
        let snapshot_id = match last {
            Some(id) => format!("{}-{}", id.leader_id, id.index),
            None => "empty".to_owned(),
        };
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: self.position.membership.clone(),
            snapshot_id,
        };
        let failed = |error: AnyError| -> StorageError {
            StorageIoError::write_snapshot(Some(meta.signature()), error).into()
        };
        let body = Body {
            state: std::mem::take(&mut self.state),
        };
        // Encoding a large cluster takes longer than a heartbeat may wait.
        let bytes = tokio::task::spawn_blocking(move || layout::encode(&body))
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        let bytes = store(&self.disk, meta.clone(), bytes, false)
            .await
            .map_err(|error| failed(AnyError::new(&error)))?;
        tracing::info!(
            index = last.map(|id| id.index),
            bytes = bytes.len(),
            "snapshot written"
        );
        Ok(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        })
    }
}

/// Writes a snapshot chunk by chunk, so that a vote or an append never waits behind all of it,
/// then makes it count.
async fn store(
    disk: &Disk,
    meta: SnapshotMeta,
    bytes: Vec<u8>,
    received: bool,
) -> Result<Vec<u8>, StoreError> {
    let bytes = Arc::new(bytes);
    let number = disk.run(|store| Ok(store.next_snapshot_number())).await?;
    let mut chunks = 0u32;
    let mut start = 0usize;
    while start < bytes.len() {
        let end = bytes.len().min(start + SNAPSHOT_CHUNK_BYTES);
        let (bytes, chunk) = (bytes.clone(), chunks);
        disk.run(move |store| store.put_snapshot_chunk(number, chunk, &bytes[start..end]))
            .await?;
        chunks = chunks.saturating_add(1);
        start = end;
    }
    let size_bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let head = SnapshotHead {
        meta,
        number,
        chunks,
        size_bytes,
        crc32c: crc32c::crc32c(&bytes),
    };
    disk.run(move |store| store.commit_snapshot(head, received))
        .await?;
    Ok(Arc::try_unwrap(bytes).unwrap_or_else(|shared| shared.as_ref().clone()))
}

/// Reads the current snapshot and checks it. If a newer one replaces it meanwhile, reads that.
async fn load(disk: &Disk) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
    loop {
        let Some(head) = disk.run(|store| Ok(store.snapshot().cloned())).await? else {
            return Ok(None);
        };
        match load_chunks(disk, &head).await {
            Ok(bytes) if crc32c::crc32c(&bytes) == head.crc32c => {
                return Ok(Some((head.meta, bytes)));
            }
            result => {
                let number = disk
                    .run(|store| Ok(store.snapshot().map(|now| now.number)))
                    .await?;
                if number == Some(head.number) {
                    result?;
                    let reason = "the snapshot's checksum does not match".to_owned();
                    return Err(StoreError::Failed(reason));
                }
            }
        }
    }
}

async fn load_chunks(disk: &Disk, head: &SnapshotHead) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    for chunk in 0..head.chunks {
        let number = head.number;
        let read = disk
            .run(move |store| store.snapshot_chunk(number, chunk))
            .await?;
        bytes.extend_from_slice(&read);
    }
    Ok(bytes)
}
