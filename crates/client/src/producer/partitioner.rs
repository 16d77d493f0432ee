//! Which partition a record goes to, as Kafka's Java client decides it.

use std::{collections::HashMap, sync::Arc};

use rand::seq::IndexedRandom;

use crate::metadata::Topic;

/// Chooses partitions; remembers where records without a key go at the moment (KIP-794).
#[derive(Debug, Default)]
pub(super) struct Partitioner {
    sticky: HashMap<Arc<str>, Sticky>,
}

#[derive(Debug)]
struct Sticky {
    partition: i32,
    bytes: usize,
}

impl Partitioner {
    /// The partition of a record; `None` if the topic has none.
    ///
    /// Without a key, one partition gets `stretch_bytes` before another one is chosen at random
    /// among those that have a leader: batches fill up, and the load is even over time.
    pub(super) fn choose(
        &mut self,
        name: &Arc<str>,
        topic: &Topic,
        key: Option<&[u8]>,
        bytes: usize,
        stretch_bytes: usize,
    ) -> Option<i32> {
        let count = i32::try_from(topic.partitions.len()).ok()?;
        if let Some(key) = key {
            return to_positive(murmur2(key)).checked_rem(count);
        }
        let usable = |partition: i32| {
            let known = topic.partitions.get(&partition);
            known.is_some_and(|partition| partition.leader.is_some())
        };
        if let Some(sticky) = self.sticky.get_mut(name)
            && sticky.bytes < stretch_bytes
            && usable(sticky.partition)
        {
            sticky.bytes += bytes;
            return Some(sticky.partition);
        }
        let with_leader: Vec<i32> = topic
            .partitions
            .keys()
            .copied()
            .filter(|p| usable(*p))
            .collect();
        let all: Vec<i32> = topic.partitions.keys().copied().collect();
        let candidates = if with_leader.is_empty() {
            all
        } else {
            with_leader
        };
        let partition = *candidates.choose(&mut rand::rng())?;
        self.sticky
            .insert(Arc::clone(name), Sticky { partition, bytes });
        Some(partition)
    }
}

/// The partition of a key, as Kafka's Java client computes it.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> Option<i32> {
    if partitions <= 0 {
        return None;
    }
    to_positive(murmur2(key)).checked_rem(partitions)
}

const fn to_positive(hash: i32) -> i32 {
    hash & 0x7fff_ffff
}

/// MurmurHash2 with Kafka's seed.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word
            .first_chunk::<4>()
            .map_or(0, |bytes| u32::from_le_bytes(*bytes));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash.cast_signed()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ottla_types::BrokerId;

    use super::*;
    use crate::metadata::Partition;

    #[test]
    fn keys_hash_as_in_kafkas_own_tests() {
        // The vectors of Kafka's UtilsTest.
        let vectors: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    fn topic(leaders: &[bool]) -> Topic {
        let partitions = leaders.iter().enumerate().map(|(index, led)| {
            let partition = Partition {
                leader: led.then_some(BrokerId(1)),
                leader_epoch: Some(0),
                replicas: Vec::new(),
                isr: Vec::new(),
                offline_replicas: Vec::new(),
            };
            (i32::try_from(index).unwrap(), partition)
        });
        Topic {
            id: None,
            is_internal: false,
            error: None,
            partitions: partitions.collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn records_without_a_key_stay_for_a_stretch_and_avoid_partitions_without_a_leader() {
        let mut partitioner = Partitioner::default();
        let (name, topic) = (Arc::from("t"), topic(&[true, false, true, true]));
        let mut seen = BTreeSet::new();
        for _ in 0..200 {
            let first = partitioner.choose(&name, &topic, None, 40, 100).unwrap();
            let second = partitioner.choose(&name, &topic, None, 40, 100).unwrap();
            let third = partitioner.choose(&name, &topic, None, 40, 100).unwrap();
            assert!(first == second && second == third);
            seen.insert(first);
        }
        assert_eq!(seen, BTreeSet::from([0, 2, 3]));
    }

    #[test]
    fn keys_keep_their_partition_whether_it_has_a_leader_or_not() {
        let mut partitioner = Partitioner::default();
        let (name, topic) = (Arc::from("t"), topic(&[false, false, true]));
        let chosen = partitioner.choose(&name, &topic, Some(b"abc"), 40, 100);
        assert_eq!(chosen, Some(479_470_107 % 3));
        assert_eq!(chosen, partition_for_key(b"abc", 3));
    }
}
