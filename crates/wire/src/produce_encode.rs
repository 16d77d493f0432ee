//! The Produce request, encoded as a list of chunks so that record bytes are never copied.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    api::Api,
    client::{ClientCodecError, RequestFrame, put_request_header},
    produce::TopicKey,
};

/// Records up to this size are copied between the fields around them: cheaper than a chunk.
const INLINE_BYTES_MAX: usize = 2 * 1024;

/// A Produce request of versions 3 to 13, from the client's side.
#[derive(Clone, Debug)]
pub struct ProduceRequestData {
    /// 0, 1 or -1.
    pub acks: i16,
    /// How long the leader may wait for its followers.
    pub timeout_ms: i32,
    /// The topics: names up to version 12, ids from 13.
    pub topics: Vec<ProduceTopicData>,
}

/// One topic of a Produce request.
#[derive(Clone, Debug)]
pub struct ProduceTopicData {
    /// Which one.
    pub topic: TopicKey,
    /// Its partitions and their batches.
    pub partitions: Vec<(i32, Bytes)>,
}

impl ProduceRequestData {
    /// Encodes the request in a version whose way of naming topics is the one used.
    ///
    /// # Errors
    /// A topic is named in the other way, or the request does not fit a frame.
    pub fn encode(&self, version: i16, client_id: &str) -> Result<RequestFrame, ClientCodecError> {
        let mut encoder = Encoder {
            head: BytesMut::with_capacity(256),
            chunks: Vec::new(),
            flexible: Api::Produce.is_flexible(version),
            by_id: version >= 13,
        };
        let header_version = Api::Produce.request_header_version(version);
        let key = Api::Produce.key();
        put_request_header(&mut encoder.head, key, version, header_version, client_id)?;
        encoder.request(self)?;
        encoder.finish()
    }
}

struct Encoder {
    /// What has been encoded since the last chunk.
    head: BytesMut,
    chunks: Vec<Piece>,
    flexible: bool,
    by_id: bool,
}

enum Piece {
    Head(BytesMut),
    Records(Bytes),
}

impl Encoder {
    fn request(&mut self, request: &ProduceRequestData) -> Result<(), ClientCodecError> {
        // No transactional id.
        if self.flexible {
            self.head.put_u8(0);
        } else {
            self.head.put_i16(-1);
        }
        self.head.put_i16(request.acks);
        self.head.put_i32(request.timeout_ms);
        self.length(request.topics.len())?;
        for topic in &request.topics {
            self.topic(topic)?;
        }
        self.no_tags();
        Ok(())
    }

    fn topic(&mut self, topic: &ProduceTopicData) -> Result<(), ClientCodecError> {
        match &topic.topic {
            TopicKey::Id(id) if self.by_id => self.head.put_slice(id.as_bytes()),
            TopicKey::Name(name) if !self.by_id => self.text(name)?,
            TopicKey::Id(_) | TopicKey::Name(_) => {
                let what = "topics are named by id from version 13, by name before".to_owned();
                return Err(ClientCodecError::Encode(what));
            }
        }
        self.length(topic.partitions.len())?;
        for (index, records) in &topic.partitions {
            self.head.put_i32(*index);
            self.length(records.len())?;
            if records.len() <= INLINE_BYTES_MAX {
                self.head.put_slice(records);
            } else {
                let head = self.head.split();
                self.chunks.push(Piece::Head(head));
                self.chunks.push(Piece::Records(records.clone()));
            }
            self.no_tags();
        }
        self.no_tags();
        Ok(())
    }

