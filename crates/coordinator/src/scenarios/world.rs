//! A coordinator with a log that a test can make slow or failing.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use uuid::Uuid;

use ottla_types::{MonotonicMs, PartitionIndex, TopicId, WallClockMs};

use crate::{
    CommitPartition, CommitRequest, CommitTopic, CommittedTopic, Coordinator, Effect,
    FetchOffsetsRequest, GenerationId, GroupError, GroupRules, HeartbeatRequest, JoinRequest,
    Joined, OffsetsRecord, PersistToken, Protocol, Reply, ReplyToken, SyncRequest, Synced, Topics,
    group::Now,
};

pub(super) const GROUP: &str = "g";
pub(super) const SESSION_MS: u64 = 10_000;
pub(super) const REBALANCE_MS: u64 = 60_000;
pub(super) const DELAY_MS: u64 = 3_000;

/// Topics by name, each with ten partitions.
#[derive(Clone, Debug, Default)]
pub(super) struct TestTopics(pub(super) BTreeMap<String, TopicId>);

impl TestTopics {
    pub(super) fn with(names: &[&str]) -> TestTopics {
        let mut topics = TestTopics::default();
        for name in names {
            topics.create(name);
        }
        topics
    }

    pub(super) fn create(&mut self, name: &str) {
        let seed = self
            .0
            .values()
            .map(|id| id.uuid().as_u128())
            .max()
            .unwrap_or(0)
            + 1;
        self.0.insert(
            name.to_owned(),
            TopicId::new(Uuid::from_u128(seed)).unwrap(),
        );
    }
}

impl Topics for TestTopics {
    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.get(name).copied()
    }

    fn has_partition(&self, name: &str, partition: PartitionIndex) -> bool {
        self.0.contains_key(name) && partition.get() < 10
    }
}

/// What becomes of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    /// Refused: nothing was written.
    Refused,
    /// Written and committed, but the coordinator never learns of it.
    Unknown,
}

pub(super) struct World {
    pub(super) rules: GroupRules,
    pub(super) coordinator: Coordinator,
    pub(super) now: Now,
    pub(super) topics: TestTopics,
    /// Every committed record.
    pub(super) log: Vec<OffsetsRecord>,
    /// Appends whose outcome is not known yet.
    pub(super) appends: VecDeque<(PersistToken, Vec<OffsetsRecord>)>,
    /// Commit appends at once.
    pub(super) prompt: bool,
    pub(super) replies: BTreeMap<ReplyToken, Reply>,
    pub(super) asked: u64,
}

impl World {
    pub(super) fn new() -> World {
        let rules = GroupRules {
            initial_rebalance_delay_ms: DELAY_MS,
            ..GroupRules::default()
        };
        World::with_rules(rules)
    }

    pub(super) fn with_rules(rules: GroupRules) -> World {
        let mut world = World {
            coordinator: Coordinator::new(rules.clone()),
            rules,
            now: Now {
                monotonic: MonotonicMs(1_000),
                wall: WallClockMs(1_700_000_000_000),
            },
            topics: TestTopics::with(&["t", "u"]),
            log: Vec::new(),
            appends: VecDeque::new(),
            prompt: true,
            replies: BTreeMap::new(),
            asked: 0,
        };
        world.coordinator.activate(world.now);
        world
    }

    pub(super) fn token(&mut self) -> ReplyToken {
        self.asked += 1;
        ReplyToken(self.asked)
    }

