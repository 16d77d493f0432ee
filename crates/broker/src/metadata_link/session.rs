//! Registration and heartbeats: the stream by which the controller knows that this broker lives.
//!
//! A stream that breaks is replaced at once: the controller fences after a short grace (design,
//! section 2). A stale registration is made anew, under a fresh incarnation.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, error, info, warn};

use ottla_metadata::{Command, CommandError, Outcome};
use ottla_rpc::{
    controller::{Heartbeat, HeartbeatReply, heartbeat_reply},
    convert,
};
use ottla_types::BrokerEpoch;
use uuid::Uuid;

use super::{Inner, calls};

const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_millis(50);
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_000);
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// An index that moved is told so soon; many moves in that time, once.
const TELL_INDEX_WITHIN: Duration = Duration::from_millis(10);
const BELIEVED_BEHIND: Duration = Duration::from_secs(1);
const DUPLICATE_RETRY: Duration = Duration::from_millis(250);

/// The task's life.
pub(super) async fn run(inner: &Arc<Inner>) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        if inner.registration.epoch().is_none() && !register(inner).await {
            continue;
        }
        let connected = heartbeats(inner).await;
        inner.session.send_modify(|state| state.connected = false);
        back_off = if connected {
            BACK_OFF_MIN
        } else {
            (back_off * 2).min(BACK_OFF_MAX)
        };
        tokio::time::sleep(back_off).await;
    }
}

/// True once this broker has an epoch.
async fn register(inner: &Arc<Inner>) -> bool {
    let Some(mut registration) = inner.registration.wanted() else {
        inner.heartbeat.notified().await;
        return false;
    };
    registration.offline_directories = inner.offline_directories.lock().clone();
    let incarnation = registration.incarnation;
    let command = Command::RegisterBroker(registration);
    let deadline = Instant::now() + REGISTER_TIMEOUT;
    match calls::execute_until(inner, &command, deadline).await {
        Ok((_, Outcome::Registered { broker_epoch })) => {
            if !inner.registration.taken(incarnation, broker_epoch) {
                return false;
            }
            inner.metrics.registrations.one();
            info!(%broker_epoch, "registered");
            (inner.feed)(inner.image.load_full(), super::Changed::default());
            true
        }
        Ok((_, Outcome::Refused(CommandError::DuplicateBroker(id)))) => {
            warn!(%id, "another live process is registered under this id");
            tokio::time::sleep(DUPLICATE_RETRY).await;
            false
        }
        Ok((_, Outcome::Refused(reason))) => {
            error!(%reason, "registration refused");
            inner.refused.send_replace(Some(reason.to_string()));
            tokio::time::sleep(REGISTER_TIMEOUT).await;
            false
        }
        Ok((_, outcome)) => {
            error!(?outcome, "registration answered strangely");
            tokio::time::sleep(DUPLICATE_RETRY).await;
            false
        }
        Err(reason) => {
            debug!(%reason, "not registered yet");
            false
        }
    }
}

/// The controller does not know our registration. If our image does, that controller has only just
/// begun to lead and is behind it; for a while it is believed to catch up.
fn is_behind(inner: &Inner, broker_epoch: BrokerEpoch) -> bool {
    let image = inner.image.load();
    let known = image
        .broker(inner.config.broker_id)
        .is_some_and(|broker| broker.epoch == broker_epoch);
    let mut since = inner.stale_since.lock();
    let first = *since.get_or_insert_with(Instant::now);
    known && first.elapsed() < BELIEVED_BEHIND
}

/// The registration is not the current one: another life of this broker begins.
fn stale(inner: &Inner, broker_epoch: BrokerEpoch, reason: &str) {
    *inner.stale_since.lock() = None;
    if inner.registration.end(broker_epoch) {
        warn!(reason, "registration is stale");
        inner.session.send_modify(|state| state.unfenced = false);
    }
}

fn heartbeat(inner: &Inner, (broker_epoch, incarnation): (BrokerEpoch, Uuid)) -> Heartbeat {
    let offline = inner.offline_directories.lock();
    Heartbeat {
        broker_id: inner.config.broker_id.get(),
        broker_epoch: broker_epoch.get(),
        incarnation: convert::uuid_bytes(incarnation),
        metadata_index: inner.image.load().index,
        // The log directory is the only one: without it there is nothing to serve (S-6).
        ready: inner.ready.load(Ordering::SeqCst) && offline.is_empty(),
        want_shutdown: inner.want_shutdown.load(Ordering::SeqCst),
        offline_directories: offline.iter().map(|id| convert::uuid_bytes(*id)).collect(),
        no_space: inner.no_space.load(Ordering::SeqCst) || inner.stalled.load(Ordering::SeqCst),
    }
}

