//! The record batch v2: parsed, checked, stamped in place, built and decoded.
//!
//! A batch is the unit of everything below the gateway: it is validated once, stamped in place
//! with its offset and leader epoch (which the CRC does not cover), and from then on the same
//! bytes go to the file, to the followers and to the consumers.
//!
//! # Invariants
//! * Nothing here trusts a length, a count or a codec found in a batch: every read is bounded by
//!   the bytes at hand, every decompression by a limit, and no input panics.
//! * [`stamp`] never changes a byte that the CRC covers.
//!
//! Start with [`BatchHeader`], then [`validate_client_batch`].

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod admit;
mod batches;
mod builder;
mod compression;
mod control;
mod decode;
mod header;
mod record;
mod stamp;
mod validate;
mod varint;

pub use admit::{Compression, admit_client_batch};
pub use batches::{Batches, batches, check_crc};
pub use builder::BatchBuilder;
pub use compression::{compress, decompress};
pub use control::{
    ControlType, EndTransaction, control_type, end_transaction, end_transaction_marker,
};
pub use decode::{OwnedHeader, OwnedRecord, decode_records};
pub use header::{
    Attributes, BATCH_OVERHEAD, BatchError, BatchHeader, Codec, TimestampType, next_sequence,
};
pub use record::{Header, Record, RecordIter};
pub use stamp::{stamp, stamp_log_append_time, stamp_max_timestamp};
pub use validate::{InvalidBatch, ProduceRules, RecordError, validate_client_batch};
