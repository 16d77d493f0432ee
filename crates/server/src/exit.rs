//! Why the process ends, and the code it ends with.

use std::process::ExitCode;

/// Every way a server process ends; what it must not outlive has a name and a code of its own.
#[derive(Debug, thiserror::Error)]
pub enum ExitReason {
    /// A signal asked for it, and the shutdown went its whole way.
    #[error("stopped")]
    Stopped,
    /// The configuration is not acceptable.
    #[error("{0}")]
    Config(String),
    /// A listener could not be bound, a directory not opened, a role not started.
    #[error("{0}")]
    Start(String),
    /// A role failed for good while running.
    #[error("{0}")]
    Fatal(String),
    /// The shutdown took longer than `ottla.shutdown.timeout.ms`.
    #[error("the shutdown was not over within its limit")]
    ShutdownLimit,
    /// A second signal came before the shutdown was over.
    #[error("a second signal ended the shutdown")]
    SecondSignal,
}

impl ExitReason {
    /// The process's exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            ExitReason::Stopped => 0,
            ExitReason::Start(_) => 1,
            ExitReason::Config(_) => 2,
            ExitReason::Fatal(_) => 3,
            ExitReason::ShutdownLimit => 4,
            // As if SIGTERM had not been handled.
            ExitReason::SecondSignal => 143,
        }
    }
}

impl From<&ExitReason> for ExitCode {
    fn from(reason: &ExitReason) -> ExitCode {
        ExitCode::from(reason.code())
    }
}
