//! Who may import whom: the map of the crates, and a check that they keep to it.
//!
//! The map is `ARCHITECTURE.md`'s. What a crate imports for its tests only is not looked at, but for
//! `machine`, which knows nobody.

use anyhow::{Context, Result, bail};
use std::process::Command;

/// Every crate of the workspace and the crates of it that it may import.
const MAP: [(&str, &[&str]); 17] = [
    ("machine", &[]),
    ("devices", &["machine"]),
    ("jit", &["machine"]),
    ("riscv", &["machine", "devices", "jit"]),
    ("x86", &["machine", "devices", "jit"]),
    ("replication", &[]),
    ("environment", &[]),
    ("arbiter", &["replication", "environment"]),
    ("keys", &[]),
    ("qcow2", &[]),
    ("network", &["keys"]),
    ("guest-image", &[]),
    (
        "sim",
        &[
            "replication",
            "replica",
            "arbiter",
            "machine",
            "environment",
        ],
    ),
    (
        "replica",
        &[
            "machine",
            "devices",
            "replication",
            "arbiter",
            "network",
            "environment",
            "keys",
            "qcow2",
        ],
    ),
    (
        "understudy",
        &[
            "machine",
            "riscv",
            "x86",
            "replication",
            "arbiter",
            "network",
            "keys",
            "guest-image",
            "replica",
        ],
    ),
    ("xtask", EVERYBODY),
    ("understudy-fuzz", EVERYBODY),
];

/// May import whom it likes: it is not shipped.
const EVERYBODY: &[&str] = &["*"];

/// Fails if a crate imports one that it may not.
pub fn run() -> Result<()> {
    println!("> who imports whom");
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .output()
        .context("cargo metadata does not start")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let violations = violations(&metadata)?;
    if !violations.is_empty() {
        bail!(
            "imports that the map of the crates does not allow (xtask/src/imports.rs):\n  {}",
            violations.join("\n  ")
        );
    }
    Ok(())
}

/// What is wrong with the packages of `cargo metadata`.
fn violations(metadata: &serde_json::Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let names: Vec<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let mut violations = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, allowed)) = MAP.iter().find(|(known, _)| *known == name) else {
            violations.push(format!("{name} is not on the map"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let import = dependency["name"].as_str().unwrap_or_default();
            let is_for_tests = dependency["kind"] == "dev" && name != "machine";
            let is_allowed = *allowed == EVERYBODY || allowed.contains(&import);
            if names.contains(&import) && !is_for_tests && !is_allowed {
                violations.push(format!("{name} imports {import}"));
            }
        }
    }
    Ok(violations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Two packages, the first of which depends on the second in this way.
    fn packages(name: &str, import: &str, kind: Option<&str>) -> Vec<String> {
        let metadata = json!({ "packages": [
            { "name": name, "dependencies": [
                { "name": import, "kind": kind },
                { "name": "serde", "kind": null },
            ] },
            { "name": import, "dependencies": [] },
        ] });
        violations(&metadata).expect("it lists packages")
    }

    #[test]
    fn an_import_against_the_map_is_found() {
        assert_eq!(
            packages("replica", "riscv", None),
            ["replica imports riscv"]
        );
        assert_eq!(
            packages("devices", "riscv", None),
            ["devices imports riscv"]
        );
        assert_eq!(
            packages("machine", "devices", Some("dev")),
            ["machine imports devices"]
        );
        assert_eq!(
            packages("riscv", "x86", Some("build")),
            ["riscv imports x86"]
        );
        assert!(packages("riscv", "devices", None).is_empty());
        assert!(packages("replica", "riscv", Some("dev")).is_empty());
    }

    #[test]
    fn a_crate_that_nobody_put_on_the_map_is_found() {
        assert_eq!(
            packages("machine", "toolbox", Some("dev")),
            ["machine imports toolbox", "toolbox is not on the map"]
        );
    }

    /// The map is read by people: a crate that it names twice, or an import of one that is not on
    /// it, would mislead them.
    #[test]
    fn the_map_names_every_crate_once_and_no_stranger() {
        for (index, (name, allowed)) in MAP.iter().enumerate() {
            assert!(
                MAP[..index].iter().all(|(other, _)| other != name),
                "{name} twice"
            );
            for import in allowed.iter().filter(|import| **import != "*") {
                assert!(MAP.iter().any(|(known, _)| known == import), "{import}");
            }
        }
    }
}
