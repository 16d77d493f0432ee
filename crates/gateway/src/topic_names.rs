//! Which topic names are legal, and which topics are the cluster's own.

/// Where groups keep their state.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Where the controller's log would be in Kafka; never a topic here.
pub(crate) const METADATA_TOPIC: &str = "__cluster_metadata";
const INTERNAL: [&str; 3] = [OFFSETS_TOPIC, "__transaction_state", "__share_group_state"];

/// Whether clients may not write to the topic.
pub(crate) fn is_internal(name: &str) -> bool {
    INTERNAL.contains(&name)
}

/// Why no topic can have this name.
pub(crate) fn check(name: &str) -> Result<(), &'static str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match name {
        "" => Err("the topic name is empty"),
        "." | ".." => Err("the topic name is \".\" or \"..\""),
        _ if name.len() > 249 => Err("the topic name is longer than 249 characters"),
        _ if !name.bytes().all(legal) => {
            Err("the topic name has characters other than ASCII alphanumerics, '.', '_' and '-'")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert!(check("a.B_c-9").is_ok());
        assert!(check(&"x".repeat(249)).is_ok());
        for name in ["", ".", "..", "a/b", "é", "a b", "../x", &"x".repeat(250)] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
