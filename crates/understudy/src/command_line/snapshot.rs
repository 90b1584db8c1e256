//! `understudy snapshot`: the backup of a machine, taken while it runs.

use super::button::{Front, unanswered};
use crate::exit::{ExitStatus, Failure};
use crate::leftovers::remove_when_stopped;
use anyhow::{Context, anyhow};
use clap::Args;
use replica::control;
use replica::host_time::rfc3339;
use replica::status::ReplicaStatus;
use replication::snapshot_file::{FileHead, FileItem, FilePart, FileReader, MAGIC};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const READ_BYTES: usize = 256 << 10;

/// Keep a machine in a file as it is now, memory and disks, while it runs: `understudy restore` gets it back.
///
/// Ask on the host of a backup: it is taken there, and the live machine does nothing for it. A machine without a
/// backup is taken where it is live, and stands still for a millisecond or so. Under a directory of several
/// replicas a backup is asked. The file gets its name when it is whole and durable; until then it is FILE.partial.
/// Whoever has it has all that the machine had in memory, keys and passwords too: it is its owner's alone.
///
/// Status 0: it is there. 1: it could not be taken, and why. 8: no replica answers. 9: this user may not ask.
#[derive(Debug, Args)]
pub struct Snapshot {
    #[command(flatten)]
    front: Front,
    /// Take it at the live machine, though there is a backup
    #[arg(long)]
    here: bool,
    /// Where it is kept; a snapshot that has this name is replaced when the new one is whole, anything else is not
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Snapshot {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        if self.file.file_name().is_none() || self.file.is_dir() {
            let error = anyhow!("{} is a directory: name a file", self.file.display());
            return Err(Failure::usage(error));
        }
        may_be_replaced(&self.file).map_err(Failure::usage)?;
        let is_preferred =
            |replica: &ReplicaStatus| !self.here && replica.role == "backup" && replica.protected;
        let directory = self.front.state_directory_of(is_preferred)?;
        let stream = match control::snapshot(&directory, self.here) {
            Ok(stream) => stream,
            Err(error) if error.kind() == ErrorKind::Other => {
                return Err(Failure::from(anyhow!("{error}")));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(Failure::from(anyhow!(
                    "it did not begin: another copy of the machine is under way; ask again when `understudy \
                     status` says that it is there"
                )));
            }
            Err(error) => return Err(unanswered(&directory, &error)),
        };
        let partial = Partial::create(&self.file).map_err(Failure::usage)?;
        remove_when_stopped(&partial.path).context("cannot catch signals")?;
        let head = receive(stream, &partial)?;
        let bytes = partial.keep()?;
        println!(
            "{}: {}; {:.1} MiB",
            self.file.display(),
            describe(&head),
            mib(bytes)
        );
        Ok(ExitStatus::Success)
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// What a file says of itself.
pub(super) fn describe(head: &FileHead) -> String {
    let disks = match &head.disks[..] {
        [] => "without disks".to_owned(),
        disks => {
            let bytes = disks.iter().sum();
            format!("{} disk(s) of {:.1} MiB", disks.len(), mib(bytes))
        }
    };
    format!(
        "{} of life {}, as it was at {} on host {} (instruction {}, {:.1} MiB of memory in use, {disks})",
        head.machine,
        head.life,
        rfc3339(head.taken_unix_ns),
        head.host,
        head.count,
        mib(head.memory_bytes),
    )
}

/// Whether nothing is lost that is no snapshot: a disk, say, that the machine has open under this name.
fn may_be_replaced(name: &Path) -> Result<(), anyhow::Error> {
    let there = match fs::symlink_metadata(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        there => there.with_context(|| name.display().to_string())?,
    };
    let is_snapshot = || -> io::Result<bool> {
        let mut begins = Vec::new();
        let length = MAGIC.len() as u64;
        File::open(name)?.take(length).read_to_end(&mut begins)?;
        Ok(begins == MAGIC)
    };
    if there.is_file() && is_snapshot().with_context(|| name.display().to_string())? {
        return Ok(());
    }
    Err(anyhow!(
        "{} is there and is no snapshot: name another file, or remove it",
        name.display()
    ))
}

/// A file that is not whole yet. It goes with this, unless it is kept.
struct Partial {
    file: File,
    path: PathBuf,
    name: PathBuf,
}

impl Partial {
    fn create(name: &Path) -> Result<Partial, anyhow::Error> {
        let mut path = name.as_os_str().to_owned();
        path.push(".partial");
        let path = PathBuf::from(path);
        // Of one that was interrupted.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        let options = options.write(true).create_new(true).mode(0o600);
        let file = options.open(&path);
        Ok(Partial {
            file: file.with_context(|| path.display().to_string())?,
            path,
            name: name.into(),
        })
    }

    /// It is whole: makes it durable, and gives it its name. Says how long it is.
    fn keep(self) -> Result<u64, Failure> {
        let kept = || -> io::Result<u64> {
            self.file.sync_all()?;
            // It may be there by now.
            may_be_replaced(&self.name).map_err(io::Error::other)?;
            fs::rename(&self.path, &self.name)?;
            let parent = self.name.parent();
            let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
            Ok(self.file.metadata()?.len())
        };
        let kept = kept().with_context(|| self.path.display().to_string());
        Ok(kept?)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // One that was kept has another name.
        let _removed = fs::remove_file(&self.path);
    }
}

/// Takes the file as it comes, and checks it.
fn receive(mut stream: impl Read, partial: &Partial) -> Result<FileHead, Failure> {
    let mut reader = FileReader::default();
    let mut shown = Shown::default();
    let mut buffer = vec![0; READ_BYTES];
    let mut head = None;
    loop {
        let length = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(not_whole(&format!("nothing more came of it: {error}"))),
        };
        let bytes = &buffer[..length];
        let written = (&partial.file).write_all(bytes);
        written.with_context(|| partial.path.display().to_string())?;
        reader.push(bytes);
        while let Some(item) = reader.next_item().map_err(|error| not_whole(&error))? {
            match item {
                FileItem::Head(told) => {
                    shown.begin(&told);
                    head = Some(*told);
                }
                FileItem::Part(part, packed) => shown.add(part, packed.len()),
                FileItem::Failed(why) => return Err(not_whole(&why)),
                FileItem::End => {}
            }
        }
    }
    shown.end();
    reader.finish().map_err(|error| not_whole(&error))?;
    head.ok_or_else(|| not_whole(&"nothing came"))
}

fn not_whole(why: &dyn std::fmt::Display) -> Failure {
    Failure::from(anyhow!("no snapshot was taken: {why}"))
}

/// How far it is, on a terminal.
#[derive(Default)]
struct Shown {
    total: u64,
    done: u64,
    packed: u64,
    percent: Option<u64>,
}

impl Shown {
    fn begin(&mut self, head: &FileHead) {
        self.total = head.memory_bytes + head.disks.iter().sum::<u64>();
    }