    /// Performs effects until none is left.
    pub(super) fn settle(&mut self) {
        loop {
            let effects = self.coordinator.take_effects();
            if effects.is_empty() && (!self.prompt || self.appends.is_empty()) {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Reply(token, reply) => {
                        let earlier = self.replies.insert(token, reply);
                        assert_eq!(earlier, None, "two answers to {token:?}");
                    }
                    Effect::Persist(token, records) => self.appends.push_back((token, records)),
                }
            }
            while self.prompt && !self.appends.is_empty() {
                self.finish_append(Fate::Committed);
            }
        }
    }

    /// The oldest append meets its fate.
    pub(super) fn finish_append(&mut self, fate: Fate) {
        let Some((token, records)) = self.appends.pop_front() else {
            return;
        };
        if fate != Fate::Refused {
            for record in records {
                self.log.push(record.clone());
                self.coordinator.apply(self.now, record);
            }
        }
        let result = match fate {
            Fate::Committed => Ok(()),
            Fate::Refused | Fate::Unknown => Err(GroupError::CoordinatorNotAvailable),
        };
        self.coordinator.on_persisted(self.now, token, result);
    }

    /// Time passes, timers fire in their order.
    pub(super) fn advance(&mut self, ms: u64) {
        let end = self.now.monotonic.plus_ms(ms);
        while let Some(at) = self.coordinator.next_deadline().filter(|at| *at <= end) {
            let step = at.ms_since(self.now.monotonic);
            self.tick(step);
            self.coordinator.on_time(self.now);
            self.settle();
        }
        self.tick(end.ms_since(self.now.monotonic));
    }

    fn tick(&mut self, ms: u64) {
        self.now.monotonic = self.now.monotonic.plus_ms(ms);
        self.now.wall.0 += i64::try_from(ms).unwrap();
    }

    /// Another coordinator takes over with what is committed.
    pub(super) fn fail_over(&mut self) {
        self.coordinator.deactivate();
        // Whatever is on its way may or may not have been written: here it was not.
        self.appends.clear();
        self.settle();
        let mut successor = Coordinator::new(self.rules.clone());
        for record in &self.log {
            successor.apply(self.now, record.clone());
        }
        successor.activate(self.now);
        self.coordinator = successor;
    }

    pub(super) fn join(&mut self, request: &JoinRequest) -> ReplyToken {
        let token = self.token();
        let unique = format!("id{}", token.0);
        self.coordinator.join(self.now, request, &unique, token);
        self.settle();
        token
    }

    pub(super) fn joined(&self, token: ReplyToken) -> Result<Joined, GroupError> {
        match self.replies.get(&token) {
            Some(Reply::Join(result)) => result.clone(),
            other => panic!("{token:?} has {other:?}"),
        }
    }

    /// A new dynamic member gets its id and asks to join.
    pub(super) fn new_member(&mut self, client_id: &str) -> (String, ReplyToken) {
        let token = self.join(&join_request(client_id));
        let Err(GroupError::MemberIdRequired { member_id }) = self.joined(token) else {
            panic!("no member id")
        };
        let again = JoinRequest {
            member_id: Some(member_id.clone()),
            ..join_request(client_id)
        };
        (member_id, self.join(&again))
    }

    pub(super) fn rejoin(&mut self, member_id: &str) -> ReplyToken {
        let client_id = member_id.split('-').next().unwrap();
        let request = JoinRequest {
            member_id: Some(member_id.to_owned()),
            ..join_request(client_id)
        };
        self.join(&request)
    }

    pub(super) fn sync(&mut self, request: &SyncRequest) -> ReplyToken {
        let token = self.token();
        self.coordinator.sync(self.now, request, token);
        self.settle();
        token
    }

    pub(super) fn synced(&self, token: ReplyToken) -> Result<Synced, GroupError> {
        match self.replies.get(&token) {
            Some(Reply::Sync(result)) => result.clone(),
            other => panic!("{token:?} has {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, joined: &Joined) -> Result<(), GroupError> {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation: Some(joined.generation),
            member_id: joined.member_id.clone(),
            group_instance_id: None,
        };
        let result = self.coordinator.heartbeat(self.now, &request);
        self.settle();
        result
    }

    /// A stable group of dynamic members; the first leads.
    pub(super) fn stable(&mut self, client_ids: &[&str]) -> Vec<Joined> {
        let tokens: Vec<_> = client_ids.iter().map(|id| self.new_member(id).1).collect();
        self.advance(2 * DELAY_MS);
        let joined: Vec<Joined> = tokens.iter().map(|t| self.joined(*t).unwrap()).collect();
        self.sync_all(&joined);
        joined
    }

    /// Everybody syncs, the followers first; the assignment names generation and member.
    pub(super) fn sync_all(&mut self, joined: &[Joined]) {
        let (leaders, followers): (Vec<_>, Vec<_>) = joined
            .iter()
            .partition(|joined| joined.member_id == joined.leader);
        let mut tokens = Vec::new();
        for joined in followers.into_iter().chain(leaders) {
            tokens.push((joined, self.sync(&sync_request(joined))));
        }
        for (joined, token) in tokens {
            let assignment = self.synced(token).unwrap().assignment;
            assert_eq!(
                assignment,
                assignment_of(joined.generation, &joined.member_id)
            );
        }
    }

    pub(super) fn commit(&mut self, request: &CommitRequest) -> ReplyToken {
        let token = self.token();
        self.coordinator
            .commit_offsets(self.now, request, &self.topics, token);
        self.settle();
        token
    }

    pub(super) fn committed(&self, token: ReplyToken) -> Result<Vec<CommittedTopic>, GroupError> {
        match self.replies.get(&token) {
            Some(Reply::Commit(result)) => result.clone(),
            other => panic!("{token:?} has {other:?}"),
        }
    }

    /// The stored offset of partition 0 of a topic.
    pub(super) fn offset(&self, topic: &str) -> Option<i64> {
        let request = FetchOffsetsRequest {
            group_id: GROUP.to_owned(),
            member: None,
            topics: Some(vec![(topic.to_owned(), vec![PartitionIndex(0)])]),
            require_stable: false,
        };
        let fetched = self.coordinator.fetch_offsets(&request, &self.topics);
        fetched[0].partitions[0]
            .committed
            .as_ref()
            .map(|committed| committed.offset)
    }
}

