//! Wiring of roles, listeners, signals and HTTP: what makes a process of the crates below.
//!
//! [`run_server`] runs one node until a signal, [`run_dev`] several nodes in one process. The roles
//! of a node meet only through gRPC, also here: a combined node has no shortcut that a split
//! cluster lacks.
//!
//! # Invariants
//! * Every listener is bound before any role starts, so that a port in use stops the start before
//!   anything was registered or written.
//! * Shutdown is a protocol: hand leadership over while serving, stop accepting, drain, flush,
//!   write the clean marker, exit 0 (M-22). A second signal, or the limit, ends the process at once.

mod dev;
mod exit;
mod health;
mod hostname;
mod http;
mod listen;
mod metrics;
mod node;
mod run;
mod signals;
mod threads;
mod wiring;

pub use dev::{DevOptions, dev_sources};
pub use exit::ExitReason;
pub use hostname::hostname;
pub use http::healthcheck;
pub use run::{run_dev, run_server};
