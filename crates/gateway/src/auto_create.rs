//! Topics created because a client asked about them (`auto.create.topics.enable`).
//!
//! The creation runs beside the request that caused it: the client is told that the topic is
//! unknown, and finds it when it asks again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use ottla_metadata::{Command, CreateTopic};
use ottla_types::TopicId;

use crate::{context::Shared, topic_names};

/// How many creations may run at once; more are refused until the client asks again.
const RUNNING_MAX: usize = 100;

/// The creations that are running.
#[derive(Debug, Default)]
pub(crate) struct AutoCreate {
    running: Mutex<BTreeSet<String>>,
}

impl AutoCreate {
    /// Starts creating a topic unless that is already going on.
    pub(crate) fn start(shared: &Arc<Shared>, name: &str, deadline: Instant) {
        {
            let mut running = shared.auto_create.running.lock();
            if running.len() >= RUNNING_MAX || !running.insert(name.to_owned()) {
                return;
            }
        }
        let (shared, name) = (Arc::clone(shared), name.to_owned());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            create(&shared, &name, deadline).await;
            shared.auto_create.running.lock().remove(&name);
        });
    }
}

async fn create(shared: &Shared, name: &str, deadline: Instant) {
    if name == topic_names::OFFSETS_TOPIC {
        // The group coordinator creates its topic with the configs that it needs.
        let found = shared
            .broker
            .groups()
            .find_coordinator(name, deadline)
            .await;
        tracing::debug!(?found, "internal topic asked for by name");
        return;
    }
    let topics = &shared.config.server.topics;
    let command = Command::CreateTopics {
        topics: vec![CreateTopic {
            name: name.to_owned(),
            topic_id: fresh_topic_id(),
            partitions: Some(topics.num_partitions),
            replication_factor: topics.default_replication_factor,
            assignments: BTreeMap::new(),
            configs: BTreeMap::new(),
            seed: rand::random(),
        }],
        validate_only: false,
        live: BTreeSet::new(),
    };
    match shared.broker.execute(command, deadline).await {
        Ok((_, outcome)) => tracing::info!(topic = name, ?outcome, "topic created automatically"),
        Err(error) => tracing::warn!(topic = name, %error, "create topic automatically"),
    }
}

/// A random topic id; never zero, nor the one that Kafka keeps for its metadata log.
pub(crate) fn fresh_topic_id() -> TopicId {
    loop {
        let uuid = Uuid::new_v4();
        // Ids that print with a leading dash are mistaken for options by Kafka's tools.
        if uuid.as_u128() >> 122 != 62
            && let Some(id) = TopicId::new(uuid)
        {
            return id;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_ids_do_not_look_like_options() {
        for _ in 0..1000 {
            assert!(!fresh_topic_id().to_string().starts_with('-'));
        }
    }
}
