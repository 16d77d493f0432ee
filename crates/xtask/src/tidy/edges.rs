//! Which crate may use which: the crate map, as a table.
//!
//! A crate uses the layers below it, never a neighbour, less what it must not know. A new edge is
//! a design change: its own commit, its own reason.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Each crate and the crates of ours that it may use, from the bottom up.
const EDGES: &[(&str, &[&str])] = &[
    ("ottla-types", &[]),
    ("ottla-records", &["types"]),
    ("ottla-replication", &["types", "records"]),
    ("ottla-metadata", &["types", "records"]),
    ("ottla-coordinator", &["types", "records"]),
    ("ottla-storage", &["types", "records"]),
    ("ottla-rpc", &["types", "records"]),
    ("ottla-wire", &["types", "records"]),
    ("ottla-config", &["types", "records"]),
    (
        "ottla-broker",
        &[
            "types",
            "records",
            "replication",
            "metadata",
            "coordinator",
            "storage",
            "rpc",
            "config",
        ],
    ),
    ("ottla-controller", &["types", "metadata", "rpc", "config"]),
    ("ottla-client", &["types", "records", "wire"]),
    (
        "ottla-gateway",
        &[
            "types",
            "records",
            "metadata",
            "coordinator",
            "wire",
            "config",
            "broker",
        ],
    ),
    (
        "ottla-server",
        &[
            "types",
            "records",
            "metadata",
            "storage",
            "config",
            "broker",
            "controller",
            "gateway",
        ],
    ),
    ("ottla", &["config", "server"]),
    ("xtask", &["config"]),
];

/// Crates from outside that only these crates of ours may use: what a layer must not know.
const OUTSIDE: &[(&str, &[&str])] = &[
    (
        "tokio",
        &[
            "ottla-rpc",
            "ottla-broker",
            "ottla-controller",
            "ottla-client",
            "ottla-gateway",
            "ottla-server",
            "ottla",
        ],
    ),
    ("tonic", &["ottla-rpc", "ottla-broker", "ottla-controller"]),
    ("openraft", &["ottla-controller"]),
    ("rocksdb", &["ottla-controller"]),
    ("kafka-protocol", &["ottla-wire"]),
    ("hyper", &["ottla-server"]),
    (
        "rand",
        &[
            "ottla-broker",
            "ottla-controller",
            "ottla-client",
            "ottla-gateway",
            "ottla-server",
        ],
    ),
    ("clap", &["ottla", "xtask"]),
    ("anyhow", &["ottla", "xtask"]),
];

pub(crate) fn check() -> Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .context("run cargo metadata")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {stderr}");
    let metadata: Value = serde_json::from_slice(&output.stdout).context("parse cargo metadata")?;
    Ok(check_packages(
        metadata["packages"]
            .as_array()
            .context("a list of packages")?,
    ))
}

fn check_packages(packages: &[Value]) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = EDGES.iter().find(|(of, _)| *of == name) else {
            problems.push(format!("{name} is not in the table of crate edges"));
            continue;
        };
        let dependencies = package["dependencies"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        for dependency in dependencies {
            let used = dependency["name"].as_str().unwrap_or_default();
            // Tests may use any tool; they may not know another crate of ours either.
            let in_tests = dependency["kind"].as_str() == Some("dev");
            problems.extend(check_edge(name, used, allowed, in_tests));
        }
    }
    problems
}

fn check_edge(name: &str, used: &str, allowed: &[&str], in_tests: bool) -> Option<String> {
    let is_ours = EDGES.iter().any(|(ours, _)| *ours == used);
    let short = used.strip_prefix("ottla-").unwrap_or(used);
    if is_ours {
        return (!allowed.contains(&short)).then(|| format!("{name} must not know {used}"));
    }
    let (_, users) = OUTSIDE.iter().find(|(outside, _)| *outside == used)?;
    (!in_tests && !users.contains(&name)).then(|| format!("{name} must not use {used}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_goes_from_the_bottom_up() {
        for (position, (name, allowed)) in EDGES.iter().enumerate() {
            for used in *allowed {
                let below = EDGES[..position]
                    .iter()
                    .any(|(lower, _)| lower.strip_prefix("ottla-") == Some(used));
                assert!(below, "{name} uses {used}, which is not below it");
            }
        }
    }

    #[test]
    fn a_wrong_edge_is_found() {
        assert!(check_edge("ottla-broker", "ottla-controller", &["types"], false).is_some());
        assert!(check_edge("ottla-broker", "ottla-types", &["types"], false).is_none());
        assert!(check_edge("ottla-storage", "tokio", &["types"], false).is_some());
        assert!(check_edge("ottla-storage", "tokio", &["types"], true).is_none());
        assert!(check_edge("ottla-storage", "bytes", &["types"], false).is_none());
    }
}
