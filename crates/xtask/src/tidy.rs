//! What the compiler and clippy do not check.

mod edges;
mod files;

use anyhow::{Result, bail};

/// Runs every check and reports all that is wrong.
pub(crate) fn run() -> Result<()> {
    let mut problems = edges::check()?;
    problems.extend(files::check()?);
    for problem in &problems {
        eprintln!("tidy: {problem}");
    }
    if problems.is_empty() {
        println!("tidy: ok");
        return Ok(());
    }
    bail!("{} problems", problems.len())
}
