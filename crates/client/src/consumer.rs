//! The consumer: records of partitions, chosen by hand or by a group.
//!
//! Everything happens in [`Consumer::poll`], except what must go on between polls: heartbeats and
//! the requests under way, which report when polled again. So what a poll announces as revoked is
//! still the member's until the next poll.

mod assignor;
mod config;
mod decode;
mod fetch;
mod fetching;
mod heartbeat;
mod join;
mod lookup;
mod membership;
mod offsets;
mod partition;
mod protocol;
mod rebalance;
mod record;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::Future,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

pub use assignor::Assignor;
pub(crate) use protocol::decode_assignment;

pub use config::{ConsumerConfig, OffsetReset};
pub use record::{ConsumerError, ConsumerRecord, Polled, RebalanceEvent};

use self::{
    join::{JoinError, Joined},
    lookup::Found,
    membership::Membership,
    partition::{Generations, PartitionState, Phase},
};
use crate::{
    cluster::Cluster,
    group::Coordinator,
    metadata::{Metadata, TopicPartition},
    producer::ConfigError,
};

/// Answers that may wait for the next poll; tasks with more wait themselves.
const EVENTS_MAX: usize = 64;

/// What the tasks started here report.
enum Event {
    Fetched(fetch::Fetched),
    Found(Found),
    Joined {
        subscription: u64,
        member_id: String,
        result: Result<Joined, JoinError>,
    },
}

struct FetchUnderWay {
    since: Instant,
    probe_at: Instant,
    /// Where the request went, if that was known.
    address: Option<String>,
    partitions: Vec<TopicPartition>,
}

/// A consumer; used by one task at a time. Call [`Consumer::close`] at the end: a group waits for
/// members that vanish until their session ends.
pub struct Consumer {
    config: ConsumerConfig,
    cluster: Cluster,
    coordinator: Option<Coordinator>,
    membership: Option<Membership>,
    /// Tells answers to an earlier subscription from those to this one.
    subscription_number: u64,
    joined: Option<Joined>,
    partitions: BTreeMap<TopicPartition, PartitionState>,
    generations: Generations,
    fetching: BTreeMap<ottla_types::BrokerId, FetchUnderWay>,
    rebalances: VecDeque<RebalanceEvent>,
    errors: VecDeque<ConsumerError>,
    /// Who is served first changes with every poll.
    turn: usize,
    next_auto_commit: Option<Instant>,
    /// The automatic commit under way.
    committing: Option<JoinHandle<()>>,
    metadata: watch::Receiver<Arc<Metadata>>,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
}

