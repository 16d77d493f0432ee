//! When this controller last heard from a leader: the lease in which it neither stands nor votes.
//!
//! The lease keeps a controller with a bad connection from deposing a leader that everybody else
//! hears (P-19). It grants no authority: that always goes through commit (C-12).

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::raft::ReplicaKey;

#[derive(Clone, Copy)]
struct Heard {
    leader: Option<ReplicaKey>,
    at: Instant,
    /// The leader's process is known to have ended.
    gone: bool,
    /// The leader itself asked for a successor.
    released: bool,
    /// Somebody else's turn to win an election lasts until then.
    held_until: Instant,
}

/// The last contact with a leader.
pub(crate) struct Contact {
    heard: Mutex<Heard>,
    lease: Duration,
    changed: Notify,
}

impl Contact {
    /// A process that starts may have promised a lease in its last life, so it honours one.
    pub(crate) fn new(lease: Duration) -> Contact {
        let now = Instant::now();
        let heard = Heard {
            leader: None,
            at: now,
            gone: false,
            released: false,
            held_until: now,
        };
        Contact {
            heard: Mutex::new(heard),
            lease,
            changed: Notify::new(),
        }
    }

    /// `leader` sent something that was accepted.
    pub(crate) fn heard(&self, leader: ReplicaKey) {
        let now = Instant::now();
        let heard = Heard {
            leader: Some(leader),
            at: now,
            gone: false,
            released: false,
            held_until: now,
        };
        *self.heard.lock() = heard;
    }

    /// The process of `leader` has ended: nobody listens at its address any more.
    pub(crate) fn gone(&self, leader: ReplicaKey) {
        {
            let mut heard = self.heard.lock();
            if heard.leader != Some(leader) {
                return;
            }
            heard.gone = true;
        }
        self.changed.notify_one();
    }

    /// The leader gives up its leadership: the lease no longer binds.
    pub(crate) fn release(&self) {
        self.heard.lock().released = true;
    }

    /// Lets somebody else win: this controller has just voted, or given up its leadership.
    pub(crate) fn hold(&self) {
        self.heard.lock().held_until = Instant::now() + self.lease;
    }

    /// Whether the lease still binds.
    pub(crate) fn binds(&self) -> bool {
        let heard = *self.heard.lock();
        !heard.released && heard.at.elapsed() < self.lease
    }

    /// When this controller may stand, and whether the leader is known to be gone.
    pub(crate) fn ends(&self) -> (Instant, bool) {
        let heard = *self.heard.lock();
        ((heard.at + self.lease).max(heard.held_until), heard.gone)
    }

    /// Waits until the leader is found to be gone.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_types::BrokerId;
    use uuid::Uuid;

    #[tokio::test]
    async fn the_lease_ends_by_time_or_by_the_leaders_wish_only() {
        let leader = ReplicaKey {
            node_id: BrokerId(1),
            directory_id: Uuid::nil(),
        };
        let short = Contact::new(Duration::from_millis(1));
        tokio::time::sleep_until(short.ends().0).await;
        assert!(!short.binds());
        let contact = Contact::new(Duration::from_secs(600));
        contact.heard(leader);
        contact.gone(leader);
        assert!(contact.binds() && contact.ends().1);
        contact.release();
        assert!(!contact.binds());
        contact.heard(leader);
        assert!(contact.binds() && !contact.ends().1);
    }
}
