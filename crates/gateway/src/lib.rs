//! Kafka connections: request, broker call, response.
