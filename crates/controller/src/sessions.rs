//! Who of the brokers is alive, as the active controller sees it.
//!
//! Pure: facts come in with their time, [`Sessions::due`] says what to propose.
//!
//! # Invariants
//! * Nobody is fenced for silence before a full session under this controller (C-9); a stream
//!   that broke and did not come back within the grace is not silence, nor is an address that
//!   refuses connections for the whole grace, nor one that stopped accepting them on a node whose
//!   connection to this controller broke.
//! * Only messages of the registered incarnation count (C-8).
//! * One proposal per broker is under way at a time.

mod driver;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use ottla_metadata::{BrokerRecord, Image};
use ottla_types::{BrokerEpoch, BrokerId};
use uuid::Uuid;

use crate::peers::Dial;

pub(crate) use driver::{SessionHub, Standing};

/// How long after activation proposals that elect leaders wait for brokers to connect.
const SETTLE_LIMIT: Duration = Duration::from_millis(500);
/// Pause before a shutdown that could not complete, or a refused proposal, is proposed again.
const RETRY: Duration = Duration::from_millis(300);

/// What must be proposed for a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is gone.
    Fence(Gone),
    /// It is ready, or its return lets a partition be led.
    Unfence,
    /// It wants to stop.
    BeginShutdown,
    /// Log directories of its failed: see [`Sessions::failed_directories`].
    FailDirectories,
    /// Its disk is full, or has room again.
    ReportSpace { no_space: bool },
}

/// Why a broker counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Its stream broke and did not come back.
    StreamBroke,
    /// Its address refuses connections.
    Refused,
    /// The connection to the controller of its node broke, and its address accepts none.
    Vanished,
    /// It has not been heard from.
    Silent,
}

/// An action for one registration of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) broker_id: BrokerId,
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) action: Action,
}

/// One heartbeat.
#[derive(Clone, Debug)]
pub(crate) struct Beat {
    pub(crate) metadata_index: u64,
    pub(crate) ready: bool,
    pub(crate) want_shutdown: bool,
    /// Log directories that have failed.
    pub(crate) offline_directories: Vec<Uuid>,
    /// Its disk is full.
    pub(crate) no_space: bool,
}

/// What an attempt to connect to a broker's address said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    pub(crate) answer: Dial,
    /// When the attempt began.
    pub(crate) began: Instant,
    /// The connection to the controller of the same node broke, and was not made again.
    pub(crate) node_lost: bool,
}

/// Limits of [`Sessions`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) session: Duration,
    pub(crate) grace: Duration,
    /// How long the address of a broker whose stream broke must refuse connections: then its
    /// process is gone, and waiting for the rest of the grace would only prolong the stall.
    pub(crate) dead: Duration,
    /// The same for a broker whose stream never came after a controller change (C-9).
    pub(crate) refused: Duration,
}

#[derive(Debug)]
struct Session {
    epoch: BrokerEpoch,
    incarnation: Uuid,
    address: String,
    fenced: bool,
    stopping: bool,
    /// Index at which this registration was last fenced or made.
    fenced_at: u64,
    heard: Instant,
    streams: u32,
    broke: Option<Instant>,
    refused: Option<Instant>,
    /// Since when its address has accepted no connection while its node was lost.
    vanished: Option<Instant>,
    beat: Option<Beat>,
    /// Log directories that count as healthy.
    healthy: BTreeSet<Uuid>,
    no_space: bool,
    /// Its stream came after partitions had lost their leader: one of them may be its to lead.
    wants_election: bool,
    /// Applied index at which it was first seen to lead nothing.
    leads_nothing_at: Option<u64>,
    proposing: bool,
    not_before: Instant,
}

/// The sessions of all registered brokers under one period of being active.
#[derive(Debug)]
pub(crate) struct Sessions {
    limits: Limits,
    started: Instant,
    brokers: BTreeMap<BrokerId, Session>,
}

