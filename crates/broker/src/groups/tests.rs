//! Hosted groups on a log in memory that two brokers share: rounds, failovers, appends that fail.

mod client;
mod cluster;
mod hosting;
mod moves;
