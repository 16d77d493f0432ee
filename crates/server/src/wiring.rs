//! From the node's configuration to each role's own: plain values, passed down once.

mod broker;
mod controller;

pub(crate) use broker::broker_config;
pub(crate) use controller::controller_config;
