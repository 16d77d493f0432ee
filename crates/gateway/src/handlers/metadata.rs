//! Metadata: brokers, topics and their leaders, from this broker's own image.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use uuid::Uuid;

use ottla_metadata::{BrokerRecord, Image, PartitionRecord, TopicImage};
use ottla_types::{BrokerId, PartitionIndex, TopicId};
use ottla_wire::{
    ErrorCode,
    messages::{
        self, MetadataRequest, MetadataResponse, TopicName,
        metadata_request::MetadataRequestTopic,
        metadata_response::{
            MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
        },
    },
};

use super::{CountErrors, count};
use crate::{
    access,
    auto_create::AutoCreate,
    context::RequestContext,
    endpoints::{any_controller_id, endpoint, live_endpoint},
    topic_names,
};

/// A client whose connection to a broker just broke asks another within a millisecond, when that
/// one's own stream from the dead broker may not have been seen to break yet.
const NOTICE: Duration = Duration::from_millis(3);
/// How long an answer waits for the controller to replace a leader that seems dead. The new leader
/// at once is better than none now: clients would ask again after ever longer pauses.
const ELECTION_WAIT: Duration = Duration::from_millis(500);
/// How often a suspicion is looked at again where no metadata comes.
const SUSPICION_POLL: Duration = Duration::from_millis(20);

/// How long an answer waits for the first broker in service, after a start of the whole cluster.
const FIRST_BROKER_WAIT: Duration = Duration::from_secs(5);

pub(super) async fn handle(cx: &RequestContext, request: MetadataRequest) -> MetadataResponse {
    let _ = tokio::time::timeout(FIRST_BROKER_WAIT, some_broker_lives(cx)).await;
    if leaders(&cx.image(), &request, cx.version())
        .iter()
        .any(|leader| cx.broker().follows(*leader))
    {
        tokio::time::sleep(NOTICE).await;
        let _ = tokio::time::timeout(ELECTION_WAIT, no_suspect_leads(cx, &request)).await;
    }
    let (image, version) = (cx.image(), cx.version());
    let listener = cx.peer.listener.as_str();
    let brokers = shown_brokers(&image, cx.broker().broker_id(), listener);
    let brokers = brokers.into_iter().filter_map(|broker| {
        let endpoint = endpoint(broker, listener)?;
        let row = MetadataResponseBroker::default()
            .with_node_id(messages::BrokerId(broker.broker_id.get()))
            .with_host(endpoint.host.clone().into())
            .with_port(endpoint.port.into());
        let rack = broker.rack.clone().filter(|_| version >= 1);
        Some(row.with_rack(rack.map(Into::into)))
    });
    let mut response = MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(image.cluster_id.clone().map(Into::into))
        .with_controller_id(messages::BrokerId(any_controller_id(&image, listener)))
        .with_topics(topics(cx, &image, &request));
    if (8..=10).contains(&version) {
        response.cluster_authorized_operations =
            access::cluster_operations(request.include_cluster_authorized_operations);
    }
    response
}

