//! How a directory of replicas is asked, and what is told to people.

use replica::control;
use replica::events::{self, Event, printable};
use replica::key_watch::WARNED_DAYS;
use replica::state_directory;
use replica::status::{
    ArbiterTrouble, HostLine, JoinProgress, JournalLine, LinkLine, ReplicaStatus,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};

/// The directory of the network switch within a demonstration's directory.
pub const SWITCH_DIRECTORY: &str = "switch";
/// The switch's status file there.
pub const SWITCH_STATUS: &str = "status.json";
/// How the name of a switch's status file ends that is found under a directory.
const SWITCH_STATUS_EXTENSION: &str = "json";
/// No status of a switch is longer.
const SWITCH_STATUS_LIMIT_BYTES: u64 = 1 << 20;

/// A host address that leads to a guest address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// `tcp` or `udp`.
    #[serde(default)]
    pub protocol: String,
    /// `127.0.0.1:6379`.
    pub host: String,
    /// `10.0.2.15:6379`.
    pub guest: String,
}

/// A replica that holds its state directory and does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilentReplica {
    /// Its state directory.
    pub directory: PathBuf,
    /// Its process.
    pub pid: u32,
}

/// State directories lie at most so deep under the one that is asked about.
const DEPTH: usize = 4;

/// Everything under a directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The replicas that answer, the primary first.
    pub replicas: Vec<ReplicaStatus>,
    /// State directories whose replica this user may not ask.
    #[serde(default)]
    pub not_permitted: Vec<PathBuf>,
    /// Directories that this user may not look into: of replicas, or of anything else.
    #[serde(default)]
    pub unreadable: Vec<PathBuf>,
    /// Replicas that are there and do not answer: stopped, or hung.
    #[serde(default)]
    pub silent: Vec<SilentReplica>,
    /// The forwards of the switches that keep their status under the directory.
    pub forwards: Vec<ForwardStatus>,
    /// The events of all replicas that ever were under the directory, oldest first.
    pub events: Vec<Event>,
}

/// Asks everything under `directory`: a replica's state directory, or one that has some, at whatever
/// depth within reason.
pub fn collect(directory: &Path) -> Status {
    let directories = directories_under(directory);
    let mut status = Status {
        forwards: forwards(&directories),
        ..Status::default()
    };
    let (states, unreadable) = state_directories(directories);
    status.unreadable = unreadable;
    for directory in states {
        match control::status(&directory) {
            Ok(replica) => status.replicas.push(ReplicaStatus {
                // Its own name of it may be one from where the replica was started.
                directory: directory.clone(),
                ..replica
            }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                status.not_permitted.push(directory.clone());
            }
            Err(_) => {
                if let Some(pid) = state_directory::holder(&directory) {
                    let directory = directory.clone();
                    status.silent.push(SilentReplica { directory, pid });
                }
            }
        }
        status.events.extend(events::read(&directory));
    }
    status
        .replicas
        .sort_by_key(|replica| (replica.role != "primary", replica.pid));
    status.events.sort_by_key(|event| event.unix_ns);
    status
}

/// This one and those in it.
fn directories_under(directory: &Path) -> Vec<PathBuf> {
    let mut directories = vec![directory.to_path_buf()];
    let mut level = 0..1;
    for _ in 0..DEPTH {
        let begin = directories.len();
        for parent in level {
            let entries = std::fs::read_dir(&directories[parent]);
            // A link may lead anywhere, and back.
            let is_directory = |entry: &DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
            let below = entries.into_iter().flatten().flatten();
            directories.extend(below.filter(is_directory).map(|entry| entry.path()));
        }
        level = begin..directories.len();
    }
    directories.sort();
    directories
}

/// Those of replicas, and those that may be, as far as this user can tell.
fn state_directories(directories: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut states, mut unreadable) = (Vec::new(), Vec::new());
    for path in directories {
        let files = [control::SOCKET_NAME, events::FILE_NAME];
        let files = files.map(|name| path.join(name).try_exists());
        let is_denied = |file: &io::Result<bool>| {
            let error = file.as_ref().err();
            error.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
        };
        if files.iter().any(|file| matches!(file, Ok(true))) {
            states.push(path);
        } else if files.iter().any(is_denied) {
            unreadable.push(path);
        }
    }
    (states, unreadable)
}

/// Of directories that this user may not look into, in one line.
pub fn describe_unreadable(directories: &[PathBuf]) -> String {
    let names = directories
        .iter()
        .map(|path| printable(&path.display().to_string()));
    let names: Vec<String> = names.collect();
    format!(
        "not looked into, as they are another user's: {} (if one is a replica's, ask as its user)",
        names.join(", ")
    )
}