/// True if a heartbeat was accepted on this stream.
async fn heartbeats(inner: &Arc<Inner>) -> bool {
    let Some((id, address)) = inner.controller() else {
        return false;
    };
    let Some(life) = inner.registration.current() else {
        return false;
    };
    let (send, receive) = mpsc::channel(16);
    let opening = async {
        let mut client = inner
            .client(&address)
            .await
            .map_err(|error| error.to_string())?;
        // The first heartbeat goes with the call.
        let _ = send.send(heartbeat(inner, life)).await;
        let replies = client.session(ReceiverStream::new(receive)).await;
        replies
            .map(tonic::Response::into_inner)
            .map_err(|status| status.to_string())
    };
    let mut replies = match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
        Ok(Ok(replies)) => replies,
        Ok(Err(reason)) => {
            debug!(%address, %reason, "session not opened");
            inner.forget(&address);
            inner.rotate(&address);
            return false;
        }
        Err(_) => {
            inner.forget(&address);
            inner.rotate(&address);
            return false;
        }
    };
    let session = Duration::from_millis(inner.config.session_timeout_ms);
    let mut every = tokio::time::interval(Duration::from_millis(
        inner.config.heartbeat_interval_ms.max(10),
    ));
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    every.reset();
    let mut indexes = inner.image_index.subscribe();
    indexes.mark_unchanged();
    // When to tell the controller how far the image is: it waits for that to unfence this broker
    // and to let others go.
    let mut tell_at: Option<Instant> = None;
    let mut accepted = false;
    let mut answered_at = Instant::now();
    loop {
        let beat = tokio::select! {
            _ = every.tick() => true,
            () = inner.heartbeat.notified() => true,
            Ok(()) = indexes.changed(), if tell_at.is_none() => {
                tell_at = Some(Instant::now() + TELL_INDEX_WITHIN);
                false
            }
            () = tokio::time::sleep_until(tell_at.unwrap_or(answered_at)), if tell_at.is_some() => {
                tell_at = None;
                true
            }
            reply = replies.message() => {
                answered_at = Instant::now();
                match reply {
                    Ok(Some(reply)) => match on_reply(inner, &address, life.0, reply) {
                        Answer::Accepted => {
                            inner.found_active(id, &address);
                            accepted = true;
                        }
                        Answer::Leave => return accepted,
                    },
                    Ok(None) => {
                        inner.rotate(&address);
                        return accepted;
                    }
                    Err(error) => {
                        debug!(%address, %error, "session broke");
                        inner.forget(&address);
                        inner.rotate(&address);
                        return accepted;
                    }
                }
                false
            }
        };
        if inner.registration.epoch() != Some(life.0) {
            return accepted;
        }
        if answered_at.elapsed() > session {
            inner.forget(&address);
            inner.rotate(&address);
            return accepted;
        }
        if beat && send.try_send(heartbeat(inner, life)).is_err() {
            debug!(%address, "heartbeat not sent: the stream is stuck");
        }
    }
}

enum Answer {
    Accepted,
    Leave,
}

fn on_reply(
    inner: &Inner,
    address: &str,
    broker_epoch: BrokerEpoch,
    reply: HeartbeatReply,
) -> Answer {
    match reply.result {
        Some(heartbeat_reply::Result::Accepted(accepted)) => {
            *inner.stale_since.lock() = None;
            *inner.accepted_at.lock() = Some(Instant::now());
            inner.session.send_if_modified(|state| {
                let new = super::SessionState {
                    connected: true,
                    unfenced: !accepted.fenced,
                    may_shut_down: accepted.may_shut_down,
                    term: accepted.controller_term,
                };
                let changed = *state != new;
                *state = new;
                changed
            });
            Answer::Accepted
        }
        Some(heartbeat_reply::Result::NotActive(hint)) => {
            inner.follow_hint(address, &hint);
            Answer::Leave
        }
        Some(heartbeat_reply::Result::Stale(reason)) => {
            if is_behind(inner, broker_epoch) {
                debug!(address, reason, "the controller is behind");
            } else {
                stale(inner, broker_epoch, &reason);
            }
            Answer::Leave
        }
        None => {
            inner.rotate(address);
            Answer::Leave
        }
    }
}
