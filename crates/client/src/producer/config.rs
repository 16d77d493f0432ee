//! How a producer batches, retries and waits.

use std::time::Duration;

use ottla_records::Codec;

use crate::config::ClientConfig;

/// Who must have a record before it counts as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Nobody: records are sent and forgotten.
    None,
    /// The leader.
    Leader,
    /// Every in-sync replica.
    #[default]
    All,
}

impl Acks {
    pub(crate) const fn on_the_wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

/// Settings of a producer, with the defaults of Kafka's own.
#[derive(Clone, Debug)]
pub struct ProducerConfig {
    /// Where the cluster is.
    pub client: ClientConfig,
    /// Who must have a record before its delivery succeeds.
    pub acks: Acks,
    /// Whether retries may neither double nor reorder records; needs [`Acks::All`].
    pub idempotent: bool,
    /// A batch is sent once it has this many bytes, before compression.
    pub batch_bytes: usize,
    /// A batch that does not fill up is sent after this long.
    pub linger: Duration,
    /// How batches are compressed.
    pub compression: Codec,
    /// Requests under way to one broker, and batches of one partition: at most 5 if idempotent.
    pub in_flight_max: usize,
    /// Largest request, and so the largest record.
    pub request_bytes_max: usize,
    /// From `send` to the last moment at which a record may be delivered.
    pub delivery_timeout: Duration,
    /// Memory for records that are not delivered yet; `send` waits for room.
    pub buffer_bytes: usize,
    /// Longest wait of `send`, for room and for the topic's metadata.
    pub block_max: Duration,
    /// Whether asking for an unknown topic may create it, where brokers allow that.
    pub create_missing_topics: bool,
}

impl ProducerConfig {
    /// The defaults: idempotent, acknowledged by all in-sync replicas.
    #[must_use]
    pub fn new(client: ClientConfig) -> ProducerConfig {
        ProducerConfig {
            client,
            acks: Acks::All,
            idempotent: true,
            batch_bytes: 16 * 1024,
            linger: Duration::from_millis(5),
            compression: Codec::None,
            in_flight_max: 5,
            request_bytes_max: 1 << 20,
            delivery_timeout: Duration::from_secs(120),
            buffer_bytes: 32 << 20,
            block_max: Duration::from_secs(60),
            create_missing_topics: true,
        }
    }

    /// Acknowledged as said; anything less than all gives up idempotence too.
    #[must_use]
    pub fn acks(mut self, acks: Acks) -> ProducerConfig {
        self.acks = acks;
        self.idempotent = self.idempotent && acks == Acks::All;
        self
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let fail = |what: &'static str| Err(ConfigError(what));
        if self.client.bootstrap.is_empty() {
            return fail("no bootstrap brokers");
        }
        if self.idempotent && self.acks != Acks::All {
            return fail("an idempotent producer needs the acknowledgement of all replicas");
        }
        if self.in_flight_max == 0 || (self.idempotent && self.in_flight_max > 5) {
            return fail("1 to 5 requests may be in flight: brokers remember 5 batches");
        }
        if self.buffer_bytes > u32::MAX as usize {
            return fail("the buffer is limited to 4 GiB");
        }
        Ok(())
    }
}

/// Settings that contradict each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(crate) &'static str);
