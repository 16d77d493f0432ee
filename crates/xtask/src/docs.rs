//! `docs/configuration.md`, which nobody edits by hand.

use std::fs;

use anyhow::{Context, Result, bail};

pub(crate) fn run(check: bool) -> Result<()> {
    let path = crate::root().join("docs/configuration.md");
    let page = ottla_config::configuration_markdown();
    if check {
        let there = fs::read_to_string(&path).unwrap_or_default();
        if there != page {
            bail!("docs/configuration.md is not up to date: run `cargo xtask docs`");
        }
        return Ok(());
    }
    fs::write(&path, page).with_context(|| format!("write {}", path.display()))
}
