//! One replica of a partition as a pure state machine.
//!
//! [`Replica`] is told facts, each with the time it happened, and answers with [`Effect`]s and
//! verdicts. It does no I/O, reads no clock, draws no random number and uses no `HashMap`: the same
//! code runs under the broker's shards, in property tests and under the simulator.
//!
//! Durability is an input: an offset counts once the runtime says that it is on disk (`LogMarks`)
//! or a follower has reported it (`FollowerReport`).

mod age;
mod effect;
mod follower;
mod input;
mod isr;
mod leader;
pub mod lineage;
mod replica;

pub use effect::{Effect, IsrProposal};
pub use follower::{Follower, FrameVerdict};
pub use input::{
    Assignment, FollowerReport, FrameFacts, FrameKind, IsrAnswer, LogMarks, Registered,
    ReportRejected, Settings,
};
pub use leader::Leader;
pub use replica::{Replica, Role};
