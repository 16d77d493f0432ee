"""Clusters for end-to-end tests: real nodes on loopback or in containers, started, killed and watched.

`Cluster` (cluster.py) is the one interface; `OttlaProcesses`, `OttlaContainers` and `KafkaNodes` implement it, so a
test states what it expects once and can be proven against Apache Kafka. `target.py` makes one from the command line.
"""
