//! A machine with a journal and no backup, whose guest counts aloud.

use super::{PairDirectory, Process, ReplicaFiles, wait_for};
use std::fs;
use std::path::PathBuf;

/// A machine with a journal, on the only host that it has.
pub struct Journaled {
    pub pair: PairDirectory,
    pub files: ReplicaFiles,
    pub process: Process,
    /// Bytes that the outside had seen before each start of the process.
    seen: Vec<usize>,
}

impl Journaled {
    pub fn start(program: &[u8], memory: &str) -> Journaled {
        Journaled::with(program, &format!("memory = \"{memory}\"\n"), "")
    }

    /// `extra` goes before the sections, `journal` into that of the journal.
    pub fn with(program: &[u8], extra: &str, journal: &str) -> Journaled {
        Journaled::in_directory(PairDirectory::new(program), extra, journal)
    }

    pub fn in_directory(pair: PairDirectory, extra: &str, journal: &str) -> Journaled {
        let files = pair.replica("a", None, extra);
        let text = fs::read_to_string(&files.config).unwrap();
        let section = format!("[journal]\ndirectory = \"journal\"\n{journal}");
        fs::write(&files.config, text + &section).unwrap();
        let process = Process::start(&["replica", "--config", files.config()]);
        let journaled = Journaled {
            pair,
            files,
            process,
            seen: vec![0],
        };
        wait_for("the journal to be in force", || {
            let has = |event| journaled.files.has_event(event);
            (has("journal_in_force") || has("journal_kept")).then_some(())
        });
        journaled
    }

    pub fn restart(&mut self) {
        self.seen.push(self.files.console().len());
        self.process = Process::start(&["replica", "--config", self.files.config()]);
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The directory of its journal.
    pub fn journal(&self) -> PathBuf {
        self.pair.path().join("journal")
    }

    /// Waits until the outside has seen so many bytes more.
    pub fn await_more(&self, bytes: usize) {
        let goal = self.files.console().len() + bytes;
        wait_for("the guest's output", || {
            (self.files.console().len() >= goal).then_some(())
        });
    }

    /// What the outside saw, in the parts of each process, is one history of a guest that counts:
    /// each part goes on where the one before ended, or repeats a little of it.
    pub fn assert_one_history(&self) {
        let console = self.files.console();
        let ends = self.seen.iter().skip(1).copied().chain([console.len()]);
        let parts = self.seen.iter().zip(ends);
        let parts: Vec<&str> = parts.map(|(from, to)| &console[*from..to]).collect();
        assert_one_history(&parts);
    }

    /// The one directory of a journal, and its files with this ending.
    pub fn journal_files(&self, ending: &str) -> Vec<PathBuf> {
        let directories = fs::read_dir(self.journal()).unwrap();
        let directories = directories.map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> = directories
            .filter(|path| path.is_dir())
            .flat_map(|path| fs::read_dir(path).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|found| found == ending))
            .collect();
        files.sort();
        files
    }

    /// Waits until the state of the replica says this.
    pub fn await_waiting(&self, wanted: &str) -> String {
        wait_for(wanted, || {
            let status = self.files.status()?;
            let state = status["state"].as_str()?.to_owned();
            state.contains(wanted).then_some(state)
        })
    }
}

/// What was seen of a counting guest in parts is one history.
pub fn assert_one_history(parts: &[&str]) {
    let mut ends_at = 0;
    for (part, text) in parts.iter().enumerate() {
        let Some(begins_at) = place(text, ends_at) else {
            panic!("part {part} is no piece of what the guest says up to {ends_at}: {text:?}");
        };
        assert!(
            begins_at <= ends_at,
            "a gap: byte {ends_at} is followed by byte {begins_at}"
        );
        ends_at = begins_at + text.len();
    }
}

/// What a counting guest says in all: 0000, 0001, …, ffff, 0000, ….
fn byte_at(place: usize) -> u8 {
    let line = format!("{:04x}\n", (place / 5) & 0xffff);
    line.as_bytes()[place % 5]
}

/// Where `text` is in what the guest says: at most `near`, and as near to it as can be.
fn place(text: &str, near: usize) -> Option<usize> {
    let is_here = |at: &usize| {
        let mut bytes = text.bytes().zip(*at..);
        bytes.all(|(byte, place)| byte == byte_at(place))
    };
    (0..=near).rev().take(100_000).find(is_here)
}
