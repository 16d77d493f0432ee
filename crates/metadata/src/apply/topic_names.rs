//! Which topic names are legal.

use crate::{CommandError, Image};

const NAME_BYTES_MAX: usize = 249;

/// The topic that Kafka's own controllers keep their log in; it is never a topic of ours.
pub(super) const CLUSTER_METADATA: &str = "__cluster_metadata";

/// Checks a name by itself: it becomes part of a path and of metric names.
pub(super) fn check_name(name: &str) -> Result<(), CommandError> {
    let invalid = |reason: &str| Err(CommandError::InvalidTopic(reason.to_owned()));
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        invalid("a topic name cannot be empty")
    } else if name == "." || name == ".." {
        invalid("a topic name cannot be \".\" or \"..\"")
    } else if name.len() > NAME_BYTES_MAX {
        let reason = format!("a topic name has at most {NAME_BYTES_MAX} characters");
        Err(CommandError::InvalidTopic(reason))
    } else if !name.bytes().all(is_legal) {
        invalid("a topic name has only ASCII letters and digits, '.', '_' and '-'")
    } else {
        Ok(())
    }
}

/// Checks a new name against the topics there are: metric names turn `.` into `_`.
pub(super) fn check_collision(image: &Image, name: &str) -> Result<(), CommandError> {
    let may_collide = |byte: u8| byte == b'.' || byte == b'_';
    if !name.bytes().any(may_collide) {
        return Ok(());
    }
    let in_metrics = |byte: u8| if byte == b'.' { b'_' } else { byte };
    let collides = |other: &&String| {
        other.len() == name.len()
            && other
                .bytes()
                .map(in_metrics)
                .eq(name.bytes().map(in_metrics))
    };
    match image.topic_ids.keys().find(collides) {
        Some(other) => Err(CommandError::InvalidTopic(format!(
            "topic {name:?} collides with {other:?}: '.' and '_' are the same in metric names"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_make_no_path_are_refused() {
        for name in ["", ".", "..", "a/b", "a b", "é", "a\0", &"x".repeat(250)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in [
            "a",
            "...",
            "__consumer_offsets",
            "A-1.b_2",
            &"x".repeat(249),
        ] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }
}
