//! A Kafka client, spoken by the command line and the tests.
