//! Format, lints (here and for a host without a JIT), documentation, licences, and what the compiler
//! made of it.

use crate::program;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// A host without a JIT.
const HOST_WITHOUT_JIT: &str = "aarch64-unknown-linux-gnu";

/// Runs every check, all with warnings as errors.
pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], &[])?;
    crate::imports::run()?;
    crate::features::run()?;
    cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )?;
    // What is shipped names its broken invariants (`expect`), and handles everything else.
    cargo(
        &[
            "clippy",
            "--workspace",
            "--lib",
            "--bins",
            "--",
            "-D",
            "warnings",
            "-D",
            "clippy::unwrap_used",
            "-D",
            "clippy::todo",
            "-D",
            "clippy::unimplemented",
        ],
        &[],
    )?;
    host_without_jit()?;
    cargo(
        &["doc", "--workspace", "--no-deps"],
        &[("RUSTDOCFLAGS", "-D warnings")],
    )?;
    licences()?;
    crate::compiler::run(crate::compiler::Scope::Exact)?;
    println!("check: all is well");
    Ok(())
}

/// The machine as it is where there is no JIT: what only compiled code needs must not be there.
fn host_without_jit() -> Result<()> {
    let libraries = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", HOST_WITHOUT_JIT])
        .output()
        .context("rustc does not start")?;
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    if !Path::new(libraries.trim()).is_dir() {
        println!(
            "> not looked at: the machine without a JIT (rustup target add {HOST_WITHOUT_JIT})"
        );
        return Ok(());
    }
    cargo(
        &[
            "clippy",
            "--package",
            "machine",
            "--package",
            "devices",
            "--package",
            "jit",
            "--package",
            "riscv",
            "--package",
            "x86",
            "--all-targets",
            "--target",
            HOST_WITHOUT_JIT,
            "--",
            "-D",
            "warnings",
        ],
        &[],
    )
}

/// Runs cargo and fails if it fails.
pub fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    println!("> cargo {}", arguments.join(" "));
    let start = Instant::now();
    let status = program::cargo()
        .args(arguments)
        .envs(environment.iter().copied())
        .status()
        .context("cargo does not start")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    println!(
        "> that took {:.0} s: cargo {}",
        start.elapsed().as_secs_f64(),
        arguments.join(" ")
    );
    Ok(())
}

/// Every dependency has a licence that `deny.toml` allows.
fn licences() -> Result<()> {
    println!("> licences of all dependencies");
    let allowed = allowed_licences(&std::fs::read_to_string("deny.toml")?)?;
    let metadata = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cargo metadata does not start")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&metadata.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let refused: Vec<String> = packages
        .iter()
        .filter(|package| !is_allowed(package["license"].as_str().unwrap_or(""), &allowed))
        .map(|package| format!("{} ({})", package["name"], package["license"]))
        .collect();
    if !refused.is_empty() {
        bail!(
            "licences that deny.toml does not allow: {}",
            refused.join(", ")
        );
    }
    println!("{} packages", packages.len());
    Ok(())
}

fn allowed_licences(deny: &str) -> Result<Vec<String>> {
    let list = deny
        .split_once("allow = [")
        .and_then(|(_, rest)| rest.split_once(']'))
        .context("deny.toml has no list of allowed licences")?
        .0;
    Ok(list
        .split('"')
        .skip(1)
        .step_by(2)
        .map(String::from)
        .collect())
}

/// Whether an SPDX expression allows one of the licences: `OR` needs one side, `AND` both.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    expression.split(" AND ").all(|part| {
        part.split(" OR ")
            .any(|licence| allowed.iter().any(|allowed| allowed == licence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spdx_expressions() {
        let allowed = ["MIT".to_owned(), "ISC".to_owned()];
        assert!(is_allowed("MIT OR Apache-2.0", &allowed));
        assert!(is_allowed("Apache-2.0/MIT", &allowed));
        assert!(is_allowed("(Apache-2.0 OR MIT) AND ISC", &allowed));
        assert!(!is_allowed("GPL-3.0", &allowed));
        assert!(!is_allowed("MIT AND GPL-3.0", &allowed));
        assert!(!is_allowed("", &allowed));
    }
}
