//! Scenarios of one coordinator, and random histories with the invariants checked after each step.

mod admin;
mod membership;
mod offsets;
mod properties;
mod static_members;
mod world;
