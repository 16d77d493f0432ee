//! `ottla`: arguments, logging, exit codes. What a command does is in the libraries.

mod arguments;
mod commands;
mod logging;
mod panics;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    commands::run(arguments)
}
