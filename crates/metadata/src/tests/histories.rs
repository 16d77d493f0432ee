//! Random histories. Beside the cluster's state runs a model of what each replica has on its
//! disk, so that not only the shape of every decision is checked but what it would cost: a leader
//! that was elected cleanly holds everything ever committed.

use std::collections::BTreeMap;

use ottla_types::{BrokerEpoch, BrokerId, FlushMode, LeaderEpoch, PartitionId};
use proptest::prelude::*;

use super::steps::{How, Step, command, step};
use super::world::{World, ids, new_topic, part};
use crate::{ClusterState, Command, CreateTopic, Image, Outcome, Registration};

/// What a partition's replicas have on disk, as far as it matters: the numbers of the records.
#[derive(Default)]
struct Disks {
    logs: BTreeMap<BrokerId, Vec<u64>>,
    committed: Vec<u64>,
    written: u64,
}

#[derive(Default)]
struct Model {
    partitions: BTreeMap<PartitionId, Disks>,
    leaders: BTreeMap<(PartitionId, LeaderEpoch), (BrokerId, BrokerEpoch)>,
}

impl Model {
    /// Follows the state after a step: blank disks, members that joined, leaders that took over.
    fn follow(
        &mut self,
        world: &World,
        before: &ClusterState,
        wiped: Option<BrokerId>,
        asked_unclean: bool,
    ) {
        let image = world.state.image();
        let former = before.image();
        self.partitions
            .retain(|id, _| image.partition(*id).is_some());
        for (id, record) in image.partitions() {
            let disks = self.partitions.entry(id).or_default();
            if let Some(wiped) = wiped {
                disks.logs.remove(&wiped);
            }
            let former = former.partition(id);
            // A leader without room may let in its successor: it saw that one caught up.
            let predecessor = former
                .and_then(|former| former.leader)
                .filter(|leader| record.isr.contains(leader));
            let unclean = former.zip(record.leader).is_some_and(|(former, leader)| {
                !former.isr.contains(&leader)
                    && !former.elr.contains(&leader)
                    && predecessor.is_none()
            });
            if unclean {
                assert!(
                    record.recovering
                        && (asked_unclean || allows_unclean(image, id) || record.possible_loss),
                    "R-15: {record:?}"
                );
                *disks = Disks::default();
            }
            let Some(leader) = record.leader else {
                continue;
            };
            let written_by = predecessor.unwrap_or(leader);
            let leader_log = disks.logs.entry(written_by).or_default().clone();
            assert!(
                leader_log.starts_with(&disks.committed),
                "R-5: broker {leader} leads {id} without all of {:?}: it has {leader_log:?}; {record:?}",
                disks.committed
            );
            // Who is in sync has what the leader has: followers truncate to it and catch up.
            for member in &record.isr {
                disks.logs.insert(*member, leader_log.clone());
            }
            let life = (leader, image.broker(leader).unwrap().epoch);
            let seen = *self
                .leaders
                .entry((id, record.leader_epoch))
                .or_insert(life);
            assert_eq!(seen, life, "R-1: two lives lead {id} in one epoch");
        }
    }

    /// Every leader appends a record that only itself has, and commits what it may.
    fn write(&mut self, world: &World) {
        let image = world.state.image();
        for (id, record) in image.partitions() {
            let Some(leader) = record.leader else {
                continue;
            };
            let disks = self.partitions.get_mut(&id).unwrap();
            disks.written += 1;
            let number = disks.written;
            let name = image.topic_name(id.topic_id).unwrap();
            if record.isr.len() < image.min_insync_replicas(name, record.replicas.len()) {
                disks.logs.entry(leader).or_default().push(number);
                continue;
            }
            for member in &record.isr {
                disks.logs.entry(*member).or_default().push(number);
            }
            disks.committed.clone_from(&disks.logs[&leader]);
        }
    }
}

fn allows_unclean(image: &Image, id: PartitionId) -> bool {
    image
        .topic_name(id.topic_id)
        .is_some_and(|name| image.unclean_leader_election_enabled(name))
}

fn run(steps: &[Step]) -> World {
    let mut world = World::with_brokers(3);
    world.create_on(900, &[1, 2, 3]);
    let mut model = Model::default();
    model.follow(&world, &world.state.clone(), None, false);
    let mut twin = world.state.clone();
    for step in steps {
        if matches!(step, Step::Write) {
            model.write(&world);
        }
        let Some(command) = command(&mut world, step) else {
            continue;
        };
        let before = world.state.clone();
        let outcome = world.apply(command.clone());
        // C-2: a second controller comes to the same state.
        assert_eq!(
            twin.apply(world.state.image().index, &command).outcome,
            outcome
        );
        assert_eq!(twin.state_hash(), world.state.state_hash());
        let lost = matches!(
            step,
            Step::Restart {
                how: How::Unclean | How::NewDisk | How::PowerCut(FlushMode::Page),
                ..
            }
        );
        let wiped = match (&command, &outcome) {
            (
                Command::RegisterBroker(Registration { broker_id, .. }),
                Outcome::Registered { .. },
            ) if lost => Some(*broker_id),
            // What it had not flushed may be gone, and in mode `page` that counted.
            (Command::FailDirectories { broker_id, .. }, Outcome::Done)
                if before
                    .image()
                    .broker(*broker_id)
                    .is_some_and(|broker| broker.default_flush_mode == FlushMode::Page) =>
            {
                Some(*broker_id)
            }
            _ => None,
        };
        let asked = matches!(step, Step::Elect { unclean: true, .. });
        model.follow(&world, &before, wiped, asked);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_every_invariant(steps in prop::collection::vec(step(), 1..120)) {
        let world = run(&steps);
        let mut image = Image::default();
        image.fold(world.state.image().index, &world.state.to_records());
        prop_assert_eq!(&image, world.state.image());
        let snapshot: ClusterState = crate::decode(&crate::encode(&world.state)).unwrap();
        prop_assert_eq!(&snapshot, &world.state);
    }

    #[test]
    fn random_bytes_are_never_a_command(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut versioned = vec![1];
        versioned.extend(&bytes);
        let _ = crate::decode::<Command>(&bytes);
        let _ = crate::decode::<Command>(&versioned);
    }
}

#[test]
fn ten_thousand_partitions_change_hands_in_one_command() {
    let mut world = World::with_brokers(3);
    let topics: Vec<_> = (0..10u128)
        .map(|number| CreateTopic {
            partitions: Some(1000),
            replication_factor: Some(3),
            ..new_topic(number)
        })
        .collect();
    world.create(topics);
    let led = world.state.image().partitions_led_by(BrokerId(1)).count();
    assert!(led > 3000, "{led}");
    world.fence(1);
    assert_eq!(
        world.state.image().partitions_led_by(BrokerId(1)).count(),
        0
    );
    assert_eq!(world.state.image().offline_partitions(), 0);
    assert_eq!(world.record(part(3, 0)).isr.len(), 2);
}

#[test]
fn the_model_would_notice_a_leader_that_lacks_a_record() {
    let mut world = World::with_brokers(3);
    let id = world.create_on(1, &[1, 2, 3]);
    let mut model = Model::default();
    model.follow(&world, &world.state.clone(), None, false);
    model.write(&world);
    model
        .partitions
        .get_mut(&id)
        .unwrap()
        .logs
        .insert(BrokerId(2), vec![]);
    world.fence(1);
    let state = world.state.clone();
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        model.follow(&world, &state, None, false);
    }));
    assert!(verdict.is_err());
    assert_eq!(world.record(id).isr, ids(&[2, 3]));
}
