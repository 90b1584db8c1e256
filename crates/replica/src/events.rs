//! What happened to a replica and when, kept as JSON lines in its state directory.

use crate::host_time;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// The file's name in the state directory.
pub const FILE_NAME: &str = "events.jsonl";

/// Events that the status shows.
const KEPT: usize = 100;

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
    /// The generation that it is about.
    #[serde(default)]
    pub generation: u64,
    /// The instruction count at which the replica was.
    #[serde(default)]
    pub instruction_count: u64,
    /// More for people.
    #[serde(default)]
    pub detail: String,
}

/// Appends events to the file and keeps the newest ones.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    newest: VecDeque<Event>,
}

impl EventLog {
    /// Opens, or makes, the file in `directory`.
    pub fn open(directory: &Path) -> io::Result<EventLog> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join(FILE_NAME))?;
        Ok(EventLog {
            file,
            newest: VecDeque::new(),
        })
    }

    /// Adds an event that happens now. A file that cannot be written must not stop the replica:
    /// the event is still in the status.
    pub fn add(
        &mut self,
        event: &str,
        generation: u64,
        instruction_count: u64,
        detail: impl Into<String>,
    ) {
        let unix_ns = host_time::unix_ns();
        let event = Event {
            unix_ns,
            time: host_time::rfc3339(unix_ns),
            pid: std::process::id(),
            event: event.into(),
            generation,
            instruction_count,
            detail: detail.into(),
        };
        if let Ok(mut line) = serde_json::to_string(&event) {
            line.push('\n');
            // One write a line, so that lines of several processes do not mix.
            let _written = self.file.write_all(line.as_bytes());
        }
        if self.newest.len() == KEPT {
            self.newest.pop_front();
        }
        self.newest.push_back(event);
    }

    /// The newest events, oldest first.
    pub fn newest(&self) -> impl Iterator<Item = &Event> {
        self.newest.iter()
    }
}

/// Reads all events of a state directory; lines that were not wholly written are left out.
pub fn read(directory: &Path) -> Vec<Event> {
    let Ok(text) = std::fs::read_to_string(directory.join(FILE_NAME)) else {
        return Vec::new();
    };
    text.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
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
}
