//! What a panic means: a bug, after which part of the process would be missing unseen.

use tracing::error;

/// Threads whose panics end one connection and nothing else.
const CONNECTION_THREADS: &str = "ottla-data";

/// A panic on any thread but those of connections ends the process: a node without one of its
/// shards, or without raft, would look alive and serve nothing. Its partitions fail over instead.
pub(crate) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let backtrace = std::backtrace::Backtrace::capture();
        error!(thread = name, %panic, %backtrace, "panic");
        if !name.starts_with(CONNECTION_THREADS) {
            eprintln!("ottla: panic on thread {name}: {panic}");
            std::process::abort();
        }
    }));
}
