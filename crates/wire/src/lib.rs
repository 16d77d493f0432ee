//! The Kafka protocol: framing, versions, codecs.
//!
//! Bytes in, typed requests out; typed responses in, bytes or chunks out; and the client's
//! direction, which is the reverse. No sockets, no clocks.
//! The message types are those of the `kafka-protocol` crate, generated from Kafka's schemas; the
//! two that carry records, Produce's request and Fetch's response, have codecs of our own so that
//! records are never copied.
//!
//! # Invariants
//! * What is served stands in one table, [`Api`]; nothing else is advertised or decoded.
//! * No length that a client sent is used to reserve memory before the bytes it speaks of are here
//!   [`next_frame`] for frames, the request guard for arrays.
//! * A sentinel such as -1 does not leave this crate in the types that are ours.

#![deny(clippy::indexing_slicing)]

mod api;
mod client;
mod error_code;
mod fetch;
mod frame;
mod header;
mod produce;
mod produce_encode;
mod reader;
mod request;
mod response;
mod shape;
mod shapes;

pub use api::{Api, Versions};
pub use client::{
    ClientCodecError, RequestFrame, decode_response, encode_request, negotiate, spoken_versions,
    take_correlation_id,
};
pub use error_code::ErrorCode;
pub use fetch::{
    Chunk, CurrentLeader, EpochEnd, FetchPartitionResponse, FetchResponse, FetchTopicResponse,
    NodeEndpoint, Records,
};
pub use frame::{Frame, FrameError, next_frame};
pub use header::{HeaderError, RequestHeader, take_header};
pub use kafka_protocol::{
    messages,
    protocol::{Decodable, Encodable, Request, StrBytes},
};
pub use produce::{ProduceDecodeError, ProducePartition, ProduceRequest, ProduceTopic, TopicKey};
pub use produce_encode::{ProduceRequestData, ProduceTopicData};
pub use request::{DecodeError, decode_request};
pub use response::{EncodeError, encode_response};
pub use shape::ShapeError;