    fn add(&mut self, part: FilePart, packed: usize) {
        self.done += match part {
            FilePart::Hole { from, to, .. } => to - from,
            part => part.bytes(),
        };
        self.packed += packed as u64;
        // The total is an estimate.
        let percent = (self.done * 100 / self.total.max(1)).min(100);
        if self.percent != Some(percent) && io::stderr().is_terminal() {
            self.percent = Some(percent);
            let (done, packed) = (mib(self.done), mib(self.packed));
            eprint!("\r{percent:3}%: {done:.0} MiB, packed to {packed:.0} ");
        }
    }

    fn end(&self) {
        if self.percent.is_some() {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding: the disk of a machine that ran was replaced, and was gone when it ended.
    #[test]
    fn a_snapshot_replaces_a_snapshot_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str| directory.path().join(name);
        may_be_replaced(&file("new")).unwrap();
        fs::write(file("snapshot"), [&MAGIC[..], &[0; 64]].concat()).unwrap();
        may_be_replaced(&file("snapshot")).unwrap();
        fs::write(file("disk.raw"), [0; 512]).unwrap();
        fs::write(file("empty"), []).unwrap();
        std::os::unix::fs::symlink(file("snapshot"), file("link")).unwrap();
        for name in ["disk.raw", "empty", "link"] {
            let why = may_be_replaced(&file(name)).unwrap_err().to_string();
            assert!(
                why.contains(name) && why.contains("is no snapshot"),
                "{why}"
            );
        }
        let partial = Partial::create(&file("late")).unwrap();
        fs::write(file("late"), [0; 512]).unwrap();
        partial.keep().unwrap_err();
        assert_eq!(fs::read(file("late")).unwrap(), [0; 512]);
    }
}
