//! Rules on single files: length, head, name, `unsafe`, and the pure crates' lints.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// A file splits by this many lines.
const LINES_MAX: usize = 500;

/// Longer files and the length that they may not exceed; they may shrink, never grow.
const LONG_FILES: &[(&str, usize)] = &[];

/// The files that may contain `unsafe`, each with SAFETY comments.
const UNSAFE_FILES: &[&str] = &[];

/// Crates without I/O, clocks, randomness or hash maps.
const PURE_CRATES: &[&str] = &["replication", "metadata", "coordinator"];

pub(crate) fn check() -> Result<Vec<String>> {
    let root = crate::root();
    let mut sources = Vec::new();
    collect(&root.join("crates"), &mut sources)?;
    sources.sort();
    let mut problems = Vec::new();
    for path in &sources {
        let name = path
            .strip_prefix(&root)
            .unwrap_or(path)
            .to_string_lossy()
            .into_owned();
        let text = fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        problems.extend(check_file(&name, &text));
    }
    for (name, _) in LONG_FILES {
        if !root.join(name).exists() {
            problems.push(format!(
                "{name} is listed as a long file and does not exist"
            ));
        }
    }
    problems.extend(check_pure_lints(&root)?);
    Ok(problems)
}

fn check_file(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let lines = text.lines().count();
    match LONG_FILES.iter().find(|(long, _)| *long == name) {
        Some((_, max)) if lines > *max => {
            problems.push(format!(
                "{name} has grown from {max} to {lines} lines: split it"
            ));
        }
        Some(_) if lines <= LINES_MAX => {
            problems.push(format!("{name} is no longer long: take it off the list"));
        }
        None if lines > LINES_MAX => {
            problems.push(format!("{name} has {lines} lines: split it by {LINES_MAX}"));
        }
        Some(_) | None => {}
    }
    if name.ends_with("/mod.rs") {
        problems.push(format!("{name}: write foo.rs with foo/bar.rs, no mod.rs"));
    }
    if !text.starts_with("//!") {
        problems.push(format!(
            "{name} does not say at its head what it owns (//!)"
        ));
    }
    if uses_unsafe(text) && !UNSAFE_FILES.contains(&name) {
        problems.push(format!(
            "{name} is not on the list of files that may use unsafe code"
        ));
    }
    problems
}

fn uses_unsafe(text: &str) -> bool {
    // Put together, so that this file does not find itself.
    let word = concat!("un", "safe");
    text.lines().any(|line| {
        let code = line.split("//").next().unwrap_or_default();
        [" {", " fn ", " impl "]
            .iter()
            .any(|after| code.contains(&format!("{word}{after}")))
    })
}

/// A crate's clippy.toml replaces the one at the root: it must repeat it and ban hash maps.
fn check_pure_lints(root: &Path) -> Result<Vec<String>> {
    let common = fs::read_to_string(root.join("clippy.toml")).context("read clippy.toml")?;
    // Pure crates do not depend on tokio: only what std offers must be banned again.
    let banned: Vec<&str> = common
        .split('"')
        .filter(|word| word.starts_with("std::"))
        .collect();
    let mut problems = Vec::new();
    for name in PURE_CRATES {
        let path = format!("crates/{name}/clippy.toml");
        let Ok(own) = fs::read_to_string(root.join(&path)) else {
            problems.push(format!("{path} is missing: pure crates also ban HashMap"));
            continue;
        };
        let wanted = banned.iter().copied().chain(["std::collections::HashMap"]);
        for method in wanted.filter(|method| !own.contains(method)) {
            problems.push(format!("{path} does not ban {method}"));
        }
    }
    Ok(problems)
}

fn collect(directory: &Path, sources: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_breach() {
        assert_eq!(check_file("a.rs", "//! Owns a.\n"), Vec::<String>::new());
        assert!(check_file("a.rs", "fn a() {}\n")[0].contains("head"));
        assert!(check_file("a/mod.rs", "//! A.\n")[0].contains("mod.rs"));
        let long = format!("//! A.\n{}", "\n".repeat(LINES_MAX));
        assert!(check_file("a.rs", &long)[0].contains("split"));
        let code = concat!("//! A.\nfn a() { un", "safe { b() } }\n");
        assert!(check_file("a.rs", code)[0].contains("unsafe"));
    }
}
