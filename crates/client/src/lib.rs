//! The Kafka client: a producer, a consumer and an admin.
//!
//! It knows nothing of the server: the same code speaks to Ottla and to Apache Kafka.
