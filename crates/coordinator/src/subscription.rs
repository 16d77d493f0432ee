//! Which topics a member of a `consumer` group subscribes to.
//!
//! The coordinator treats subscriptions as opaque, with one exception: offsets of topics that
//! nobody subscribes to may be deleted or expire. Clients of every age and kind write these bytes,
//! so whatever does not parse is "unknown", never an error.

use std::collections::BTreeSet;

/// The topics of a consumer protocol subscription: version i16, topics as an array of strings, and
/// fields that do not matter here. `None` if it is not one.
#[must_use]
pub fn subscribed_topics(metadata: &[u8]) -> Option<BTreeSet<String>> {
    let (version, rest) = metadata.split_first_chunk::<2>()?;
    if i16::from_be_bytes(*version) < 0 {
        return None;
    }
    let (count, mut rest) = rest.split_first_chunk::<4>()?;
    // A null array means no topics, as in Kafka's own parser of old versions.
    let count = i32::from_be_bytes(*count).max(0);
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (name, tail) = tail.split_at_checked(length)?;
        topics.insert(std::str::from_utf8(name).ok()?.to_owned());
        rest = tail;
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_found_and_junk_is_unknown() {
        let metadata = [
            &[0, 1, 0, 0, 0, 2, 0, 1][..],
            b"a",
            &[0, 2],
            b"bc",
            &[255; 4],
        ]
        .concat();
        let topics = BTreeSet::from(["a".to_owned(), "bc".to_owned()]);
        assert_eq!(subscribed_topics(&metadata), Some(topics));
        assert_eq!(subscribed_topics(b""), None);
        assert_eq!(
            subscribed_topics(&[0, 0, 127, 255, 255, 255, 0, 1, 65]),
            None
        );
        assert_eq!(
            subscribed_topics(&[0, 0, 255, 255, 255, 255]),
            Some(BTreeSet::new())
        );
    }
}
