//! The consumer's membership against a coordinator that follows a script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]

#[path = "support/fake_broker.rs"]
mod fake_broker;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fake_broker::{FakeCluster, Handler, Model, Reply, TOPIC, answer, node_id};
use ottla_client::{ClientConfig, Consumer, ConsumerConfig, ConsumerError, ErrorCode, GroupError};
use ottla_wire::{
    Api, RequestHeader, StrBytes,
    messages::{
        FindCoordinatorResponse, HeartbeatResponse, JoinGroupResponse, LeaveGroupResponse,
        SyncGroupResponse, find_coordinator_response::Coordinator,
    },
};
use parking_lot::Mutex;
use tokio::time::Instant;

/// An assignment of nothing: version, topics, user data.
const NOTHING: &[u8] = &[0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];

/// A group whose other members lead it.
#[derive(Default)]
struct Group {
    coordinator: usize,
    /// Brokers that were asked to join.
    joins: Vec<usize>,
    heartbeats: usize,
    leaves: usize,
    /// Every join is refused: another process holds the instance id.
    is_fencing: bool,
    /// The first join is never answered, and the next broker coordinates from then on.
    hangs_and_moves: bool,
}

async fn start(group: Group) -> (FakeCluster, Arc<Mutex<Group>>) {
    let cluster = FakeCluster::start(2).await;
    let group = Arc::new(Mutex::new(group));
    let served = Arc::clone(&group);
    let handler: Handler =
        Box::new(move |model, broker, header, _| served.lock().handle(model, broker, header));
    cluster.model.lock().handler = Some(handler);
    (cluster, group)
}

impl Group {
    fn handle(&mut self, model: &Model, broker: usize, header: &RequestHeader) -> Reply {
        match header.api {
            Api::FindCoordinator => self.find_coordinator(model, header),
            Api::JoinGroup => self.join(broker, header),
            Api::SyncGroup => {
                let assignment = Bytes::from_static(NOTHING);
                answer(
                    header,
                    &SyncGroupResponse::default().with_assignment(assignment),
                )
            }
            Api::Heartbeat => {
                self.heartbeats += 1;
                answer(header, &HeartbeatResponse::default())
            }
            Api::LeaveGroup => {
                self.leaves += 1;
                answer(header, &LeaveGroupResponse::default())
            }
            other => panic!("{other:?} is not expected"),
        }
    }

    fn find_coordinator(&self, model: &Model, header: &RequestHeader) -> Reply {
        let (host, port) = &model.addresses[self.coordinator];
        let row = Coordinator::default()
            .with_node_id(node_id(self.coordinator).into())
            .with_host(StrBytes::from_string(host.clone()))
            .with_port((*port).into());
        answer(
            header,
            &FindCoordinatorResponse::default().with_coordinators(vec![row]),
        )
    }

    fn join(&mut self, broker: usize, header: &RequestHeader) -> Reply {
        self.joins.push(broker);
        if std::mem::take(&mut self.hangs_and_moves) {
            self.coordinator += 1;
            return Reply::Hang;
        }
        let mut response = JoinGroupResponse::default();
        if self.is_fencing {
            response.error_code = ErrorCode::FencedInstanceId.code();
        }
        response.generation_id = 1;
        response.protocol_type = Some(StrBytes::from_static_str("consumer"));
        response.protocol_name = Some(StrBytes::from_static_str("range"));
        response.leader = StrBytes::from_static_str("another");
        response.member_id = StrBytes::from_static_str("member");
        answer(header, &response)
    }
}

fn config(cluster: &FakeCluster) -> ConsumerConfig {
    let mut config = ConsumerConfig::new(ClientConfig::new(cluster.bootstrap())).group("g");
    config.heartbeat_interval = Duration::from_millis(50);
    config.client.stall_probe_after = Duration::from_millis(100);
    config
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_member_is_kept_alive_before_the_poll_after_its_join() {
    let (cluster, group) = start(Group::default()).await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    consumer.subscribe([TOPIC]).await.unwrap();
    consumer.poll(Duration::ZERO).await.unwrap();
    // Nobody polls: the round ends, and the heart beats all the same.
    until("two heartbeats", || group.lock().heartbeats >= 2).await;
    assert_eq!(group.lock().joins, [0]);
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_coordinator_that_was_replaced_during_a_join_is_given_up() {
    let (cluster, group) = start(Group {
        hangs_and_moves: true,
        ..Group::default()
    })
    .await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    consumer.subscribe([TOPIC]).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while group.lock().heartbeats == 0 {
        assert!(Instant::now() < deadline, "{:?}", group.lock().joins);
        consumer.poll(Duration::from_millis(20)).await.unwrap();
    }
    assert_eq!(group.lock().joins, [0, 1]);
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_round_that_outlives_its_subscription_ends_with_leaving() {
    let (cluster, group) = start(Group::default()).await;
    let mut consumer = Consumer::new(config(&cluster)).unwrap();
    consumer.subscribe([TOPIC]).await.unwrap();
    consumer.poll(Duration::ZERO).await.unwrap();
    // The round has hardly begun.
    assert_eq!(group.lock().joins, [0; 0]);
    consumer.unsubscribe().await;
    until("the member leaves", || group.lock().leaves == 1).await;
    assert_eq!(group.lock().joins, [0]);
    assert_eq!(group.lock().heartbeats, 0);
    consumer.close(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_fenced_member_does_not_join_before_the_next_subscription() {
    let (cluster, group) = start(Group {
        is_fencing: true,
        ..Group::default()
    })
    .await;
    let mut config = config(&cluster);
    config.group_instance_id = Some("one".to_owned());
    let mut consumer = Consumer::new(config).unwrap();
    for joins in 1..=2 {
        consumer.subscribe([TOPIC]).await.unwrap();
        let error = consumer.poll(Duration::from_secs(10)).await.unwrap_err();
        let fenced = matches!(
            error,
            ConsumerError::Group(GroupError::Refused(ErrorCode::FencedInstanceId))
        );
        assert!(fenced, "{error:?}");
        // Several times the pause before another attempt.
        consumer.poll(Duration::from_millis(500)).await.unwrap();
        assert_eq!(group.lock().joins.len(), joins);
    }
    consumer.close(Duration::from_secs(5)).await;
}
