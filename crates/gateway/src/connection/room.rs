//! The budget of request bytes over all connections.
//!
//! A small frame asks for its room when it is here, holding none while it waits. A large one asks
//! as its bytes come in, before each read, and keeps what it has: so the bytes in memory are
//! bounded however many connections send however slowly. That several large frames hold all the
//! room and each waits for more would be a deadlock; one of them at a time, whichever, goes on
//! without.
//!
//! # Invariant
//! Bytes of frames beyond [`FREE_BYTES`] a connection never exceed the budget by more than one frame.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Unit of the budget.
const UNIT_BYTES: usize = 1024;
/// So much of an unfinished frame is read without asking.
const FREE_BYTES: usize = 64 * 1024;

/// What all connections share.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    /// Held by the one unfinished frame that may go on without.
    exception: Arc<Semaphore>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Budget {
        let units = (bytes / UNIT_BYTES + 1).min(Semaphore::MAX_PERMITS);
        Budget {
            bytes: Arc::new(Semaphore::new(units)),
            exception: Arc::new(Semaphore::new(1)),
        }
    }

    #[cfg(test)]
    pub(super) fn available_bytes(&self) -> usize {
        self.bytes.available_permits() * UNIT_BYTES
    }
}

/// One frame's part of the budget; given back when dropped.
#[derive(Debug, Default)]
pub(super) struct Room {
    bytes: Option<OwnedSemaphorePermit>,
    is_exception: Option<OwnedSemaphorePermit>,
}

impl Room {
    fn add(&mut self, more: Room) {
        match (&mut self.bytes, more.bytes) {
            (Some(held), Some(more)) => held.merge(more),
            (held, more) => *held = held.take().or(more),
        }
        self.is_exception = self.is_exception.take().or(more.is_exception);
    }
}

/// The room of the frame that is coming in.
#[derive(Debug)]
pub(super) struct Arriving {
    budget: Option<Budget>,
    room: Room,
}

/// Room that somebody else has to give back first.
pub(super) type Waiting = BoxFuture<'static, Room>;

impl Arriving {
    pub(super) fn new(budget: Option<Budget>) -> Arriving {
        Arriving {
            budget,
            room: Room::default(),
        }
    }

    /// Asks for room for an unfinished frame of which so many bytes will be here.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Waiting> {
        if bytes <= FREE_BYTES {
            return Ok(());
        }
        self.ask(bytes, true)
    }

    /// Asks for what a frame that is whole still lacks.
    pub(super) fn complete(&mut self, bytes: usize) -> Result<(), Waiting> {
        self.ask(bytes, false)
    }

    fn ask(&mut self, bytes: usize, unfinished: bool) -> Result<(), Waiting> {
        let Some(budget) = &self.budget else {
            return Ok(());
        };
        let held = self
            .room
            .bytes
            .as_ref()
            .map_or(0, |held| held.num_permits());
        let missing = bytes.div_ceil(UNIT_BYTES).saturating_sub(held);
        if missing == 0 || self.room.is_exception.is_some() {
            return Ok(());
        }
        let missing = u32::try_from(missing).unwrap_or(u32::MAX);
        if let Ok(permit) = Arc::clone(&budget.bytes).try_acquire_many_owned(missing) {
            self.add(Room {
                bytes: Some(permit),
                is_exception: None,
            });
            return Ok(());
        }
        let Budget { bytes, exception } = budget.clone();
        Err(Box::pin(async move {
            let enough = bytes.acquire_many_owned(missing);
            if !unfinished {
                let bytes = enough.await.ok();
                return Room {
                    bytes,
                    is_exception: None,
                };
            }
            tokio::select! {
                bytes = enough => Room { bytes: bytes.ok(), is_exception: None },
                exception = exception.acquire_owned() => {
                    Room { bytes: None, is_exception: exception.ok() }
                }
            }
        }))
    }

    /// What was waited for is here.
    pub(super) fn add(&mut self, more: Room) {
        self.room.add(more);
    }

    /// The room of the frame that is whole now.
    pub(super) fn take(&mut self) -> Room {
        std::mem::take(&mut self.room)
    }
}
