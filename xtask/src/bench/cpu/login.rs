//! From power-on to the login prompt of a Debian with systemd on a disk.

use super::console::{Console, Moment};
use super::contenders::{qemu, understudy};
use super::guest::Images;
use super::results::middle;
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

const PROMPT: &str = "login: ";

/// Medians of both, under the names of their columns.
#[derive(Clone, Debug)]
pub struct Login(Vec<(String, Moment)>);

impl Login {
    /// CPU and wall seconds of the column `name`.
    pub fn of(&self, name: &str) -> Option<Moment> {
        self.0
            .iter()
            .find(|(column, _)| column == name)
            .map(|(_, moment)| *moment)
    }
}

/// Boots the guest in `directory` with our machine (`ours` is its column) and with QEMU, each time
/// on a fresh copy of its disk.
pub fn measure(
    directory: &Path,
    program: &Path,
    engine: Option<&str>,
    ours: &str,
    has_qemu: bool,
    repetitions: usize,
    scratch: &Path,
) -> Result<Login> {
    let mut images = Images::open(directory)?;
    let original = images
        .disk
        .clone()
        .with_context(|| format!("{} has no disk", directory.display()))?;
    let copy = scratch.join("login-disk");
    images.disk = Some(copy.clone());
    let (mut our_runs, mut qemu_runs) = (Vec::new(), Vec::new());
    for _ in 0..repetitions {
        our_runs.push(boot(
            &mut understudy(program, &images, engine),
            &original,
            &copy,
        )?);
        if has_qemu {
            let mut command = qemu(&images);
            command.args(["-nic", "none"]);
            qemu_runs.push(boot(&mut command, &original, &copy)?);
        }
    }
    std::fs::remove_file(&copy)?;
    let columns = [(ours, our_runs), ("qemu", qemu_runs)];
    Ok(Login(
        columns
            .into_iter()
            .filter(|(_, runs)| !runs.is_empty())
            .map(|(name, runs)| (name.to_owned(), middle(&runs)))
            .collect(),
    ))
}

fn boot(command: &mut Command, original: &Path, copy: &Path) -> Result<Moment> {
    let status = Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([original, copy])
        .status()?;
    if !status.success() {
        bail!("{} cannot be copied", original.display());
    }
    Console::start(command)?.wait_for_prompt(PROMPT)
}
