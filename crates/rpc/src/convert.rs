//! Between protobuf's plain fields and the words of `ottla-types`.

use bytes::Bytes;
use uuid::Uuid;

use ottla_types::{PartitionId, PartitionIndex, TopicId};

/// A field of a message does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed field {0}")]
pub struct Malformed(pub &'static str);

/// 16 bytes as a uuid.
pub fn uuid(bytes: &[u8], field: &'static str) -> Result<Uuid, Malformed> {
    Uuid::from_slice(bytes).map_err(|_| Malformed(field))
}

/// A uuid as 16 bytes.
#[must_use]
pub fn uuid_bytes(uuid: Uuid) -> Bytes {
    Bytes::copy_from_slice(uuid.as_bytes())
}

/// Topic id and partition number as one id.
pub fn partition_id(topic_id: &[u8], partition: i32) -> Result<PartitionId, Malformed> {
    let topic_id = TopicId::new(uuid(topic_id, "topic_id")?).ok_or(Malformed("topic_id"))?;
    let partition = PartitionIndex::new(partition).ok_or(Malformed("partition"))?;
    Ok(PartitionId {
        topic_id,
        partition,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_wrong_length_or_zero_are_malformed() {
        assert_eq!(uuid(&[1; 15], "x"), Err(Malformed("x")));
        assert_eq!(partition_id(&[0; 16], 0), Err(Malformed("topic_id")));
        assert_eq!(partition_id(&[1; 16], -1), Err(Malformed("partition")));
        let id = partition_id(&[1; 16], 3).expect("well formed");
        assert_eq!(uuid_bytes(id.topic_id.uuid())[..], [1; 16]);
    }
}
