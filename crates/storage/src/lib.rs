//! Partition logs on disk, in the layout of Apache Kafka.
