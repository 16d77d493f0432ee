//! One session: its partitions in the order in which they are read, and what was last told of each.

use std::collections::{BTreeMap, HashMap};

use ottla_wire::TopicKey;

/// A partition as the client names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartitionKey {
    /// Its topic.
    pub(crate) topic: TopicKey,
    /// Its number.
    pub(crate) partition: i32,
}

/// What the client wants of a partition, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) fetch_offset: i64,
    pub(crate) max_bytes: i32,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// What an answer tells of a partition, as far as the next answer's contents depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// -1 on errors.
    pub(crate) high_watermark: i64,
    /// -1 on errors.
    pub(crate) log_start_offset: i64,
    /// There are records.
    pub(crate) has_records: bool,
    /// There is an error, a diverging epoch or a preferred replica.
    pub(crate) must_tell: bool,
}

#[derive(Debug)]
struct Entry {
    key: PartitionKey,
    wanted: Wanted,
    /// What the client knows; -1 where it knows nothing.
    high_watermark: i64,
    log_start_offset: i64,
}

/// A session's state.
#[derive(Debug)]
pub(crate) struct Session {
    /// The epoch that the next request must carry.
    pub(super) next_epoch: i32,
    pub(super) by_topic_id: bool,
    /// By turn: partitions that returned data go to the end.
    turns: BTreeMap<u64, Entry>,
    turn_of: HashMap<PartitionKey, u64>,
    next_turn: u64,
}

impl Session {
    /// A session that has just been told of these partitions.
    pub(super) fn new(by_topic_id: bool, partitions: &[(PartitionKey, Wanted)]) -> Session {
        let mut session = Session {
            next_epoch: 1,
            by_topic_id,
            turns: BTreeMap::new(),
            turn_of: HashMap::with_capacity(partitions.len()),
            next_turn: 0,
        };
        session.update(partitions, &[]);
        session
    }

    /// Adds or changes what the request lists, and removes what it forgets.
    pub(super) fn update(&mut self, wanted: &[(PartitionKey, Wanted)], forgotten: &[PartitionKey]) {
        for (key, wanted) in wanted {
            let known = self
                .turn_of
                .get(key)
                .and_then(|turn| self.turns.get_mut(turn));
            match known {
                Some(entry) => entry.wanted = *wanted,
                None => self.push(Entry {
                    key: owned(key),
                    wanted: *wanted,
                    high_watermark: -1,
                    log_start_offset: -1,
                }),
            }
        }
        for key in forgotten {
            if let Some(turn) = self.turn_of.remove(key) {
                self.turns.remove(&turn);
            }
        }
    }

    fn push(&mut self, entry: Entry) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turn_of.insert(entry.key.clone(), turn);
        self.turns.insert(turn, entry);
    }

    pub(super) fn advance_epoch(&mut self) {
        self.next_epoch = self.next_epoch.checked_add(1).unwrap_or(1);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.turns.len()
    }

    /// Every partition in the order of reading.
    pub(super) fn partitions(&self) -> Vec<(PartitionKey, Wanted)> {
        self.turns
            .values()
            .map(|entry| (entry.key.clone(), entry.wanted))
            .collect()
    }

    /// Remembers what an answer tells of a partition; false if the client knows it all already and
    /// the partition can be left out.
    pub(super) fn tell(&mut self, key: &PartitionKey, told: &Told) -> bool {
        let Some(turn) = self.turn_of.get(key).copied() else {
            return true;
        };
        let Some(entry) = self.turns.get_mut(&turn) else {
            return true;
        };
        let news = told.has_records
            || told.must_tell
            || entry.high_watermark != told.high_watermark
            || entry.log_start_offset != told.log_start_offset;
        // After an error -1 is remembered, so that the next success is told.
        entry.high_watermark = told.high_watermark;
        entry.log_start_offset = told.log_start_offset;
        if told.has_records
            && let Some(entry) = self.turns.remove(&turn)
        {
            self.push(entry);
        }
        news
    }
}

/// A key that does not keep the request's buffer alive.
fn owned(key: &PartitionKey) -> PartitionKey {
    let topic = match &key.topic {
        TopicKey::Name(name) => TopicKey::Name(name.as_str().to_owned().into()),
        TopicKey::Id(id) => TopicKey::Id(*id),
    };
    PartitionKey {
        topic,
        partition: key.partition,
    }
}
