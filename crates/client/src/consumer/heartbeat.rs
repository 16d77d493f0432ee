//! The task that keeps a membership alive between polls, and says when it is over.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use ottla_wire::{
    ErrorCode,
    messages::{GroupId, HeartbeatRequest},
};

use crate::{
    cluster::Lane,
    error::code,
    group::{Committer, Coordinator},
    leaders::text,
};

/// What the coordinator has said between polls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All is well.
    #[default]
    Member,
    /// A round has begun.
    Rebalancing,
    /// The member is out of its generation; it may join again, under its name if that still holds.
    Lost {
        /// The coordinator does not know the member any more.
        forget_name: bool,
    },
    /// Another process holds the instance id.
    Fenced(ErrorCode),
}

/// What consumer and task share.
#[derive(Debug)]
pub(super) struct Pulse {
    verdict: Mutex<Verdict>,
    pub(super) changed: Notify,
    last_poll: Mutex<Instant>,
}

impl Pulse {
    pub(super) fn new() -> Pulse {
        Pulse {
            verdict: Mutex::default(),
            changed: Notify::new(),
            last_poll: Mutex::new(Instant::now()),
        }
    }

    pub(super) fn polled(&self) {
        *self.last_poll.lock() = Instant::now();
    }

    pub(super) fn verdict(&self) -> Verdict {
        *self.verdict.lock()
    }

    pub(super) fn set(&self, verdict: Verdict) {
        *self.verdict.lock() = verdict;
        self.changed.notify_one();
    }
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rhythm {
    pub(super) interval: Duration,
    pub(super) session_timeout: Duration,
    pub(super) max_poll_interval: Duration,
}

/// A heart that does not beat yet: it starts as soon as a round has ended, long before the user may
/// poll again.
pub(super) struct Heart {
    pub(super) coordinator: Coordinator,
    pub(super) pulse: Arc<Pulse>,
    pub(super) rhythm: Rhythm,
    pub(super) instance_id: Option<String>,
    pub(super) stop: CancellationToken,
}

impl Heart {
    /// Beats from now on for this generation.
    pub(super) fn start(self, member_id: String, generation_id: i32) {
        // What was said of the last generation counts no longer.
        self.pulse.set(Verdict::Member);
        let member = Committer {
            generation_id,
            member_id,
            instance_id: self.instance_id,
        };
        let tasks = self.coordinator.cluster().tasks().clone();
        tasks.spawn(beat(
            self.coordinator,
            member,
            self.pulse,
            self.rhythm,
            self.stop,
        ));
    }
}

/// Beats until told to stop, or until there is nothing left to keep alive.
async fn beat(
    coordinator: Coordinator,
    member: Committer,
    pulse: Arc<Pulse>,
    rhythm: Rhythm,
    stop: CancellationToken,
) {
    let mut last_success = Instant::now();
    let mut pause = rhythm.interval;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let now = Instant::now();
        let polled = *pulse.last_poll.lock();
        if now.duration_since(polled) > rhythm.max_poll_interval {
            tracing::warn!(
                group = coordinator.group(),
                "no poll in time, the member leaves"
            );
            super::membership::leave(&coordinator, &member, now + rhythm.interval).await;
            return pulse.set(Verdict::Lost { forget_name: true });
        }
        if now.duration_since(last_success) > rhythm.session_timeout {
            return pulse.set(Verdict::Lost { forget_name: true });
        }
        let deadline = now + rhythm.session_timeout / 3;
        let build = |version: i16| {
            let mut request = HeartbeatRequest::default()
                .with_group_id(GroupId(text(coordinator.group())))
                .with_generation_id(member.generation_id)
                .with_member_id(text(&member.member_id));
            if version >= 3 {
                request.group_instance_id = member.instance_id.as_deref().map(text);
            }
            request
        };
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answer = coordinator.call_once(Lane::Control, deadline, build) => answer,
        };
        pause = rhythm.interval;
        match answer.map(|answer| code(answer.error_code)) {
            Ok(ErrorCode::None) => last_success = Instant::now(),
            Ok(ErrorCode::RebalanceInProgress) => {
                last_success = Instant::now();
                pulse.set(Verdict::Rebalancing);
            }
            Ok(error @ (ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)) => {
                tracing::debug!(group = coordinator.group(), %error, "membership lost");
                let forget_name = error == ErrorCode::UnknownMemberId;
                return pulse.set(Verdict::Lost { forget_name });
            }
            Ok(error) if error.is_retriable() => {
                coordinator.forget();
                pause = RETRY.min(rhythm.interval);
            }
            Ok(error) => return pulse.set(Verdict::Fenced(error)),
            Err(error) => {
                tracing::debug!(group = coordinator.group(), %error, "no answer to a heartbeat");
                pause = RETRY.min(rhythm.interval);
            }
        }
    }
}

/// Pause after a heartbeat that reached no coordinator.
const RETRY: Duration = Duration::from_millis(100);
