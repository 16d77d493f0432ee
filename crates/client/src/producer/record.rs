//! A record to be sent, and what becomes of it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use ottla_wire::ErrorCode;

use crate::{cluster::TopicError, metadata::TopicPartition};

/// A record to be sent.
#[derive(Clone, Debug)]
pub struct ProducerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition; chosen by key, or at random in stretches, if not given.
    pub partition: Option<i32>,
    /// Milliseconds since 1970; the time of `send` if not given.
    pub timestamp: Option<i64>,
    /// Key.
    pub key: Option<Bytes>,
    /// Value; `None` is a tombstone in a compacted topic.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl ProducerRecord {
    /// A record without key and value.
    pub fn to(topic: impl Into<Arc<str>>) -> ProducerRecord {
        ProducerRecord {
            topic: topic.into(),
            partition: None,
            timestamp: None,
            key: None,
            value: None,
            headers: Vec::new(),
        }
    }

    /// With a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Bytes>) -> ProducerRecord {
        self.key = Some(key.into());
        self
    }

    /// With a value.
    #[must_use]
    pub fn value(mut self, value: impl Into<Bytes>) -> ProducerRecord {
        self.value = Some(value.into());
        self
    }

    /// To one partition.
    #[must_use]
    pub fn partition(mut self, partition: i32) -> ProducerRecord {
        self.partition = Some(partition);
        self
    }

    /// With a time of its own.
    #[must_use]
    pub fn timestamp(mut self, timestamp: i64) -> ProducerRecord {
        self.timestamp = Some(timestamp);
        self
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> ProducerRecord {
        self.headers.push((key.into(), Some(value.into())));
        self
    }

    /// Upper bound of what the record takes in a batch.
    pub(super) fn size_bytes(&self) -> usize {
        /// Lengths, deltas and counts of one record at their widest.
        const FIELDS: usize = 36;
        let optional = |field: &Option<Bytes>| field.as_ref().map_or(0, Bytes::len);
        let headers = self
            .headers
            .iter()
            .map(|(key, value)| 10 + key.len() + optional(value));
        FIELDS + optional(&self.key) + optional(&self.value) + headers.sum::<usize>()
    }
}

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    /// The partition.
    pub partition: TopicPartition,
    /// Its offset; not known without acknowledgement, or when only a retry was acknowledged.
    pub offset: Option<i64>,
    /// The record's time: the leader's if the topic says so.
    pub timestamp: i64,
}

/// Why a record was not taken. It has not been written, and will not be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The topic cannot be used.
    #[error("topic {topic}: {error}")]
    Topic {
        /// The topic.
        topic: Arc<str>,
        /// Why.
        error: TopicError,
    },
    /// There is no such partition.
    #[error("{0} does not exist")]
    NoSuchPartition(TopicPartition),
    /// The record is larger than a request or the buffer.
    #[error("a record of {bytes} bytes is over the limit of {limit_bytes}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// The buffer stayed full for too long.
    #[error("no room in the buffer in time")]
    BufferFull,
    /// The producer is closed.
    #[error("the producer is closed")]
    Closed,
}

/// Why a delivery did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// The broker refused the batch for good. Nothing was written, unless the code is that of an
    /// error which the broker itself did not expect.
    #[error("refused: {code}{}", .message.as_deref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// The broker's reason.
        code: ErrorCode,
        /// More words on it.
        message: Option<String>,
        /// Whether an earlier attempt, or this one, may have written it all the same.
        may_have_happened: bool,
    },
    /// It was not acknowledged within the delivery timeout.
    #[error("not delivered in time{}", .last_error.as_deref().map(|e| format!(", last because of: {e}")).unwrap_or_default())]
    TimedOut {
        /// What the last attempt met, if there was one.
        last_error: Option<String>,
        /// Whether it was sent and may have been written.
        may_have_happened: bool,
    },
    /// The producer was closed or dropped first.
    #[error("the producer was closed before the delivery")]
    Closed {
        /// Whether it was sent and may have been written.
        may_have_happened: bool,
    },
    /// The request cannot be encoded or is not served; nothing was written.
    #[error("{0}")]
    Unsupported(String),
}

impl DeliveryError {
    /// Whether the record may be in the log all the same; if not, sending it again cannot double
    /// it.
    #[must_use]
    pub const fn may_have_happened(&self) -> bool {
        match self {
            DeliveryError::Refused {
                may_have_happened, ..
            }
            | DeliveryError::TimedOut {
                may_have_happened, ..
            }
            | DeliveryError::Closed { may_have_happened } => *may_have_happened,
            DeliveryError::Unsupported(_) => false,
        }
    }
}

/// A record on its way; resolves when it is acknowledged or has failed for good.
///
/// Dropping it stops the waiting, not the delivery.
#[derive(Debug)]
pub struct Delivery {
    pub(super) receiver: oneshot::Receiver<Result<RecordMetadata, DeliveryError>>,
}

impl Future for Delivery {
    type Output = Result<RecordMetadata, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.receiver).poll(context).map(|received| {
            // The sender's task was dropped with its runtime, whatever had been sent by then.
            received.unwrap_or(Err(DeliveryError::Closed {
                may_have_happened: true,
            }))
        })
    }
}
