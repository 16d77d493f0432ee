//! How partitions are divided among the members of a group, as Kafka's own assignors do it.

mod sticky;

use std::{collections::BTreeMap, sync::Arc};

use crate::metadata::TopicPartition;

/// A way to divide partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// Of each topic a range to each member.
    Range,
    /// All partitions dealt out one by one.
    RoundRobin,
    /// Even, moving as little as possible; what moves is given up first and assigned in the round
    /// after (KIP-429).
    CooperativeSticky,
}

impl Assignor {
    /// The name that members vote for.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::RoundRobin => "roundrobin",
            Assignor::CooperativeSticky => "cooperative-sticky",
        }
    }

    /// Whether members keep their partitions through a rebalance.
    #[must_use]
    pub const fn is_cooperative(self) -> bool {
        matches!(self, Assignor::CooperativeSticky)
    }

    pub(super) fn assign(self, members: &[Member], partitions: &Counts) -> Assignments {
        let mut sorted: Vec<&Member> = members.iter().collect();
        sorted.sort_by(|a, b| a.rank().cmp(&b.rank()));
        match self {
            Assignor::Range => range(&sorted, partitions),
            Assignor::RoundRobin => round_robin(&sorted, partitions),
            Assignor::CooperativeSticky => sticky::assign(&sorted, partitions),
        }
    }
}

/// Number of partitions of each topic.
pub(super) type Counts = BTreeMap<Arc<str>, i32>;
/// Partitions of each member.
pub(super) type Assignments = BTreeMap<String, Vec<TopicPartition>>;

/// A member as it described itself when joining.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) owned: Vec<TopicPartition>,
    /// The generation in which it got what it owns; -1 if it does not say.
    pub(super) generation: i32,
}

impl Member {
    /// Static members come first, by their instance.
    fn rank(&self) -> (bool, &str) {
        match &self.instance_id {
            Some(instance) => (false, instance),
            None => (true, &self.id),
        }
    }

    fn subscribes(&self, topic: &str) -> bool {
        self.topics.iter().any(|own| **own == *topic)
    }
}

fn empty(members: &[&Member]) -> Assignments {
    members
        .iter()
        .map(|member| (member.id.clone(), Vec::new()))
        .collect()
}

fn range(members: &[&Member], partitions: &Counts) -> Assignments {
    let mut assignments = empty(members);
    for (topic, count) in partitions {
        let takers: Vec<&&Member> = members.iter().filter(|m| m.subscribes(topic)).collect();
        let Ok(number) = i32::try_from(takers.len()) else {
            continue;
        };
        if number == 0 {
            continue;
        }
        let (each, more) = (count / number, count % number);
        let mut next = 0;
        for (place, taker) in (0..).zip(takers) {
            let end = next + each + i32::from(place < more);
            let taken = (next..end).map(|index| TopicPartition::new(Arc::clone(topic), index));
            assignments
                .entry(taker.id.clone())
                .or_default()
                .extend(taken);
            next = end;
        }
    }
    assignments
}

fn round_robin(members: &[&Member], partitions: &Counts) -> Assignments {
    let mut assignments = empty(members);
    let mut turn = members.iter().cycle();
    for (topic, count) in partitions {
        if !members.iter().any(|member| member.subscribes(topic)) {
            continue;
        }
        for index in 0..*count {
            // Somebody subscribes: the search ends within one turn.
            let taker = turn
                .by_ref()
                .take(members.len())
                .find(|member| member.subscribes(topic));
            if let Some(taker) = taker {
                let partition = TopicPartition::new(Arc::clone(topic), index);
                assignments
                    .entry(taker.id.clone())
                    .or_default()
                    .push(partition);
            }
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn member(id: &str, topics: &[&str], owned: &[(&str, i32)]) -> Member {
        Member {
            id: id.to_owned(),
            instance_id: None,
            topics: topics.iter().map(|topic| Arc::from(*topic)).collect(),
            owned: owned
                .iter()
                .map(|(topic, index)| TopicPartition::new(*topic, *index))
                .collect(),
            generation: 1,
        }
    }

    pub(super) fn counts(topics: &[(&str, i32)]) -> Counts {
        topics
            .iter()
            .map(|(topic, count)| (Arc::from(*topic), *count))
            .collect()
    }

    pub(super) fn shown(assignments: &Assignments) -> Vec<String> {
        let row = |(id, partitions): (&String, &Vec<TopicPartition>)| {
            let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{id}: {}", names.join(" "))
        };
        assignments.iter().map(row).collect()
    }

    #[test]
    fn range_gives_neighbours_and_the_rest_to_the_first() {
        let members = [member("b", &["t", "u"], &[]), member("a", &["t"], &[])];
        let got = Assignor::Range.assign(&members, &counts(&[("t", 3), ("u", 2), ("v", 9)]));
        assert_eq!(shown(&got), ["a: t-0 t-1", "b: t-2 u-0 u-1"]);
    }

    #[test]
    fn round_robin_deals_all_topics_in_one_turn() {
        let members = [member("a", &["t", "u"], &[]), member("b", &["t"], &[])];
        let got = Assignor::RoundRobin.assign(&members, &counts(&[("t", 3), ("u", 2)]));
        assert_eq!(shown(&got), ["a: t-0 t-2 u-0 u-1", "b: t-1"]);
    }

    #[test]
    fn static_members_are_ranked_by_their_instance() {
        let mut first = member("z", &["t"], &[]);
        first.instance_id = Some("1".to_owned());
        let members = [member("a", &["t"], &[]), first];
        let got = Assignor::Range.assign(&members, &counts(&[("t", 3)]));
        assert_eq!(shown(&got), ["a: t-2", "z: t-0 t-1"]);
    }
}
