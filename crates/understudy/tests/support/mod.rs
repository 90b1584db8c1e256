//! What the tests of the program share: bare-metal guests, processes, waiting for a condition.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod assembler;
pub mod bucket;
pub mod device_programs;
pub mod failing_disk;
pub mod guest_program;
pub mod history;
pub mod journaled;
pub mod slow_link;
pub mod without_random;

use machine::engine::Engine;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use understudy::engine::NO_JIT;

/// Whatever is waited for is there long before, unless it never comes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub fn understudy() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_understudy"));
    command.stdin(Stdio::null());
    command
}

/// Adds the longest turns of a replica's event loop to what `cargo xtask test` collects, if it does.
fn note_turns(status: &serde_json::Value) {
    let Some(file) = std::env::var_os("UNDERSTUDY_EVENT_LOOPS") else {
        return;
    };
    let line = serde_json::json!({
        "test": std::thread::current().name(),
        "longest_ms": status["loop_longest_ms"],
        "busiest_ms": status["loop_busiest_ms"],
    });
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.create(true).append(true).open(file).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    understudy().args(arguments).output().unwrap()
}

/// The standard error of a program that ended, but for what every machine's host without a JIT
/// says.
pub fn error_text(output: &Output) -> String {
    without_no_jit(&String::from_utf8_lossy(&output.stderr))
}

/// What the program says on this host when it is asked for a JIT: a line, or nothing.
pub fn no_jit_line() -> String {
    if riscv::RISCV64.available(Engine::Jit) == Engine::Jit {
        String::new()
    } else {
        format!("understudy: {NO_JIT}\n")
    }
}

/// What processes said besides that line and the events that replicas tell.
pub fn without_no_jit(said: &str) -> String {
    let said = said.replace(&no_jit_line(), "");
    said.split_inclusive('\n')
        .filter(|line| !is_event(line))
        .collect()
}

/// `understudy: NAME: LEVEL: …`
fn is_event(line: &str) -> bool {
    let mut parts = line.split(": ");
    parts.next() == Some("understudy")
        && parts.next().is_some()
        && parts
            .next()
            .is_some_and(|level| ["info", "warning", "error"].contains(&level))
}

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process of the program that is killed at the end of the test.
pub struct Process {
    pub child: Child,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Process {
        let child = understudy()
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child }
    }

    /// Starts one whose standard output goes to a file.
    pub fn start_printing(arguments: &[&str], output: &Path) -> Process {
        let child = understudy()
            .args(arguments)
            .stdout(std::fs::File::create(output).unwrap())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, and returns its status and what it said.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let status = wait_for("a process to end", || self.child.try_wait().unwrap());
        let mut text = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut text).unwrap();
        }
        (status, without_no_jit(&text))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Two addresses of the loopback network, which has many, that no other test listens at.
pub fn two_addresses() -> [String; 2] {
    static PAIRS: AtomicU8 = AtomicU8::new(0);
    let pair = PAIRS.fetch_add(1, Ordering::Relaxed);
    let process = std::process::id() % 200;
    [1, 2].map(|host| format!("127.{}.{pair}.{host}:7400", 20 + process))
}

/// Writes a configuration of a pair's replica.
pub struct ReplicaFiles {
    pub config: PathBuf,
    pub state: PathBuf,
}

impl ReplicaFiles {
    pub fn config(&self) -> &str {
        self.config.to_str().unwrap()
    }

    /// What the guest printed, as far as this replica let it out.
    pub fn console(&self) -> String {
        std::fs::read_to_string(self.state.join("console.log")).unwrap_or_default()
    }

    /// The replica's status, if it answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let output = run(&["status", "--dir", self.state.to_str().unwrap(), "--json"]);
        let status: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let status = status["replicas"].as_array()?.first().cloned()?;
        note_turns(&status);
        Some(status)
    }

    /// Waits until the status' `state` is this.
    pub fn await_state(&self, state: &str) -> serde_json::Value {
        wait_for(
            &format!("state {state} of {}", self.state.display()),
            || self.status().filter(|status| status["state"] == state),
        )
    }

    /// Whether an event of this name happened.
    pub fn has_event(&self, event: &str) -> bool {
        let text = std::fs::read_to_string(self.state.join("events.jsonl")).unwrap_or_default();
        text.lines().any(|line| {
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|e| e["event"] == event)
        })
    }
}

/// Makes keys for a host of this name in `directory`/site, if it has none. What a `vm.toml` says of them:
/// every replica of a test has a host of its own, and knows those of all others.
pub fn keys_of(directory: &Path, name: &str) -> String {
    let site = keys::Site::open(&directory.join("site")).unwrap();
    let issued = site.issue(&name.parse().unwrap(), keys::Validity::days(365));
    assert!(
        matches!(issued, Ok(_) | Err(keys::SiteError::HasKeys(_))),
        "{issued:?}"
    );
    let numbered = (0..40).flat_map(|number| [format!("r{number}"), format!("b{number}")]);
    let letters = ('a'..='z').map(String::from);
    let others = ["here", "taken"].map(str::to_owned);
    let members: Vec<String> = numbered.chain(letters).chain(others).collect();
    assert!(members.iter().any(|member| member == name), "{name}");
    format!("keys = \"site/hosts/{name}\"\nmembers = {members:?}\n")
}

