//! The controller quorum: openraft over RocksDB and gRPC.
