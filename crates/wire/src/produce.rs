//! The Produce request, decoded by hand so that no record byte is copied or counted twice.
//!
//! Each partition's records are split off the frame as a `BytesMut` of their own: the broker stamps
//! offsets into them in place and writes them to the log as they lie in the socket's buffer.

use bytes::{Buf, BytesMut};
use uuid::Uuid;

use kafka_protocol::protocol::StrBytes;

use crate::{api::Api, shape::ShapeError};

/// How many topics and partitions one request may name, whatever its size.
const ELEMENTS_MAX: usize = 250_000;

/// A Produce request of versions 3 to 13.
#[derive(Debug)]
pub struct ProduceRequest {
    /// Set by transactional producers.
    pub transactional_id: Option<StrBytes>,
    /// 0, 1 or -1; anything else is refused by the handler.
    pub acks: i16,
    /// How long the client waits for the replicas.
    pub timeout_ms: i32,
    /// The topics, in the order of the request.
    pub topics: Vec<ProduceTopic>,
}

/// One topic of a Produce request.
#[derive(Debug)]
pub struct ProduceTopic {
    /// By name up to version 12, by id from 13.
    pub topic: TopicKey,
    /// Its partitions, in the order of the request.
    pub partitions: Vec<ProducePartition>,
}

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TopicKey {
    /// By name.
    Name(StrBytes),
    /// By id; may be zero.
    Id(Uuid),
}

/// One partition of a Produce request.
#[derive(Debug)]
pub struct ProducePartition {
    /// The partition.
    pub index: i32,
    /// Its records, still to be validated; `None` if null.
    pub records: Option<BytesMut>,
}

/// Why a Produce request cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceDecodeError {
    /// A length is wrong or bytes are missing.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A name is not UTF-8, or null where it must not be.
    #[error("a string is null or not utf-8")]
    Text,
}

impl ProduceRequest {
    /// Decodes the body of a frame whose header has been taken off.
    pub fn decode(body: BytesMut, version: i16) -> Result<ProduceRequest, ProduceDecodeError> {
        let mut decoder = Decoder {
            body,
            flexible: Api::Produce.is_flexible(version),
            by_id: version >= 13,
            elements_left: ELEMENTS_MAX,
        };
        let request = ProduceRequest {
            transactional_id: decoder.nullable_text()?,
            acks: decoder.i16()?,
            timeout_ms: decoder.i32()?,
            topics: decoder.topics()?,
        };
        decoder.skip_tags()?;
        Ok(request)
    }
}

struct Decoder {
    body: BytesMut,
    flexible: bool,
    by_id: bool,
    elements_left: usize,
}

impl Decoder {
    fn topics(&mut self) -> Result<Vec<ProduceTopic>, ProduceDecodeError> {
        let count = self.elements()?;
        let mut topics = Vec::with_capacity(count.min(16));
        for _ in 0..count {
            let topic = if self.by_id {
                TopicKey::Id(Uuid::from_u128(self.body.try_get_u128().map_err(short)?))
            } else {
                TopicKey::Name(self.nullable_text()?.ok_or(ProduceDecodeError::Text)?)
            };
            let partitions = self.partitions()?;
            self.skip_tags()?;
            topics.push(ProduceTopic { topic, partitions });
        }
        Ok(topics)
    }

    fn partitions(&mut self) -> Result<Vec<ProducePartition>, ProduceDecodeError> {
        let count = self.elements()?;
        let mut partitions = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let index = self.i32()?;
            let records = match self.long_length()? {
                Some(len) => Some(self.split(len)?),
                None => None,
            };
            self.skip_tags()?;
            partitions.push(ProducePartition { index, records });
        }
        Ok(partitions)
    }

    fn i16(&mut self) -> Result<i16, ShapeError> {
        self.body.try_get_i16().map_err(short)
    }

    fn i32(&mut self) -> Result<i32, ShapeError> {
        self.body.try_get_i32().map_err(short)
    }

    fn split(&mut self, len: usize) -> Result<BytesMut, ShapeError> {
        if len > self.body.len() {
            return Err(ShapeError::Short);
        }
        Ok(self.body.split_to(len))
    }

    fn nullable_text(&mut self) -> Result<Option<StrBytes>, ProduceDecodeError> {
        let len = if self.flexible {
            self.compact_length()?
        } else {
            length(self.i16()?.into())?
        };
        let Some(len) = len else { return Ok(None) };
        let text = self.split(len)?.freeze();
        StrBytes::from_utf8(text)
            .map(Some)
            .map_err(|_| ProduceDecodeError::Text)
    }

    fn long_length(&mut self) -> Result<Option<usize>, ShapeError> {
        if self.flexible {
            self.compact_length()
        } else {
            length(self.i32()?)
        }
    }

    fn compact_length(&mut self) -> Result<Option<usize>, ShapeError> {
        match self.unsigned_varint()?.checked_sub(1) {
            None => Ok(None),
            Some(len) => usize::try_from(len)
                .map(Some)
                .map_err(|_| ShapeError::Short),
        }
    }

    fn elements(&mut self) -> Result<usize, ShapeError> {
        let count = self.long_length()?.unwrap_or(0);
        if count > self.body.len() {
            return Err(ShapeError::Short);
        }
        self.elements_left = self
            .elements_left
            .checked_sub(count)
            .ok_or(ShapeError::TooManyElements)?;
        Ok(count)
    }

    fn unsigned_varint(&mut self) -> Result<u32, ShapeError> {
        let mut reader = crate::reader::Reader::new(&self.body);
        let value = reader.unsigned_varint()?;
        let read = self.body.len() - reader.remaining();
        self.body.advance(read);
        Ok(value)
    }

    fn skip_tags(&mut self) -> Result<(), ShapeError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned_varint()? {
            self.unsigned_varint()?;
            let len = usize::try_from(self.unsigned_varint()?).map_err(|_| ShapeError::Short)?;
            if len > self.body.len() {
                return Err(ShapeError::Short);
            }
            self.body.advance(len);
        }
        Ok(())
    }
}

fn short(_: bytes::TryGetError) -> ShapeError {
    ShapeError::Short
}

fn length(len: i32) -> Result<Option<usize>, ShapeError> {
    match len {
        -1 => Ok(None),
        _ => usize::try_from(len)
            .map(Some)
            .map_err(|_| ShapeError::NegativeLength),
    }
}