/// Waits until a broker is in service on the listener. A client that is told of no broker forgets
/// those it knew, and has nobody left to ask.
async fn some_broker_lives(cx: &RequestContext) {
    let mut changes = cx.broker().image_changes();
    loop {
        changes.mark_unchanged();
        let image = cx.image();
        let mut live = image.live_brokers();
        if live.any(|broker| endpoint(broker, &cx.peer.listener).is_some()) {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// The brokers in service; where there are none, this one, so that the client can ask again.
fn shown_brokers<'a>(image: &'a Image, own: BrokerId, listener: &str) -> Vec<&'a BrokerRecord> {
    let live = image.live_brokers().map(|broker| &**broker);
    let live: Vec<_> = live
        .filter(|broker| endpoint(broker, listener).is_some())
        .collect();
    if live.is_empty() {
        return image.broker(own).into_iter().collect();
    }
    live
}

/// Waits until no topic asked for is led by a broker whose process seems to have died.
async fn no_suspect_leads(cx: &RequestContext, request: &MetadataRequest) {
    let mut changes = cx.broker().image_changes();
    loop {
        changes.mark_unchanged();
        let image = cx.image();
        let suspects = suspects(cx, &image);
        if suspects.is_empty() {
            return;
        }
        let leaders = leaders(&image, request, cx.version());
        if !suspects.iter().any(|suspect| leaders.contains(suspect)) {
            return;
        }
        let _ = tokio::time::timeout(SUSPICION_POLL, changes.changed()).await;
    }
}

/// Who leads what is asked about.
fn leaders(image: &Image, request: &MetadataRequest, version: i16) -> BTreeSet<BrokerId> {
    let leaders_of = |topic: &Arc<TopicImage>| -> Vec<BrokerId> {
        let states = topic.partitions.values();
        states.filter_map(|state| state.leader).collect()
    };
    match &request.topics {
        Some(asked) if version > 0 || !asked.is_empty() => {
            let topics = asked.iter().filter_map(|asked| {
                match (TopicId::new(asked.topic_id), &asked.name) {
                    (Some(id), _) => image.topics.get(&id),
                    (None, Some(name)) => image.topic(name),
                    (None, None) => None,
                }
            });
            topics.flat_map(leaders_of).collect()
        }
        Some(_) | None => image.topics.values().flat_map(leaders_of).collect(),
    }
}

/// Brokers whose processes seem to have died while metadata still names them.
fn suspects(cx: &RequestContext, image: &Image) -> Vec<BrokerId> {
    let brokers = image.brokers.keys();
    brokers
        .filter(|broker| cx.broker().is_suspect(**broker))
        .copied()
        .collect()
}

fn topics(
    cx: &RequestContext,
    image: &Image,
    request: &MetadataRequest,
) -> Vec<MetadataResponseTopic> {
    let operations = access::topic_operations(request.include_topic_authorized_operations);
    // A leader whose process seems to have died is not named: a stale answer would send the client
    // to a dead address for as long as its refresh interval.
    let suspects = suspects(cx, image);
    let describe = |topic: &TopicImage| {
        let row = describe(image, topic, cx.version(), &cx.peer.listener, &suspects);
        if cx.version() >= 8 {
            row.with_topic_authorized_operations(operations)
        } else {
            row
        }
    };
    match &request.topics {
        None => image.topics.values().map(|topic| describe(topic)).collect(),
        Some(asked) if asked.is_empty() && cx.version() == 0 => {
            image.topics.values().map(|topic| describe(topic)).collect()
        }
        Some(asked) => {
            // If any id is set, names are ignored.
            let by_id = asked.iter().any(|topic| !topic.topic_id.is_nil());
            let rows = asked
                .iter()
                .map(|topic| match find(cx, image, request, topic, by_id) {
                    Ok(topic) => describe(&topic),
                    Err(error) => refuse(topic, error),
                });
            rows.collect()
        }
    }
}

fn find(
    cx: &RequestContext,
    image: &Image,
    request: &MetadataRequest,
    asked: &MetadataRequestTopic,
    by_id: bool,
) -> Result<Arc<TopicImage>, ErrorCode> {
    // Ids are answered from version 10 but may be asked for only from 12.
    if cx.version() < 12 && (by_id || asked.name.is_none()) {
        return Err(ErrorCode::InvalidRequest);
    }
    if by_id {
        let topic = TopicId::new(asked.topic_id).and_then(|id| image.topics.get(&id));
        return topic.cloned().ok_or(ErrorCode::UnknownTopicId);
    }
    let name = asked.name.as_deref().ok_or(ErrorCode::InvalidRequest)?;
    if let Some(topic) = image.topic(name) {
        return Ok(Arc::clone(topic));
    }
    topic_names::check(name).map_err(|_| ErrorCode::InvalidTopicException)?;
    let allowed = request.allow_auto_topic_creation || cx.version() < 4;
    if allowed
        && cx.config().server.topics.auto_create_topics_enable
        && name != topic_names::METADATA_TOPIC
    {
        AutoCreate::start(&cx.shared, name, cx.default_deadline());
    }
    Err(ErrorCode::UnknownTopicOrPartition)
}

fn refuse(asked: &MetadataRequestTopic, error: ErrorCode) -> MetadataResponseTopic {
    let name = asked.name.clone();
    let row = MetadataResponseTopic::default().with_error_code(error.code());
    match error {
        // An id that means nothing has no name; the field is nullable from version 12.
        ErrorCode::UnknownTopicId => row.with_topic_id(asked.topic_id).with_name(None),
        _ => row
            .with_is_internal(
                name.as_ref()
                    .is_some_and(|name| topic_names::is_internal(name)),
            )
            .with_topic_id(Uuid::nil())
            .with_name(Some(name.unwrap_or_default())),
    }
}

/// One topic as a client of this version and listener sees it.
fn describe(
    image: &Image,
    topic: &TopicImage,
    version: i16,
    listener: &str,
    suspects: &[BrokerId],
) -> MetadataResponseTopic {
    let partitions = topic
        .partitions
        .iter()
        .map(|(index, state)| partition(image, *index, state, version, listener, suspects));
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(topic.name.clone().into())))
        .with_topic_id(topic.topic_id.uuid())
        .with_is_internal(topic_names::is_internal(&topic.name))
        .with_partitions(partitions.collect())
}

