//! The cluster's own identity, and the ids it hands out.

use std::collections::BTreeMap;

use ottla_types::{BrokerEpoch, BrokerId, ProducerId};

use super::Draft;
use crate::{CommandError, Outcome, Record};

/// Producer ids in one block (C-11).
pub const PRODUCER_ID_BLOCK: i32 = 1000;

impl Draft<'_> {
    pub(super) fn bootstrap(
        &mut self,
        cluster_id: &str,
        features: &BTreeMap<String, i16>,
    ) -> Outcome {
        match &self.image.cluster_id {
            // A retry of the proposal that founded the cluster.
            Some(ours) if ours == cluster_id => return Outcome::Done,
            Some(ours) => {
                let expected = ours.clone();
                return Outcome::Refused(CommandError::InconsistentClusterId { expected });
            }
            None => {}
        }
        if cluster_id.is_empty() {
            let reason = "the cluster id is empty".to_owned();
            return Outcome::Refused(CommandError::InvalidRequest(reason));
        }
        if let Some((name, level)) = features.iter().find(|&(_, &level)| level < 0) {
            let reason = format!("feature {name} cannot have level {level}");
            return Outcome::Refused(CommandError::InvalidRequest(reason));
        }
        self.emit(Record::Cluster {
            cluster_id: cluster_id.to_owned(),
        });
        for (name, &level) in features {
            self.emit(Record::Feature {
                name: name.clone(),
                level,
            });
        }
        Outcome::Done
    }

    pub(super) fn allocate_producer_ids(
        &mut self,
        broker_id: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Outcome {
        if self
            .image
            .broker(broker_id)
            .is_none_or(|broker| broker.epoch != broker_epoch)
        {
            return Outcome::Refused(CommandError::StaleBrokerEpoch);
        }
        let first = self.image.next_producer_id;
        let Some(next) = first.get().checked_add(i64::from(PRODUCER_ID_BLOCK)) else {
            let reason = "every producer id has been handed out".to_owned();
            return Outcome::Refused(CommandError::PolicyViolation(reason));
        };
        self.emit(Record::ProducerIds {
            next: ProducerId(next),
        });
        Outcome::ProducerIds {
            first,
            count: PRODUCER_ID_BLOCK,
        }
    }
}
