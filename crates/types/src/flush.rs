//! What a replica must have done with bytes before it may count them as stored.

use serde::{Deserialize, Serialize};

/// When a replica reports an offset as stored; `flush.messages` of 1 is `Ack`, any larger `Page`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlushMode {
    /// Only after fsync (group commit): survives power loss of every machine at once (P-13).
    #[default]
    Ack,
    /// Once in the page cache, as Apache Kafka does by default; flushed in the background.
    Page,
}
