//! One connection: requests in, responses out in the order of the requests.
//!
//! A request passes two stages. *Admitted*: the service has been called, and for a produce the
//! place in every log is fixed; only then is the next request looked at. *Answered*: the response
//! has been handed to the socket. Only the oldest request's future is polled, so a request that
//! is not a produce starts when those before it are answered, as in Kafka, while the produces
//! behind it already share the logs' group commits.
//!
//! # Invariants
//! * Responses leave in request order.
//! * At most `requests_max` requests and (but for a single larger one) `bytes_max` bytes are in
//!   flight, and nothing is read while more than `unsent_bytes_max` wait to be written.
//! * Nothing is read, admitted or kept past the deadlines of [`ConnectionSettings`].

mod room;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use ottla_wire::{Chunk, Frame, FrameError, next_frame};

use crate::{
    metrics::GatewayMetrics,
    outbox::{FileSlice, Outbox},
};

use room::{Arriving, Room, Waiting};

pub(crate) use room::Budget;

/// Room made for the next request when the last one was small.
const READ_BYTES_MIN: usize = 16 * 1024;
/// Room made for the next request when the last one was large.
const READ_BYTES_MAX: usize = 1 << 20;

/// Turns a request's frame into its answer.
pub(crate) trait Service: Send {
    /// What stands for a range of a file in an answer.
    type File: FileSlice;

    /// Takes a frame that has arrived.
    fn call(&mut self, frame: BytesMut) -> Call<Self::File>;
}

