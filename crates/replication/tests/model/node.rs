//! One broker of the model: a log in memory, the replica under test, and a leader's sessions.

use std::collections::BTreeMap;

use ottla_replication::{LogMarks, Replica, Settings, lineage, lineage::EpochStart};
use ottla_types::{BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, Offset};

/// A record: the epoch it was written in and a value that is unique in the run.
pub(crate) type Entry = (LeaderEpoch, u64);

/// A follower's subscription, as its leader keeps it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) subscription: u64,
    pub(crate) next: Offset,
    pub(crate) sent_high_watermark: Offset,
}

pub(crate) struct Node {
    pub(crate) id: BrokerId,
    pub(crate) up: bool,
    pub(crate) incarnation: BrokerEpoch,
    pub(crate) log: Vec<Entry>,
    pub(crate) flushed: usize,
    pub(crate) epochs: Vec<EpochStart>,
    pub(crate) replica: Replica,
    pub(crate) sessions: BTreeMap<BrokerId, Session>,
    /// Next version of the metadata that it has not seen.
    pub(crate) cursor: usize,
    pub(crate) checkpointed_hw: Offset,
}

pub(crate) fn offset(index: usize) -> Offset {
    Offset::saturating(i64::try_from(index).unwrap())
}

pub(crate) fn index(offset: Offset) -> usize {
    usize::try_from(offset.get()).unwrap()
}

impl Node {
    pub(crate) fn new(id: BrokerId, settings: Settings) -> Node {
        let mut node = Node {
            id,
            up: true,
            incarnation: BrokerEpoch::saturating(1),
            log: Vec::new(),
            flushed: 0,
            epochs: Vec::new(),
            replica: Replica::new(id, settings, LogMarks::default(), Offset::ZERO, 0),
            sessions: BTreeMap::new(),
            cursor: 0,
            checkpointed_hw: Offset::ZERO,
        };
        node.connect();
        node
    }

    /// Streams to the others are up before there is a role: nothing is subscribed yet.
    pub(crate) fn connect(&mut self) {
        for other in (0..3).map(BrokerId).filter(|other| *other != self.id) {
            self.replica.on_link_up(other, &mut Vec::new());
        }
    }

    pub(crate) fn marks(&self) -> LogMarks {
        LogMarks {
            log_start_offset: Offset::ZERO,
            flushed_offset: offset(self.flushed),
            log_end_offset: offset(self.log.len()),
        }
    }

    pub(crate) fn last_record_epoch(&self) -> Option<LeaderEpoch> {
        lineage::last_record_epoch(&self.epochs, Offset::ZERO, offset(self.log.len()))
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            if self.epochs.last().is_none_or(|(epoch, _)| *epoch < entry.0) {
                self.epochs.push((entry.0, offset(self.log.len())));
            }
            self.log.push(*entry);
        }
    }

    pub(crate) fn truncate(&mut self, to: Offset) {
        self.log.truncate(index(to));
        self.flushed = self.flushed.min(self.log.len());
        self.drop_empty_epochs();
    }

    pub(crate) fn drop_empty_epochs(&mut self) {
        let end = offset(self.log.len());
        self.epochs.retain(|(_, start)| *start < end);
    }

    /// Dies; what was not flushed may go with the machine in mode `Ack`.
    pub(crate) fn crash(&mut self, kept_unflushed: usize, mode: FlushMode) {
        self.up = false;
        self.sessions.clear();
        if mode == FlushMode::Ack {
            let kept = self.flushed + kept_unflushed.min(self.log.len() - self.flushed);
            self.log.truncate(kept);
        }
        self.drop_empty_epochs();
    }

    pub(crate) fn restart(&mut self, incarnation: BrokerEpoch, cursor: usize, settings: Settings) {
        self.up = true;
        self.incarnation = incarnation;
        self.cursor = cursor;
        // Recovery flushes what it found.
        self.flushed = self.log.len();
        let subscription = u64::try_from(incarnation.get()).unwrap() << 32;
        self.replica = Replica::new(
            self.id,
            settings,
            self.marks(),
            self.checkpointed_hw,
            subscription,
        );
        self.connect();
    }
}
