//! The Kafka protocol: framing, versions, codecs.