/// What became of a frame.
pub(crate) enum Call<F> {
    /// Admitted; the answer comes when its turn does.
    Admitted(BoxFuture<'static, Answer<F>>),
    /// Being admitted: the next frame must wait until it is.
    Admitting(BoxFuture<'static, BoxFuture<'static, Answer<F>>>),
    /// It is not a request that may be served: close without an answer.
    Refused,
}

/// What to write for one request.
pub(crate) enum Answer<F> {
    /// Nothing: acks=0.
    Nothing,
    /// One frame in one piece.
    Bytes(Bytes),
    /// One frame in pieces.
    Chunks(Vec<Chunk<F>>),
    /// Nothing, and close: an error of a request that has no answer, or of ours.
    Close,
}

/// Limits of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSettings {
    pub(crate) frame_bytes_max: usize,
    pub(crate) requests_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) unsent_bytes_max: usize,
    pub(crate) idle_limit: Option<Duration>,
    pub(crate) stall_limit: Duration,
    pub(crate) drain_limit: Duration,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("the client closed it")]
    ByPeer,
    #[error("idle")]
    Idle,
    #[error("stalled in the middle of a request or response")]
    Stalled,
    #[error("the broker is stopping")]
    Stopping,
    #[error("a request that is not served")]
    Refused,
    #[error("an answer that is a closed connection")]
    Answer,
    #[error("frame: {0}")]
    Frame(#[from] FrameError),
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

struct InFlight<F> {
    answer: BoxFuture<'static, Answer<F>>,
    bytes: usize,
    /// Its part of the budget of all connections.
    _room: Room,
}

/// Where the next request stands.
enum Intake<F> {
    /// In the socket.
    Reading,
    /// Here, in part or whole, but the budget of all connections is spent: the socket is not read
    ///
    AwaitingRoom(Option<BytesMut>, Waiting),
    /// With the service.
    Admitting(
        usize,
        Room,
        BoxFuture<'static, BoxFuture<'static, Answer<F>>>,
    ),
    /// There will be none: the client is gone, or we stop.
    Ended(Closed),
}

/// A connection's whole state.
pub(crate) struct Connection<S: Service> {
    stream: TcpStream,
    service: S,
    settings: ConnectionSettings,
    metrics: Arc<GatewayMetrics>,
    arriving: Arriving,
    shutdown: Pin<Box<WaitForCancellationFutureOwned>>,
    inbox: BytesMut,
    last_frame_bytes: usize,
    intake: Intake<S::File>,
    in_flight: VecDeque<InFlight<S::File>>,
    in_flight_bytes: usize,
    outbox: Outbox<S::File>,
    last_progress: Instant,
    timer: Pin<Box<Sleep>>,
}

impl<S: Service> Connection<S> {
    pub(crate) fn new(
        stream: TcpStream,
        service: S,
        settings: ConnectionSettings,
        metrics: Arc<GatewayMetrics>,
        budget: Option<Budget>,
        shutdown: CancellationToken,
    ) -> Connection<S> {
        let now = Instant::now();
        let timer = Box::pin(tokio::time::sleep_until(now + tick(&settings)));
        Connection {
            stream,
            service,
            settings,
            metrics,
            arriving: Arriving::new(budget),
            shutdown: Box::pin(shutdown.cancelled_owned()),
            inbox: BytesMut::new(),
            last_frame_bytes: 0,
            intake: Intake::Reading,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            outbox: Outbox::new(),
            last_progress: now,
            timer,
        }
    }

    /// Serves the connection to its end.
    pub(crate) async fn run(mut self) -> Closed {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        self.poll_shutdown(cx);
        loop {
            let progress = match self.poll_progress(cx) {
                Ok(progress) => progress,
                Err(closed) => return Poll::Ready(closed),
            };
            if self.in_flight.is_empty()
                && self.outbox.is_empty()
                && let Intake::Ended(closed) = &mut self.intake
            {
                return Poll::Ready(std::mem::replace(closed, Closed::ByPeer));
            }
            if progress {
                self.last_progress = Instant::now();
            } else if let Poll::Ready(closed) = self.poll_timer(cx) {
                return Poll::Ready(closed);
            } else {
                return Poll::Pending;
            }
        }
    }

    /// One round: requests first and writes last, so that what was answered together leaves
    /// together.
    fn poll_progress(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let taken = self.poll_intake(cx)?;
        let answered = self.poll_answers(cx)?;
        let written = self.poll_write(cx);
        Ok(taken || answered || written)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.intake, Intake::Ended(_)) && self.shutdown.as_mut().poll(cx).is_ready() {
            self.end_intake(Closed::Stopping);
        }
    }

    /// No further requests; what is in flight has until the drain limit.
    fn end_intake(&mut self, closed: Closed) {
        self.intake = Intake::Ended(closed);
        self.inbox = BytesMut::new();
        self.arriving.take();
        self.timer
            .as_mut()
            .reset(Instant::now() + self.settings.drain_limit);
    }

    fn has_room(&self) -> bool {
        self.in_flight.len() < self.settings.requests_max
            && self.in_flight_bytes < self.settings.bytes_max
            && self.outbox.bytes() < self.settings.unsent_bytes_max
    }

    /// Takes requests in while there is room for them.
    fn poll_intake(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut progress = false;
        loop {
            let has_room = self.has_room();
            let taken = match &mut self.intake {
                Intake::Ended(_) => false,
                Intake::AwaitingRoom(frame, room) => match room.as_mut().poll(cx) {
                    Poll::Ready(room) => {
                        let frame = frame.take();
                        self.intake = Intake::Reading;
                        self.arriving.add(room);
                        if let Some(frame) = frame {
                            self.call(frame)?;
                        }
                        true
                    }
                    Poll::Pending => false,
                },
                Intake::Admitting(bytes, room, admission) => match admission.as_mut().poll(cx) {
                    Poll::Ready(answer) => {
                        let (bytes, room) = (*bytes, std::mem::take(room));
                        self.intake = Intake::Reading;
                        self.admitted(answer, bytes, room);
                        true
                    }
                    Poll::Pending => false,
                },
                Intake::Reading if has_room => self.poll_frame(cx)?,
                Intake::Reading => false,
            };
            if !taken {
                return Ok(progress);
            }
            progress = true;
        }
    }

    /// Takes one frame off the inbox, or reads into it.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        match next_frame(&mut self.inbox, self.settings.frame_bytes_max)? {
            Frame::Whole(frame) => {
                self.last_frame_bytes = frame.len();
                match self.arriving.complete(frame.len()) {
                    Ok(()) => self.call(frame)?,
                    Err(room) => self.intake = Intake::AwaitingRoom(Some(frame), room),
                }
                Ok(true)
            }
            Frame::Partial { reserve_bytes } if self.inbox.is_empty() => {
                self.poll_read(cx, reserve_bytes)
            }
            Frame::Partial { reserve_bytes } => {
                match self.arriving.grow(self.inbox.len() + reserve_bytes) {
                    Ok(()) => self.poll_read(cx, reserve_bytes),
                    Err(room) => {
                        self.intake = Intake::AwaitingRoom(None, room);
                        Ok(true)
                    }
                }
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, reserve_bytes: usize) -> Result<bool, Closed> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => {
                    if self.inbox.is_empty() {
                        self.inbox = BytesMut::new(); // An idle connection holds no buffer.
                    }
                    return Ok(false);
                }
                Poll::Ready(Err(error)) => return self.gone(Closed::Socket(error)),
                Poll::Ready(Ok(())) => {}
            }
            self.inbox.reserve(if self.inbox.is_empty() {
                // The last frame has shown what this client sends.
                (self.last_frame_bytes + 4).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
            } else {
                reserve_bytes
            });
            match self.stream.try_read_buf(&mut self.inbox) {
                Ok(0) => return self.gone(Closed::ByPeer),
                Ok(read) => {
                    let read = u64::try_from(read).unwrap_or_default();
                    self.metrics.bytes_read.fetch_add(read, Relaxed);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.gone(Closed::Socket(error)),
            }
        }
    }

    /// The client is gone. What it asked for before is still carried out, unheard: a last commit or
    /// LeaveGroup counts even if nobody waits for the answer.
    fn gone(&mut self, closed: Closed) -> Result<bool, Closed> {
        self.outbox.clear();
        self.end_intake(closed);
        Ok(true)
    }

    fn call(&mut self, frame: BytesMut) -> Result<(), Closed> {
        let room = self.arriving.take();
        let bytes = frame.len();
        match self.service.call(frame) {
            Call::Admitted(answer) => self.admitted(answer, bytes, room),
            Call::Admitting(admission) => {
                self.intake = Intake::Admitting(bytes, room, admission);
            }
            Call::Refused => return Err(Closed::Refused),
        }
        Ok(())
    }

    fn admitted(&mut self, answer: BoxFuture<'static, Answer<S::File>>, bytes: usize, room: Room) {
        self.in_flight_bytes += bytes;
        self.in_flight.push_back(InFlight {
            answer,
            bytes,
            _room: room,
        });
    }

    /// Moves answers to the outbox, the oldest request's first.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> Result<bool, Closed> {
        let mut progress = false;
        while self.outbox.bytes() < self.settings.unsent_bytes_max {
            let Some(oldest) = self.in_flight.front_mut() else {
                break;
            };
            let Poll::Ready(answer) = oldest.answer.as_mut().poll(cx) else {
                break;
            };
            progress = true;
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(oldest.bytes);
            self.in_flight.pop_front();
            if self.is_gone() {
                continue;
            }
            match answer {
                Answer::Nothing => {}
                Answer::Bytes(bytes) => self.outbox.push(Chunk::Bytes(bytes)),
                Answer::Chunks(chunks) => {
                    chunks.into_iter().for_each(|chunk| self.outbox.push(chunk));
                }
                Answer::Close => return Err(Closed::Answer),
            }
        }
        Ok(progress)
    }

    fn is_gone(&self) -> bool {
        matches!(
            self.intake,
            Intake::Ended(Closed::ByPeer | Closed::Socket(_))
        )
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        while !self.outbox.is_empty() {
            match self.outbox.poll_write(cx, &self.stream) {
                Poll::Pending => break,
                Poll::Ready(Ok(written)) => {
                    let written = u64::try_from(written).unwrap_or_default();
                    self.metrics.bytes_written.fetch_add(written, Relaxed);
                    progress = true;
                }
                Poll::Ready(Err(error)) => {
                    self.outbox.clear();
                    self.end_intake(Closed::Socket(error));
                    return true;
                }
            }
        }
        progress
    }

    /// The timer ticks rather than following every byte; each tick looks at how long nothing moved.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        while self.timer.as_mut().poll(cx).is_ready() {
            if let Intake::Ended(closed) = &mut self.intake {
                return Poll::Ready(std::mem::replace(closed, Closed::Stopping));
            }
            let now = Instant::now();
            let still = now.duration_since(self.last_progress);
            let reading = matches!(self.intake, Intake::Reading) && self.has_room();
            let stalled = !self.outbox.is_empty() || (reading && !self.inbox.is_empty());
            if stalled && still >= self.settings.stall_limit {
                return Poll::Ready(Closed::Stalled);
            }
            let idle = self.in_flight.is_empty() && matches!(self.intake, Intake::Reading);
            if idle && self.settings.idle_limit.is_some_and(|limit| still >= limit) {
                return Poll::Ready(Closed::Idle);
            }
            self.timer.as_mut().reset(now + tick(&self.settings));
        }
        Poll::Pending
    }
}

/// How often a connection looks at how long nothing has moved.
fn tick(settings: &ConnectionSettings) -> Duration {
    let limit = settings
        .idle_limit
        .unwrap_or(settings.stall_limit)
        .min(settings.stall_limit);
    (limit / 4).max(Duration::from_millis(10))
}

#[cfg(test)]
mod tests;
