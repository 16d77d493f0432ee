//! Which partitions are hosted, and when they begin and cease to coordinate.

use tracing::{info, warn};

use ottla_metadata::Image;
use ottla_types::{LeaderEpoch, PartitionId, PartitionIndex};

use crate::{ReplicaRole, ReplicaStatus};

use super::{
    OFFSETS_TOPIC,
    hosted::{Hosted, Role},
    owner::Owner,
    topics::{ImageTopics, any_deleted},
};

impl Owner {
    /// Takes note of a new image.
    pub(super) fn on_image(&mut self) {
        let image = self.log.image();
        let older = std::mem::replace(&mut self.image, image);
        self.host_local_replicas();
        self.refresh_roles();
        if any_deleted(&older, &self.image) {
            let image = self.image.clone();
            for (index, hosted) in &mut self.partitions {
                if matches!(hosted.role, Role::Active(_)) {
                    hosted.coordinator.on_topics_changed(&ImageTopics(&image));
                    self.touched.insert(*index);
                }
            }
        }
    }

    fn host_local_replicas(&mut self) {
        let local = local_partitions(&self.image, self.broker_id);
        let gone: Vec<PartitionIndex> = self
            .partitions
            .iter()
            .filter(|(_, hosted)| !local.contains(&hosted.id))
            .map(|(index, _)| *index)
            .collect();
        for index in gone {
            if let Some(mut hosted) = self.partitions.remove(&index) {
                hosted.deactivate();
                self.deliver_replies(&mut hosted);
            }
        }
        for id in local {
            let rules = self.config.rules();
            self.partitions
                .entry(id.partition)
                .or_insert_with(|| Hosted::new(id, rules));
        }
    }

    /// Compares what each partition is with what it should be.
    pub(super) fn refresh_roles(&mut self) {
        let indexes: Vec<PartitionIndex> = self.partitions.keys().copied().collect();
        for index in indexes {
            self.refresh_role(index);
        }
    }

    pub(super) fn refresh_role(&mut self, index: PartitionIndex) {
        let Some(hosted) = self.partitions.get_mut(&index) else {
            return;
        };
        let status = self.log.replica_status(hosted.id);
        if status.is_some() && hosted.position().is_none() && !hosted.is_reading {
            hosted.is_reading = true;
            let id = hosted.id;
            self.read_checkpoint(id);
        }
        let Some(hosted) = self.partitions.get_mut(&index) else {
            return;
        };
        let leads = status
            .as_ref()
            .and_then(|status| leading_epoch(&self.image, hosted.id, self.broker_id, status));
        match (hosted.role, leads) {
            (Role::Active(epoch), Some(current)) if epoch == current => return,
            (Role::Active(_), _) => {
                info!(partition = %index, "no longer coordinates");
                hosted.deactivate();
                self.touched.insert(index);
            }
            (Role::Standby | Role::Loading(_), _) => {}
        }
        match leads {
            None => hosted.role = Role::Standby,
            Some(epoch) => {
                hosted.role = Role::Loading(epoch);
                if status.is_some_and(|status| is_loaded(hosted, &status)) {
                    hosted.activate(self.clock.now(), epoch);
                    let groups = hosted.coordinator.list().count();
                    info!(partition = %index, leader_epoch = %epoch, groups, "coordinates");
                    // Topics may have been deleted while nobody coordinated.
                    hosted
                        .coordinator
                        .on_topics_changed(&ImageTopics(&self.image));
                    self.touched.insert(index);
                }
            }
        }
    }

    /// The position is not in the local log any more.
    pub(super) fn on_out_of_range(
        &mut self,
        index: PartitionIndex,
        log_start: ottla_types::Offset,
    ) {
        let rules = self.config.rules();
        let Some(hosted) = self.partitions.get_mut(&index) else {
            return;
        };
        let Some(position) = hosted.position() else {
            return;
        };
        let log_end = self
            .log
            .replica_status(hosted.id)
            .map(|status| status.log_end_offset);
        // A new leader's high watermark may lag behind what was folded: that passes.
        let lost = position.offset < log_start || log_end.is_some_and(|end| end < position.offset);
        if lost {
            warn!(partition = %index, offset = %position.offset, %log_start, "log lost folded records");
            hosted.deactivate();
            self.touched.insert(index);
            self.flush_replies(index);
            if let Some(hosted) = self.partitions.get_mut(&index) {
                hosted.reset(rules, log_start);
            }
        }
    }

    /// The local log's history is another than the one that was folded.
    pub(super) fn on_diverged(&mut self, index: PartitionIndex) {
        let rules = self.config.rules();
        warn!(partition = %index, "log diverged from folded records");
        if let Some(hosted) = self.partitions.get_mut(&index) {
            hosted.deactivate();
        }
        self.flush_replies(index);
        if let Some(hosted) = self.partitions.get_mut(&index)
            && let Some(status) = self.log.replica_status(hosted.id)
        {
            hosted.reset(rules, status.log_start_offset);
        }
    }
}

fn local_partitions(image: &Image, broker_id: ottla_types::BrokerId) -> Vec<PartitionId> {
    let Some(topic) = image.topic(OFFSETS_TOPIC) else {
        return Vec::new();
    };
    topic
        .partitions
        .iter()
        .filter(|(_, record)| record.replicas.contains(&broker_id))
        .map(|(index, _)| PartitionId {
            topic_id: topic.topic_id,
            partition: *index,
        })
        .collect()
}

/// The epoch in which this broker leads, if image and replica agree that it does.
fn leading_epoch(
    image: &Image,
    id: PartitionId,
    broker_id: ottla_types::BrokerId,
    status: &ReplicaStatus,
) -> Option<LeaderEpoch> {
    let record = image.partition(id)?;
    let leads = record.leader == Some(broker_id)
        && status.role == ReplicaRole::Leader
        && status.leader_epoch == record.leader_epoch;
    leads.then_some(record.leader_epoch)
}

/// Everything of earlier epochs is known to be committed, and all that is committed is folded (G-6).
fn is_loaded(hosted: &Hosted, status: &ReplicaStatus) -> bool {
    match (status.epoch_start_offset, hosted.position()) {
        (Some(start), Some(position)) => {
            let committed = status.high_watermark;
            hosted.fits_log() && committed >= start && position.offset >= committed
        }
        _ => false,
    }
}
