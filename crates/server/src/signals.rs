//! SIGTERM and SIGINT, counted: the first asks, the second insists.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::ExitReason;

/// Both signals that stop a server.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on the signals no longer end the process by themselves.
    pub(crate) fn listen() -> Result<Signals, ExitReason> {
        let start = |kind| {
            signal(kind).map_err(|error| ExitReason::Start(format!("listen for signals: {error}")))
        };
        Ok(Signals {
            terminate: start(SignalKind::terminate())?,
            interrupt: start(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
