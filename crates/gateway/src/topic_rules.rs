//! What each topic demands of produced batches, resolved once for each state of the image.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;

use ottla_config::{
    Compression as ConfiguredCompression, ServerConfig, TimestampType as ConfiguredType,
};
use ottla_metadata::{Image, TopicImage};
use ottla_records::{Codec, Compression, ProduceRules, TimestampType};
use ottla_types::{BrokerId, TopicId, WallClockMs};

use crate::config_layers::topic_config;

/// One topic's demands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicRules {
    max_message_bytes: usize,
    timestamp_type: TimestampType,
    timestamp_before_max_ms: Option<u64>,
    timestamp_after_max_ms: Option<u64>,
    compacted: bool,
    /// `compression.type`.
    pub(crate) compression: Compression,
}

impl TopicRules {
    /// The rules for batches that arrive now in a request of this version.
    pub(crate) fn at(&self, now: WallClockMs, version: i16) -> ProduceRules {
        ProduceRules {
            max_message_bytes: self.max_message_bytes,
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            now,
            zstd_allowed: version >= 7,
            compacted: self.compacted,
            allow_control: false,
        }
    }

    /// Whether some batches must be decompressed before they may be stored.
    pub(crate) fn may_need_decompression(&self) -> bool {
        self.compression != Compression::Producer || self.looks_inside()
    }

    /// Whether a batch of this codec must be.
    pub(crate) fn needs_decompression(&self, codec: Codec) -> bool {
        let recompress = matches!(self.compression, Compression::Topic(wanted) if wanted != codec);
        recompress || (codec != Codec::None && self.looks_inside())
    }

    fn looks_inside(&self) -> bool {
        self.compacted
            || (self.timestamp_before_max_ms.is_some()
                && self.timestamp_type == TimestampType::CreateTime)
    }

    fn resolve(image: &Image, broker_id: BrokerId, server: &ServerConfig, topic: &str) -> Self {
        let config = topic_config(image, broker_id, server, topic);
        // The largest value is Kafka's way of saying that there is no limit.
        let limit = |ms: u64| (ms < i64::MAX.unsigned_abs()).then_some(ms);
        TopicRules {
            max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(usize::MAX),
            timestamp_type: match config.message_timestamp_type {
                ConfiguredType::CreateTime => TimestampType::CreateTime,
                ConfiguredType::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: limit(config.message_timestamp_before_max_ms),
            timestamp_after_max_ms: limit(config.message_timestamp_after_max_ms),
            compacted: config.cleanup_policy.compact,
            compression: match config.compression_type {
                ConfiguredCompression::Producer => Compression::Producer,
                ConfiguredCompression::Uncompressed => Compression::Topic(Codec::None),
                ConfiguredCompression::Gzip => Compression::Topic(Codec::Gzip),
                ConfiguredCompression::Snappy => Compression::Topic(Codec::Snappy),
                ConfiguredCompression::Lz4 => Compression::Topic(Codec::Lz4),
                ConfiguredCompression::Zstd => Compression::Topic(Codec::Zstd),
            },
        }
    }
}

/// Rules by topic, of one state of the image.
#[derive(Debug, Default)]
pub(crate) struct TopicRulesCache {
    cached: RwLock<Cached>,
}

#[derive(Debug, Default)]
struct Cached {
    index: u64,
    rules: HashMap<TopicId, Arc<TopicRules>>,
}

impl TopicRulesCache {
    /// The rules of a topic of this image.
    pub(crate) fn get(
        &self,
        image: &Image,
        broker_id: BrokerId,
        server: &ServerConfig,
        topic: &TopicImage,
    ) -> Arc<TopicRules> {
        {
            let cached = self.cached.read();
            if cached.index == image.index
                && let Some(rules) = cached.rules.get(&topic.topic_id)
            {
                return Arc::clone(rules);
            }
        }
        let rules = Arc::new(TopicRules::resolve(image, broker_id, server, &topic.name));
        let mut cached = self.cached.write();
        if cached.index < image.index {
            cached.index = image.index;
            cached.rules.clear();
        }
        if cached.index == image.index {
            cached.rules.insert(topic.topic_id, Arc::clone(&rules));
        }
        rules
    }
}