/// Those of the switches whose status files are in these directories, whatever their names: a user chooses
/// them by `--status-file`.
fn forwards(directories: &[PathBuf]) -> Vec<ForwardStatus> {
    let files = directories.iter().flat_map(|directory| {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.sort();
        files
    });
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == SWITCH_STATUS_EXTENSION)
        })
        .flat_map(|path| switch_forwards(&path).unwrap_or_default())
        .collect()
}

/// Nothing, if the file is something else, or its switch was killed and is gone.
fn switch_forwards(path: &Path) -> Option<Vec<ForwardStatus>> {
    #[derive(Deserialize)]
    struct SwitchStatus {
        pid: i32,
        #[serde(rename = "ports")]
        _ports: Vec<IgnoredAny>,
        forwards: Vec<ForwardStatus>,
    }
    // Nothing is opened that might wait.
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > SWITCH_STATUS_LIMIT_BYTES {
        return None;
    }
    let status: SwitchStatus = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let process = if status.pid > 0 {
        Pid::from_raw(status.pid)?
    } else {
        return None;
    };
    let is_gone = test_kill_process(process) == Err(Errno::SRCH);
    (!is_gone).then_some(status.forwards)
}

/// The status for people.
pub fn describe(status: &Status) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for directory in &status.not_permitted {
        let directory = printable(&directory.display().to_string());
        let _ = writeln!(
            text,
            "{directory} is another user's: its replica cannot be asked"
        );
    }
    if !status.unreadable.is_empty() {
        let _ = writeln!(text, "{}", describe_unreadable(&status.unreadable));
    }
    for SilentReplica { directory, pid } in &status.silent {
        let directory = printable(&directory.display().to_string());
        let _ = writeln!(
            text,
            "{directory}: its replica holds the directory but does not answer (process {pid}): is it \
             stopped?"
        );
    }
    let may_be_there = !status.not_permitted.is_empty() || !status.unreadable.is_empty();
    if status.replicas.is_empty() && !may_be_there && status.silent.is_empty() {
        text.push_str("no replica answers\n");
    }
    for replica in &status.replicas {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:8} {:10} {}{}pid {:<7} generation {:<3} {:>8.1} MIPS  {:>15} instructions  {}",
            printable(&replica.role),
            printable(&replica.state),
            printable(&replica.host),
            if replica.host.is_empty() { "" } else { "  " },
            replica.pid,
            replica.generation,
            replica.mips,
            replica.instruction_count,
            printable(&replica.engine)
        );
        if !replica.arbiter.is_empty() {
            let _ = writeln!(text, "         arbiter {}", describe_arbiter(replica));
        }
        if !replica.version.is_empty() {
            let _ = writeln!(text, "         {}", describe_versions(replica));
        }
        if let Some(joining) = &replica.joining {
            let _ = writeln!(text, "         {}", describe_joining(joining));
        }
        if replica.key_days_left < WARNED_DAYS && !replica.key_expires.is_empty() {
            let _ = writeln!(text, "         {}", describe_key(replica));
        }
        if let Some(trouble) = &replica.trouble {
            let _ = writeln!(text, "         {}", printable(trouble));
        }
        if let Some(why) = &replica.network_lost {
            let why = printable(why);
            let _ = writeln!(
                text,
                "         the guest's network is out of reach, and tried again: {why}"
            );
        }
        for line in describe_links(replica) {
            let _ = writeln!(text, "         {line}");
        }
        for line in describe_capacity(replica) {
            let _ = writeln!(text, "         {line}");
        }
        for line in describe_boots(replica) {
            let _ = writeln!(text, "         {line}");
        }
        if replica.role == "primary" {
            let _ = writeln!(text, "         {}", describe_pair(replica));
            if let Some(journal) = &replica.journal {
                let _ = writeln!(
                    text,
                    "         {}",
                    describe_journal(journal, replica.journal_recovers_in_ms)
                );
                if !journal.unanswered.is_empty() {
                    let _ = writeln!(
                        text,
                        "         the journal's place does not answer, and is asked again; what is not durable there is seen by nobody: {}",
                        printable(&journal.unanswered)
                    );
                }
            }
            if replica.guest_panicked {
                text.push_str("         the guest's kernel panicked\n");
            }
            if replica.foreign_frames > 0 {
                let _ = writeln!(
                    text,
                    "         another machine has the guest's MAC address: {} of its frames came",
                    replica.foreign_frames
                );
            }
        }
        if replica.paused {
            text.push_str("         paused: `understudy resume` lets it go on\n");
        }
    }
    for forward in &status.forwards {
        let udp = if forward.protocol == "udp" {
            "udp:"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "forward  {udp}{} -> {}",
            printable(&forward.host),
            printable(&forward.guest)
        );
    }
    for event in status.events.iter().rev().take(12).rev() {
        let _ = writeln!(text, "{}", describe_event(event));
    }
    text
}

