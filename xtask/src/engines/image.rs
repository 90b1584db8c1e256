//! Guest images for the workloads, built by `understudy guest build`.

use super::debian_disk;
use super::workload::{Guest, Workload};
use crate::program;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the guest has a workload's files.
const IN_GUEST: &str = "/workload";

/// The directory of a workload's image for an architecture (by Debian's name), which is built if it is not there, or no longer the same.
pub fn ready(workload: &Workload, architecture: &str, directory: &Path) -> Result<PathBuf> {
    let image = match architecture {
        "riscv64" => directory.join(workload.name),
        other => directory.join(format!("{}-{other}", workload.name)),
    };
    let arch = format!("--arch={architecture}");
    match &workload.guest {
        Guest::Script { packages, files } => {
            let mut arguments = vec![arch, "--package".to_owned(), packages.join(",")];
            for file in *files {
                arguments.push("--add-file".to_owned());
                let host = script_path(file);
                arguments.push(format!("{}:{IN_GUEST}/{file}", host.display()));
            }
            let run = files.first().context("a workload without a file")?;
            arguments.push("--append".to_owned());
            arguments.push(format!(
                "understudy.network=none understudy.run={IN_GUEST}/{run}"
            ));
            build(&image, &arguments)?;
        }
        Guest::Redis => build(&image, &[arch])?,
        Guest::DebianOnDisk { .. } => debian_disk::ready(&image, arch)?,
    }
    Ok(image)
}

/// Runs `understudy guest build`.
pub fn build(image: &Path, arguments: &[String]) -> Result<()> {
    let status = Command::new(program::path()?)
        .args(["guest", "build", "--output"])
        .arg(image)
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .context("understudy does not start")?;
    ensure!(
        status.success(),
        "the guest {} is not built",
        image.display()
    );
    Ok(())
}

/// The text of a file of `xtask/guest-workloads`.
pub fn script(name: &str) -> Result<String> {
    let path = script_path(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn script_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("guest-workloads")
        .join(name)
}
