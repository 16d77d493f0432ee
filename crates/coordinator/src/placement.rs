//! Which partition of `__consumer_offsets` holds a group.

use ottla_types::PartitionIndex;

/// The partition that holds the group among `partitions` of them: Java's `String.hashCode` over
/// UTF-16 code units, its absolute value (that of the smallest integer being zero), modulo.
///
/// Clients never compute this, but tools that read the internal topic do, and it must stay put for
/// as long as the topic exists.
#[must_use]
pub fn partition_for_group(group_id: &str, partitions: i32) -> PartitionIndex {
    let hash = java_hash_code(group_id);
    let positive = hash.checked_abs().unwrap_or(0);
    PartitionIndex(positive.checked_rem(partitions).unwrap_or(0))
}

fn java_hash_code(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_lie_where_kafka_puts_them() {
        let vectors = [
            ("", 0),
            ("a", 47),
            ("my-group", 12),
            ("console-consumer-12345", 6),
            ("polygenelubricants", 0),
            ("схема", 5),
            ("g-😀", 17),
        ];
        for (group_id, partition) in vectors {
            assert_eq!(
                partition_for_group(group_id, 50),
                PartitionIndex(partition),
                "{group_id:?}"
            );
        }
        assert_eq!(java_hash_code("my-group"), -1_906_497_762);
        assert_eq!(java_hash_code("polygenelubricants"), i32::MIN);
    }
}