fn partition(
    image: &Image,
    index: PartitionIndex,
    state: &PartitionRecord,
    version: i16,
    listener: &str,
    suspects: &[BrokerId],
) -> MetadataResponsePartition {
    let reachable = |broker: &BrokerId| live_endpoint(image, *broker, listener).is_some();
    let known = state.leader.filter(|leader| !suspects.contains(leader));
    let leader = known.filter(reachable);
    // Version 0 is not told of brokers that it could not find in the list.
    let visible = |brokers: &[BrokerId]| -> Vec<messages::BrokerId> {
        let brokers = brokers
            .iter()
            .filter(|broker| version > 0 || reachable(broker));
        brokers
            .map(|broker| messages::BrokerId(broker.get()))
            .collect()
    };
    let offline = state
        .replicas
        .iter()
        .filter(|broker| image.is_replica_offline(**broker));
    let error = match (known, leader) {
        (_, Some(_)) if version == 0 && !state.replicas.iter().all(reachable) => {
            ErrorCode::ReplicaNotAvailable
        }
        (_, Some(_)) => ErrorCode::None,
        // Its broker lives, but not on this listener.
        (Some(leader), None)
            if version >= 6
                && image
                    .brokers
                    .get(&leader)
                    .is_some_and(|broker| !broker.fenced) =>
        {
            ErrorCode::ListenerNotFound
        }
        (_, None) => ErrorCode::LeaderNotAvailable,
    };
    MetadataResponsePartition::default()
        .with_error_code(error.code())
        .with_partition_index(index.get())
        .with_leader_id(messages::BrokerId(leader.map_or(-1, BrokerId::get)))
        .with_leader_epoch(state.leader_epoch.get())
        .with_replica_nodes(visible(&state.replicas))
        .with_isr_nodes(visible(&state.isr))
        .with_offline_replicas(
            offline
                .map(|broker| messages::BrokerId(broker.get()))
                .collect(),
        )
}

