"""Clients that others wrote, against a cluster: what works here only grows. Every case also passes on Apache Kafka."""