    fn finish(mut self) -> Result<RequestFrame, ClientCodecError> {
        self.chunks.push(Piece::Head(self.head));
        let mut pieces = self.chunks.into_iter();
        let head = match pieces.next() {
            Some(Piece::Head(head)) => head,
            Some(Piece::Records(_)) | None => BytesMut::new(),
        };
        let tail = pieces
            .map(|piece| match piece {
                Piece::Head(bytes) => bytes.freeze(),
                Piece::Records(bytes) => bytes,
            })
            .collect();
        RequestFrame::finish(head, tail)
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.head.put_u8(0);
        }
    }

    fn text(&mut self, text: &str) -> Result<(), ClientCodecError> {
        if self.flexible {
            self.unsigned_varint(text.len() + 1)?;
        } else {
            let length = i16::try_from(text.len());
            self.head
                .put_i16(length.map_err(|_| ClientCodecError::TooLarge(text.len()))?);
        }
        self.head.put_slice(text.as_bytes());
        Ok(())
    }

    fn length(&mut self, length: usize) -> Result<(), ClientCodecError> {
        if self.flexible {
            return self.unsigned_varint(length + 1);
        }
        let length = i32::try_from(length).map_err(|_| ClientCodecError::TooLarge(length))?;
        self.head.put_i32(length);
        Ok(())
    }

    fn unsigned_varint(&mut self, value: usize) -> Result<(), ClientCodecError> {
        let mut rest = u32::try_from(value).map_err(|_| ClientCodecError::TooLarge(value))?;
        while rest >= 0x80 {
            let low = u8::try_from(rest & 0x7f).unwrap_or_default();
            self.head.put_u8(low | 0x80);
            rest >>= 7;
        }
        self.head.put_u8(u8::try_from(rest).unwrap_or_default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{Frame, ProduceRequest, next_frame, take_header};

    fn data(topic: TopicKey) -> ProduceRequestData {
        let large = Bytes::from(vec![7u8; INLINE_BYTES_MAX + 1]);
        ProduceRequestData {
            acks: -1,
            timeout_ms: 1500,
            topics: vec![
                ProduceTopicData {
                    topic: topic.clone(),
                    partitions: vec![(3, Bytes::from_static(b"small")), (4, large.clone())],
                },
                ProduceTopicData {
                    topic,
                    partitions: vec![(0, large)],
                },
            ],
        }
    }

    #[test]
    fn every_version_round_trips_through_the_servers_decoder() {
        for version in 3..=13 {
            let topic = if version >= 13 {
                TopicKey::Id(Uuid::from_u128(5))
            } else {
                TopicKey::Name("orders".to_owned().into())
            };
            let data = data(topic);
            let frame = data.encode(version, "me").unwrap();
            let mut bytes = BytesMut::from(&frame.into_chunks().concat()[..]);
            let Ok(Frame::Whole(mut whole)) = next_frame(&mut bytes, 1 << 20) else {
                panic!("not a whole frame")
            };
            assert!(bytes.is_empty());
            let header = take_header(&mut whole).unwrap();
            assert_eq!((header.api, header.version), (Api::Produce, version));
            let back = ProduceRequest::decode(whole, version).unwrap();
            assert_eq!((back.acks, back.timeout_ms), (-1, 1500));
            assert_eq!(back.topics.len(), 2);
            for (sent, got) in data.topics.iter().zip(&back.topics) {
                assert_eq!(sent.topic, got.topic);
                for ((index, records), partition) in sent.partitions.iter().zip(&got.partitions) {
                    assert_eq!(*index, partition.index);
                    assert_eq!(partition.records.as_deref(), Some(&records[..]));
                }
            }
        }
    }

    #[test]
    fn large_records_are_not_copied() {
        let data = data(TopicKey::Name("t".to_owned().into()));
        let large = data
            .topics
            .last()
            .unwrap()
            .partitions
            .first()
            .unwrap()
            .1
            .clone();
        let chunks = data.encode(12, "me").unwrap().into_chunks();
        let shared = chunks
            .iter()
            .filter(|chunk| chunk.as_ptr() == large.as_ptr());
        assert_eq!(shared.count(), 2);
    }

    #[test]
    fn a_topic_named_in_the_wrong_way_is_refused() {
        let data = data(TopicKey::Name("t".to_owned().into()));
        assert!(data.encode(13, "me").is_err());
    }
}
