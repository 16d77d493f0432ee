//! All sessions of this broker, and which of them a request means.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    SessionError,
    session::{PartitionKey, Session, Told, Wanted},
};

/// A session that was not used for so long gives way to a new one.
const EVICTION_AGE: Duration = Duration::from_secs(120);
/// Most partitions of one session: as many as one request can list. A client cannot make us remember
/// more by adding to a session request by request.
const PARTITIONS_MAX: usize = 250_000;
/// The epoch of a request that wants no session.
const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;

/// The session part of a Fetch request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRequest {
    /// 0 for none.
    pub(crate) session_id: i32,
    /// -1 for none, 0 for a new one, else the next of the session.
    pub(crate) session_epoch: i32,
    /// From version 13.
    pub(crate) by_topic_id: bool,
}

/// What a request reads, and how its answer is made.
#[derive(Debug)]
pub(crate) struct Begun {
    /// The partitions, in the order of reading.
    pub(crate) partitions: Vec<(PartitionKey, Wanted)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Sessionless,
    /// A session will be made when the answer is known.
    Full {
        by_topic_id: bool,
    },
    Incremental {
        session_id: i32,
        session: Arc<Mutex<Session>>,
        /// What the session expects next; if it has moved on, another request came between.
        next_epoch: i32,
    },
}

struct Slot {
    session: Arc<Mutex<Session>>,
    partitions: usize,
    last_used: Instant,
}

/// The cache of sessions; `max.incremental.fetch.session.cache.slots` of them.
pub(crate) struct FetchSessions {
    slots: usize,
    sessions: Mutex<HashMap<i32, Slot>>,
}

impl FetchSessions {
    pub(crate) fn new(slots: usize) -> FetchSessions {
        FetchSessions {
            slots,
            sessions: Mutex::new(HashMap::new()),
        }
    }

    /// Finds out what a request reads.
    pub(crate) fn begin(
        &self,
        request: SessionRequest,
        partitions: Vec<(PartitionKey, Wanted)>,
        forgotten: &[PartitionKey],
        now: Instant,
    ) -> Result<Begun, SessionError> {
        let SessionRequest {
            session_id,
            session_epoch,
            by_topic_id,
        } = request;
        if session_epoch == FINAL_EPOCH || session_epoch == INITIAL_EPOCH {
            if session_id != 0 {
                self.sessions.lock().remove(&session_id);
            }
            let kind = if session_epoch == FINAL_EPOCH {
                Kind::Sessionless
            } else {
                Kind::Full { by_topic_id }
            };
            return Ok(Begun { partitions, kind });
        }
        let mut sessions = self.sessions.lock();
        let slot = sessions
            .get_mut(&session_id)
            .ok_or(SessionError::NotFound)?;
        let shared = Arc::clone(&slot.session);
        let mut session = shared.lock();
        if session.next_epoch != session_epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if session.by_topic_id != by_topic_id {
            return Err(SessionError::TopicIds);
        }
        session.update(&partitions, forgotten);
        if session.len() > PARTITIONS_MAX {
            sessions.remove(&session_id);
            return Err(SessionError::NotFound);
        }
        if session.is_empty() {
            sessions.remove(&session_id);
            return Ok(Begun {
                partitions: Vec::new(),
                kind: Kind::Sessionless,
            });
        }
        session.advance_epoch();
        slot.last_used = now;
        slot.partitions = session.len();
        let (partitions, next_epoch) = (session.partitions(), session.next_epoch);
        drop(session);
        let kind = Kind::Incremental {
            session_id,
            session: shared,
            next_epoch,
        };
        Ok(Begun { partitions, kind })
    }

    /// Decides which partitions the answer lists and under which session id.
    ///
    /// `told` is parallel to [`Begun::partitions`]; so is the answer. `fresh_ids` yields random
    /// session ids.
    pub(crate) fn end(
        &self,
        begun: &Begun,
        told: &[Told],
        now: Instant,
        fresh_ids: impl FnMut() -> i32,
    ) -> Result<(i32, Vec<bool>), SessionError> {
        match &begun.kind {
            Kind::Sessionless => Ok((0, vec![true; told.len()])),
            Kind::Full { by_topic_id } => {
                let mut session = Session::new(*by_topic_id, &begun.partitions);
                for ((key, _), told) in begun.partitions.iter().zip(told) {
                    session.tell(key, told);
                }
                let session_id = self.insert(session, now, fresh_ids);
                Ok((session_id, vec![true; told.len()]))
            }
            Kind::Incremental {
                session_id,
                session,
                next_epoch,
            } => {
                let mut session = session.lock();
                if session.next_epoch != *next_epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                let keys = begun.partitions.iter().map(|(key, _)| key);
                let listed = keys
                    .zip(told)
                    .map(|(key, told)| session.tell(key, told))
                    .collect();
                Ok((*session_id, listed))
            }
        }
    }

    /// The id of the new session, or 0 if there is no room for it.
    fn insert(&self, session: Session, now: Instant, mut fresh_ids: impl FnMut() -> i32) -> i32 {
        if session.is_empty() || self.slots == 0 {
            return 0;
        }
        let mut sessions = self.sessions.lock();
        if sessions.len() >= self.slots && !evict(&mut sessions, session.len(), now) {
            return 0;
        }
        let mut session_id = fresh_ids();
        while session_id <= 0 || sessions.contains_key(&session_id) {
            session_id = fresh_ids();
        }
        let partitions = session.len();
        let session = Arc::new(Mutex::new(session));
        sessions.insert(
            session_id,
            Slot {
                session,
                partitions,
                last_used: now,
            },
        );
        session_id
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.sessions.lock().len()
    }
}

/// Makes room: the longest idle one if it is old, else the smallest one if it is smaller.
fn evict(sessions: &mut HashMap<i32, Slot>, partitions: usize, now: Instant) -> bool {
    let oldest = sessions.iter().min_by_key(|(_, slot)| slot.last_used);
    let smallest = sessions.iter().min_by_key(|(_, slot)| slot.partitions);
    let victim = match (oldest, smallest) {
        (Some((id, slot)), _) if now.duration_since(slot.last_used) > EVICTION_AGE => *id,
        (_, Some((id, slot))) if slot.partitions < partitions => *id,
        _ => return false,
    };
    sessions.remove(&victim).is_some()
}

#[cfg(test)]
mod tests;