impl Consumer {
    /// Starts a consumer that reads nothing yet.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn new(config: ConsumerConfig) -> Result<Consumer, ConfigError> {
        config.check()?;
        let cluster = Cluster::new(config.client.clone());
        let group = config.group_id.as_deref();
        let (report, events) = mpsc::channel(EVENTS_MAX);
        let auto_commit = config.auto_commit.filter(|_| group.is_some());
        Ok(Consumer {
            coordinator: group.map(|group| Coordinator::new(cluster.clone(), group)),
            membership: None,
            subscription_number: 0,
            joined: None,
            partitions: BTreeMap::new(),
            generations: Generations::default(),
            fetching: BTreeMap::new(),
            rebalances: VecDeque::new(),
            errors: VecDeque::new(),
            turn: 0,
            next_auto_commit: auto_commit.map(|every| Instant::now() + every),
            committing: None,
            metadata: cluster.watch_metadata(),
            events,
            report,
            cluster,
            config,
        })
    }

    /// Reads these topics with the other members of the group; replaces what was read before.
    ///
    /// # Errors
    /// There is no group.
    pub async fn subscribe(
        &mut self,
        topics: impl IntoIterator<Item = impl Into<Arc<str>>>,
    ) -> Result<(), ConsumerError> {
        let Some(coordinator) = self.coordinator.clone() else {
            return Err(ConsumerError::Misused("a subscription needs a group id"));
        };
        self.unsubscribe().await;
        let topics: BTreeSet<Arc<str>> = topics.into_iter().map(Into::into).collect();
        self.cluster
            .want(|wanted| wanted.topics.extend(topics.iter().cloned()));
        self.membership = Some(Membership::new(coordinator, &self.config, topics));
        Ok(())
    }

    /// Reads exactly these partitions, without the group's doing; offsets of the group are used if
    /// there is one.
    pub async fn assign(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.unsubscribe().await;
        for partition in partitions {
            self.cluster.want(|wanted| {
                wanted.topics.insert(Arc::clone(&partition.topic));
            });
            let state = PartitionState::new(Phase::NeedsCommitted, self.generations.next());
            self.partitions.insert(partition, state);
        }
        self.cluster.request_refresh();
    }

    /// Reads nothing any more; leaves the group, committing first if that is automatic.
    pub async fn unsubscribe(&mut self) {
        if self.next_auto_commit.is_some() && !self.partitions.is_empty() {
            let deadline = Instant::now() + self.config.client.request_timeout;
            if let Err(error) = self.commit_until(deadline).await {
                tracing::debug!(%error, "offsets were not committed");
            }
        }
        if let Some(mut membership) = self.membership.take() {
            membership.stop_heart();
            let deadline = Instant::now() + self.config.client.request_timeout;
            membership::leave(&membership.coordinator, &membership.committer(), deadline).await;
        }
        self.subscription_number += 1;
        self.joined = None;
        self.partitions.clear();
        self.rebalances.clear();
    }

    /// What is read at the moment.
    #[must_use]
    pub fn assignment(&self) -> BTreeSet<TopicPartition> {
        let held = self
            .partitions
            .iter()
            .filter(|(_, state)| !state.is_leaving);
        held.map(|(partition, _)| partition.clone()).collect()
    }

    /// Waits for records or for news of the group, for at most `timeout`.
    ///
    /// Dropping the future loses nothing: what was under way is there at the next poll.
    ///
    /// # Errors
    /// Something that waiting does not mend; what else was read comes with the next poll.
    pub async fn poll(&mut self, timeout: Duration) -> Result<Polled, ConsumerError> {
        let deadline = Instant::now() + timeout;
        if let Some(membership) = &self.membership {
            membership.pulse.polled();
        }
        if self.rebalances.is_empty() {
            self.give_up_leaving();
        }
        loop {
            while let Ok(event) = self.events.try_recv() {
                self.on_event(event);
            }
            self.tend_membership().await?;
            // Before anything is handed out: what is committed has been processed.
            self.auto_commit(Instant::now());
            self.keep_busy();
            let polled = self.take_polled();
            if !polled.is_empty() {
                self.keep_busy();
                return Ok(polled);
            }
            if let Some(error) = self.errors.pop_front() {
                return Err(error);
            }
            if Instant::now() >= deadline {
                return Ok(Polled::default());
            }
            self.wait(deadline).await;
        }
    }

    /// Starts whatever may be started.
    fn keep_busy(&mut self) {
        let now = Instant::now();
        self.look_up(now);
        self.start_fetches(now);
        self.probe_silent_leaders(now);
    }

    async fn wait(&mut self, deadline: Instant) {
        let wakeup = self.next_wakeup(deadline);
        let pulse = self
            .membership
            .as_ref()
            .map(|membership| Arc::clone(&membership.pulse));
        let pulse_changed = async {
            match &pulse {
                Some(pulse) => pulse.changed.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = self.events.recv() => if let Some(event) = event { self.on_event(event) },
            changed = self.metadata.changed() => if changed.is_err() { sleep_until(wakeup).await },
            () = pulse_changed => {}
            () = sleep_until(wakeup) => {}
        }
    }

    fn next_wakeup(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        let pauses = self
            .partitions
            .values()
            .filter_map(|state| state.not_before);
        let probes = self.fetching.values().map(|under_way| under_way.probe_at);
        let join = self
            .membership
            .as_ref()
            .and_then(|membership| membership.not_before);
        let later = pauses
            .chain(probes)
            .chain(join)
            .chain(self.next_auto_commit);
        later
            .filter(|at| *at > now)
            .min()
            .map_or(deadline, |at| at.min(deadline))
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Fetched(fetched) => self.on_fetched(fetched),
            Event::Found(found) => self.on_found(found),
            Event::Joined {
                subscription,
                member_id,
                result,
            } => self.on_joined(subscription, member_id, result),
        }
    }

    /// Records of one partition after another, beginning with another one each time.
    fn take_polled(&mut self) -> Polled {
        let mut polled = Polled {
            records: Vec::new(),
            events: self.rebalances.drain(..).collect(),
        };
        // The user hears of changes before any record that they concern.
        if !polled.events.is_empty() {
            return polled;
        }
        let count = self.partitions.len();
        self.turn = if count == 0 {
            0
        } else {
            (self.turn + 1) % count
        };
        let (turn, max) = (self.turn, self.config.poll_records_max);
        for pass in 0..2 {
            for (place, state) in self.partitions.values_mut().enumerate() {
                let is_its_turn = (place >= turn) == (pass == 0);
                let room = max - polled.records.len();
                if is_its_turn && room > 0 {
                    state.take(room, &mut polled.records);
                }
            }
        }
        polled
    }

    fn spawn<F>(&self, task: impl FnOnce(mpsc::Sender<Event>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_silent(task(self.report.clone()));
    }

    /// A task that ends with the consumer and reports nothing.
    fn spawn_silent(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let shutdown = self.cluster.shutdown().clone();
        self.cluster.tasks().spawn(async move {
            shutdown.run_until_cancelled(task).await;
        })
    }

    /// Commits if that is automatic, leaves the group and ends.
    pub async fn close(mut self, patience: Duration) {
        let _ = tokio::time::timeout(patience, self.unsubscribe()).await;
        self.cluster.end();
        // Tasks that report must not wait for somebody who no longer listens.
        self.events.close();
        self.cluster.close().await;
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.cluster.end();
    }
}
