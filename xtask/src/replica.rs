//! Replicas as processes, and what they say of themselves.

use anyhow::{Context, Result, bail};
use keys::{Site, SiteError, Validity};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks again and again until there is an answer.
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that ends with the test.
pub struct Process(Child);

impl Process {
    /// Starts it.
    pub fn start(command: &mut Command) -> Result<Process> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Process(
            child.with_context(|| format!("{command:?} does not start"))?,
        ))
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A disk of a machine, on one of its hosts.
#[derive(Clone, Copy, Debug)]
pub struct HostDisk<'a> {
    /// The image.
    pub path: &'a Path,
    /// The other host has the same one.
    pub is_shared: bool,
}

/// What a replica is started with: the program, and what its vm.toml says.
pub struct Configuration<'a> {
    /// The program, for asking it.
    pub program: &'a Path,
    /// Directory of the built guest.
    pub guest: &'a Path,
    /// RAM, as vm.toml takes it.
    pub memory: &'a str,
    /// The state directory.
    pub state: &'a Path,
    /// The switch's address.
    pub switch: &'a str,
    /// Where it listens.
    pub listen: &'a str,
    /// Where its primary listens.
    pub peer: Option<&'a str>,
    /// Where all others listen, if there are several.
    pub peers: &'a [String],
    /// The arbiter: its directory, or its URL.
    pub arbiter: &'a Path,
    /// What executes the guest; the default where it is not said.
    pub engine: Option<&'a str>,
    /// Its disk, if it has one.
    pub disk: Option<HostDisk<'a>>,
    /// The directory of its journal, if it keeps one.
    pub journal: Option<&'a Path>,
}

/// What the switch's host is called in its certificate.
const SWITCH_HOST: &str = "here";
/// A test has not so many replicas one after the other.
const REPLICAS: usize = 200;

/// The keys of the switch's host in `directory`.
pub fn keys(directory: &Path) -> Result<PathBuf> {
    keys_of(directory, SWITCH_HOST)
}

/// The keys of a host in `directory`, made when there are none.
fn keys_of(directory: &Path, host: &str) -> Result<PathBuf> {
    let site = directory.join("site");
    let host = host.parse()?;
    let site = if site.exists() {
        Site::open(&site)?
    } else {
        Site::init(&site)?
    };
    match site.issue(&host, Validity::days(365)) {
        Ok(directory) => Ok(directory),
        Err(SiteError::HasKeys(_)) => Ok(site.host_directory(&host)),
        Err(error) => Err(error.into()),
    }
}

/// The hosts that may have the machine: each replica is one, and called as its state directory is.
fn members() -> String {
    let numbered = (0..REPLICAS).map(|number| format!("\"replica-{number}\""));
    let named = ["\"a\"", "\"b\"", "\"c\""].map(str::to_owned);
    numbered.chain(named).collect::<Vec<_>>().join(", ")
}

impl Configuration<'_> {
    fn keys(&self) -> Result<PathBuf> {
        let directory = self.state.parent();
        let name = self.state.file_name().and_then(OsStr::to_str);
        let directory = directory.context("a state directory in no directory")?;
        keys_of(directory, name.context("a state directory without a name")?)
    }

    /// A switch that is not this host's has its name.
    fn switch_host(&self) -> String {
        if self.switch.starts_with("tcp:") {
            format!("switch_host = \"{SWITCH_HOST}\"\n")
        } else {
            String::new()
        }
    }

    fn text(&self) -> Result<String> {
        let manifest: Value = serde_json::from_slice(&fs::read(self.guest.join("manifest.json"))?)?;
        let command_line = manifest["command_line"]
            .as_str()
            .context("no command line in the manifest")?;
        let line = |key: &str, value: Option<&str>| {
            value.map_or(String::new(), |value| format!("{key} = \"{value}\"\n"))
        };
        let arch = manifest["architecture"].as_str();
        let firmware = self.guest.join("firmware");
        let firmware = firmware.exists().then_some(firmware);
        let firmware = firmware.as_deref().and_then(Path::to_str);
        Ok(format!(
            "name = \"pair\"\n{arch}memory = \"{memory}\"\ncommand_line = \"{command_line}\"\n\
             {firmware}kernel = \"{guest}/kernel\"\ninitrd = \"{guest}/initrd\"\n\
             state_directory = \"{state}\"\n{engine}arbiter = \"{arbiter}\"\n{disk}\
             [network]\nswitch = \"{switch}\"\n{switch_host}\
             [pair]
keys = \"{keys}\"
members = [{members}]
listen = \"{listen}\"
{peer}{peers}\
             {journal}",
            members = members(),
            arch = line("arch", arch),
            firmware = line("firmware", firmware),
            guest = self.guest.display(),
            memory = self.memory,
            state = self.state.display(),
            engine = line("engine", self.engine),
            disk = self.disk.map_or(String::new(), |disk| format!(
                "[[disks]]\npath = \"{}\"\nshared = {}\n",
                disk.path.display(),
                disk.is_shared
            )),
            journal = self.journal.map_or(String::new(), |journal| format!(
                "[journal]\ndirectory = \"{}\"\n",
                journal.display()
            )),
            switch = self.switch,
            switch_host = self.switch_host(),
            keys = self.keys()?.display(),
            listen = self.listen,
            peer = line("peer", self.peer),
            peers = match self.peers {
                [] => String::new(),
                peers => format!("peers = [\"{}\"]\n", peers.join("\", \"")),
            },
            arbiter = self.arbiter.display(),
        ))
    }
}

