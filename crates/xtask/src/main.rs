//! Checks of the workspace itself: `cargo xtask tidy`, and the generated page: `cargo xtask docs`.

mod docs;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Checks of the workspace itself")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Crate edges, file lengths, file heads and unsafe code against their tables.
    Tidy,
    /// Writes docs/configuration.md from the tables of keys.
    Docs {
        /// Only says whether it is up to date.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Tidy => tidy::run(),
        Command::Docs { check } => docs::run(check),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace that cargo runs this for. Asked at run time: one target directory may
/// serve several clones, and then the program was perhaps compiled in another.
fn root() -> std::path::PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = std::path::PathBuf::from(package.unwrap_or_else(|| ".".into()));
    here.ancestors().nth(2).unwrap_or(&here).to_owned()
}