impl Sessions {
    pub(crate) fn new(limits: Limits, now: Instant) -> Sessions {
        Sessions {
            limits,
            started: now,
            brokers: BTreeMap::new(),
        }
    }

    /// Whether these are the sessions of the period that began then.
    pub(crate) fn began_at(&self, started: Instant) -> bool {
        self.started == started
    }

    /// Takes over what has been decided about brokers.
    pub(crate) fn sync(&mut self, image: &Image, index: u64, now: Instant) {
        self.brokers.retain(|id, _| image.brokers.contains_key(id));
        for record in image.brokers.values() {
            match self.brokers.get_mut(&record.broker_id) {
                Some(session) if session.epoch == record.epoch => {
                    if record.fenced && !session.fenced {
                        session.fenced_at = index;
                    }
                    session.follow(record);
                }
                Some(_) | None => {
                    let session = Session::new(record, now);
                    self.brokers.insert(record.broker_id, session);
                }
            }
        }
    }

    /// Whether this registration is the current one.
    pub(crate) fn is_current(&self, id: BrokerId, epoch: BrokerEpoch, incarnation: Uuid) -> bool {
        self.brokers
            .get(&id)
            .is_some_and(|session| session.epoch == epoch && session.incarnation == incarnation)
    }

    /// A stream of this registration was opened.
    pub(crate) fn opened(&mut self, id: BrokerId, epoch: BrokerEpoch, offline: bool, now: Instant) {
        if let Some(session) = self.current(id, epoch) {
            session.wants_election |= offline && session.streams == 0 && !session.fenced;
            session.streams += 1;
            session.broke = None;
            session.refused = None;
            session.vanished = None;
            session.heard = now;
        }
    }

    /// A stream of this registration ended.
    pub(crate) fn closed(&mut self, id: BrokerId, epoch: BrokerEpoch, now: Instant) {
        if let Some(session) = self.current(id, epoch) {
            session.streams = session.streams.saturating_sub(1);
            if session.streams == 0 {
                session.broke = Some(now);
                session.refused = None;
                session.vanished = None;
            }
        }
    }

    /// A heartbeat of this registration arrived.
    pub(crate) fn beat(&mut self, id: BrokerId, epoch: BrokerEpoch, beat: Beat, now: Instant) {
        if let Some(session) = self.current(id, epoch) {
            session.heard = now;
            session.beat = Some(beat);
        }
    }

    /// What a connection attempt to the broker's address said.
    pub(crate) fn probed(&mut self, id: BrokerId, epoch: BrokerEpoch, probe: Probe, now: Instant) {
        if let Some(session) = self.current(id, epoch)
            && session.streams == 0
        {
            session.refused = match probe.answer {
                Dial::Refused => session.refused.or(Some(now)),
                Dial::Accepted | Dial::Unknown => None,
            };
            session.vanished = match probe.answer {
                Dial::Refused | Dial::Unknown if probe.node_lost => {
                    session.vanished.or(Some(probe.began))
                }
                Dial::Accepted | Dial::Refused | Dial::Unknown => None,
            };
        }
    }

    /// The broker's directories that it calls failed and that still count as healthy.
    pub(crate) fn failed_directories(&self, id: BrokerId) -> Vec<Uuid> {
        let session = self.brokers.get(&id);
        session.map_or_else(Vec::new, Session::failed_directories)
    }

    /// Unfenced brokers without a stream: their addresses must be tried.
    pub(crate) fn to_probe(&self) -> Vec<(BrokerId, BrokerEpoch, String)> {
        self.brokers
            .iter()
            .filter(|(_, session)| !session.fenced && session.streams == 0)
            .map(|(id, session)| (*id, session.epoch, session.address.clone()))
            .collect()
    }

    /// Brokers with a live stream: those who may be elected.
    pub(crate) fn live(&self) -> BTreeSet<BrokerId> {
        let live = self
            .brokers
            .iter()
            .filter(|(_, session)| session.streams > 0);
        live.map(|(id, _)| *id).collect()
    }

