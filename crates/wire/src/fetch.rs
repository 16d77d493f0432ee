//! The Fetch response, encoded by hand as a list of chunks so that record bytes are never copied.
//!
//! `F` is whatever stands for a range of a file: this crate does not know what a log is.

use bytes::{BufMut, Bytes, BytesMut};

use kafka_protocol::protocol::StrBytes;

use crate::{
    api::Api,
    error_code::ErrorCode,
    produce::TopicKey,
    response::{EncodeError, put_header, set_length},
};

/// Records up to this size are copied between the fields around them: cheaper than a chunk.
const INLINE_BYTES_MAX: usize = 2 * 1024;

/// A Fetch response of versions 4 to 18.
#[derive(Debug)]
pub struct FetchResponse<F> {
    /// How long the client should pause.
    pub throttle_time_ms: i32,
    /// Of the whole request, from version 7: session errors.
    pub error_code: ErrorCode,
    /// The fetch session; 0 for none.
    pub session_id: i32,
    /// Topics in the order of the request.
    pub topics: Vec<FetchTopicResponse<F>>,
    /// Addresses of the leaders named below, from version 16 (KIP-951).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// One topic of a Fetch response.
#[derive(Debug)]
pub struct FetchTopicResponse<F> {
    /// Name up to version 12, id from 13.
    pub topic: TopicKey,
    /// Its partitions.
    pub partitions: Vec<FetchPartitionResponse<F>>,
}

/// One partition of a Fetch response.
#[derive(Debug)]
pub struct FetchPartitionResponse<F> {
    /// The partition.
    pub partition_index: i32,
    /// What went wrong, if anything.
    pub error_code: ErrorCode,
    /// -1 on errors.
    pub high_watermark: i64,
    /// -1 on errors.
    pub last_stable_offset: i64,
    /// -1 on errors.
    pub log_start_offset: i64,
    /// Largest common epoch and where it ends, from version 12 (KIP-320).
    pub diverging_epoch: Option<EpochEnd>,
    /// Who leads now, from version 12, with errors about leadership.
    pub current_leader: Option<CurrentLeader>,
    /// Aborted transactions (producer id, first offset); `None` for read_uncommitted.
    pub aborted_transactions: Option<Vec<(i64, i64)>>,
    /// Where to read instead; -1 for here. From version 11.
    pub preferred_read_replica: i32,
    /// The records.
    pub records: Records<F>,
}

/// The end of an epoch in the leader's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: i32,
    /// The first offset after it.
    pub end_offset: i64,
}

/// A partition's leader as the answering broker knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentLeader {
    /// The broker; -1 if there is none.
    pub leader_id: i32,
    /// Its epoch.
    pub leader_epoch: i32,
}

/// A broker's address on the listener of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: i32,
    /// Host.
    pub host: StrBytes,
    /// Port.
    pub port: i32,
    /// Rack.
    pub rack: Option<StrBytes>,
}

/// Where a partition's records are.
#[derive(Debug)]
pub enum Records<F> {
    /// There are none.
    Empty,
    /// In memory.
    Memory(Bytes),
    /// In a file.
    File {
        /// The range.
        slice: F,
        /// Its length.
        bytes: usize,
    },
}

impl<F> Records<F> {
    /// How long they are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Records::Empty => 0,
            Records::Memory(bytes) => bytes.len(),
            Records::File { bytes, .. } => *bytes,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of a response, to be written in order.
#[derive(Debug)]
pub enum Chunk<F> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file.
    File {
        /// The range.
        slice: F,
        /// Its length.
        bytes: usize,
    },
}

impl<F> FetchResponse<F> {
    /// Encodes the response as a whole frame.
    pub fn encode(self, version: i16, correlation_id: i32) -> Result<Vec<Chunk<F>>, EncodeError> {
        let partitions: usize = self.topics.iter().map(|topic| topic.partitions.len()).sum();
        let mut encoder = Encoder {
            head: BytesMut::with_capacity(64 + partitions * 80),
            chunks: Vec::with_capacity(2 * partitions.min(512) + 1),
            done_bytes: 0,
            version,
            flexible: Api::Fetch.is_flexible(version),
        };
        encoder.response(self, correlation_id)?;
        encoder.finish()
    }
}

struct Encoder<F> {
    /// What has been encoded since the last chunk.
    head: BytesMut,
    chunks: Vec<Building<F>>,
    done_bytes: usize,
    version: i16,
    flexible: bool,
}

/// A chunk under construction: the first begins with the frame's length, which is known last.
enum Building<F> {
    Head(BytesMut),
    Done(Chunk<F>),
}

