//! The cluster as a pure state machine: brokers, topics, elections, fencing.
//!
//! Controllers apply [`Command`]s to a [`ClusterState`]; the result is an [`Outcome`] for whoever
//! asked and a list of [`Record`]s. Brokers never see commands: they fold records into an
//! [`Image`]. Nothing here reads a clock or draws a random number: both travel in the command.
//!
//! # Invariants
//! * Equal commands in equal order give equal states, on every node (C-2).
//! * Folding the records of every command gives the image of the state that emitted them.
//! * What [`Image::violations`] and [`violations_between`] list never happens.
//!
//! Start at [`ClusterState::apply`]; the rules of who may lead are in `elections.rs`.

mod apply;
mod codec;
mod command;
mod elections;
mod image;
mod invariants;
mod placement;
mod queries;
mod record;
mod settings;
#[cfg(test)]
mod tests;

pub use apply::{Applied, ClusterState, PARTITIONS_PER_REQUEST_MAX, PRODUCER_ID_BLOCK};
pub use codec::{CodecError, decode, encode};
pub use command::{
    AlterConfigOp, AlterPartition, AlterPartitionError, Command, CommandError, ConfigAlteration,
    CreatePartitions, CreateTopic, CreatedTopic, DeleteTopic, ElectLeaders, ElectionKind,
    LogReport, Outcome, Registration, TopicRef,
};
pub use image::{Image, TopicImage};
pub use invariants::violations_between;
pub use record::{
    BrokerRecord, ConfigResource, Endpoint, PartitionRecord, Record, ReportedLog, SecurityProtocol,
};