    /// Somebody was elected among `candidates` only, and partitions are without a leader: brokers
    /// whose stream came too late to be among them may yet lead one.
    pub(crate) fn passed_over(&mut self, candidates: &BTreeSet<BrokerId>) {
        for (id, session) in &mut self.brokers {
            let late = session.streams > 0 && !candidates.contains(id);
            session.wants_election |= late && !session.fenced;
        }
    }

    /// Whether [`Sessions::live`] can be relied upon: after activation brokers need a moment to
    /// connect, and an election before that would leave their partitions without a leader.
    pub(crate) fn settled(&self, now: Instant) -> bool {
        now >= self.started + SETTLE_LIMIT
            || self.brokers.values().all(|session| {
                session.fenced
                    || session.streams > 0
                    || session.refused.is_some()
                    || session.vanished.is_some()
            })
    }

    /// What to propose now; each is then under way until [`Sessions::proposed`].
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due> {
        let settled = self.settled(now);
        let mut due = Vec::new();
        for (id, session) in &mut self.brokers {
            if session.proposing || now < session.not_before {
                continue;
            }
            let Some(action) = session.action(&self.limits, self.started, now, settled) else {
                continue;
            };
            session.proposing = true;
            due.push(Due {
                broker_id: *id,
                broker_epoch: session.epoch,
                action,
            });
        }
        due
    }

    /// A proposal has been decided, or failed and must be tried again.
    pub(crate) fn proposed(&mut self, due: Due, decided: bool, now: Instant) {
        if let Some(session) = self.current(due.broker_id, due.broker_epoch) {
            session.proposing = false;
            if !decided || due.action == Action::BeginShutdown {
                session.not_before = now + RETRY;
            }
            if decided && due.action == Action::Unfence {
                session.wants_election = false;
            }
        }
    }

    /// When [`Sessions::due`] may have something new by time alone.
    pub(crate) fn next_deadline(&self, now: Instant) -> Instant {
        let deadlines = self.brokers.values().filter(|session| !session.proposing);
        let deadlines = deadlines.flat_map(|session| session.deadlines(&self.limits, self.started));
        deadlines
            .filter(|at| *at > now)
            .min()
            .unwrap_or(now + self.limits.session)
    }

    /// Whether a stopping broker may go: it is fenced, or it leads nothing and every other live
    /// broker knows.
    pub(crate) fn may_shut_down(
        &mut self,
        id: BrokerId,
        epoch: BrokerEpoch,
        leads: usize,
        index: u64,
    ) -> bool {
        let Some(session) = self.current(id, epoch) else {
            return false;
        };
        if !session.wants_shutdown() {
            return false;
        }
        if session.fenced {
            return true;
        }
        if !session.stopping || leads > 0 {
            session.leads_nothing_at = None;
            return false;
        }
        let passed = *session.leads_nothing_at.get_or_insert(index);
        self.brokers.iter().all(|(other, session)| {
            *other == id
                || session.fenced
                || session.streams == 0
                || session
                    .beat
                    .as_ref()
                    .is_some_and(|beat| beat.metadata_index >= passed)
        })
    }

    /// Whether the broker is fenced.
    pub(crate) fn is_fenced(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_none_or(|session| session.fenced)
    }

    fn current(&mut self, id: BrokerId, epoch: BrokerEpoch) -> Option<&mut Session> {
        self.brokers
            .get_mut(&id)
            .filter(|session| session.epoch == epoch)
    }
}

impl Session {
    fn new(record: &BrokerRecord, now: Instant) -> Session {
        let mut session = Session {
            epoch: record.epoch,
            incarnation: record.incarnation,
            address: record.replication_address.clone(),
            fenced: record.fenced,
            stopping: record.in_controlled_shutdown,
            fenced_at: u64::try_from(record.epoch.get()).unwrap_or(0),
            heard: now,
            streams: 0,
            broke: None,
            refused: None,
            vanished: None,
            beat: None,
            healthy: BTreeSet::new(),
            no_space: record.no_space,
            wants_election: false,
            leads_nothing_at: None,
            proposing: false,
            not_before: now,
        };
        session.follow(record);
        session
    }