impl CountErrors for MetadataResponse {
    fn count_errors(&self) -> usize {
        let partitions = self.topics.iter().flat_map(|topic| &topic.partitions);
        count(self.topics.iter().map(|topic| topic.error_code))
            + count(partitions.map(|partition| partition.error_code))
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn where_no_broker_is_in_service_the_one_that_answers_is_named() {
        use crate::endpoints::tests::image_of_brokers;
        let ids = |image: &Image| -> Vec<i32> {
            let shown = shown_brokers(image, BrokerId(2), "CLIENTS");
            shown.iter().map(|broker| broker.broker_id.get()).collect()
        };
        assert_eq!(ids(&image_of_brokers(3, &[2])), [1, 3]);
        assert_eq!(ids(&image_of_brokers(3, &[1, 2, 3])), [2]);
        assert!(ids(&Image::default()).is_empty());
    }

    use ottla_types::LeaderEpoch;

    use super::*;
    use crate::endpoints::tests::image_of_brokers;

    fn state(leader: Option<i32>) -> PartitionRecord {
        let replicas: Vec<BrokerId> = [1, 2, 3].map(BrokerId).to_vec();
        PartitionRecord {
            isr: replicas.clone(),
            replicas,
            leader: leader.map(BrokerId),
            leader_epoch: LeaderEpoch::saturating(4),
            ..PartitionRecord::default()
        }
    }

    #[test]
    fn only_leaders_of_what_is_asked_about_are_waited_for() {
        let mut image = image_of_brokers(3, &[]);
        for (number, leader) in [(1, Some(1)), (2, Some(2)), (3, None)] {
            let topic = TopicImage {
                topic_id: TopicId::new(Uuid::from_u128(number)).unwrap(),
                name: format!("t{number}"),
                partitions: [(PartitionIndex(0), state(leader))].into(),
            };
            image.topic_ids.insert(topic.name.clone(), topic.topic_id);
            image.topics.insert(topic.topic_id, Arc::new(topic));
        }
        let asked = |names: Option<&[&str]>, version| {
            let topics = names.map(|names| {
                let name = |name: &&str| TopicName((*name).to_owned().into());
                let topic = |asked| MetadataRequestTopic::default().with_name(Some(name(asked)));
                names.iter().map(topic).collect()
            });
            let request = MetadataRequest::default().with_topics(topics);
            let leaders = leaders(&image, &request, version);
            leaders.into_iter().map(BrokerId::get).collect::<Vec<_>>()
        };
        assert_eq!(asked(None, 12), [1, 2]);
        assert_eq!(asked(Some(&[]), 12), [0; 0]);
        assert_eq!(asked(Some(&[]), 0), [1, 2], "all, in the oldest version");
        assert_eq!(asked(Some(&["t2", "t3", "none"]), 12), [2]);
    }

    #[test]
    fn leaders_are_those_that_the_client_can_reach() {
        let image = image_of_brokers(3, &[2]);
        let row = |leader, version, listener| {
            let state = state(leader);
            partition(&image, PartitionIndex(0), &state, version, listener, &[])
        };
        let healthy = row(Some(1), 13, "CLIENTS");
        assert_eq!(
            (
                healthy.error_code,
                healthy.leader_id.0,
                healthy.leader_epoch
            ),
            (0, 1, 4)
        );
        assert_eq!(healthy.offline_replicas, [messages::BrokerId(2)]);
        for (leader, version, listener, error) in [
            (None, 13, "CLIENTS", ErrorCode::LeaderNotAvailable),
            (Some(2), 13, "CLIENTS", ErrorCode::LeaderNotAvailable),
            (Some(1), 13, "OTHER", ErrorCode::ListenerNotFound),
            (Some(1), 5, "OTHER", ErrorCode::LeaderNotAvailable),
            (Some(1), 0, "CLIENTS", ErrorCode::ReplicaNotAvailable),
        ] {
            let row = row(leader, version, listener);
            assert_eq!(
                row.error_code,
                error.code(),
                "{leader:?} {version} {listener}"
            );
            if error != ErrorCode::ReplicaNotAvailable {
                assert_eq!(row.leader_id.0, -1);
            }
        }
        let suspect = partition(
            &image,
            PartitionIndex(0),
            &state(Some(1)),
            13,
            "CLIENTS",
            &[BrokerId(1)],
        );
        assert_eq!(
            (suspect.error_code, suspect.leader_id.0),
            (ErrorCode::LeaderNotAvailable.code(), -1)
        );
        let oldest = row(Some(1), 0, "CLIENTS");
        assert_eq!(
            oldest.isr_nodes,
            [messages::BrokerId(1), messages::BrokerId(3)]
        );
    }
}
