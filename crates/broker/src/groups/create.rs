//! The internal topic comes into being when somebody first looks for a coordinator.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;
use tracing::{info, warn};
use uuid::Uuid;

use ottla_metadata::{Command, CommandError, CreateTopic, Outcome};
use ottla_types::TopicId;

use super::{GroupsConfig, OFFSETS_TOPIC, OffsetsLog};

/// Lets one request at a time ask the controller; the others tell their clients to come again.
#[derive(Debug, Default)]
pub(super) struct TopicCreation {
    under_way: AtomicBool,
}

impl TopicCreation {
    /// Creates the topic and waits until this broker knows of it. True if it may exist now.
    pub(super) async fn create(
        &self,
        log: &dyn OffsetsLog,
        config: &GroupsConfig,
        deadline: Instant,
    ) -> bool {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return false;
        }
        // Dropping this future, when a client leaves, must not keep others from trying.
        let _running = Running(&self.under_way);
        let Some(command) = command(config) else {
            return false;
        };
        match log.execute(command, deadline).await {
            Ok((index, Outcome::CreatedTopics(results))) => match results.first() {
                Some(Ok(created)) => {
                    info!(
                        topic = OFFSETS_TOPIC,
                        partitions = created.partitions,
                        replication_factor = created.replication_factor,
                        "created internal topic"
                    );
                    log.wait_for_image(index, deadline).await
                }
                Some(Err(CommandError::TopicAlreadyExists(_))) => {
                    log.wait_for_image(index, deadline).await
                }
                Some(Err(error)) => {
                    warn!(topic = OFFSETS_TOPIC, %error, "create internal topic refused");
                    false
                }
                None => false,
            },
            Ok((_, outcome)) => {
                warn!(
                    topic = OFFSETS_TOPIC,
                    ?outcome,
                    "create internal topic refused"
                );
                false
            }
            Err(error) => {
                warn!(topic = OFFSETS_TOPIC, %error, "create internal topic unanswered");
                false
            }
        }
    }
}

struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

fn command(config: &GroupsConfig) -> Option<Command> {
    let id = Uuid::new_v4();
    let (seed, _) = id.as_u64_pair();
    let configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), "compact".to_owned()),
        ("compression.type".to_owned(), "producer".to_owned()),
        (
            "segment.bytes".to_owned(),
            config.offsets_topic_segment_bytes.to_string(),
        ),
    ]);
    let topic = CreateTopic {
        name: OFFSETS_TOPIC.to_owned(),
        topic_id: TopicId::new(id)?,
        partitions: Some(config.offsets_topic_partitions),
        replication_factor: config.offsets_topic_replication_factor,
        assignments: BTreeMap::new(),
        configs,
        seed,
    };
    // The active controller fills in who is alive.
    Some(Command::CreateTopics {
        topics: vec![topic],
        validate_only: false,
        live: BTreeSet::new(),
    })
}
