//! Shards of partitions, replica streams, hosted groups, the link to the controller.
