//! The cluster as a pure state machine: brokers, topics, elections, fencing.
//!
//! Controllers apply [`Command`]s to a [`ClusterState`]; the result is an [`Outcome`] for whoever
//! asked and a list of [`Record`]s. Brokers never see commands: they fold records into an
//! [`Image`]. Nothing here reads a clock or draws a random number: both travel in the command.

mod command;
mod image;
mod record;

pub use command::{
    AlterConfigOp, AlterPartition, AlterPartitionError, Command, CommandError, ConfigAlteration,
    CreatePartitions, CreateTopic, CreatedTopic, DeleteTopic, ElectLeaders, ElectionKind, Outcome,
    Registration, TopicRef,
};
pub use image::{Image, TopicImage};
pub use record::{
    BrokerRecord, ConfigResource, Endpoint, PartitionRecord, Record, SecurityProtocol,
};
