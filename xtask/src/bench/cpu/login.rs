//! From power-on to the login prompt of a Debian with systemd on a disk.

use super::console::{Console, Moment};
use super::guest::Images;
use super::results::middle;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROMPT: &str = "login: ";

/// Medians, under the names of their columns.
#[derive(Clone, Debug)]
pub struct Login(Vec<(String, Moment)>);

impl Login {
    /// From the runs of each column; one without runs is left out.
    pub fn new(columns: &[(&str, Vec<Moment>)]) -> Login {
        Login(
            columns
                .iter()
                .filter(|(_, runs)| !runs.is_empty())
                .map(|(name, runs)| ((*name).to_owned(), middle(runs)))
                .collect(),
        )
    }

    /// CPU and wall seconds of the column `name`.
    pub fn of(&self, name: &str) -> Option<Moment> {
        self.0
            .iter()
            .find(|(column, _)| column == name)
            .map(|(_, moment)| *moment)
    }
}

/// A guest with a disk, of which every boot gets a fresh copy.
#[derive(Clone, Debug)]
pub struct LoginBoot {
    /// With the copy as the disk.
    pub images: Images,
    original: PathBuf,
    copy: PathBuf,
}

impl LoginBoot {
    /// The guest in `directory`; the copies are made below `scratch`.
    pub fn new(directory: &Path, scratch: &Path) -> Result<LoginBoot> {
        let mut images = Images::open(directory)?;
        let copy = scratch.join("login-disk");
        let original = images
            .disk
            .replace(copy.clone())
            .with_context(|| format!("{} has no disk", directory.display()))?;
        Ok(LoginBoot {
            images,
            original,
            copy,
        })
    }

    /// From the start of a process that boots `images` to the prompt.
    pub fn measure(&self, command: &mut Command) -> Result<Moment> {
        let status = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([&self.original, &self.copy])
            .status()?;
        if !status.success() {
            bail!("{} cannot be copied", self.original.display());
        }
        Console::start(command)?.wait_for_prompt(PROMPT)
    }
}
