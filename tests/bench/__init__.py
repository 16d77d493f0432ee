"""Speed next to Apache Kafka, in the same run on the same machine."""
