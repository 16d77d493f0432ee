//! What a partition shows of itself: its view, its marks for the checkpoints, its epochs.

use std::sync::Arc;

use ottla_metadata::{Image, LogReport, PartitionRecord};
use ottla_replication::{Role, lineage, lineage::EpochStart};
use ottla_storage::{Log, PartitionMarks};

use crate::{api::ReplicaRole, shard::env::Env};

use super::{Partition, view::View};

impl Partition {
    pub(super) fn publish(&self) {
        let marks = self.replica.marks();
        let leader = self.replica.leader();
        let role = match self.replica.role() {
            Role::Offline => ReplicaRole::Offline,
            Role::Leader(_) => ReplicaRole::Leader,
            Role::Follower(_) => ReplicaRole::Follower,
        };
        let previous = self.handle.view.load();
        let isr = match leader {
            Some(leader) => {
                let isr = leader.isr();
                if previous.isr[..] == isr[..] {
                    Arc::clone(&previous.isr)
                } else {
                    isr.into()
                }
            }
            None if previous.isr.is_empty() => Arc::clone(&previous.isr),
            None => Arc::from([]),
        };
        self.handle.view.store(Arc::new(View {
            role,
            failed: self.log.is_none(),
            leader: self.leader_hint,
            leader_epoch: self.replica.leader_epoch().unwrap_or_default(),
            epoch_start_offset: leader.map(|leader| leader.epoch_start_offset()),
            log_start_offset: marks.log_start_offset,
            high_watermark: self.replica.high_watermark(),
            log_end_offset: marks.log_end_offset,
            flushed_offset: marks.flushed_offset,
            size_bytes: self.log.as_ref().map_or(0, Log::size_bytes),
            epochs: Arc::clone(&self.epochs),
            isr,
            replica_count: leader.map_or(0, |leader| leader.replicas().len()),
            min_isr: leader.map_or(1, |leader| leader.min_isr()),
            reader: self.log.as_ref().map(Log::reader),
        }));
    }

    pub(crate) fn marks(&self) -> Option<PartitionMarks> {
        let log = self.log.as_ref()?;
        Some(PartitionMarks {
            topic: self.topic.to_string(),
            id: self.id,
            recovery_point: log.flushed_offset(),
            log_start_offset: log.log_start_offset(),
            high_watermark: self.replica.high_watermark(),
        })
    }

    /// Tells the controller how long this log is, if it cannot name a leader before it knows.
    pub(super) fn report_log(&self, env: &Env, image: &Image, record: &PartitionRecord) {
        let Some(broker_epoch) = image.broker(env.broker_id).map(|broker| broker.epoch) else {
            return;
        };
        let said = record
            .reported_logs
            .iter()
            .any(|log| log.broker_id == env.broker_id && log.broker_epoch == broker_epoch);
        if said || self.log.is_none() || !image.asks_for_log(&self.topic, record, env.broker_id) {
            return;
        }
        let marks = self.replica.marks();
        let last_epoch =
            lineage::last_record_epoch(&self.epochs, marks.log_start_offset, marks.log_end_offset);
        env.proposer.logs.report(LogReport {
            id: self.id,
            last_epoch,
            log_end_offset: marks.log_end_offset,
        });
    }

    pub(super) fn drop_empty_epochs(&mut self, env: &Env) {
        let Some(log) = self.log.as_mut() else { return };
        let end = log.log_end_offset();
        let empty = log
            .epochs()
            .entries()
            .last()
            .is_some_and(|entry| entry.start_offset >= end);
        if empty && let Err(error) = log.truncate_to(end) {
            self.on_log_error(env, &error);
            return;
        }
        self.refresh_epochs();
    }

    pub(super) fn refresh_epochs(&mut self) {
        let Some(log) = self.log.as_ref() else { return };
        let known = &self.epochs;
        let entries = log.epochs().entries();
        let same = entries.len() == known.len()
            && entries
                .iter()
                .zip(known.iter())
                .all(|(entry, (epoch, start))| {
                    entry.epoch == *epoch && entry.start_offset == *start
                });
        if !same {
            self.epochs = epoch_starts(log);
            self.dirty = true;
        }
    }
}

pub(super) fn epoch_starts(log: &Log) -> Arc<[EpochStart]> {
    log.epochs()
        .entries()
        .iter()
        .map(|entry| (entry.epoch, entry.start_offset))
        .collect()
}
