//! Where the replicas of new partitions go: round robin over a ring of brokers in which racks
//! alternate, so that leaders spread evenly and the replicas of one partition over racks.
//!
//! # Invariants
//! * The brokers of one partition are distinct and its first one is active.
//! * An active broker is preferred to another one, but a rack of its own to both.

use std::collections::{BTreeMap, BTreeSet};

use ottla_types::BrokerId;

use crate::Image;

/// The brokers that may take replicas.
#[derive(Debug)]
pub(crate) struct Placement<'a> {
    /// Racks alternate; active brokers only.
    active: Vec<Site<'a>>,
    /// The same of those that are fenced or on their way out.
    passive: Vec<Site<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Site<'a> {
    broker: BrokerId,
    rack: Option<&'a str>,
}

impl<'a> Placement<'a> {
    /// Every registered broker is a site; those in `active` can lead at once.
    pub(crate) fn new(image: &'a Image, active: &BTreeSet<BrokerId>) -> Placement<'a> {
        let sites = |wanted: bool| {
            let brokers = image.brokers.values();
            let chosen = brokers.filter(|broker| active.contains(&broker.broker_id) == wanted);
            ring(chosen.map(|broker| Site {
                broker: broker.broker_id,
                rack: broker.rack.as_deref(),
            }))
        };
        Placement {
            active: sites(true),
            passive: sites(false),
        }
    }

    /// How many replicas one partition can have.
    pub(crate) fn capacity(&self) -> usize {
        self.active.len() + self.passive.len()
    }

    /// Whether a leader could be placed at all.
    pub(crate) fn can_lead(&self) -> bool {
        !self.active.is_empty()
    }

    /// Places `count` partitions of `replicas` each. The caller has checked both against
    /// [`Placement::capacity`] and [`Placement::can_lead`].
    pub(crate) fn place(&self, seed: u64, count: usize, replicas: usize) -> Vec<Vec<BrokerId>> {
        let ring = self.active.len();
        if ring == 0 {
            return Vec::new();
        }
        let start = remainder(seed, ring);
        let first_shift = remainder(seed / 7919, ring);
        let mut placed = Vec::with_capacity(count);
        for partition in 0..count {
            let leader = (start + partition) % ring;
            // Each lap pairs a leader with other followers than the lap before.
            let shift = first_shift + partition / ring;
            placed.push(self.place_one(leader, shift, replicas));
        }
        placed
    }

    fn place_one(&self, leader: usize, shift: usize, replicas: usize) -> Vec<BrokerId> {
        let leader_site = self.active[leader];
        let mut chosen = vec![leader_site.broker];
        let mut racks: BTreeSet<&str> = leader_site.rack.into_iter().collect();
        let after = rotated(&self.active, leader + 1, self.active.len() - 1);
        let active = rotated(&after, shift, after.len());
        let passive = rotated(&self.passive, leader + shift, self.passive.len());
        while chosen.len() < replicas {
            let free = |site: &&Site<'_>| !chosen.contains(&site.broker);
            let apart = |site: &&Site<'_>| site.rack.is_none_or(|rack| !racks.contains(rack));
            let next = active.iter().filter(free).find(apart);
            let next = next.or_else(|| passive.iter().filter(free).find(apart));
            let next = next.or_else(|| active.iter().find(free));
            let Some(next) = next.or_else(|| passive.iter().find(free)) else {
                break;
            };
            racks.extend(next.rack);
            chosen.push(next.broker);
        }
        chosen
    }
}

/// Orders brokers so that neighbours are in different racks as far as possible. A broker without
/// a rack stands for one of its own.
fn ring<'a>(sites: impl Iterator<Item = Site<'a>>) -> Vec<Site<'a>> {
    let mut racks: BTreeMap<(Option<&str>, Option<BrokerId>), Vec<Site<'a>>> = BTreeMap::new();
    for site in sites {
        let alone = site.rack.is_none().then_some(site.broker);
        racks.entry((site.rack, alone)).or_default().push(site);
    }
    let longest = racks.values().map(Vec::len).max().unwrap_or(0);
    let rounds =
        (0..longest).flat_map(|round| racks.values().filter_map(move |rack| rack.get(round)));
    rounds.copied().collect()
}

fn rotated<'a>(sites: &[Site<'a>], start: usize, count: usize) -> Vec<Site<'a>> {
    let start = if sites.is_empty() {
        0
    } else {
        start % sites.len()
    };
    sites
        .iter()
        .cycle()
        .skip(start)
        .take(count)
        .copied()
        .collect()
}

fn remainder(seed: u64, divisor: usize) -> usize {
    let divisor = u64::try_from(divisor).unwrap_or(u64::MAX).max(1);
    usize::try_from(seed % divisor).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement<'a>(
        active: &[(i32, Option<&'a str>)],
        passive: &[(i32, Option<&'a str>)],
    ) -> Placement<'a> {
        let sites = |all: &[(i32, Option<&'a str>)]| {
            ring(all.iter().map(|&(id, rack)| Site {
                broker: BrokerId(id),
                rack,
            }))
        };
        Placement {
            active: sites(active),
            passive: sites(passive),
        }
    }

    fn leaders(placed: &[Vec<BrokerId>]) -> BTreeMap<BrokerId, usize> {
        let mut count = BTreeMap::new();
        for replicas in placed {
            *count.entry(replicas[0]).or_default() += 1;
        }
        count
    }

    #[test]
    fn leaders_and_replicas_spread_evenly() {
        let sites: Vec<_> = (1..=5).map(|id| (id, None)).collect();
        for seed in 0..40 {
            let placed = placement(&sites, &[]).place(seed, 100, 3);
            assert!(
                leaders(&placed).values().all(|&led| led == 20),
                "seed {seed}"
            );
            let mut held: BTreeMap<BrokerId, usize> = BTreeMap::new();
            for replicas in &placed {
                let distinct: BTreeSet<_> = replicas.iter().collect();
                assert_eq!(distinct.len(), 3);
                for &replica in replicas {
                    *held.entry(replica).or_default() += 1;
                }
            }
            assert!(
                held.values().all(|&count| (55..=65).contains(&count)),
                "{seed} {held:?}"
            );
        }
    }

    #[test]
    fn the_replicas_of_a_partition_are_in_different_racks() {
        let racks = [
            (1, Some("a")),
            (2, Some("a")),
            (3, Some("b")),
            (4, Some("b")),
            (5, Some("c")),
        ];
        let rack_of: BTreeMap<_, _> = racks
            .iter()
            .map(|&(id, rack)| (BrokerId(id), rack))
            .collect();
        for replicas in placement(&racks, &[]).place(3, 50, 3) {
            let used: BTreeSet<_> = replicas.iter().map(|replica| rack_of[replica]).collect();
            assert_eq!(used.len(), 3, "{replicas:?}");
        }
    }

    #[test]
    fn brokers_out_of_service_come_last_and_never_first() {
        for seed in 0..10 {
            let sites = placement(&[(1, None), (2, None)], &[(3, None)]);
            for replicas in sites.place(seed, 8, 2) {
                assert!(!replicas.contains(&BrokerId(3)));
            }
            for replicas in sites.place(seed, 8, 3) {
                assert_eq!(replicas.last(), Some(&BrokerId(3)));
            }
        }
    }

    #[test]
    fn one_broker_is_enough_for_one_replica() {
        assert_eq!(
            placement(&[(4, None)], &[]).place(9, 2, 1),
            vec![vec![BrokerId(4)]; 2]
        );
    }
}
