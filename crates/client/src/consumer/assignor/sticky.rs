//! Even and sticky: who has a partition keeps it unless that makes the division uneven.
//!
//! # Invariants
//! * A partition that somebody owns is never assigned to another member in the same round: it is
//!   given up first (KIP-429).
//! * Loads of members that may take the same partitions differ by one at most, once what moves has
//!   moved.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Assignments, Counts, Member};
use crate::metadata::TopicPartition;

pub(super) fn assign(members: &[&Member], counts: &Counts) -> Assignments {
    let owners = owners(members, counts);
    let mut plan = Plan {
        members,
        loads: members.iter().map(|_| BTreeSet::new()).collect(),
    };
    let mut free = Vec::new();
    for (topic, count) in counts {
        for index in 0..*count {
            let partition = TopicPartition::new(Arc::clone(topic), index);
            match owners.get(&partition) {
                Some(owner) => plan.give(*owner, partition),
                None => free.push(partition),
            }
        }
    }
    for partition in free {
        if let Some(taker) = plan.least_loaded(&partition.topic) {
            plan.give(taker, partition);
        }
    }
    while plan.move_one() {}
    plan.without_what_others_own(&owners)
}

/// Who owns what: the claim of the latest generation counts, and none if two are equal.
fn owners(members: &[&Member], counts: &Counts) -> BTreeMap<TopicPartition, usize> {
    let mut claims: BTreeMap<TopicPartition, (i32, Option<usize>)> = BTreeMap::new();
    for (place, member) in members.iter().enumerate() {
        for partition in &member.owned {
            let exists = counts
                .get(&partition.topic)
                .is_some_and(|count| (0..*count).contains(&partition.partition));
            if !exists || !member.subscribes(&partition.topic) {
                continue;
            }
            let claim = (member.generation, Some(place));
            let best = claims.entry(partition.clone()).or_insert(claim);
            if member.generation > best.0 {
                *best = claim;
            } else if member.generation == best.0 && best.1 != Some(place) {
                best.1 = None;
            }
        }
    }
    let sure = |(partition, (_, owner)): (TopicPartition, (i32, Option<usize>))| {
        owner.map(|owner| (partition, owner))
    };
    claims.into_iter().filter_map(sure).collect()
}

struct Plan<'a> {
    members: &'a [&'a Member],
    loads: Vec<BTreeSet<TopicPartition>>,
}

impl Plan<'_> {
    fn give(&mut self, taker: usize, partition: TopicPartition) {
        if let Some(load) = self.loads.get_mut(taker) {
            load.insert(partition);
        }
    }

    fn load(&self, place: usize) -> usize {
        self.loads.get(place).map_or(0, BTreeSet::len)
    }

    fn least_loaded(&self, topic: &str) -> Option<usize> {
        let takers = self
            .members
            .iter()
            .enumerate()
            .filter(|(_, m)| m.subscribes(topic));
        takers
            .map(|(place, _)| place)
            .min_by_key(|place| self.load(*place))
    }

    /// Moves one partition from a member to one that has at least two less; false if there is none.
    /// Every move makes the sum of squared loads smaller, so this ends.
    fn move_one(&mut self) -> bool {
        let mut by_load: Vec<usize> = (0..self.members.len()).collect();
        by_load.sort_by_key(|place| std::cmp::Reverse(self.load(*place)));
        for giver in by_load {
            let Some(load) = self.loads.get(giver) else {
                continue;
            };
            // The last ones move: the first stay where they are from round to round.
            for partition in load.iter().rev() {
                let Some(taker) = self.least_loaded(&partition.topic) else {
                    continue;
                };
                if self.load(taker) + 1 < load.len() {
                    let partition = partition.clone();
                    if let Some(load) = self.loads.get_mut(giver) {
                        load.remove(&partition);
                    }
                    self.give(taker, partition);
                    return true;
                }
            }
        }
        false
    }

    fn without_what_others_own(self, owners: &BTreeMap<TopicPartition, usize>) -> Assignments {
        // Somebody may own it even if the claim does not count: then nobody gets it this round.
        let claimed: BTreeMap<&TopicPartition, Vec<usize>> = {
            let mut claimed: BTreeMap<&TopicPartition, Vec<usize>> = BTreeMap::new();
            for (place, member) in self.members.iter().enumerate() {
                for partition in &member.owned {
                    claimed.entry(partition).or_default().push(place);
                }
            }
            claimed
        };
        let is_free_for = |partition: &TopicPartition, place: usize| {
            let by_another = claimed
                .get(partition)
                .is_some_and(|by| by.iter().any(|other| *other != place));
            // An outdated claim does not hinder the owner of the latest generation.
            owners.get(partition) == Some(&place) || !by_another
        };
        let members = self.members.iter().zip(self.loads).enumerate();
        members
            .map(|(place, (member, load))| {
                let kept = load
                    .into_iter()
                    .filter(|partition| is_free_for(partition, place));
                (member.id.clone(), kept.collect())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Assignor,
        tests::{counts, member, shown},
    };
    use super::*;

    fn round(members: &[Member], counts: &Counts) -> Vec<String> {
        shown(&Assignor::CooperativeSticky.assign(members, counts))
    }

    #[test]
    fn a_newcomer_gets_its_share_in_two_rounds() {
        let counts = counts(&[("t", 4)]);
        let mut members = vec![
            member("a", &["t"], &[("t", 0), ("t", 1), ("t", 2), ("t", 3)]),
            member("b", &["t"], &[]),
        ];
        assert_eq!(round(&members, &counts), ["a: t-0 t-1", "b: "]);
        members[0] = member("a", &["t"], &[("t", 0), ("t", 1)]);
        assert_eq!(round(&members, &counts), ["a: t-0 t-1", "b: t-2 t-3"]);
    }

    #[test]
    fn who_is_left_keeps_what_it_has() {
        let members = [
            member("a", &["t"], &[("t", 1), ("t", 4)]),
            member("c", &["t"], &[("t", 0), ("t", 5)]),
        ];
        let got = round(&members, &counts(&[("t", 6)]));
        assert_eq!(got, ["a: t-1 t-2 t-4", "c: t-0 t-3 t-5"]);
    }

    #[test]
    fn the_claim_of_the_latest_generation_counts() {
        let mut stale = member("a", &["t"], &[("t", 0), ("t", 1)]);
        stale.generation = 0;
        let members = [stale, member("b", &["t"], &[("t", 0)])];
        assert_eq!(round(&members, &counts(&[("t", 2)])), ["a: t-1", "b: t-0"]);
    }

    #[test]
    fn equal_claims_are_given_up_by_both() {
        let members = [
            member("a", &["t"], &[("t", 0)]),
            member("b", &["t"], &[("t", 0)]),
        ];
        assert_eq!(round(&members, &counts(&[("t", 1)])), ["a: ", "b: "]);
    }

    #[test]
    fn different_subscriptions_are_balanced_as_far_as_they_allow() {
        let members = [
            member("a", &["t", "u"], &[("t", 0), ("t", 1), ("u", 0), ("u", 1)]),
            member("b", &["u"], &[]),
        ];
        assert_eq!(
            round(&members, &counts(&[("t", 2), ("u", 2)])),
            ["a: t-0 t-1", "b: "]
        );
    }
}
