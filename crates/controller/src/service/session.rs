//! A broker's heartbeat stream: it sends, and is answered, and is told at once when its standing
//! changes.
//!
//! # Invariant
//! Every stream that was counted as opened is counted as closed, however it ends: a process that
//! dies breaks it within milliseconds, and fencing follows after the grace.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use ottla_rpc::{
    controller::{Heartbeat, HeartbeatAccepted, HeartbeatReply, heartbeat_reply},
    convert,
};
use ottla_types::{BrokerEpoch, BrokerId};
use uuid::Uuid;

use super::{Answers, ControllerService};
use crate::{
    leadership::Active,
    sessions::{Beat, SessionHub, Standing},
};

/// Answers that may wait for a slow broker.
const ANSWERS_MAX: usize = 16;

type Sender = mpsc::Sender<Result<HeartbeatReply, Status>>;

/// One registration of a broker.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registration {
    id: BrokerId,
    epoch: BrokerEpoch,
    incarnation: Uuid,
}

/// Counts a stream as open until dropped.
struct OpenStream {
    sessions: Arc<SessionHub>,
    period: Arc<Active>,
    registration: Registration,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let Registration { id, epoch, .. } = self.registration;
        self.sessions.closed(&self.period, id, epoch);
    }
}

impl ControllerService {
    pub(super) fn open_session(&self, heartbeats: Streaming<Heartbeat>) -> Answers<HeartbeatReply> {
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let service = self.clone();
        self.tasks
            .spawn(async move { service.run_session(heartbeats, answers).await });
        Box::pin(ReceiverStream::new(receiver))
    }

    async fn run_session(self, mut heartbeats: Streaming<Heartbeat>, answers: Sender) {
        let first = tokio::select! {
            () = self.shutdown.cancelled() => return,
            first = heartbeats.message() => first,
        };
        let Ok(Some(first)) = first else { return };
        let Some(active) = self.active().await else {
            let hint = heartbeat_reply::Result::NotActive(self.hint());
            // A broker that is gone needs no answer.
            let _ = send(&answers, hint).await;
            return;
        };
        let registration = match registration(&first) {
            Ok(registration) => registration,
            Err(status) => {
                let _ = answers.send(Err(status)).await;
                return;
            }
        };
        let Registration {
            id,
            epoch,
            incarnation,
        } = registration;
        let standing = self.sessions.opened(&active, id, epoch, incarnation);
        if !matches!(standing, Standing::Current { .. }) {
            let _ = send(&answers, self.answer(standing, active.term)).await;
            return;
        }
        let sessions = self.sessions.clone();
        let open = OpenStream {
            sessions,
            period: active.clone(),
            registration,
        };
        self.serve_session(&active, heartbeats, &answers, open.registration, first)
            .await;
        drop(open);
    }

    async fn serve_session(
        &self,
        active: &Active,
        mut heartbeats: Streaming<Heartbeat>,
        answers: &Sender,
        own: Registration,
        first: Heartbeat,
    ) {
        let mut changes = self.sessions.changes();
        let mut next = Some(first);
        let mut told = None;
        loop {
            let answer_due = next.is_some();
            if let Some(heartbeat) = next.take() {
                if registration(&heartbeat).ok() != Some(own) {
                    let _ = send(answers, stale()).await;
                    return;
                }
                let beat = match beat(&heartbeat) {
                    Ok(beat) => beat,
                    Err(status) => {
                        let _ = answers.send(Err(status)).await;
                        return;
                    }
                };
                self.sessions.beat(active, own.id, own.epoch, beat);
            }
            changes.mark_unchanged();
            let standing = self
                .sessions
                .standing(active, own.id, own.epoch, own.incarnation);
            if answer_due || told != Some(standing) {
                told = Some(standing);
                let stays = matches!(standing, Standing::Current { .. });
                if !send(answers, self.answer(standing, active.term)).await || !stays {
                    return;
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = active.ended.cancelled() => {
                    let _ = send(answers, heartbeat_reply::Result::NotActive(self.hint())).await;
                    return;
                }
                changed = changes.changed() => if changed.is_err() { return },
                heartbeat = heartbeats.message() => match heartbeat {
                    Ok(Some(heartbeat)) => next = Some(heartbeat),
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }

    fn answer(&self, standing: Standing, controller_term: u64) -> heartbeat_reply::Result {
        match standing {
            Standing::Unknown => heartbeat_reply::Result::NotActive(self.hint()),
            Standing::Stale => stale(),
            Standing::Current {
                fenced,
                may_shut_down,
            } => heartbeat_reply::Result::Accepted(HeartbeatAccepted {
                fenced,
                may_shut_down,
                controller_term,
            }),
        }
    }
}

fn registration(heartbeat: &Heartbeat) -> Result<Registration, Status> {
    let malformed = |what: &'static str| Status::invalid_argument(format!("malformed {what}"));
    Ok(Registration {
        id: BrokerId::new(heartbeat.broker_id).ok_or_else(|| malformed("broker_id"))?,
        epoch: BrokerEpoch::new(heartbeat.broker_epoch).ok_or_else(|| malformed("broker_epoch"))?,
        incarnation: convert::uuid(&heartbeat.incarnation, "incarnation")
            .map_err(|error| Status::invalid_argument(error.to_string()))?,
    })
}

fn beat(heartbeat: &Heartbeat) -> Result<Beat, Status> {
    let offline = heartbeat.offline_directories.iter();
    let offline: Result<Vec<Uuid>, _> = offline
        .map(|directory| convert::uuid(directory, "offline_directories"))
        .collect();
    Ok(Beat {
        metadata_index: heartbeat.metadata_index,
        ready: heartbeat.ready,
        want_shutdown: heartbeat.want_shutdown,
        offline_directories: offline
            .map_err(|error| Status::invalid_argument(error.to_string()))?,
        no_space: heartbeat.no_space,
    })
}

fn stale() -> heartbeat_reply::Result {
    heartbeat_reply::Result::Stale("the registration is not the current one".to_owned())
}

/// Sends an answer; `false` if the broker is gone.
async fn send(answers: &Sender, result: heartbeat_reply::Result) -> bool {
    answers
        .send(Ok(HeartbeatReply {
            result: Some(result),
        }))
        .await
        .is_ok()
}
