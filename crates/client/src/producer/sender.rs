//! The task that owns what is under way: it sends batches, judges answers and retries.
//!
//! It never waits for one broker: connecting, answers and the producer id come back as events.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};

use ottla_types::BrokerId;

use super::{
    Shared,
    batch::{Batch, Identity},
    identity,
    queue::Outcome,
    record::DeliveryError,
    request::{self, Verdicts},
};
use crate::{
    cluster::{Cluster, Lane},
    connection::Connection,
    error::RequestError,
    metadata::{Metadata, TopicPartition},
};

/// What the tasks started here report.
pub(super) enum Event {
    Connected {
        broker: BrokerId,
        result: Result<Connection, RequestError>,
    },
    Answered {
        request: u64,
        result: Result<Bytes, RequestError>,
    },
    Identified(Result<Identity, identity::IdentityError>),
}

struct Request {
    broker: BrokerId,
    connection: Connection,
    started: Instant,
    version: i16,
    keys: BTreeMap<Arc<str>, ottla_wire::TopicKey>,
    batches: Vec<Batch>,
    /// Metadata is asked for then, and again, until there is an answer.
    probe_at: Instant,
}

enum Link {
    Connecting,
    Open(Connection),
}

enum Naming {
    NotNeeded,
    Wanted,
    UnderWay,
    Known(Identity),
}

