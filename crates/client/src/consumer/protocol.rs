//! What members tell each other through the coordinator, in the format of Kafka's consumers.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use ottla_wire::{
    ClientCodecError, Decodable, Encodable,
    messages::{
        ConsumerProtocolAssignment, ConsumerProtocolSubscription, consumer_protocol_assignment,
        consumer_protocol_subscription,
    },
};

use crate::{
    leaders::{by_topic, text, wire_name},
    metadata::TopicPartition,
};

/// Version 2 carries what is owned and since which generation; others skip what they do not know.
const SUBSCRIPTION_VERSION: i16 = 2;
const ASSIGNMENT_VERSION: i16 = 1;

/// A member's subscription, decoded.
pub(super) struct Subscription {
    pub(super) topics: Vec<Arc<str>>,
    pub(super) owned: Vec<TopicPartition>,
    pub(super) generation: i32,
}

pub(super) fn encode_subscription(
    topics: &BTreeSet<Arc<str>>,
    owned: &[TopicPartition],
    generation: i32,
) -> Result<Bytes, ClientCodecError> {
    let owned = by_topic(owned.iter().map(|p| (p.clone(), ())))
        .into_iter()
        .map(|(name, rows)| {
            consumer_protocol_subscription::TopicPartition::default()
                .with_topic(wire_name(&name))
                .with_partitions(rows.into_iter().map(|(index, ())| index).collect())
        });
    let message = ConsumerProtocolSubscription::default()
        .with_topics(topics.iter().map(|topic| text(topic)).collect())
        // Kafka's sticky assignor of before version 2 looks for the generation here.
        .with_user_data(Some(Bytes::copy_from_slice(&generation.to_be_bytes())))
        .with_owned_partitions(owned.collect())
        .with_generation_id(generation);
    encode(&message, SUBSCRIPTION_VERSION)
}

pub(super) fn decode_subscription(bytes: Bytes) -> Result<Subscription, ClientCodecError> {
    let (version, mut body) = versioned(bytes)?;
    let message = ConsumerProtocolSubscription::decode(&mut body, version.clamp(0, 3))
        .map_err(|error| ClientCodecError::Decode(error.to_string()))?;
    let owned = message.owned_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = (&*topic.topic.0).into();
        topic
            .partitions
            .iter()
            .map(move |index| TopicPartition::new(Arc::clone(&name), *index))
    });
    let told = message
        .user_data
        .as_ref()
        .and_then(|data| data.first_chunk::<4>());
    Ok(Subscription {
        topics: message
            .topics
            .iter()
            .map(|topic| (&**topic).into())
            .collect(),
        owned: owned.collect(),
        generation: match (version >= 2, told) {
            (true, _) => message.generation_id,
            (false, Some(told)) => i32::from_be_bytes(*told),
            (false, None) => -1,
        },
    })
}

pub(super) fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, ClientCodecError> {
    let rows = by_topic(partitions.iter().map(|p| (p.clone(), ())))
        .into_iter()
        .map(|(name, rows)| {
            consumer_protocol_assignment::TopicPartition::default()
                .with_topic(wire_name(&name))
                .with_partitions(rows.into_iter().map(|(index, ())| index).collect())
        });
    let message = ConsumerProtocolAssignment::default().with_assigned_partitions(rows.collect());
    encode(&message, ASSIGNMENT_VERSION)
}

/// The assignment; none at all is an empty one.
pub(crate) fn decode_assignment(bytes: Bytes) -> Result<Vec<TopicPartition>, ClientCodecError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let (version, mut body) = versioned(bytes)?;
    let message = ConsumerProtocolAssignment::decode(&mut body, version.clamp(0, 3))
        .map_err(|error| ClientCodecError::Decode(error.to_string()))?;
    let partitions = message.assigned_partitions.iter().flat_map(|topic| {
        let name: Arc<str> = (&*topic.topic.0).into();
        topic
            .partitions
            .iter()
            .map(move |index| TopicPartition::new(Arc::clone(&name), *index))
    });
    Ok(partitions.collect())
}

fn encode(message: &impl Encodable, version: i16) -> Result<Bytes, ClientCodecError> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(version);
    message
        .encode(&mut bytes, version)
        .map_err(|error| ClientCodecError::Encode(error.to_string()))?;
    Ok(bytes.freeze())
}

fn versioned(mut bytes: Bytes) -> Result<(i16, Bytes), ClientCodecError> {
    let version = bytes::Buf::try_get_i16(&mut bytes);
    let version = version.map_err(|_| ClientCodecError::Decode("no version".to_owned()))?;
    Ok((version, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_and_assignments_round_trip() {
        let topics = BTreeSet::from(["t".into(), "u".into()]);
        let owned = vec![TopicPartition::new("t", 1), TopicPartition::new("t", 2)];
        let back = decode_subscription(encode_subscription(&topics, &owned, 9).unwrap()).unwrap();
        assert_eq!(back.topics, topics.into_iter().collect::<Vec<_>>());
        assert_eq!((back.owned, back.generation), (owned.clone(), 9));
        assert_eq!(
            decode_assignment(encode_assignment(&owned).unwrap()).unwrap(),
            owned
        );
        assert!(decode_assignment(Bytes::new()).unwrap().is_empty());
        assert!(decode_subscription(Bytes::from_static(b"\0")).is_err());
    }
}