/// A replica.
pub struct Replica {
    name: String,
    /// Its process.
    pub process: Process,
    state: PathBuf,
    program: PathBuf,
}

impl Replica {
    /// Starts one with this configuration in this state directory; `command` is the program on
    /// its host.
    pub fn start(mut command: Command, configuration: &Configuration<'_>) -> Result<Replica> {
        let file = configuration.state.with_extension("toml");
        fs::write(&file, configuration.text()?)?;
        let process = Process::start(command.args(["replica", "--config"]).arg(&file))?;
        Ok(Replica {
            name: configuration.state.display().to_string(),
            process,
            state: configuration.state.into(),
            program: configuration.program.into(),
        })
    }

    /// What it says of itself; `None` when it does not answer.
    pub fn status(&self) -> Result<Option<Value>> {
        let output = Command::new(&self.program)
            .args(["status", "--json", "--dir"])
            .arg(&self.state)
            .output()?;
        let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        let status = status.and_then(|status| status["replicas"].get(0).cloned());
        if let Some(status) = &status {
            crate::event_loops::note(status)?;
        }
        Ok(status)
    }

    /// Where its state is.
    pub fn state_directory(&self) -> &Path {
        &self.state
    }

    /// What its events of this name say, the oldest first.
    pub fn details(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.state.join("events.jsonl")).unwrap_or_default();
        let events = text.lines().map(serde_json::from_str::<Value>);
        let events = events.filter_map(Result::ok);
        let events = events.filter(|event| event["event"] == name);
        let details = events.map(|event| event["detail"].as_str().unwrap_or_default().to_owned());
        details.collect()
    }

    /// Waits until it says `state`.
    pub fn await_state(&self, state: &str) -> Result<Value> {
        let what = format!("state {state} of {}", self.name);
        wait_for(&what, || {
            Ok(self.status()?.filter(|status| status["state"] == state))
        })
    }

    /// Waits until it is the primary.
    pub fn await_live(&self) -> Result<Value> {
        let what = format!("{} to go live", self.name);
        wait_for(&what, || {
            Ok(self.status()?.filter(|status| status["role"] == "primary"))
        })
    }

    /// How often an event of this name happened.
    pub fn events(&self, name: &str) -> usize {
        self.moments(name).len()
    }

    /// When an event of this name happened, since 1970, also in processes before that had this state
    /// directory.
    pub fn moments(&self, name: &str) -> Vec<Duration> {
        let text = fs::read_to_string(self.state.join("events.jsonl")).unwrap_or_default();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let events = events.filter(|event| event["event"] == name);
        let moments = events.filter_map(|event| event["unix_ns"].as_u64());
        moments.map(Duration::from_nanos).collect()
    }
}

/// The demonstration's guest for riscv64, where the demonstration keeps it, built now if it is not
/// there.
pub fn demo_guest(program: &Path) -> Result<PathBuf> {
    demo_guest_for(program, "riscv64")
}

/// The demonstration's guest for an architecture, by Debian's name.
pub fn demo_guest_for(program: &Path, architecture: &str) -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    let guest = cache
        .context("no home directory")?
        .join("understudy/guests")
        .join(match architecture {
            "riscv64" => "demo".to_owned(),
            other => format!("demo-{other}"),
        });
    let status = Command::new(program)
        .args(["guest", "build", "--arch", architecture, "--output"])
        .arg(&guest)
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("the guest cannot be built: {status}");
    }
    Ok(guest)
}