pub(super) struct Sender {
    shared: Arc<Shared>,
    cluster: Cluster,
    metadata: watch::Receiver<Arc<Metadata>>,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
    links: BTreeMap<BrokerId, Link>,
    requests: BTreeMap<u64, Request>,
    next_request: u64,
    naming: Naming,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>, cluster: Cluster) -> Sender {
        // Reports come from tasks that may wait; the bound only limits how many do not have to.
        let (report, events) = mpsc::channel(256);
        let naming = if shared.config.idempotent {
            Naming::Wanted
        } else {
            Naming::NotNeeded
        };
        Sender {
            metadata: cluster.watch_metadata(),
            shared,
            cluster,
            events,
            report,
            links: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            naming,
        }
    }

    pub(super) async fn run(mut self) {
        let shutdown = self.cluster.shutdown().clone();
        loop {
            let now = Instant::now();
            self.expire(now);
            self.dispatch(now);
            let wakeup = self.next_wakeup(now);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                event = self.events.recv() => if let Some(event) = event { self.on_event(event) },
                changed = self.metadata.changed() => {
                    if changed.is_ok() { self.give_up_deposed(); }
                }
                () = self.shared.wake.notified() => {}
                () = sleep_until(wakeup) => {}
            }
        }
        self.end();
    }

    /// The producer is closed: whatever is left fails, saying whether it was sent.
    fn end(mut self) {
        let now = Instant::now();
        // Under one lock: nothing is taken between what fails here and the end.
        let mut accumulator = self.shared.accumulator.lock();
        for request in std::mem::take(&mut self.requests).into_values() {
            for batch in request.batches {
                let closed = DeliveryError::Closed {
                    may_have_happened: true,
                };
                accumulator.complete(batch, Outcome::Failed(closed), now);
            }
        }
        accumulator.close(|batch| DeliveryError::Closed {
            may_have_happened: batch.may_have_happened,
        });
    }

    fn expire(&mut self, now: Instant) {
        let mut is_probing = false;
        for request in self.requests.values_mut() {
            if now >= request.probe_at {
                is_probing = true;
                request.probe_at = now + self.cluster.config().stall_probe_after;
                self.cluster.request_refresh();
            }
            for batch in &mut request.batches {
                if now >= batch.deadline && !batch.is_expired {
                    batch.expire(true);
                }
            }
        }
        self.shared.accumulator.lock().expire(now);
        if is_probing {
            // Another leader may have been known before this request was old enough.
            self.give_up_deposed();
        }
    }

    fn next_wakeup(&self, now: Instant) -> Instant {
        const IDLE: std::time::Duration = std::time::Duration::from_secs(60);
        let requests = self.requests.values().flat_map(|request| {
            let probe = Some(request.probe_at);
            let deadlines = request.batches.iter().filter(|batch| !batch.is_expired);
            deadlines.map(|batch| batch.deadline).chain(probe)
        });
        let queues = self.shared.accumulator.lock().next_wakeup(now);
        requests.chain(queues).min().unwrap_or(now + IDLE)
    }

    /// Sends whatever may be sent.
    fn dispatch(&mut self, now: Instant) {
        let ready = self.shared.accumulator.lock().ready(now);
        if ready.is_empty() || !self.has_identity() {
            return;
        }
        let metadata = self.cluster.metadata();
        let mut by_leader: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for partition in ready {
            match metadata.leader(&partition) {
                Some(leader) => by_leader.entry(leader).or_default().push(partition),
                None => {
                    self.cluster.request_refresh();
                    self.shared.accumulator.lock().pause(&partition, now);
                }
            }
        }
        for (broker, partitions) in by_leader {
            match self.links.get(&broker) {
                Some(Link::Connecting) => {}
                Some(Link::Open(connection)) if connection.is_open() => {
                    let connection = connection.clone();
                    self.fill(broker, &connection, &metadata, &partitions, now);
                }
                Some(Link::Open(_)) | None => self.connect(broker),
            }
        }
    }

    fn has_identity(&mut self) -> bool {
        let used_up = match &self.naming {
            Naming::Known(identity) => self.shared.accumulator.lock().wants_other_than(*identity),
            Naming::NotNeeded | Naming::Wanted | Naming::UnderWay => false,
        };
        if used_up {
            self.naming = Naming::Wanted;
        }
        match self.naming {
            Naming::NotNeeded | Naming::Known(_) => true,
            Naming::UnderWay => false,
            Naming::Wanted => {
                self.naming = Naming::UnderWay;
                let (cluster, report) = (self.cluster.clone(), self.report.clone());
                self.cluster.tasks().spawn(async move {
                    let identity = identity::ask(&cluster).await;
                    let _ = report.send(Event::Identified(identity)).await;
                });
                false
            }
        }
    }

    fn connect(&mut self, broker: BrokerId) {
        self.links.insert(broker, Link::Connecting);
        let (cluster, report) = (self.cluster.clone(), self.report.clone());
        let deadline = Instant::now() + self.cluster.config().connect_timeout;
        self.cluster.tasks().spawn(async move {
            let result = cluster.connect(broker, Lane::Data, deadline).await;
            let _ = report.send(Event::Connected { broker, result }).await;
        });
    }

    /// Fills requests to one broker, up to those that may be under way.
    fn fill(
        &mut self,
        broker: BrokerId,
        connection: &Connection,
        metadata: &Metadata,
        partitions: &[TopicPartition],
        now: Instant,
    ) {
        let config = &self.shared.config;
        let in_flight_max = config.in_flight_max;
        while self
            .requests
            .values()
            .filter(|request| request.broker == broker)
            .count()
            < in_flight_max
        {
            let identity = match &self.naming {
                Naming::Known(identity) => Some(*identity),
                Naming::NotNeeded | Naming::Wanted | Naming::UnderWay => None,
            };
            let batches = self.take(partitions, identity, now);
            if batches.is_empty() {
                break;
            }
            self.send(broker, connection, metadata, batches, now);
        }
    }

    /// One batch of each partition, as many as fit a request.
    fn take(
        &self,
        partitions: &[TopicPartition],
        identity: Option<Identity>,
        now: Instant,
    ) -> Vec<Batch> {
        let mut accumulator = self.shared.accumulator.lock();
        let (mut batches, mut bytes) = (Vec::new(), 0);
        for partition in partitions {
            if bytes >= self.shared.config.request_bytes_max {
                break;
            }
            if !accumulator.is_ready(partition, now) {
                continue;
            }
            if let Some(batch) = accumulator.take(partition, identity) {
                bytes += batch.size_bytes();
                batches.push(batch);
            }
        }
        batches
    }

    fn send(
        &mut self,
        broker: BrokerId,
        connection: &Connection,
        metadata: &Metadata,
        mut batches: Vec<Batch>,
        now: Instant,
    ) {
        let config = &self.shared.config;
        let timeout = config.client.request_timeout;
        let sent = request::send(
            connection,
            metadata,
            &mut batches,
            config.acks,
            config.compression,
            timeout,
        );
        let sent = match sent {
            Ok(sent) => sent,
            Err(error) => return self.settle(batches, Verdicts::failed(&error)),
        };
        let id = self.next_request;
        self.next_request += 1;
        let report = self.report.clone();
        let answer = sent.answer;
        self.cluster.tasks().spawn(async move {
            let result = answer.wait().await;
            let _ = report
                .send(Event::Answered {
                    request: id,
                    result,
                })
                .await;
        });
        self.requests.insert(
            id,
            Request {
                broker,
                connection: connection.clone(),
                started: now,
                version: sent.version,
                keys: sent.keys,
                batches,
                probe_at: now + config.client.stall_probe_after,
            },
        );
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected { broker, result } => match result {
                Ok(connection) => {
                    self.links.insert(broker, Link::Open(connection));
                }
                Err(error) => {
                    tracing::debug!(%broker, %error, "no connection for producing");
                    self.links.remove(&broker);
                    self.cluster.request_refresh();
                    self.pause_partitions_of(broker);
                }
            },
            Event::Answered { request, result } => self.on_answer(request, result),
            Event::Identified(Ok(identity)) => self.naming = Naming::Known(identity),
            Event::Identified(Err(error)) => {
                // Nothing can be sent without one; the next record asks again.
                self.naming = Naming::Wanted;
                let error = error.into_delivery_error();
                self.shared.accumulator.lock().fail_all(|_| error.clone());
            }
        }
    }

    fn pause_partitions_of(&self, broker: BrokerId) {
        let now = Instant::now();
        let metadata = self.cluster.metadata();
        let mut accumulator = self.shared.accumulator.lock();
        for partition in accumulator.ready(now) {
            if metadata.leader(&partition) == Some(broker) {
                accumulator.pause(&partition, now);
            }
        }
    }

    fn on_answer(&mut self, id: u64, result: Result<Bytes, RequestError>) {
        let Some(request) = self.requests.remove(&id) else {
            return;
        };
        let verdicts = match result {
            Ok(_) if self.shared.config.acks == super::Acks::None => Verdicts::all(
                Outcome::Written {
                    base_offset: None,
                    log_append_time: None,
                },
                false,
            ),
            Ok(bytes) => request::judge(&self.cluster, request.version, &request.keys, bytes),
            Err(error) => {
                tracing::debug!(broker = %request.broker, %error, "produce got no answer");
                Verdicts::failed(&error)
            }
        };
        self.settle(request.batches, verdicts);
    }

    fn settle(&mut self, batches: Vec<Batch>, mut verdicts: Verdicts) {
        if verdicts.is_metadata_stale {
            self.cluster.request_refresh();
        }
        let now = Instant::now();
        let mut accumulator = self.shared.accumulator.lock();
        for batch in batches {
            let outcome = verdicts.take(&batch.partition);
            accumulator.complete(batch, outcome, now);
        }
    }

    /// A leader that was replaced while it kept a request may never answer it: its connection is
    /// closed, and the batches go to the new leader, which knows those that it already has.
    fn give_up_deposed(&mut self) {
        let metadata = self.cluster.metadata();
        let patience = self.cluster.config().stall_probe_after;
        let now = Instant::now();
        for request in self.requests.values() {
            let is_deposed = request.batches.iter().any(|batch| {
                let leader = metadata.leader(&batch.partition);
                leader.is_some_and(|leader| leader != request.broker)
            });
            if is_deposed && now >= request.started + patience {
                request.connection.close("another broker leads now");
            }
        }
    }
}
