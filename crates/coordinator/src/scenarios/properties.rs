//! Random clients, a log that fails, coordinators that come and go.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::world::*;
use crate::{
    GenerationId, GroupError, GroupMetadataValue, GroupState, HeartbeatRequest, JoinRequest,
    Joined, LeaveRequest, LeavingMember, OffsetsRecord, Reply, ReplyToken, SyncRequest,
};

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Join {
        client: usize,
        topics: bool,
    },
    Sync {
        client: usize,
    },
    Heartbeat {
        client: usize,
    },
    Commit {
        client: usize,
    },
    /// A request with what this client knew before its last join.
    Stale {
        client: usize,
    },
    Leave {
        client: usize,
    },
    /// The client does what a client would do next.
    Behave {
        client: usize,
    },
    /// The client's process starts anew.
    Restart {
        client: usize,
    },
    Append(u8),
    Advance(u64),
    FailOver,
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    prop_oneof![
        6 => (client.clone(), any::<bool>()).prop_map(|(client, topics)| Op::Join { client, topics }),
        5 => client.clone().prop_map(|client| Op::Sync { client }),
        3 => client.clone().prop_map(|client| Op::Heartbeat { client }),
        4 => client.clone().prop_map(|client| Op::Commit { client }),
        2 => client.clone().prop_map(|client| Op::Stale { client }),
        1 => client.clone().prop_map(|client| Op::Leave { client }),
        9 => client.clone().prop_map(|client| Op::Behave { client }),
        1 => client.prop_map(|client| Op::Restart { client }),
        8 => any::<u8>().prop_map(Op::Append),
        4 => (0u64..12_000).prop_map(Op::Advance),
        1 => Just(Op::FailOver),
    ]
}

/// What a client knows.
#[derive(Clone, Debug, Default)]
struct Client {
    instance: Option<String>,
    member_id: Option<String>,
    joined: Option<Joined>,
    before: Option<Joined>,
    joining: Option<ReplyToken>,
    syncing: Option<(ReplyToken, GenerationId)>,
}

struct Checked {
    world: World,
    clients: Vec<Client>,
    seen: BTreeSet<ReplyToken>,
    /// Who leads each generation that anybody was told of, and which assignment it got.
    told: BTreeMap<GenerationId, String>,
    assigned: BTreeMap<GenerationId, Bytes>,
    commits: BTreeMap<ReplyToken, i64>,
    next_offset: i64,
    acked_offset: i64,
    round: u64,
}

