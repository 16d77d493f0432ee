//! A follower's subscription, on the leader's side: live from memory, or catching up from files.
//!
//! A session is *live* while each append goes to the live lane at once. Behind, it reads files on
//! the I/O pool; its chunks go to the catch-up lane while they do not reach the log end, so that
//! gigabytes never stand before the live tail. At the tail, once nothing is outstanding on the
//! catch-up lane, the last chunk and whatever was appended during its read go to the live lane,
//! and the session is live.
//!
//! # Invariant
//! Between the two lanes there is no order; so nothing is sent on the live lane while the
//! catch-up lane holds anything unacknowledged of this session.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use ottla_types::{BrokerEpoch, Offset};

use crate::replica_stream::Lane;

/// One chunk read from files.
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// Appends kept in memory for a session whose last chunk is being read.
const PENDING_BYTES_MAX: usize = 4 << 20;

/// Where a session stands.
pub(super) enum State {
    /// Appends go out as they happen.
    Live,
    /// A read is in flight; `pending` holds what was appended since it was asked for.
    Reading {
        /// The log end when the read was asked for.
        until: Offset,
        pending: Vec<Bytes>,
        pending_bytes: usize,
        /// `pending` grew too large and was dropped: another read follows.
        overflow: bool,
    },
    /// Waits for the follower to acknowledge what the catch-up lane carries.
    Draining,
    /// Waits for credit.
    Waiting,
}

/// One follower's subscription.
pub(super) struct Session {
    pub(super) incarnation: BrokerEpoch,
    pub(super) subscription: u64,
    /// The live lane it came in on.
    pub(super) lane: Arc<Lane>,
    pub(super) state: State,
    /// Everything below has been sent.
    pub(super) next: Offset,
    /// Sent and not acknowledged: end offset and size.
    outstanding: VecDeque<(Offset, usize)>,
    pub(super) outstanding_bytes: usize,
    /// End of what was sent on the catch-up lane; acknowledged once the follower is here.
    pub(super) catch_up_end: Option<Offset>,
}

impl Session {
    pub(super) fn new(
        incarnation: BrokerEpoch,
        subscription: u64,
        lane: Arc<Lane>,
        next: Offset,
    ) -> Session {
        Session {
            incarnation,
            subscription,
            lane,
            state: State::Waiting,
            next,
            outstanding: VecDeque::new(),
            outstanding_bytes: 0,
            catch_up_end: None,
        }
    }

    pub(super) fn sent(&mut self, next: Offset, bytes: usize) {
        self.next = next;
        self.outstanding.push_back((next, bytes));
        self.outstanding_bytes += bytes;
    }

    /// The follower's log end is here.
    pub(super) fn acknowledged(&mut self, log_end: Offset) {
        while self
            .outstanding
            .front()
            .is_some_and(|(end, _)| *end <= log_end)
        {
            if let Some((_, bytes)) = self.outstanding.pop_front() {
                self.outstanding_bytes -= bytes;
            }
        }
        if self.catch_up_end.is_some_and(|end| end <= log_end) {
            self.catch_up_end = None;
        }
    }

    /// Keeps an append for the end of the read in flight.
    pub(super) fn keep(&mut self, batches: &[Bytes]) {
        let State::Reading {
            pending,
            pending_bytes,
            overflow,
            ..
        } = &mut self.state
        else {
            return;
        };
        if *overflow {
            return;
        }
        *pending_bytes += batches.iter().map(Bytes::len).sum::<usize>();
        if *pending_bytes > PENDING_BYTES_MAX {
            *overflow = true;
            pending.clear();
            return;
        }
        pending.extend_from_slice(batches);
    }

    /// Nothing of this partition may go out before more is acknowledged: a quarter of the window.
    pub(super) fn is_over_share(&self) -> bool {
        self.outstanding_bytes > self.lane.window_bytes() / 4
    }
}
