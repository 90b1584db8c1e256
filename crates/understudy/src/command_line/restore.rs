//! `understudy restore`: a new life from the file of a snapshot.

use super::replica::open;
use super::snapshot::describe;
use super::word::is_meant;
use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::setup::ConfiguredMachine;
use anyhow::anyhow;
use clap::Args;
use replica::ReplicaConfig;
use replica::host_time::rfc3339;
use replica::new_life::{NewLife, NewLifeError};
use replica::snapshot_file::{self, SnapshotSource};
use std::fs;
use std::io::{self, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Begin another life of a machine, from a file that `understudy snapshot` made: it goes on where it was then.
///
/// The whole file is checked first. Then the life begins, the disks are written where the configuration says, and
/// `understudy replica`, started here, has the machine go on. What the machine did after the snapshot is given up. No
/// replica may run on this host meanwhile; backups join as always.
///
/// Status 0: it is restored. 1: it is not, and why. 2: the file is damaged or does not fit, or something is in its way.
#[derive(Debug, Args)]
pub struct Restore {
    /// The snapshot
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A life that is open is declared lost, as by `understudy new-life`
    #[arg(long)]
    new_life: bool,
    /// Disks that are there are overwritten
    #[arg(long)]
    overwrite_disks: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Restore {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        let (replica, store) = open(&config, &self.config)?;
        if let Some(disk) = replica.disks.iter().find(|disk| disk.is_shared) {
            let path = disk.path.display();
            return Err(Failure::usage(anyhow!(
                "the disk {path} is shared by the machine's hosts, and no snapshot has such a disk: restore it where it is kept, \
                 or restore the snapshot by a configuration without it"
            )));
        }
        self.is_no_disk(&replica).map_err(Failure::usage)?;
        let (peers, name) = (config.peers(), config.name.clone());
        let machines = ConfiguredMachine(config);
        let source = SnapshotSource::open(&self.file).map_err(Failure::usage)?;
        let head = source.head().clone();
        drop(source);
        println!("{}: {}", self.file.display(), describe(&head));
        let replaced = self.replaced_disks(&replica, head.taken_unix_ns)?;
        let mut new_life = NewLife::open_for_snapshot(&replica, peers, &machines, store)?;
        let situation = new_life.situation()?;
        if situation.is_open && !self.new_life {
            return Err(Failure::usage(anyhow!(
                "{name}: {}: power it off or stop it there; if it is not to go on, --new-life declares it lost, and \
                 restores the snapshot",
                situation.text
            )));
        }
        let mut shown = Shown::new("checking");
        let checked =
            snapshot_file::check(&self.file, &replica, &machines, |at, of| shown.at(at, of));
        checked.map_err(Failure::usage)?;
        shown.end();
        if situation.is_open || !replaced.is_empty() {
            self.confirm(&name, &situation.text, &replaced)?;
        }
        let mut shown = Shown::new("restoring");
        let begun = new_life.restore(&replica, &self.file, |at, of| shown.at(at, of))?;
        shown.end();
        println!(
            "life {} of {name} has begun: `understudy replica --config {}` has its machine go on from the snapshot",
            begun.key.life,
            self.config.display()
        );
        Ok(ExitStatus::Success)
    }

    /// That the snapshot is not what would be overwritten with what is in it.
    fn is_no_disk(&self, config: &ReplicaConfig) -> Result<(), anyhow::Error> {
        let identity = |path: &Path| {
            let there = fs::metadata(path).ok()?;
            Some((there.dev(), there.ino()))
        };
        let Some(own) = identity(&self.file) else {
            return Ok(());
        };
        for disk in &config.disks {
            let files = [&disk.path].into_iter().chain(&disk.backing);
            if let Some(path) = files.into_iter().find(|path| identity(path) == Some(own)) {
                anyhow::bail!(
                    "{} is in the place of a disk of this machine ({}), and would be overwritten before it is read: move it \
                     away first",
                    self.file.display(),
                    path.display()
                );
            }
        }
        Ok(())
    }

    /// The disks that are there.
    fn replaced_disks(
        &self,
        config: &ReplicaConfig,
        taken_unix_ns: u64,
    ) -> Result<Vec<String>, Failure> {
        let mut replaced = Vec::new();
        for disk in &config.disks {
            let Ok(there) = fs::metadata(&disk.path) else {
                continue;
            };
            let written = there.modified().ok();
            let written = written.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
            let written_ns = written.map_or(0, |since| since.as_nanos() as u64);
            let than = if written_ns > taken_unix_ns {
                "after"
            } else {
                "before"
            };
            replaced.push(format!(
                "{} (written last at {}, {than} the snapshot was taken)",
                disk.path.display(),
                rfc3339(written_ns)
            ));
        }
        if replaced.is_empty() || self.overwrite_disks {
            return Ok(replaced);
        }
        Err(Failure::usage(anyhow!(
            "there is something in the place of the snapshot's disks: {}. Move it away, or give --overwrite-disks",
            replaced.join(", ")
        )))
    }

    fn confirm(&self, name: &str, situation: &str, replaced: &[String]) -> Result<(), Failure> {
        println!(
            "{name}: {situation}\n\
             A new life starts from the snapshot. An open one is declared lost: what its hosts have, in memory, on their \
             disks or in a journal, is given up. A host that still runs it out of reach goes on until it next looks \
             at the arbiter: be sure that none does."
        );
        if !replaced.is_empty() {
            println!("Overwritten: {}", replaced.join(", "));
        }
        if self.yes || is_meant(name, "the machine's name")? {
            Ok(())
        } else {
            Err(Failure::usage(NewLifeError::NotMeant))
        }
    }
}

/// How far it is, on a terminal.
struct Shown {
    what: &'static str,
    percent: Option<u64>,
}

impl Shown {
    fn new(what: &'static str) -> Shown {
        Shown {
            what,
            percent: None,
        }
    }

    fn at(&mut self, at: u64, of: u64) {
        let percent = at * 100 / of.max(1);
        if self.percent != Some(percent) && io::stderr().is_terminal() {
            self.percent = Some(percent);
            eprint!("\r{} {percent:3}% ", self.what);
        }
    }

    fn end(&self) {
        if self.percent.is_some() {
            eprintln!();
        }
    }
}
