//! One connection to one broker: requests pipelined, answers matched to them in order.
//!
//! # Invariants
//! * Requests reach the socket in the order of [`Connection::start`], and correlation ids rise in
//!   that order: the idempotent producer depends on it.
//! * Every request started is answered exactly once: with its response, or with the reason that
//!   the connection ended.
//! * A request whose deadline passes ends the connection: what would come back later could no
//!   longer be told from what was sent again meanwhile.

mod io;
mod versions;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use ottla_wire::{Request, RequestFrame, encode_request, negotiate};

use crate::error::RequestError;

pub(crate) use versions::ServedVersions;

/// Requests that may wait for the socket; callers keep far fewer in flight.
const OUTGOING_MAX: usize = 1024;

/// What a connection needs to know about its client.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionConfig {
    pub(crate) client_id: String,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_bytes_max: usize,
}

/// A handle to an open connection; cheap to clone.
#[derive(Clone)]
pub(crate) struct Connection {
    shared: Arc<Shared>,
    versions: Arc<ServedVersions>,
}

struct Shared {
    address: String,
    client_id: String,
    pending: Mutex<Pending>,
    ended: CancellationToken,
}

struct Pending {
    next_correlation_id: i32,
    waiting: VecDeque<Waiting>,
    outgoing: mpsc::Sender<Outgoing>,
    /// Why the connection ended, once it has.
    end: Option<String>,
}

struct Waiting {
    correlation_id: i32,
    answer: oneshot::Sender<Result<Bytes, RequestError>>,
}

struct Outgoing {
    chunks: Vec<Bytes>,
    /// For requests that are never answered: told when the bytes are with the kernel.
    written: Option<oneshot::Sender<Result<Bytes, RequestError>>>,
}

/// An answer under way.
pub(crate) struct Answer {
    receiver: oneshot::Receiver<Result<Bytes, RequestError>>,
    deadline: Instant,
    shared: Arc<Shared>,
}