/// The arbiter, and what is wrong with it.
fn describe_arbiter(replica: &ReplicaStatus) -> String {
    let store = printable(&replica.arbiter);
    match &replica.arbiter_trouble {
        None => store,
        Some(ArbiterTrouble { since, why }) => format!(
            "{store}   OF NO USE since {}, nobody could take over: {}",
            printable(since),
            printable(why)
        ),
    }
}

/// What this host's program was built from, and those of its peers.
fn describe_versions(replica: &ReplicaStatus) -> String {
    let followers = replica.followers.iter();
    let followers = followers.map(|follower| (&follower.host, &follower.version));
    let primary = replica.primary.iter();
    let primary = primary.map(|primary| (&primary.host, &primary.version));
    let peers = followers.chain(primary);
    let peers: String = peers
        .map(|(host, version)| format!("; {}: {}", printable(host), printable(version)))
        .collect();
    format!("version {}{peers}", printable(&replica.version))
}

/// By which links a replica and its peers reach each other, of those that have several.
fn describe_links(replica: &ReplicaStatus) -> impl Iterator<Item = String> {
    let followers = replica.followers.iter();
    let followers = followers.map(|follower| (&follower.host, &follower.links));
    let primary = replica.primary.iter();
    let primary = primary.map(|primary| (&primary.host, &primary.links));
    let peers = followers.chain(primary);
    let several = peers.filter(|(_, links)| links.len() > 1);
    several.map(|(host, links)| {
        let links: Vec<String> = links.iter().map(describe_link).collect();
        format!("links with {}: {}", printable(host), links.join(", "))
    })
}

fn describe_link(link: &LinkLine) -> String {
    let address = printable(&link.address);
    let state = match (link.in_use, link.up) {
        (true, true) => "in use",
        (true, false) => "in use, does not answer",
        (false, true) => "up",
        (false, false) => "down",
    };
    let trip = link.round_trip_ms.filter(|_| link.up);
    let trip = trip.map_or(String::new(), |ms| format!(" {ms:.2} ms"));
    format!("{address} {state}{trip}")
}

/// Where the machine would be booted from something else on the other hosts.
fn describe_boots(replica: &ReplicaStatus) -> impl Iterator<Item = String> {
    let followers = replica.followers.iter();
    let differences = followers.flat_map(|follower| &follower.boots_otherwise);
    let differences = replica.boots_otherwise.iter().chain(differences);
    differences.map(|what| format!("would boot otherwise: {}", printable(what)))
}

/// What this host has and, of hosts that are slower than what the machine has needed lately, that they are.
fn describe_capacity(replica: &ReplicaStatus) -> Vec<String> {
    let HostLine {
        memory_bytes,
        cores,
        speed_mips,
    } = replica.has;
    let mut lines = Vec::new();
    if cores > 0 {
        let gib = memory_bytes as f64 / f64::from(1 << 30);
        lines.push(format!(
            "host: may have {gib:.1} GiB, {cores} cores, {speed_mips:.0} MIPS of the test program"
        ));
    }
    let needed = replica.needs.speed_mips;
    let slow = |host: &str, has: &HostLine| {
        let (host, speed) = (printable(host), has.speed_mips);
        format!(
            "{host} may be too slow: {speed:.0} MIPS of the test program, and what the machine did lately takes {needed:.0}"
        )
    };
    if replica.slow {
        lines.push(slow(&replica.host, &replica.has));
    }
    let followers = replica.followers.iter().filter(|follower| follower.slow);
    lines.extend(followers.map(|follower| slow(&follower.host, &follower.has)));
    lines
}

/// Of a certificate that expires soon, or has.
fn describe_key(replica: &ReplicaStatus) -> String {
    let host = printable(&replica.host);
    let day = printable(&replica.key_expires);
    let what = "`understudy keys rotate` issues another";
    match replica.key_days_left {
        days if days < 0 => format!("the certificate of {host} expired on {day}: {what}"),
        days => format!("the certificate of {host} expires in {days} days, on {day}: {what}"),
    }
}

/// How far the copy for a backup is, on one line.
fn describe_joining(joining: &JoinProgress) -> String {
    const MIB: f64 = (1 << 20) as f64;
    let left = joining
        .seconds_left
        .map_or_else(String::new, |seconds| format!("   {seconds:.0} s left"));
    format!(
        "copy {:.0}%   {:.0} of {:.0} MiB, {:.0} of them sent   {:.0} MiB/s{left}",
        joining.percent,
        joining.done_bytes as f64 / MIB,
        joining.total_bytes as f64 / MIB,
        joining.sent_bytes as f64 / MIB,
        joining.bytes_per_second as f64 / MIB
    )
}

