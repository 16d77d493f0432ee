//! The cluster's topics in the words of the coordinators.

use ottla_coordinator::{Topics, partition_for_group};
use ottla_metadata::{Image, PartitionRecord, TopicImage};
use ottla_types::{PartitionId, PartitionIndex, TopicId};

use super::OFFSETS_TOPIC;

/// An image, asked about topics.
pub(super) struct ImageTopics<'a>(pub(super) &'a Image);

impl Topics for ImageTopics<'_> {
    fn topic_id(&self, name: &str) -> Option<TopicId> {
        self.0.topic(name).map(|topic| topic.topic_id)
    }

    fn has_partition(&self, name: &str, partition: PartitionIndex) -> bool {
        self.0
            .topic(name)
            .is_some_and(|topic| topic.partitions.contains_key(&partition))
    }
}

/// The partition of the internal topic that holds the group; `None` while there is no such topic.
pub(super) fn partition_of<'a>(
    image: &'a Image,
    group_id: &str,
) -> Option<(PartitionId, &'a PartitionRecord)> {
    let topic = image.topic(OFFSETS_TOPIC)?;
    let index = partition_for_group(group_id, partition_count(topic));
    let record = topic.partitions.get(&index)?;
    Some((
        PartitionId {
            topic_id: topic.topic_id,
            partition: index,
        },
        record,
    ))
}

fn partition_count(topic: &TopicImage) -> i32 {
    i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX)
}

/// Whether some topic of the older image is gone from the newer one.
pub(super) fn any_deleted(older: &Image, newer: &Image) -> bool {
    older
        .topics
        .keys()
        .any(|topic_id| !newer.topics.contains_key(topic_id))
}
