//! How many groups of which kind are coordinated here.

use ottla_coordinator::{Coordinator, GroupState};

use super::{hosted::Role, owner::Owner};

/// Groups and offsets of the partitions that this broker coordinates, as last counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupNumbers {
    /// Groups in any state.
    pub groups: usize,
    /// Those that wait for members to join.
    pub preparing_rebalance: usize,
    /// Those that wait for an assignment.
    pub completing_rebalance: usize,
    /// Those whose members have their assignments.
    pub stable: usize,
    /// Those that are being removed.
    pub dead: usize,
    /// Those without members.
    pub empty: usize,
    /// Stored offsets.
    pub offsets: usize,
}

impl GroupNumbers {
    pub(super) fn add(&mut self, coordinator: &Coordinator) {
        self.offsets += coordinator.committed().offset_count();
        for state in coordinator.states() {
            self.groups += 1;
            let of_state = match state {
                GroupState::Empty => &mut self.empty,
                GroupState::PreparingRebalance => &mut self.preparing_rebalance,
                GroupState::CompletingRebalance => &mut self.completing_rebalance,
                GroupState::Stable => &mut self.stable,
                GroupState::Dead => &mut self.dead,
            };
            *of_state += 1;
        }
    }
}

impl Owner {
    /// Counts what is shown to others.
    pub(super) fn count_groups(&self) {
        let mut numbers = GroupNumbers::default();
        for hosted in self.partitions.values() {
            if matches!(hosted.role, Role::Active(_)) {
                numbers.add(&hosted.coordinator);
            }
        }
        *self.numbers.lock() = numbers;
    }
}
