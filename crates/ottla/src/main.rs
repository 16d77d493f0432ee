//! A Kafka-compatible, replicated event-streaming cluster.

fn main() {}
