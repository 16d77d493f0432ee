//! Dynamic configs on request (KIP-339, KIP-966).

use ottla_types::BrokerId;

use super::world::{World, new_topic};
use crate::{
    AlterConfigOp, Command, CommandError, ConfigAlteration, ConfigResource, Image, Outcome,
};

#[test]
fn lists_are_appended_to_and_subtracted_from() {
    let mut world = World::with_brokers(1);
    assert_eq!(world.create(vec![new_topic(1)]), vec![Ok(())]);
    let topic = || ConfigResource::Topic("t1".to_owned());
    let append = |value: &str| AlterConfigOp::Append {
        base: "delete".into(),
        value: value.into(),
    };
    let subtract = |value: &str| AlterConfigOp::Subtract {
        base: "delete".into(),
        value: value.into(),
    };
    let value = |world: &World| {
        let configs = world
            .state
            .image()
            .configs_of(&topic())
            .cloned()
            .unwrap_or_default();
        configs.get("cleanup.policy").cloned()
    };
    let key = "cleanup.policy";
    world
        .alter(topic(), &[(key, append("compact,delete"))])
        .unwrap();
    assert_eq!(value(&world).as_deref(), Some("delete,compact"));
    world
        .alter(topic(), &[(key, subtract("delete, absent"))])
        .unwrap();
    assert_eq!(value(&world).as_deref(), Some("compact"));
    world
        .alter(topic(), &[(key, AlterConfigOp::Delete)])
        .unwrap();
    assert_eq!(value(&world), None);
}

#[test]
fn all_changes_of_a_resource_are_made_or_none() {
    let mut world = World::with_brokers(1);
    assert_eq!(world.create(vec![new_topic(1)]), vec![Ok(())]);
    let topic = ConfigResource::Topic("t1".to_owned());
    let set = |value: &str| AlterConfigOp::Set(value.to_owned());
    let refused = world.alter(
        topic.clone(),
        &[
            ("retention.ms", set("1")),
            ("min.insync.replicas", set("none")),
        ],
    );
    assert!(matches!(refused, Err(CommandError::InvalidConfig(_))));
    let long = "x".repeat(32_768);
    let refused = world.alter(topic.clone(), &[("a", set("1")), ("b", set(&long))]);
    assert!(matches!(refused, Err(CommandError::InvalidConfig(_))));
    let refused = world.alter(topic.clone(), &[("a", set("1")), ("a", set("1"))]);
    assert!(matches!(refused, Err(CommandError::InvalidRequest(_))));
    assert!(world.state.image().configs.is_empty());

    let one = ConfigAlteration {
        resource: topic.clone(),
        ops: vec![("a".into(), set("1"))],
    };
    let other = ConfigAlteration {
        resource: ConfigResource::ClusterDefault,
        ..one.clone()
    };
    let alterations = vec![one.clone(), other, one];
    let outcome = world.apply(Command::AlterConfigs {
        alterations,
        validate_only: false,
    });
    let Outcome::AlteredConfigs(answers) = outcome else {
        panic!("{outcome:?}")
    };
    let verdicts: Vec<_> = answers.iter().map(Result::is_ok).collect();
    assert_eq!(verdicts, [false, true, false]);
}

#[test]
fn min_isr_is_the_same_for_every_broker() {
    let mut world = World::with_brokers(1);
    let key = "min.insync.replicas";
    let set = AlterConfigOp::Set("2".to_owned());
    let refused = world.alter(ConfigResource::Broker(BrokerId(1)), &[(key, set.clone())]);
    assert!(matches!(refused, Err(CommandError::InvalidConfig(_))));
    assert_eq!(
        world.alter(ConfigResource::ClusterDefault, &[(key, set)]),
        Ok(())
    );
    let refused = world.alter(
        ConfigResource::ClusterDefault,
        &[(key, AlterConfigOp::Delete)],
    );
    assert!(matches!(refused, Err(CommandError::InvalidConfig(_))));
    let image = world.state.image();
    assert_eq!(
        [1, 2, 3, 4].map(|rf| image.min_insync_replicas("t", rf)),
        [1, 2, 2, 2]
    );
    assert_eq!(
        [1, 2, 3, 4].map(|rf| Image::default().min_insync_replicas("t", rf)),
        [1, 1, 2, 2]
    );
    let unknown = ConfigResource::Broker(BrokerId(9));
    let refused = world.alter(unknown, &[("a", AlterConfigOp::Delete)]);
    assert_eq!(refused, Err(CommandError::BrokerNotRegistered(BrokerId(9))));
}

#[test]
fn the_controllers_file_allows_unclean_elections_where_no_dynamic_config_says_otherwise() {
    let mut world = World::with_brokers(2);
    let key = "unclean.leader.election.enable";
    let set = |value: &str| AlterConfigOp::Set(value.to_owned());
    let enabled = |world: &World| {
        let image = world.state.image();
        (
            image.unclean_leader_election_enabled("t1"),
            image.unclean_leader_election_enabled("t2"),
        )
    };
    let id = world.create_on(1, &[1, 2]);
    let careful = world.create_on(2, &[1, 2]);
    world.set_topic_config("t2", key, "false");
    world
        .alter(ConfigResource::ControllerFile, &[(key, set("true"))])
        .unwrap();
    assert_eq!(enabled(&world), (true, false));
    world.fence(2);
    world.fence(1);
    world.start(2);
    let leader = |id| world.record(id).leader;
    assert_eq!(
        (leader(id), leader(careful)),
        (Some(ottla_types::BrokerId(2)), None)
    );
    world
        .alter(ConfigResource::ClusterDefault, &[(key, set("false"))])
        .unwrap();
    assert_eq!(enabled(&world), (false, false));
    world
        .alter(
            ConfigResource::ClusterDefault,
            &[(key, AlterConfigOp::Delete)],
        )
        .unwrap();
    assert_eq!(enabled(&world), (true, false));
}