    /// Takes over what has been decided.
    fn follow(&mut self, record: &BrokerRecord) {
        self.fenced = record.fenced;
        self.stopping = record.in_controlled_shutdown;
        self.no_space = record.no_space;
        let healthy = record.directory_ids.iter();
        self.healthy = healthy
            .filter(|directory| !record.offline_directories.contains(directory))
            .copied()
            .collect();
    }

    fn wants_shutdown(&self) -> bool {
        self.beat.as_ref().is_some_and(|beat| beat.want_shutdown)
    }

    fn failed_directories(&self) -> Vec<Uuid> {
        let said = self.beat.iter().flat_map(|beat| &beat.offline_directories);
        said.filter(|directory| self.healthy.contains(directory))
            .copied()
            .collect()
    }

    fn action(
        &self,
        limits: &Limits,
        started: Instant,
        now: Instant,
        settled: bool,
    ) -> Option<Action> {
        if !self.fenced {
            // Fencing elects: before the others had their moment to connect it would elect nobody.
            if let Some(gone) = self.gone(limits, started, now) {
                return settled.then_some(Action::Fence(gone));
            }
        }
        if self.streams == 0 {
            return None;
        }
        // Both elect, too; and a broker is not brought into service before what it says of its
        // disks is known.
        if let Some(action) = self.news_of_disks() {
            return settled.then_some(action);
        }
        if !self.fenced {
            if self.wants_shutdown() {
                let again = !self.stopping || self.leads_nothing_at.is_none();
                return again.then_some(Action::BeginShutdown);
            }
            return self.wants_election.then_some(Action::Unfence);
        }
        let beat = self.beat.as_ref()?;
        let current = beat.metadata_index >= self.fenced_at;
        (beat.ready && !beat.want_shutdown && current).then_some(Action::Unfence)
    }

    fn news_of_disks(&self) -> Option<Action> {
        if !self.failed_directories().is_empty() {
            return Some(Action::FailDirectories);
        }
        let no_space = self.beat.as_ref()?.no_space;
        (no_space != self.no_space).then_some(Action::ReportSpace { no_space })
    }

    fn gone(&self, limits: &Limits, started: Instant, now: Instant) -> Option<Gone> {
        let past = |at: Option<Instant>, limit| at.is_some_and(|at| now >= at + limit);
        if self.streams == 0 && past(self.broke, limits.grace) {
            Some(Gone::StreamBroke)
        } else if self.streams == 0
            && (past(self.refused, limits.refused) || self.is_dead(limits, now))
        {
            Some(Gone::Refused)
        } else if self.streams == 0 && past(self.vanished, limits.grace) {
            Some(Gone::Vanished)
        } else if now >= self.heard.max(started) + limits.session {
            Some(Gone::Silent)
        } else {
            None
        }
    }

    /// Its stream broke and nothing listens on its address any more.
    fn is_dead(&self, limits: &Limits, now: Instant) -> bool {
        self.broke.is_some() && self.refused.is_some_and(|at| now >= at + limits.dead)
    }

    fn deadlines(&self, limits: &Limits, started: Instant) -> impl Iterator<Item = Instant> {
        let silence = (!self.fenced).then(|| self.heard.max(started) + limits.session);
        let broke = self.broke.map(|at| at + limits.grace);
        let refused = self.refused.map(|at| at + limits.refused);
        let dead = self.broke.and(self.refused).map(|at| at + limits.dead);
        let vanished = self.vanished.map(|at| at + limits.grace);
        let settle = Some(started + SETTLE_LIMIT);
        let retry = Some(self.not_before);
        [silence, broke, refused, dead, vanished, settle, retry]
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests;
