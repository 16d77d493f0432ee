//! Drives [`Sessions`] while this controller is active: feeds it what is decided and what brokers
//! send, proposes what is due, and tries the addresses of brokers that have not come yet.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use ottla_metadata::Command;
use ottla_types::{BrokerEpoch, BrokerId};
use uuid::Uuid;

use super::{Action, Beat, Due, Gone, Limits, Probe, Sessions};
use crate::{
    cluster::Cluster,
    leadership::Active,
    peers::{Dial, Peers},
    raft::Quorum,
};

/// Pause between connection attempts to one broker.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// A process that neither accepts nor refuses within this time says nothing.
const PROBE_LIMIT: Duration = Duration::from_millis(200);

/// The sessions of the present period, shared by the driver and the broker streams.
pub(crate) struct SessionHub {
    quorum: Arc<Quorum>,
    cluster: Arc<Cluster>,
    peers: Arc<Peers>,
    limits: Limits,
    sessions: Mutex<Option<Sessions>>,
    wake: Notify,
    /// A stream ended: its broker's address must be tried.
    broke: Notify,
    /// Rises whenever an answer to a broker may have changed.
    changed: watch::Sender<u64>,
    fencings: AtomicU64,
}

/// What a broker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// This controller is no longer active: nothing can be said.
    Unknown,
    /// The registration is not the current one.
    Stale,
    /// It is.
    Current { fenced: bool, may_shut_down: bool },
}

impl SessionHub {
    pub(crate) fn new(
        quorum: Arc<Quorum>,
        cluster: Arc<Cluster>,
        peers: Arc<Peers>,
        limits: Limits,
    ) -> SessionHub {
        SessionHub {
            quorum,
            cluster,
            peers,
            limits,
            sessions: Mutex::new(None),
            wake: Notify::new(),
            broke: Notify::new(),
            changed: watch::Sender::new(0),
            fencings: AtomicU64::new(0),
        }
    }

    /// Starts the sessions of a period, before anybody is told that it has begun.
    pub(crate) fn begin(self: &Arc<Self>, active: &Arc<Active>, tasks: &TaskTracker) {
        *self.sessions.lock() = Some(Sessions::new(self.limits, active.since));
        self.sync();
        tasks.spawn(self.clone().drive(active.clone(), tasks.clone()));
        tasks.spawn(self.clone().probe(active.clone()));
    }

