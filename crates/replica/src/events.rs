//! What happened to a replica and when, kept as JSON lines in its state directory.

use crate::host_time;
use crate::state_directory::append_to;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file's name in the state directory.
pub const FILE_NAME: &str = "events.jsonl";
/// What it is called when it is full and a new one begins.
const FULL_NAME: &str = "events.jsonl.1";
/// A pipe that is ready takes so many bytes at once (PIPE_BUF of pipe(7)).
const PIPE_BUFFER_BYTES: usize = 4096;
/// Bytes of a file that is full.
const FILE_LIMIT_BYTES: u64 = 4 << 20;

/// Events that the status shows.
const KEPT: usize = 100;

/// Of one kind of event so many may come at once…
const BURST: u32 = 30;
/// …and then one in this time, nanoseconds: strangers and outages cause some kinds as often as they
/// like.
const SPACING_NS: u64 = 10 * 1_000_000_000;

/// How much an event matters to whoever keeps the machine running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Info,
    /// The machine goes on, but somebody should look.
    Warning,
    /// Something is lost or stands still.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        })
    }
}

/// The level of a kind of event.
pub fn level(event: &str) -> Level {
    match event {
        "snapshot_not_taken"
        | "cannot_take_over"
        | "cannot_write_markers"
        | "cannot_hand_over"
        | "disk_kept"
        | "disk_unusable"
        | "boots_otherwise" => Level::Warning,
        "guest_panicked" | "diverged" | "outvoted" | "machine_failed" | "disk_failed"
        | "disk_error" | "marker_failed" | "journal_failed" | "key_expired" | "unusable"
        | "address_conflict" | "another_live" => Level::Error,
        "claim_lost" | "suspected" | "majority" | "lets_go" | "slow_joiner" | "backup_lost"
        | "alone" | "arbiter_unanswered" | "garbage" | "refused" | "turned_away"
        | "key_expires" | "keys_unusable" | "slow" | "watchdog" | "calendar" | "driver_fault"
        | "paused" | "unplugged" | "button_refused" | "machine_paused" | "join_failed"
        | "snapshot_failed" | "fetch_failed" | "connect_failed" | "network_lost" | "link_down" => {
            Level::Warning
        }
        _ => Level::Info,
    }
}

