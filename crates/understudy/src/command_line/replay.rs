//! `understudy replay`.

use super::button::of_replica_under;
use super::engine::EngineOption;
use crate::config::{JournalSection, VmConfig, environment};
use crate::debugging::{self, GdbAddress};
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::replaying::moment::Moment;
use crate::replaying::{self, ReplayOptions, Source, journal};
use anyhow::anyhow;
use clap::Args;
use replica::config::JournalPlace;
use replica::control;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Run a recording or a journal again, to any moment, and check that the machine does exactly what it did.
///
/// Of a recording (`understudy run --record`) its file is named; of a journal (`[journal]`) the directory or
/// `s3://BUCKET/PREFIX`, or the machine by `--config` or `--dir`. Its machine may go on meanwhile: nothing here touches it. Replays begin at the
/// newest snapshot before the moment; `--list` says which there are.
///
/// Every digest and the number of outputs are compared. Status 0: all equal (also for a recording
/// whose writer died: what was written is checked); 2: not a recording or journal, or damaged, or the moment is
/// not in it; 4: the replay does something else.
///
/// A MOMENT is guest time since power-on with its unit (12.5s, 800ms, 2m), the date of the machine's real-time
/// clock (2026-11-30T04:12:00Z), record:1234 (when that record has taken effect), or instruction:5000000000 (after
/// so many instructions since power-on).
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording, or the directory or bucket of a journal (a bucket is reached as AWS_… says, or by --config)
    #[arg(value_name = "FILE|DIR|URL", required_unless_present_any = ["config", "dir"])]
    source: Option<PathBuf>,
    /// The journal of this machine
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "dir"])]
    config: Option<PathBuf>,
    /// The journal of the replica with this state directory, which answers
    #[arg(long, value_name = "DIR", conflicts_with = "source")]
    dir: Option<PathBuf>,
    /// Say which moments a journal has, and end
    #[arg(
        long,
        conflicts_with_all = ["at", "until", "dump_console", "dump_memory", "pcap", "gdb"]
    )]
    list: bool,
    /// Stop exactly at this moment
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
    /// Stop at this moment (a number alone counts instructions). With `--at` before it, memory is
    /// dumped there, and console and capture hold what happens between the two
    #[arg(long, value_name = "MOMENT", value_parser = Moment::or_instruction)]
    until: Option<Moment>,
    /// Print what the guest printed
    #[arg(long)]
    dump_console: bool,
    /// Write the machine's memory to this new file: an ELF core file, a segment for each region of RAM
    #[arg(long, value_name = "FILE")]
    dump_memory: Option<PathBuf>,
    /// Write the frames that the machine sent and received to this file, in guest time, for Wireshark
    /// and tcpdump
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Let gdb look into the machine, at `--at` first, forward and back: at `unix:PATH` for this user only, or
    /// at `127.0.0.1:PORT` for every user of this host
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = ["until", "dump_console", "dump_memory", "pcap"]
    )]
    gdb: Option<GdbAddress>,
    #[command(flatten)]
    engine: EngineOption,
}

impl Replay {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let source = self.find_source()?;
        if self.list {
            return list(&source);
        }
        let engine = self.engine.or(EngineName::default());
        if let Some(address) = &self.gdb {
            return debugging::serve(&source, self.at, address, engine);
        }
        replaying::replay(
            &source,
            ReplayOptions {
                at: self.at,
                until: self.until,
                dump_console: self.dump_console,
                dump_memory: self.dump_memory,
                pcap: self.pcap,
                engine,
            },
        )
    }

    fn find_source(&self) -> Result<Source, Failure> {
        match (&self.source, &self.config, &self.dir) {
            (Some(path), ..) if path.starts_with("s3:") => {
                at_url(&path.to_string_lossy()).map(Source::Journal)
            }
            (Some(path), ..) if path.is_dir() => {
                Ok(Source::Journal(JournalPlace::Directory(path.clone())))
            }
            (Some(path), ..) => Ok(Source::Recording(path.clone())),
            (None, Some(file), _) => of_configuration(file).map(Source::Journal),
            (None, None, Some(directory)) => of_replica(directory).map(Source::Journal),
            (None, None, None) => Err(Failure::usage(anyhow!("name what is to be replayed"))),
        }
    }
}

/// A bucket, which is reached as the environment says.
fn at_url(url: &str) -> Result<JournalPlace, Failure> {
    let section = JournalSection::at(url);
    let place = section.place(&environment);
    place.map_err(|(key, why)| {
        let key = key.trim_start_matches("journal.");
        Failure::usage(anyhow!(
            "{url}: {key}: {why}; or name the machine by --config"
        ))
    })
}

fn of_configuration(file: &Path) -> Result<JournalPlace, Failure> {
    let config = VmConfig::load(file).map_err(Failure::usage)?;
    let journal = config.journal.ok_or_else(|| {
        let file = file.display();
        anyhow!("{file} has no section [journal]: its machine keeps no history")
    });
    let place = journal.map_err(Failure::usage)?.place(&environment);
    place.map_err(|(key, why)| Failure::usage(anyhow!("{}: {key}: {why}", file.display())))
}

fn of_replica(directory: &Path) -> Result<JournalPlace, Failure> {
    let directory = of_replica_under(directory, |replica| replica.journal.is_some())?;
    let status = control::status(&directory)
        .map_err(|error| super::button::unanswered(&directory, &error))?;
    let journal = status
        .journal
        .filter(|journal| !journal.directory.is_empty());
    let journal = journal.ok_or_else(|| {
        let directory = directory.display();
        anyhow!("the replica in {directory} keeps no journal now: name the directory of its journal, or --config")
    });
    let place = journal.map_err(Failure::usage)?.directory;
    match place.starts_with("s3://") {
        true => at_url(&place),
        false => Ok(JournalPlace::Directory(place.into())),
    }
}

fn list(source: &Source) -> Result<ExitStatus, Failure> {
    match source {
        Source::Journal(place) => {
            std::io::stdout().write_all(journal::list(place)?.as_bytes())?;
            Ok(ExitStatus::Success)
        }
        Source::Recording(path) => Err(Failure::usage(anyhow!(
            "{} is no directory: a recording begins with its machine, and `understudy replay` says where it ends",
            path.display()
        ))),
    }
}
