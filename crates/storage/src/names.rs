//! Names of files and directories, written and parsed in one place.

use ottla_types::{Offset, PartitionIndex};

pub(crate) const LOG: &str = "log";
pub(crate) const OFFSET_INDEX: &str = "index";
pub(crate) const TIME_INDEX: &str = "timeindex";
pub(crate) const TXN_INDEX: &str = "txnindex";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// Our own file beside Kafka's snapshot, with the last five batches of each producer.
pub(crate) const PRODUCERS: &str = "producers";
pub(crate) const DELETED: &str = ".deleted";
pub(crate) const CLEANED: &str = ".cleaned";
pub(crate) const SWAP: &str = ".swap";
pub(crate) const TEMPORARY: &str = ".tmp";
/// What a bad segment is moved to, so that nothing is cut silently (S-2).
pub(crate) const DAMAGED: &str = ".damaged";

pub(crate) const EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
/// Our own file: below it nothing was rewritten since the recovery point was last written.
pub(crate) const RECOVERY_FLOOR: &str = "recovery-floor";

pub(crate) const DELETED_DIR: &str = "-delete";
const FUTURE_DIR: &str = "-future";
const STRAY_DIR: &str = "-stray";

/// Longest topic name.
const TOPIC_NAME_MAX: usize = 249;
/// Longest name of a file.
const FILE_NAME_MAX: usize = 255;
/// Digits of an offset in a file's name.
const DIGITS: usize = 20;

/// `<offset, 20 digits>.<suffix>`.
pub(crate) fn segment_file(base_offset: Offset, suffix: &str) -> String {
    format!("{:020}.{suffix}", base_offset.get())
}

/// Takes `<offset, 20 digits>.<suffix>` apart.
pub(crate) fn parse_segment_file(name: &str) -> Option<(Offset, &str)> {
    let (digits, suffix) = name.split_once('.')?;
    if digits.len() != DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((Offset::new(digits.parse().ok()?)?, suffix))
}

/// Whether `name` may name a topic: the charset and length of Kafka.
#[must_use]
pub(crate) fn is_topic_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= TOPIC_NAME_MAX
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `<topic>-<partition>`.
pub(crate) fn partition_dir(topic: &str, partition: PartitionIndex) -> String {
    format!("{topic}-{partition}")
}

/// Takes `<topic>-<partition>` apart.
pub(crate) fn parse_partition_dir(name: &str) -> Option<(&str, PartitionIndex)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let number: i32 = partition.parse().ok()?;
    // Only the canonical spelling: `t-01` and `t-+1` are not ours.
    if !is_topic_name(topic) || number.to_string() != partition {
        return None;
    }
    Some((topic, PartitionIndex::new(number)?))
}

/// `<topic>-<partition>.<unique>-delete`, short enough for a file name.
pub(crate) fn deleted_dir(topic: &str, partition: PartitionIndex, unique: &str) -> String {
    let suffix = format!("-{partition}.{unique}{DELETED_DIR}");
    // Topic names are ASCII, so any cut is a character boundary.
    let room = FILE_NAME_MAX.saturating_sub(suffix.len()).min(topic.len());
    format!("{}{suffix}", topic.get(..room).unwrap_or(topic))
}

/// Whether a directory waits for its removal.
pub(crate) fn is_deleted_dir(name: &str) -> bool {
    name.ends_with(DELETED_DIR) && name.contains('.')
}

/// Whether a directory is one of Kafka's that are not partitions being served.
pub(crate) fn is_set_aside(name: &str) -> bool {
    is_deleted_dir(name) || name.ends_with(FUTURE_DIR) || name.ends_with(STRAY_DIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let name = segment_file(Offset::saturating(1234), LOG);
        assert_eq!(name, "00000000000000001234.log");
        assert_eq!(
            parse_segment_file(&name),
            Some((Offset::saturating(1234), "log"))
        );
        assert_eq!(
            parse_segment_file("00000000000000000000.log.deleted"),
            Some((Offset::ZERO, "log.deleted"))
        );
        assert_eq!(parse_segment_file("99999999999999999999.log"), None);
        assert_eq!(parse_segment_file("0000000000000000000a.log"), None);
        assert_eq!(parse_segment_file("1.log"), None);
        assert_eq!(
            parse_partition_dir("a-b.c-12"),
            Some(("a-b.c", PartitionIndex(12)))
        );
    }

    #[test]
    fn x14_odd_names_are_not_partitions() {
        for name in [
            "..-0",
            "a/b-0",
            "-0",
            "t-",
            "t-01",
            "t-+1",
            "t",
            "t-99999999999",
        ] {
            assert_eq!(parse_partition_dir(name), None, "{name}");
        }
        assert!(!is_topic_name(""));
        assert!(!is_topic_name("a b"));
        assert!(!is_topic_name(&"a".repeat(250)));
    }

    #[test]
    fn the_name_of_a_deleted_directory_fits() {
        let unique = "0".repeat(32);
        let name = deleted_dir(&"t".repeat(249), PartitionIndex(123_456), &unique);
        assert!(name.len() <= 255 && is_deleted_dir(&name) && is_set_aside(&name));
        assert!(!is_deleted_dir("a-delete"));
    }
}