impl<F> Encoder<F> {
    fn response(
        &mut self,
        response: FetchResponse<F>,
        correlation_id: i32,
    ) -> Result<(), EncodeError> {
        put_header(&mut self.head, Api::Fetch, self.version, correlation_id);
        self.head.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.head.put_i16(response.error_code.code());
            self.head.put_i32(response.session_id);
        }
        self.array_length(response.topics.len())?;
        for topic in response.topics {
            self.topic(topic)?;
        }
        self.end_of_response(&response.node_endpoints)
    }

    fn topic(&mut self, topic: FetchTopicResponse<F>) -> Result<(), EncodeError> {
        match &topic.topic {
            TopicKey::Id(id) => self.head.put_slice(id.as_bytes()),
            TopicKey::Name(name) => self.text(name)?,
        }
        self.array_length(topic.partitions.len())?;
        for partition in topic.partitions {
            self.partition(partition)?;
        }
        self.no_tags();
        Ok(())
    }

    fn partition(&mut self, partition: FetchPartitionResponse<F>) -> Result<(), EncodeError> {
        self.head.put_i32(partition.partition_index);
        self.head.put_i16(partition.error_code.code());
        self.head.put_i64(partition.high_watermark);
        self.head.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start_offset);
        }
        self.aborted(partition.aborted_transactions.as_deref())?;
        if self.version >= 11 {
            self.head.put_i32(partition.preferred_read_replica);
        }
        self.records(partition.records)?;
        if self.flexible {
            self.partition_tags(partition.diverging_epoch, partition.current_leader);
        }
        Ok(())
    }

    fn aborted(&mut self, aborted: Option<&[(i64, i64)]>) -> Result<(), EncodeError> {
        match aborted {
            None if self.flexible => self.head.put_u8(0),
            None => self.head.put_i32(-1),
            Some(transactions) => {
                self.array_length(transactions.len())?;
                for (producer_id, first_offset) in transactions {
                    self.head.put_i64(*producer_id);
                    self.head.put_i64(*first_offset);
                    self.no_tags();
                }
            }
        }
        Ok(())
    }

    fn records(&mut self, records: Records<F>) -> Result<(), EncodeError> {
        self.array_length(records.len())?;
        match records {
            Records::Empty => {}
            Records::Memory(bytes) if bytes.len() <= INLINE_BYTES_MAX => self.head.put(bytes),
            Records::Memory(bytes) => self.chunk(bytes.len(), Chunk::Bytes(bytes)),
            Records::File { slice, bytes } => self.chunk(bytes, Chunk::File { slice, bytes }),
        }
        Ok(())
    }

    fn partition_tags(&mut self, diverging: Option<EpochEnd>, leader: Option<CurrentLeader>) {
        self.head
            .put_u8(u8::from(diverging.is_some()) + u8::from(leader.is_some()));
        if let Some(EpochEnd { epoch, end_offset }) = diverging {
            self.head.put_slice(&[0, 13]); // Tag 0: an i32, an i64, no tags.
            self.head.put_i32(epoch);
            self.head.put_i64(end_offset);
            self.head.put_u8(0);
        }
        if let Some(CurrentLeader {
            leader_id,
            leader_epoch,
        }) = leader
        {
            self.head.put_slice(&[1, 9]); // Tag 1: two i32, no tags.
            self.head.put_i32(leader_id);
            self.head.put_i32(leader_epoch);
            self.head.put_u8(0);
        }
    }

    fn end_of_response(&mut self, endpoints: &[NodeEndpoint]) -> Result<(), EncodeError> {
        if self.version < 16 || endpoints.is_empty() {
            self.no_tags();
            return Ok(());
        }
        let outer = std::mem::take(&mut self.head);
        self.array_length(endpoints.len())?;
        for endpoint in endpoints {
            self.head.put_i32(endpoint.node_id);
            self.text(&endpoint.host)?;
            self.head.put_i32(endpoint.port);
            match &endpoint.rack {
                Some(rack) => self.text(rack)?,
                None => self.head.put_u8(0),
            }
            self.no_tags();
        }
        let tag = std::mem::replace(&mut self.head, outer);
        self.head.put_slice(&[1, 0]); // One tagged field: tag 0.
        self.unsigned_varint(tag.len())?;
        self.head.put(tag);
        Ok(())
    }

    fn chunk(&mut self, bytes: usize, chunk: Chunk<F>) {
        let head = self.head.split();
        self.done_bytes += head.len() + bytes;
        self.chunks.push(Building::Head(head));
        self.chunks.push(Building::Done(chunk));
    }

    fn finish(mut self) -> Result<Vec<Chunk<F>>, EncodeError> {
        let total = self.done_bytes + self.head.len();
        if !self.head.is_empty() {
            self.chunks.push(Building::Head(self.head));
        }
        if let Some(Building::Head(first)) = self.chunks.first_mut() {
            set_length(first, total.saturating_sub(4))?;
        }
        let chunks = self.chunks.into_iter().map(|chunk| match chunk {
            Building::Head(head) => Chunk::Bytes(head.freeze()),
            Building::Done(chunk) => chunk,
        });
        Ok(chunks.collect())
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        }
    }

    fn text(&mut self, text: &str) -> Result<(), EncodeError> {
        if self.flexible {
            self.unsigned_varint(text.len() + 1)?;
        } else {
            let len = i16::try_from(text.len());
            self.head
                .put_i16(len.map_err(|_| EncodeError::TooLarge(text.len()))?);
        }
        self.head.put_slice(text.as_bytes());
        Ok(())
    }

    /// The length of an array, and of records too.
    fn array_length(&mut self, len: usize) -> Result<(), EncodeError> {
        if self.flexible {
            self.unsigned_varint(len + 1)
        } else {
            self.head
                .put_i32(i32::try_from(len).map_err(|_| EncodeError::TooLarge(len))?);
            Ok(())
        }
    }

    fn unsigned_varint(&mut self, value: usize) -> Result<(), EncodeError> {
        let mut rest = u32::try_from(value).map_err(|_| EncodeError::TooLarge(value))?;
        while rest >= 0x80 {
            let low = u8::try_from(rest & 0x7f).unwrap_or_default();
            self.head.put_u8(low | 0x80);
            rest >>= 7;
        }
        self.head.put_u8(u8::try_from(rest).unwrap_or_default());
        Ok(())
    }
}
