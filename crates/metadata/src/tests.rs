//! Scenarios by name, and random histories with the invariants checked after each step.

mod admin;
mod brokers;
mod configs;
mod disks;
mod histories;
mod replicas;
mod steps;
mod world;
