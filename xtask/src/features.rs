//! Whether what two commands build is built once.
//!
//! Cargo chooses the features of a library for all that one command builds, and everything above a library that another
//! command asks more of is compiled a second time. `cargo xtask` builds itself, then the other crates with their tests,
//! which ask more of some libraries; the program that ships is built, then the machines' tests as a release. So
//! `xtask/Cargo.toml` and `crates/understudy/Cargo.toml` ask for what those tests ask for.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A package, and the sets of features that it is built with: more than one where a compiler's plug-in needs it too.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Two commands that are to build nothing twice: the name of what each builds, and how cargo selects it.
const PAIRS: [[(&str, &[&str]); 2]; 2] = [
    [
        ("xtask", &["-p", "xtask", "-e", "normal,build"]),
        (
            "the tests",
            &[
                "--workspace",
                "--exclude",
                "xtask",
                "-e",
                "normal,build,dev",
            ],
        ),
    ],
    [
        ("the program", &["-p", "understudy", "-e", "normal,build"]),
        (
            "the machines' tests",
            // As `crate::test` builds them.
            &[
                "-p",
                "understudy",
                "-p",
                "riscv",
                "-p",
                "x86",
                "-e",
                "normal,build,dev",
            ],
        ),
    ],
];

/// Compares the features of every package that both of each pair are built of.
///
/// # Errors
/// The packages that would be built twice.
pub fn run() -> Result<()> {
    println!("> what is built twice");
    for [(name, selection), (other, others)] in PAIRS {
        let differ = different(&features(selection)?, &features(others)?);
        if !differ.is_empty() {
            bail!(
                "{name} and {other} ask for other features of libraries, so that much is built twice. Make the \
                 Cargo.toml of {name} ask for the same:\n{}",
                differ.join("\n")
            );
        }
    }
    Ok(())
}

fn features(selection: &[&str]) -> Result<Features> {
    let tree = Command::new("cargo")
        .args(["tree", "--prefix", "none", "-f", "{p}|{f}"])
        .args(selection)
        .output()
        .context("cargo tree does not start")?;
    if !tree.status.success() {
        bail!(
            "`cargo tree` failed: {}",
            String::from_utf8_lossy(&tree.stderr)
        );
    }
    Ok(parse(&String::from_utf8_lossy(&tree.stdout)))
}

/// Reads lines of `name version (path)|feature,feature (*)`.
fn parse(tree: &str) -> Features {
    let mut all = Features::new();
    for (package, features) in tree.lines().filter_map(|line| line.split_once('|')) {
        let features = features.trim_end_matches("(*)").trim();
        all.entry(package.to_owned())
            .or_default()
            .insert(features.to_owned());
    }
    all
}

fn different(one: &Features, other: &Features) -> Vec<String> {
    one.iter()
        .filter_map(|(package, features)| Some((package, features, other.get(package)?)))
        .filter(|(_, one, other)| one != other)
        .map(|(package, one, other)| format!("{package}: {one:?} and {other:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_built_with_other_features_is_named() {
        let one = parse("bitflags v2.13.2|\nbitflags v2.13.2|std (*)\nxtask v0.1.0 (/x)|\n");
        let other = parse("bitflags v2.13.2|std\nsmallvec v1.16.6|union\n");
        assert_eq!(
            different(&one, &other),
            [r#"bitflags v2.13.2: {"", "std"} and {"std"}"#]
        );
        assert!(different(&one, &one).is_empty());
    }
}