/// A consumer's subscription.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = vec![0, 1];
    out.extend(i32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        out.extend(i16::try_from(topic.len()).unwrap().to_be_bytes());
        out.extend(topic.as_bytes());
    }
    out.extend([255; 4]);
    out.into()
}

pub(super) fn protocol(name: &str, topics: &[&str]) -> Protocol {
    Protocol {
        name: name.to_owned(),
        metadata: subscription(topics),
    }
}

pub(super) fn join_request(client_id: &str) -> JoinRequest {
    JoinRequest {
        group_id: GROUP.to_owned(),
        member_id: None,
        group_instance_id: None,
        client_id: client_id.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: i32::try_from(SESSION_MS).unwrap(),
        rebalance_timeout_ms: Some(i32::try_from(REBALANCE_MS).unwrap()),
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", &["t"])],
        member_id_required: true,
        skip_assignment_supported: true,
    }
}

pub(super) fn assignment_of(generation: GenerationId, member_id: &str) -> Bytes {
    format!("{generation}/{member_id}").into_bytes().into()
}

pub(super) fn sync_request(joined: &Joined) -> SyncRequest {
    let assign = |member_id: &String| {
        (
            member_id.clone(),
            assignment_of(joined.generation, member_id),
        )
    };
    SyncRequest {
        group_id: GROUP.to_owned(),
        generation: Some(joined.generation),
        member_id: joined.member_id.clone(),
        group_instance_id: None,
        protocol_type: Some(joined.protocol_type.clone()),
        protocol: Some(joined.protocol.clone()),
        assignments: joined
            .members
            .iter()
            .map(|member| assign(&member.member_id))
            .collect(),
    }
}

pub(super) fn commit_request(joined: Option<&Joined>, topic: &str, offset: i64) -> CommitRequest {
    CommitRequest {
        group_id: GROUP.to_owned(),
        generation: joined.map(|joined| joined.generation),
        member_id: joined.map(|joined| joined.member_id.clone()),
        group_instance_id: None,
        retention_ms: None,
        topics: vec![CommitTopic {
            name: topic.to_owned(),
            partitions: vec![CommitPartition {
                partition: PartitionIndex(0),
                offset,
                leader_epoch: None,
                metadata: String::new(),
            }],
        }],
    }
}
