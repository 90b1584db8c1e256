//! Tells the program which commit it is built from, where git knows.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Who builds from an archive of the sources may say it.
const VARIABLE: &str = "UNDERSTUDY_COMMIT";
/// Digits of a commit's name: enough for people, and of the same number in every clone.
const DIGITS: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let said = std::env::var(VARIABLE).ok();
    let said = said.filter(|commit| commit.chars().all(|c| c.is_ascii_alphanumeric()));
    let commit = said.filter(|commit| !commit.is_empty()).or_else(head);
    let mut commit = commit.unwrap_or_else(|| "unknown".into());
    commit.truncate(DIGITS);
    println!("cargo::rustc-env={VARIABLE}={commit}");
}

/// The commit that is checked out, if these sources are of a repository of their own.
fn head() -> Option<String> {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent()?.parent()?.canonicalize().ok()?;
    let top = PathBuf::from(git(&workspace, &["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != workspace {
        return None;
    }
    // Both change with every commit and checkout; a file that is not there would be looked for each time.
    for file in ["HEAD", "logs/HEAD"] {
        let path = workspace.join(git(&workspace, &["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&workspace, &["rev-parse", "HEAD"])
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let is_one_line = !text.trim().is_empty() && !text.trim().contains('\n');
    (output.status.success() && is_one_line).then(|| text.trim().to_owned())
}