/// Text that strangers, peers or guests had a part in, for a terminal: no control character is left,
/// and nothing that turns the direction of the text.
pub fn printable(text: &str) -> String {
    let harmless = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .flat_map(|c| {
            let escaped = (!harmless(c)).then(|| c.escape_unicode());
            let plain = harmless(c).then_some(c);
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in nanoseconds since 1970 UTC.
    pub unix_ns: u64,
    /// The same for people, in UTC.
    pub time: String,
    /// The process that saw it.
    pub pid: u32,
    /// What: `started`, `joined`, `protected`, `suspected`, `claimed`, `claim_lost`, `live`,
    /// `backup_lost`, `alone`, `diverged`, `disk_error`, `finished`, `stopped`.
    pub event: String,
    /// The generation that it is about, or in which it happened; 0 where there is none.
    #[serde(default)]
    pub generation: u64,
    /// The instruction count at which the replica was.
    #[serde(default)]
    pub instruction_count: u64,
    /// More for people.
    #[serde(default)]
    pub detail: String,
}

/// What may still be told of one kind of event.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    left: u32,
    since_ns: u64,
    /// Events that were not told.
    left_out: u64,
}

impl Allowance {
    /// Whether one more may be told now, and how many were not since the last one that was.
    fn take(&mut self, now_ns: u64) -> Option<u64> {
        let earned = now_ns.saturating_sub(self.since_ns) / SPACING_NS;
        if earned > 0 {
            self.left = self
                .left
                .saturating_add(earned.min(u64::from(BURST)) as u32)
                .min(BURST);
            self.since_ns += earned * SPACING_NS;
        }
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Appends events to the file and keeps the newest ones.
#[derive(Debug)]
pub struct EventLog {
    directory: PathBuf,
    file: File,
    bytes: u64,
    newest: VecDeque<Event>,
    allowances: BTreeMap<String, Allowance>,
    /// The machine's name, if events also go to standard error.
    told_of: Option<String>,
}

impl EventLog {
    /// Opens, or makes, the file in `directory`.
    ///
    /// # Errors
    /// It cannot be opened, or is not a plain file.
    pub fn open(directory: &Path) -> io::Result<EventLog> {
        let file = append_to(&directory.join(FILE_NAME))?;
        Ok(EventLog {
            directory: directory.into(),
            bytes: file.metadata()?.len(),
            file,
            newest: VecDeque::new(),
            allowances: BTreeMap::new(),
            told_of: None,
        })
    }

    /// From here on events also go to standard error, a line each with its level: a failover must not
    /// happen in silence.
    pub fn tell(&mut self, machine: &str) {
        self.told_of = Some(machine.to_owned());
    }

    /// Adds an event that happens now. A file that cannot be written must not stop the replica:
    /// the event is still in the status. Of a kind that comes in floods some are left out, and the
    /// next one says how many.
    pub fn add(
        &mut self,
        event: &str,
        generation: u64,
        instruction_count: u64,
        detail: impl Into<String>,
    ) {
        let unix_ns = host_time::unix_ns();
        let fresh = Allowance {
            left: BURST,
            since_ns: host_time::monotonic_ns(),
            left_out: 0,
        };
        let allowance = self.allowances.entry(event.to_owned()).or_insert(fresh);
        let Some(left_out) = allowance.take(host_time::monotonic_ns()) else {
            return;
        };
        let mut detail = detail.into();
        if left_out > 0 {
            detail = format!("{detail} ({left_out} more such events were not written down)");
        }
        let event = Event {
            unix_ns,
            time: host_time::rfc3339(unix_ns),
            pid: std::process::id(),
            event: event.into(),
            generation,
            instruction_count,
            detail,
        };
        if let Some(machine) = &self.told_of {
            let (name, detail) = (printable(&event.event), printable(&event.detail));
            let generation = match event.generation {
                0 => String::new(),
                generation => format!("generation {generation}: "),
            };
            tell_people(format!(
                "understudy: {}: {}: {generation}{name}{}{detail}",
                printable(machine),
                level(&event.event),
                if detail.is_empty() { "" } else { ": " },
            ));
        }
        if let Ok(mut line) = serde_json::to_string(&event) {
            line.push('\n');
            self.write(&line);
        }
        if self.newest.len() == KEPT {
            self.newest.pop_front();
        }
        self.newest.push_back(event);
    }

    fn write(&mut self, line: &str) {
        if self.bytes + line.len() as u64 > FILE_LIMIT_BYTES {
            let path = self.directory.join(FILE_NAME);
            let moved = fs::rename(&path, self.directory.join(FULL_NAME));
            if let Ok(file) = moved.and_then(|()| append_to(&path)) {
                self.file = file;
                self.bytes = 0;
            } else {
                return; // the file stays within its bound, come what may
            }
        }
        // One write a line, so that lines of several processes do not mix.
        if self.file.write_all(line.as_bytes()).is_ok() {
            self.bytes += line.len() as u64;
        }
    }

    /// The newest events, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.newest.iter()
    }
}

/// Writes a line to standard error if that takes it at once: an event loop waits for nobody, and whoever
/// does not read its pipe, or closed it, does without.
fn tell_people(mut line: String) {
    if let Some(simulation) = environment::current() {
        return simulation.tell(&line);
    }
    while line.len() >= PIPE_BUFFER_BYTES {
        line.pop();
    }
    line.push('\n');
    let stderr = io::stderr();
    let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    if poll(&mut ready, Some(&now)).is_ok() && ready[0].revents().contains(PollFlags::OUT) {
        let _told = stderr.lock().write_all(line.as_bytes());
    }
}

/// Reads all events of a state directory; lines that were not wholly written are left out.
pub fn read(directory: &Path) -> Vec<Event> {
    [FULL_NAME, FILE_NAME]
        .iter()
        .filter_map(|name| fs::read_to_string(directory.join(name)).ok())
        .flat_map(|text| {
            let events = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            events.collect::<Vec<Event>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_again_and_a_torn_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path()).unwrap();
        log.add("started", 0, 0, "");
        log.add("live", 3, 17, "after 12 ms");
        log.file.write_all(b"{\"unix_ns\":12").unwrap();
        let events = read(directory.path());
        assert_eq!(events.len(), 2);
        assert_eq!(
            (events[1].event.as_str(), events[1].generation),
            ("live", 3)
        );
        assert_eq!(log.newest().count(), 2);
    }

    #[test]
    fn a_flood_of_one_kind_is_told_in_part_and_other_kinds_in_full() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path()).unwrap();
        for _ in 0..10_000 {
            log.add("refused", 0, 0, "somebody");
        }
        log.add("suspected", 1, 0, "");
        assert!(log.newest().count() < 40, "{}", log.newest().count());
        assert_eq!(log.newest().last().unwrap().event, "suspected");
        let mut allowance = Allowance {
            left: 0,
            since_ns: 0,
            left_out: 7,
        };
        assert_eq!(allowance.take(SPACING_NS - 1), None);
        assert_eq!(allowance.take(SPACING_NS), Some(8));
    }

    #[test]
    fn the_file_never_grows_beyond_its_bound_and_the_newest_events_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = EventLog::open(directory.path()).unwrap();
        let line = format!("{}\n", "x".repeat(100_000));
        for _ in 0..100 {
            log.write(&line);
        }
        log.add("live", 3, 0, "");
        for name in [FILE_NAME, FULL_NAME] {
            let bytes = fs::metadata(directory.path().join(name)).unwrap().len();
            assert!(bytes <= FILE_LIMIT_BYTES, "{name} has {bytes} bytes");
        }
        assert_eq!(read(directory.path()).last().unwrap().event, "live");
    }

    #[test]
    fn what_strangers_say_cannot_steer_a_terminal() {
        let said = printable("node \u{1b}[2J\u{202e}\r\n\u{9b}31mé");
        assert_eq!(said, "node \\u{1b}[2J\\u{202e}\\u{d}\\u{a}\\u{9b}31mé");
    }
}