/// Makes a site in `directory`/site and keys for a host that is called `here`, for tests that speak
/// themselves.
pub fn issue_keys(directory: &Path) -> PathBuf {
    let site = keys::Site::init(&directory.join("site")).unwrap();
    let host = "here".parse().unwrap();
    site.issue(&host, keys::Validity::days(365)).unwrap()
}

/// The directory of a pair, with an arbiter and a guest program.
pub struct PairDirectory {
    pub directory: tempfile::TempDir,
    /// More for the section of the pair.
    pub pair_keys: &'static str,
}

impl PairDirectory {
    pub fn new(program: &[u8]) -> PairDirectory {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("arbiter")).unwrap();
        issue_keys(directory.path());
        std::fs::write(directory.path().join("guest.elf"), program).unwrap();
        PairDirectory {
            directory,
            pair_keys: "",
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The keys of host `here`, for a test that speaks as a member does.
    pub fn keys(&self) -> keys::Keys {
        let directory = self.path().join("site/hosts/here");
        keys::Keys::open(&directory, keys::Purpose::Replica, keys::LetIn::Site).unwrap()
    }

    /// Connects as a member does.
    pub fn speak(&self, address: &str) -> keys::BlockingSession {
        let socket = std::net::TcpStream::connect(address).unwrap();
        keys::BlockingSession::connect(&self.keys(), socket, PATIENCE).unwrap()
    }

    /// The files of a replica; `extra` goes before the sections.
    pub fn replica(&self, name: &str, peer: Option<&str>, extra: &str) -> ReplicaFiles {
        let config = self.path().join(format!("{name}.toml"));
        let peer = peer.map_or(String::new(), |peer| format!("peer = \"{peer}\"\n"));
        let memory = if extra.contains("memory") {
            ""
        } else {
            "memory = \"8M\"\n"
        };
        // Most guests of tests know of no button: nothing is waited for.
        let power_off_wait = if extra.contains("power_off_wait") {
            ""
        } else {
            "power_off_wait = \"1ms\"\n"
        };
        let keys = keys_of(self.path(), name);
        let text = format!(
            "name = \"test\"\n{memory}{power_off_wait}kernel = \"guest.elf\"\nstate_directory = \"{name}\"\n{extra}\n\
             [pair]\n{keys}listen = \"127.0.0.1:0\"\n{peer}{}\
             [arbiter]\ndirectory = \"arbiter\"\n",
            self.pair_keys
        );
        std::fs::write(&config, text).unwrap();
        ReplicaFiles {
            config,
            state: self.path().join(name),
        }
    }

    /// The files of two replicas that know each other, each with `extra` of its name.
    pub fn two_hosts(&self, names: [&str; 2], extra: impl Fn(&str) -> String) -> [ReplicaFiles; 2] {
        let addresses = two_addresses();
        [0, 1].map(|host| {
            let (name, peer) = (names[host], &addresses[1 - host]);
            let files = self.replica(name, Some(peer), &extra(name));
            let text = std::fs::read_to_string(&files.config).unwrap();
            let own = format!("host = \"{name}\"\nlisten = \"{}\"", addresses[host]);
            let text = text.replace("listen = \"127.0.0.1:0\"", &own);
            std::fs::write(&files.config, text).unwrap();
            files
        })
    }

    /// A primary that listens, and where.
    pub fn primary(&self, name: &str) -> (ReplicaFiles, Process, String) {
        self.primary_with(name, "")
    }

    /// The same with more in its configuration.
    pub fn primary_with(&self, name: &str, extra: &str) -> (ReplicaFiles, Process, String) {
        let files = self.replica(name, None, extra);
        let process = Process::start(&["replica", "--config", files.config()]);
        let listen = wait_for("the primary to listen", || {
            let status = files
                .status()
                .filter(|status| status["role"] == "primary")?;
            status["listen"].as_str().map(str::to_owned)
        });
        (files, process, listen)
    }

    /// A backup of the primary at `peer`, once it protects it.
    pub fn backup(&self, name: &str, peer: &str) -> (ReplicaFiles, Process) {
        self.backup_with(name, peer, "")
    }

    /// The same with more in its configuration.
    pub fn backup_with(&self, name: &str, peer: &str, extra: &str) -> (ReplicaFiles, Process) {
        let files = self.replica(name, Some(peer), extra);
        let process = Process::start(&["replica", "--config", files.config()]);
        files.await_state("replaying");
        (files, process)
    }
}