impl Connection {
    /// Connects and agrees on versions, until `deadline`.
    pub(crate) async fn open(
        address: &str,
        config: &ConnectionConfig,
        deadline: Instant,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Connection, RequestError> {
        let deadline = deadline.min(Instant::now() + config.connect_timeout);
        let fail = |reason: String| RequestError::Connect {
            address: address.to_owned(),
            reason,
        };
        let connecting = timeout_at(deadline, TcpStream::connect(address));
        let stream = connecting
            .await
            .map_err(|_| fail("timed out".to_owned()))?
            .map_err(|error| fail(error.to_string()))?;
        // Frames are written whole: waiting for more only delays them.
        stream
            .set_nodelay(true)
            .map_err(|error| fail(error.to_string()))?;
        let (outgoing, to_write) = mpsc::channel(OUTGOING_MAX);
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            client_id: config.client_id.clone(),
            pending: Mutex::new(Pending {
                next_correlation_id: 0,
                waiting: VecDeque::new(),
                outgoing,
                end: None,
            }),
            ended: shutdown.child_token(),
        });
        let (reading, writing) = stream.into_split();
        tasks.spawn(io::write(writing, to_write, Arc::clone(&shared)));
        tasks.spawn(io::read(
            reading,
            config.response_bytes_max,
            Arc::clone(&shared),
        ));
        let mut connection = Connection {
            shared,
            versions: Arc::default(),
        };
        match versions::ask(&connection, deadline).await {
            Ok(versions) => connection.versions = Arc::new(versions),
            Err(error) => {
                connection.close("negotiation of versions failed");
                // Nothing of the caller's was sent: this is still the connecting.
                return Err(fail(error.to_string()));
            }
        }
        Ok(connection)
    }

    /// Whether requests can still be started.
    pub(crate) fn is_open(&self) -> bool {
        !self.shared.ended.is_cancelled()
    }

    /// Ends the connection; whoever waits gets the reason.
    pub(crate) fn close(&self, reason: &str) {
        self.shared.end(reason);
    }

    pub(crate) fn address(&self) -> &str {
        &self.shared.address
    }

    pub(crate) fn client_id(&self) -> &str {
        &self.shared.client_id
    }

    /// The version of `R` to speak with this broker, at most `cap`.
    pub(crate) fn version_of<R: Request>(&self, cap: i16) -> Result<i16, RequestError> {
        self.versions
            .get(R::KEY)
            .and_then(|served| negotiate::<R>(served, cap))
            .ok_or_else(|| RequestError::UnsupportedVersion {
                api: versions::api_name(R::KEY),
                address: self.shared.address.clone(),
            })
    }

    /// Hands a request to the socket, in order, without waiting.
    pub(crate) fn start(
        &self,
        mut frame: RequestFrame,
        expects_answer: bool,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let (answer, receiver) = oneshot::channel();
        let mut pending = self.shared.pending.lock();
        let refused = |reason: &str| RequestError::Connect {
            address: self.shared.address.clone(),
            reason: reason.to_owned(),
        };
        if let Some(reason) = &pending.end {
            return Err(refused(reason));
        }
        let correlation_id = pending.next_correlation_id;
        frame.set_correlation_id(correlation_id);
        let Ok(room) = pending.outgoing.clone().try_reserve_owned() else {
            return Err(refused("too many requests wait for the socket"));
        };
        pending.next_correlation_id = correlation_id.checked_add(1).unwrap_or(0);
        let chunks = frame.into_chunks();
        let written = if expects_answer {
            pending.waiting.push_back(Waiting {
                correlation_id,
                answer,
            });
            None
        } else {
            Some(answer)
        };
        room.send(Outgoing { chunks, written });
        drop(pending);
        Ok(Answer {
            receiver,
            deadline,
            shared: Arc::clone(&self.shared),
        })
    }

    /// Encodes, sends and waits: one request, one answer.
    pub(crate) async fn call<R: Request>(
        &self,
        version: i16,
        request: &R,
        deadline: Instant,
    ) -> Result<R::Response, RequestError> {
        let frame = encode_request(version, &self.shared.client_id, request)?;
        let bytes = self.start(frame, true, deadline)?.wait().await?;
        Ok(ottla_wire::decode_response::<R>(version, bytes)?)
    }
}

impl Answer {
    /// Waits for the answer; the deadline ends the connection.
    pub(crate) async fn wait(self) -> Result<Bytes, RequestError> {
        match timeout_at(self.deadline, self.receiver).await {
            Ok(Ok(answer)) => answer,
            // The tasks of the connection were dropped with the runtime.
            Ok(Err(_)) => Err(self.shared.disconnected("the client stopped")),
            Err(_) => {
                self.shared.end("a request was not answered in time");
                Err(RequestError::TimedOut {
                    address: self.shared.address.clone(),
                })
            }
        }
    }
}

impl Shared {
    fn disconnected(&self, reason: &str) -> RequestError {
        RequestError::Disconnected {
            address: self.address.clone(),
            reason: reason.to_owned(),
        }
    }

    /// Ends the connection once; the first reason counts.
    fn end(&self, reason: &str) {
        let waiting = {
            let mut pending = self.pending.lock();
            if pending.end.is_none() {
                pending.end = Some(reason.to_owned());
            }
            std::mem::take(&mut pending.waiting)
        };
        self.ended.cancel();
        for waiting in waiting {
            // Whoever has stopped waiting does not want to know.
            let _ = waiting.answer.send(Err(self.disconnected(reason)));
        }
    }

    /// Gives a response to the oldest request; false if it belongs to another one.
    fn answer(&self, correlation_id: i32, body: Bytes) -> bool {
        let mut pending = self.pending.lock();
        let matches = pending
            .waiting
            .front()
            .is_some_and(|oldest| oldest.correlation_id == correlation_id);
        if !matches {
            return false;
        }
        let oldest = pending.waiting.pop_front();
        drop(pending);
        if let Some(oldest) = oldest {
            let _ = oldest.answer.send(Ok(body));
        }
        true
    }
}
