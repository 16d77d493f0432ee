//! The log: standard error, so that standard output stays for answers.

use anyhow::{Context as _, Result};
use tracing_subscriber::EnvFilter;

use crate::arguments::{LogFormat, Logging};

/// Libraries that talk more than an operator wants to read; a level given for them wins.
const QUIET: &str = "openraft=off,h2=warn,hyper=warn,tonic=warn";

/// Starts logging for the whole process, panics included.
pub(crate) fn start(logging: &Logging) -> Result<()> {
    let directives = format!("{QUIET},{}", logging.log_level);
    let filter = EnvFilter::try_new(&directives)
        .with_context(|| format!("read the log level {:?}", logging.log_level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match logging.log_format {
        LogFormat::Text => log
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    crate::panics::end_the_process();
    Ok(())
}