impl Checked {
    fn new() -> Checked {
        let mut world = World::new();
        world.prompt = false;
        let mut clients = vec![Client::default(); CLIENTS];
        clients[0].instance = Some("static".to_owned());
        Checked {
            world,
            clients,
            seen: BTreeSet::new(),
            told: BTreeMap::new(),
            assigned: BTreeMap::new(),
            commits: BTreeMap::new(),
            next_offset: 0,
            acked_offset: 0,
            round: 0,
        }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Join { client, topics } => self.join(*client, *topics),
            Op::Sync { client } => self.sync(*client),
            Op::Heartbeat { client } => {
                if let Some(joined) = self.clients[*client].joined.clone() {
                    let newest = self.newest();
                    let result = self.heartbeat(*client, &joined);
                    assert!(result.is_err() || joined.generation >= newest, "G-2");
                }
            }
            Op::Commit { client } => {
                if let Some(joined) = self.clients[*client].joined.clone() {
                    self.commit(*client, &joined);
                }
            }
            Op::Stale { client } => {
                if let Some(before) = self.clients[*client].before.clone() {
                    let request = self.sync_request(*client, &before);
                    let token = self.world.sync(&request);
                    self.clients[*client].syncing = Some((token, before.generation));
                    self.commit(*client, &before);
                    let _ = self.heartbeat(*client, &before);
                }
            }
            Op::Leave { client } => self.leave(*client),
            Op::Behave { client } => self.behave(*client),
            Op::Restart { client } => {
                let instance = self.clients[*client].instance.clone();
                self.clients[*client] = Client {
                    instance,
                    ..Client::default()
                };
            }
            Op::Append(fate) => self.world.finish_append(match fate % 8 {
                0 => Fate::Refused,
                1 => Fate::Unknown,
                _ => Fate::Committed,
            }),
            Op::Advance(ms) => self.world.advance(*ms),
            Op::FailOver => self.world.fail_over(),
        }
        self.world.settle();
        self.check();
    }

    fn newest(&self) -> GenerationId {
        self.told.keys().next_back().copied().unwrap_or_default()
    }

    fn join(&mut self, client: usize, topics: bool) {
        let known = &self.clients[client];
        if known
            .joining
            .is_some_and(|token| !self.world.replies.contains_key(&token))
        {
            return; // One at a time, as clients do.
        }
        let topics: &[&str] = if topics { &["t"] } else { &["t", "u"] };
        let request = JoinRequest {
            member_id: known.member_id.clone(),
            group_instance_id: known.instance.clone(),
            protocols: vec![protocol("range", topics)],
            ..join_request(&format!("c{client}"))
        };
        self.clients[client].joining = Some(self.world.join(&request));
    }

    fn sync_request(&mut self, client: usize, joined: &Joined) -> SyncRequest {
        self.round += 1;
        let assignment = Bytes::from(format!("{}#{}", joined.generation, self.round));
        let assign = |id: &String| (id.clone(), assignment.clone());
        SyncRequest {
            group_instance_id: self.clients[client].instance.clone(),
            assignments: joined
                .members
                .iter()
                .map(|member| assign(&member.member_id))
                .collect(),
            ..sync_request(joined)
        }
    }

    fn sync(&mut self, client: usize) {
        let waiting = self.clients[client]
            .syncing
            .is_some_and(|(t, _)| !self.world.replies.contains_key(&t));
        let Some(joined) = self.clients[client].joined.clone().filter(|_| !waiting) else {
            return;
        };
        let request = self.sync_request(client, &joined);
        let token = self.world.sync(&request);
        self.clients[client].syncing = Some((token, joined.generation));
    }

    fn heartbeat(&mut self, client: usize, joined: &Joined) -> Result<(), GroupError> {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation: Some(joined.generation),
            member_id: joined.member_id.clone(),
            group_instance_id: self.clients[client].instance.clone(),
        };
        self.world.coordinator.heartbeat(self.world.now, &request)
    }

    fn commit(&mut self, client: usize, joined: &Joined) {
        self.next_offset += 1;
        let mut request = commit_request(Some(joined), "t", self.next_offset);
        request.group_instance_id = self.clients[client].instance.clone();
        let newest = self.newest();
        let appends = self.world.appends.len();
        let token = self.world.commit(&request);
        if joined.generation < newest {
            assert_eq!(
                self.world.appends.len(),
                appends,
                "G-2: an old generation moved offsets"
            );
        }
        self.commits.insert(token, self.next_offset);
    }

    fn leave(&mut self, client: usize) {
        let Some(member_id) = self.clients[client].member_id.take() else {
            return;
        };
        let request = LeaveRequest {
            group_id: GROUP.to_owned(),
            members: vec![LeavingMember {
                member_id: Some(member_id),
                group_instance_id: None,
            }],
        };
        self.world
            .coordinator
            .leave(self.world.now, &request)
            .unwrap();
        self.clients[client].joined = None;
    }

    /// Reads new answers and checks the invariants.
    fn check(&mut self) {
        let new: Vec<(ReplyToken, Reply)> = self
            .world
            .replies
            .iter()
            .filter(|(token, _)| !self.seen.contains(token))
            .map(|(token, reply)| (*token, reply.clone()))
            .collect();
        for (token, reply) in new {
            self.seen.insert(token);
            match reply {
                Reply::Join(result) => self.on_joined(token, result),
                Reply::Sync(result) => {
                    if let Ok(synced) = result {
                        self.on_synced(token, synced.assignment);
                    }
                }
                Reply::Commit(result) => {
                    if result.is_ok() {
                        self.acked_offset = self.acked_offset.max(self.commits[&token]);
                    }
                }
                Reply::DeleteGroup(_) | Reply::DeleteOffsets(_) => {}
            }
        }
        let offset = self.world.offset("t").unwrap_or(0);
        assert!(
            offset >= self.acked_offset,
            "P-44: {offset} after an ack of {}",
            self.acked_offset
        );
        if let Some(group) = self.world.coordinator.live_group(GROUP) {
            if group.state() == GroupState::Stable {
                assert_eq!(group.waiting(), [], "somebody waits in a stable group");
            }
            let members = group.describe().members.len();
            if matches!(group.state(), GroupState::Empty | GroupState::Dead) {
                assert_eq!(members, 0);
            }
        }
    }

    fn on_joined(&mut self, token: ReplyToken, result: Result<Joined, GroupError>) {
        let owner = self
            .clients
            .iter()
            .position(|client| client.joining == Some(token));
        if let Ok(joined) = &result {
            // G-4: stored before anybody hears of it.
            assert!(is_stored(&self.world.log, joined.generation), "{joined:?}");
            if !joined.skip_assignment && !joined.members.is_empty() {
                let leader = self
                    .told
                    .entry(joined.generation)
                    .or_insert(joined.leader.clone());
                assert_eq!(*leader, joined.leader, "two leaders in one generation");
            }
        }
        let Some(owner) = owner else { return };
        let client = &mut self.clients[owner];
        client.joining = None;
        match result {
            Ok(joined) => {
                assert!(
                    client
                        .joined
                        .as_ref()
                        .is_none_or(|last| last.generation <= joined.generation),
                    "G-4: generations rise"
                );
                client.member_id = Some(joined.member_id.clone());
                if client
                    .joined
                    .as_ref()
                    .is_some_and(|last| last.generation < joined.generation)
                {
                    client.before = client.joined.take();
                }
                self.told
                    .entry(joined.generation)
                    .or_insert(joined.leader.clone());
                client.joined = Some(joined);
            }
            Err(GroupError::MemberIdRequired { member_id }) => client.member_id = Some(member_id),
            Err(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => {
                client.member_id = None;
                client.joined = None;
            }
            Err(_) => {}
        }
    }

    fn on_synced(&mut self, token: ReplyToken, assignment: Bytes) {
        let synced = self.clients.iter().filter_map(|client| client.syncing);
        let Some((_, generation)) = synced.into_iter().find(|(t, _)| *t == token) else {
            return;
        };
        if assignment.is_empty() {
            return; // The leader forgot this one.
        }
        // G-3: one generation, one assignment.
        let given = self
            .assigned
            .entry(generation)
            .or_insert(assignment.clone());
        assert_eq!(
            *given, assignment,
            "two assignments in generation {generation}"
        );
        assert!(assignment.starts_with(format!("{generation}#").as_bytes()));
        let last = stored(&self.world.log).rfind(|value| value.generation == generation);
        let members = last.map(|value| value.members.clone()).unwrap_or_default();
        assert!(
            members.iter().any(|member| member.assignment == assignment),
            "G-4: {assignment:?} of generation {generation} is not stored: {members:?}"
        );
    }

    /// Everybody behaves from here on: the group must become stable in time (G-5).
    fn check_converges(&mut self) {
        self.world.prompt = true;
        self.world.settle();
        self.check();
        let mut waited = 0;
        // A parked join of a client that is gone keeps its member for the join timeout.
        while waited < 5 * 60_000 + 2 * (REBALANCE_MS + SESSION_MS) {
            for client in 0..CLIENTS {
                self.behave(client);
            }
            self.world.advance(1_000);
            self.check();
            waited += 1_000;
            let stable = (0..CLIENTS).all(|client| {
                let joined = self.clients[client].joined.clone();
                joined.is_some_and(|joined| self.heartbeat(client, &joined).is_ok())
            });
            let described = self.world.coordinator.describe(GROUP);
            let stable = stable
                && described.is_ok_and(|group| {
                    group.state == GroupState::Stable && group.members.len() == CLIENTS
                });
            if stable {
                return;
            }
        }
        panic!(
            "not stable: {:#?}",
            self.world.coordinator.live_group(GROUP)
        );
    }

    fn behave(&mut self, client: usize) {
        let joined = self.clients[client].joined.clone();
        match joined.map(|joined| self.heartbeat(client, &joined)) {
            Some(Ok(())) => self.sync(client),
            Some(Err(GroupError::UnknownMemberId | GroupError::FencedInstanceId)) => {
                let known = &mut self.clients[client];
                (known.member_id, known.joined) = (None, None);
                self.join(client, true);
            }
            Some(Err(_)) | None => self.join(client, true),
        }
        self.check();
    }

    /// At the end nobody is left without an answer.
    fn check_everybody_answered(&mut self) {
        self.world.fail_over();
        for asked in 1..=self.world.asked {
            assert!(
                self.world.replies.contains_key(&ReplyToken(asked)),
                "no answer to {asked}"
            );
        }
    }
}

fn stored(log: &[OffsetsRecord]) -> impl DoubleEndedIterator<Item = &GroupMetadataValue> {
    log.iter().filter_map(|record| match record {
        OffsetsRecord::Group { value, .. } => value.as_ref(),
        OffsetsRecord::Offset { .. } => None,
    })
}

fn is_stored(log: &[OffsetsRecord], generation: GenerationId) -> bool {
    stored(log).any(|value| value.generation == generation)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants(ops in prop::collection::vec(op(), 1..150)) {
        let mut checked = Checked::new();
        for op in &ops {
            checked.step(op);
        }
        checked.check_converges();
        checked.check_everybody_answered();
    }
}