    async fn drive(self: Arc<Self>, active: Arc<Active>, tasks: TaskTracker) {
        let mut index = self.cluster.index_changes();
        loop {
            index.mark_unchanged();
            self.sync();
            for due in self
                .with(|sessions| sessions.due(Instant::now()))
                .unwrap_or_default()
            {
                let hub = self.clone();
                let ended = active.ended.clone();
                tasks.spawn(async move { ended.run_until_cancelled(hub.propose(due)).await });
            }
            let now = Instant::now();
            let deadline = self
                .with(|sessions| sessions.next_deadline(now))
                .unwrap_or(now);
            tokio::select! {
                () = active.ended.cancelled() => break,
                () = self.wake.notified() => {}
                changed = index.changed() => if changed.is_err() { break },
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
        *self.sessions.lock() = None;
    }

    fn sync(&self) {
        let index = self.cluster.index();
        self.cluster.read(|image, _| {
            self.with(|sessions| sessions.sync(image, index, Instant::now()));
        });
        self.changed.send_modify(|version| *version += 1);
    }

    fn command(&self, due: Due, live: BTreeSet<BrokerId>) -> Command {
        let Due {
            broker_id,
            broker_epoch,
            action,
        } = due;
        match action {
            Action::Fence(gone) => {
                self.note_fencing(broker_id, gone);
                Command::FenceBroker {
                    broker_id,
                    broker_epoch,
                    live,
                }
            }
            Action::Unfence => Command::UnfenceBroker {
                broker_id,
                broker_epoch,
                live,
            },
            Action::BeginShutdown => Command::BeginControlledShutdown {
                broker_id,
                broker_epoch,
                live,
            },
            Action::FailDirectories => {
                let failed = self.with(|sessions| sessions.failed_directories(broker_id));
                let directories = failed.unwrap_or_default();
                tracing::warn!(broker = %broker_id, ?directories, "log directories have failed");
                Command::FailDirectories {
                    broker_id,
                    broker_epoch,
                    directories,
                    live,
                }
            }
            Action::ReportSpace { no_space } => {
                tracing::warn!(broker = %broker_id, no_space, "a broker's disk space has changed");
                Command::ReportSpace {
                    broker_id,
                    broker_epoch,
                    no_space,
                    live,
                }
            }
        }
    }

    fn note_fencing(&self, broker_id: BrokerId, gone: Gone) {
        let stopped = self.cluster.read(|image, _| {
            let broker = image.broker(broker_id);
            broker.is_some_and(|broker| broker.in_controlled_shutdown)
        });
        if stopped {
            tracing::info!(broker = %broker_id, ?gone, "fencing a broker that has stopped");
        } else {
            tracing::warn!(broker = %broker_id, ?gone, "fencing a broker");
        }
        self.fencings.fetch_add(1, Ordering::Relaxed);
    }

    async fn propose(&self, due: Due) {
        let live = self.live();
        let command = self.command(due, live.clone());
        let (broker_id, action) = (due.broker_id, due.action);
        let decided = self.quorum.propose(command).await;
        match &decided {
            Ok((index, outcome)) => {
                tracing::info!(broker = %broker_id, ?action, index, ?outcome, "broker state decided");
            }
            Err(error) => {
                tracing::warn!(broker = %broker_id, ?action, %error, "broker state not decided");
            }
        }
        self.sync();
        let offline = self.cluster.read(|_, tally| tally.offline() > 0);
        self.with(|sessions| {
            sessions.proposed(due, decided.is_ok(), Instant::now());
            if offline && matches!(action, Action::Fence(_) | Action::FailDirectories) {
                sessions.passed_over(&live);
            }
        });
        self.wake.notify_one();
    }

    /// Tries the addresses of unfenced brokers that have no stream: those that have not come since
    /// the controller changed (C-9), and those whose stream broke.
    async fn probe(self: Arc<Self>, active: Arc<Active>) {
        loop {
            let targets = self
                .with(|sessions| sessions.to_probe())
                .unwrap_or_default();
            let pause = async {
                if targets.is_empty() {
                    self.broke.notified().await;
                } else {
                    tokio::time::sleep(PROBE_INTERVAL).await;
                }
            };
            let began = Instant::now();
            let hub = &*self;
            let dials = targets.iter().map(|(id, epoch, address)| async move {
                let answer = hub.peers.dial(address, PROBE_LIMIT).await;
                hub.probed(*id, *epoch, answer, began);
            });
            futures::future::join_all(dials).await;
            tokio::select! {
                () = active.ended.cancelled() => return,
                () = pause => {}
            }
        }
    }

    fn probed(&self, id: BrokerId, epoch: BrokerEpoch, answer: Dial, began: Instant) {
        let probe = Probe {
            answer,
            began,
            node_lost: self.peers.is_lost(id),
        };
        self.with(|sessions| sessions.probed(id, epoch, probe, Instant::now()));
        if answer != Dial::Accepted {
            self.wake.notify_one();
        }
    }

    /// Brokers with a live stream.
    pub(crate) fn live(&self) -> BTreeSet<BrokerId> {
        self.with(|sessions| sessions.live()).unwrap_or_default()
    }

    /// Waits until the set of live brokers can be relied upon.
    pub(crate) async fn settled(&self) {
        let mut changes = self.changed.subscribe();
        while self.with(|sessions| sessions.settled(Instant::now())) == Some(false) {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(PROBE_INTERVAL) => {}
            }
        }
    }

    /// A stream of a broker was opened; it counts if its registration is the current one.
    pub(crate) fn opened(
        &self,
        period: &Active,
        id: BrokerId,
        epoch: BrokerEpoch,
        incarnation: Uuid,
    ) -> Standing {
        self.sync();
        let offline = self.cluster.read(|_, tally| tally.offline() > 0);
        let current = self.during(period, |sessions| {
            let current = sessions.is_current(id, epoch, incarnation);
            if current {
                sessions.opened(id, epoch, offline, Instant::now());
            }
            current
        });
        self.notify();
        match current {
            Some(true) => self.standing(period, id, epoch, incarnation),
            Some(false) => Standing::Stale,
            None => Standing::Unknown,
        }
    }

    /// A stream that was opened has ended.
    pub(crate) fn closed(&self, period: &Active, id: BrokerId, epoch: BrokerEpoch) {
        self.during(period, |sessions| {
            sessions.closed(id, epoch, Instant::now())
        });
        self.broke.notify_one();
        self.notify();
    }

    /// A heartbeat arrived on an opened stream.
    pub(crate) fn beat(&self, period: &Active, id: BrokerId, epoch: BrokerEpoch, beat: Beat) {
        self.during(period, |sessions| {
            sessions.beat(id, epoch, beat, Instant::now())
        });
        self.notify();
    }

    /// What to tell the broker now.
    pub(crate) fn standing(
        &self,
        period: &Active,
        id: BrokerId,
        epoch: BrokerEpoch,
        incarnation: Uuid,
    ) -> Standing {
        let leads = self.cluster.read(|_, tally| tally.led_by(id));
        let index = self.cluster.index();
        let standing = self.during(period, |sessions| {
            if !sessions.is_current(id, epoch, incarnation) {
                return Standing::Stale;
            }
            let may_shut_down = sessions.may_shut_down(id, epoch, leads, index);
            Standing::Current {
                fenced: sessions.is_fenced(id),
                may_shut_down,
            }
        });
        standing.unwrap_or(Standing::Unknown)
    }

    /// Follows whether answers to brokers may have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// How many brokers have been fenced by this process.
    pub(crate) fn fencings(&self) -> u64 {
        self.fencings.load(Ordering::Relaxed)
    }

    fn notify(&self) {
        self.wake.notify_one();
        self.changed.send_modify(|version| *version += 1);
    }

    /// A stream of an earlier period must not count in the present one.
    fn during<T>(&self, period: &Active, act: impl FnOnce(&mut Sessions) -> T) -> Option<T> {
        let mut sessions = self.sessions.lock();
        sessions
            .as_mut()
            .filter(|sessions| sessions.began_at(period.since))
            .map(act)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Sessions) -> T) -> Option<T> {
        self.sessions.lock().as_mut().map(act)
    }
}