/// A primary's journal, on one line.
fn describe_journal(journal: &JournalLine, recovers_in_ms: f64) -> String {
    let kept = match &*journal.kept_since {
        "" => String::new(),
        since => format!(
            "   history since {}, {:.1} MiB",
            printable(since),
            journal.kept_bytes as f64 / f64::from(1 << 20)
        ),
    };
    if journal.state == "beginning" {
        return "journal beginning   nothing can go on from it yet".into();
    }
    format!(
        "journal {}   record {} is durable, {:.1} KiB are not yet   going on from it takes {:.1} s{kept}",
        printable(&journal.state),
        journal.durable,
        journal.bytes_waiting as f64 / 1024.0,
        recovers_in_ms / 1e3
    )
}

/// Lag, bandwidth and output delay of a primary, on one line.
pub fn describe_pair(primary: &ReplicaStatus) -> String {
    let lag = primary
        .lag_ms
        .map_or_else(|| "no backup".to_owned(), |lag| format!("{lag:.1} ms"));
    format!(
        "lag {lag}   log {:.1} kbit/s   output delay p50 {:.2} ms, p99 {:.2} ms",
        primary.log_bits_per_second as f64 / 1000.0,
        primary.output_delay.p50_ms,
        primary.output_delay.p99_ms
    )
}

/// One event for people.
pub fn describe_event(event: &Event) -> String {
    format!(
        "{}  pid {:<7} {:12} generation {:<3} {}",
        printable(&event.time),
        event.pid,
        printable(&event.event),
        event.generation,
        printable(&event.detail)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::control::{Answer, ControlSocket, Request};
    use replica::events::EventLog;
    use replica::state_directory::StateDirectory;

    #[test]
    fn a_directory_of_replicas_is_collected() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("machines/web/r1");
        let own = StateDirectory::take(&state).unwrap();
        EventLog::open(&state).unwrap().add("live", 2, 5, "");
        let switch_status = |pid: u32, port: u16| {
            let mut status = network::SwitchStatus {
                pid,
                ..network::SwitchStatus::default()
            };
            status.forwards.push(network::ForwardStatus {
                protocol: "udp".into(),
                host: format!("127.0.0.1:{port}"),
                guest: "10.0.2.15:6379".into(),
                ..network::ForwardStatus::default()
            });
            serde_json::to_string(&status).unwrap()
        };
        // Wherever `--status-file` puts it; a switch that was killed leaves its file behind.
        let (living, dead) = (std::process::id(), i32::MAX as u32);
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text);
        write("machines/net.json", &switch_status(living, 1)).unwrap();
        write("machines/old.json", &switch_status(dead, 2)).unwrap();
        write("machines/other.json", r#"{"pid":1,"forwards":[]}"#).unwrap();
        let mut socket = ControlSocket::bind(&own).unwrap();
        // Finding: `--dir` of what asks the replica after that found nobody, where this is a path from elsewhere.
        let replica = ReplicaStatus {
            role: "primary".into(),
            pid: 7,
            directory: "r1".into(),
            ..ReplicaStatus::default()
        };
        let status = std::thread::scope(|scope| {
            let asked = scope.spawn(|| collect(directory.path()));
            let mut set = network::PollSet::new();
            set.add(socket.fd(), (), true, false);
            set.wait(None).unwrap();
            socket.accept();
            let (id, fd, _) = socket.interests().next().unwrap();
            let mut set = network::PollSet::new();
            set.add(fd, (), true, false);
            set.wait(None).unwrap();
            assert_eq!(socket.read(id), Some(Request::Status));
            socket.answer(id, &Answer::Status(Box::new(replica.clone())));
            asked.join().unwrap()
        });
        let found = ReplicaStatus {
            directory: state,
            ..replica
        };
        assert_eq!(status.replicas, [found]);
        assert_eq!(status.forwards.len(), 1, "{:?}", status.forwards);
        assert_eq!(status.forwards[0].host, "127.0.0.1:1");
        assert_eq!(status.forwards[0].guest, "10.0.2.15:6379");
        assert!(describe(&status).contains("forward  udp:127.0.0.1:1 -> "));
        assert_eq!(status.events[0].event, "live");
    }

    #[test]
    fn a_strangers_name_cannot_steer_the_terminal() {
        let event = Event {
            unix_ns: 0,
            time: "2026-11-23".into(),
            pid: 7,
            event: "refused".into(),
            generation: 0,
            instruction_count: 0,
            detail: "\u{1b}]0;owned\u{7} was refused".into(),
        };
        let replica = ReplicaStatus {
            state: "\u{1b}[2J".into(),
            ..ReplicaStatus::default()
        };
        let status = Status {
            replicas: vec![replica],
            events: vec![event],
            ..Status::default()
        };
        let text = describe(&status);
        assert!(
            text.chars().all(|c| c == '\n' || !c.is_control()),
            "{text:?}"
        );
    }
}
