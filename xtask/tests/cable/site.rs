//! A switch in the LAN, and replicas on the hosts, each with its own way to the arbiter.

use super::namespaces::{Host, LAN_ADDRESS, Lan};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use xtask::program;

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
    fn start(command: &mut Command) -> Result<Process> {
        let child = command.stdin(Stdio::null()).spawn();
        Ok(Process(
            child.with_context(|| format!("{command:?} does not start"))?,
        ))
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// A replica on a host.
pub struct Replica {
    /// Where it runs.
    pub host: Host,
    /// Its process.
    pub process: Process,
    state: PathBuf,
    program: PathBuf,
}

impl Replica {
    /// What it says of itself; `None` when it does not answer.
    pub fn status(&self) -> Result<Option<Value>> {
        let output = Command::new(&self.program)
            .args(["status", "--json", "--dir"])
            .arg(&self.state)
            .output()?;
        let status: Option<Value> = serde_json::from_slice(&output.stdout).ok();
        Ok(status.and_then(|status| status["replicas"].get(0).cloned()))
    }

    /// Waits until it says `state`.
    pub fn await_state(&self, state: &str) -> Result<Value> {
        let what = format!("state {state} on host {}", self.host.name());
        wait_for(&what, || {
            Ok(self.status()?.filter(|status| status["state"] == state))
        })
    }

    /// Waits until it is the primary.
    pub fn await_live(&self) -> Result<Value> {
        let what = format!("host {} to go live", self.host.name());
        wait_for(&what, || {
            Ok(self.status()?.filter(|status| status["role"] == "primary"))
        })
    }

    /// How often an event of this name happened.
    pub fn events(&self, name: &str) -> usize {
        let text = fs::read_to_string(self.state.join("events.jsonl")).unwrap_or_default();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(|event| event["event"] == name).count()
    }
}

/// Everything of one test. The processes end before the LAN is removed.
pub struct Site {
    _switch: Process,
    directory: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    replicas: u32,
    /// The LAN.
    pub lan: Lan,
}

impl Site {
    /// Builds the guest if it is not there, and starts the switch. The calling thread moves into
    /// the LAN.
    pub fn open(lan: Lan) -> Result<Site> {
        let program = program::path()?;
        let guest = demo_guest(&program)?;
        let directory = xtask::bench::scratch("cable")?;
        fs::create_dir(directory.join("arbiter"))?;
        lan.enter()?;
        let listen = format!("tcp:{LAN_ADDRESS}:7500");
        let switch = Process::start(
            lan.on_lan(&program)
                .args([
                    "switch",
                    "--listen",
                    &listen,
                    "--forward",
                    "127.0.0.1:0=10.0.2.15:6379",
                ])
                .arg("--status-file")
                .arg(directory.join("switch.json"))
                .stdout(Stdio::null()),
        )?;
        let site = Site {
            _switch: switch,
            directory,
            program,
            guest,
            replicas: 0,
            lan,
        };
        for host in [Host::A, Host::B] {
            site.set_arbiter(host, true)?;
        }
        wait_for("the switch", || Ok(site.switch_status()))?;
        Ok(site)
    }

    fn switch_status(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.directory.join("switch.json")).ok()?).ok()
    }

    /// The address that leads to Redis.
    pub fn redis_address(&self) -> Result<String> {
        let status = self.switch_status().context("no status of the switch")?;
        let host = status["forwards"][0]["host"].as_str();
        Ok(host.context("the switch has no forward")?.to_owned())
    }

    /// The host at whose port the switch has seen the guest last.
    pub fn guest_is_at(&self) -> Result<Option<Host>> {
        let status = self.switch_status().context("no status of the switch")?;
        let ports = status["ports"].as_array().context("no ports")?.clone();
        let with_guest = ports
            .iter()
            .find(|port| port["macs"].as_array().is_some_and(|macs| !macs.is_empty()));
        let peer = with_guest
            .and_then(|port| port["peer"].as_str())
            .unwrap_or_default();
        Ok([Host::A, Host::B]
            .into_iter()
            .find(|host| peer.contains(host.address())))
    }

    fn arbiter_path(&self, host: Host) -> PathBuf {
        self.directory.join(format!("arbiter-of-{}", host.name()))
    }

    /// Whether a host reaches the arbiter, which is on the far side of its cable.
    pub fn set_arbiter(&self, host: Host, reachable: bool) -> Result<()> {
        let path = self.arbiter_path(host);
        let target = if reachable {
            self.directory.join("arbiter")
        } else {
            "/nonexistent".into()
        };
        let new = path.with_extension("new");
        symlink(target, &new)?;
        fs::rename(new, path)?;
        Ok(())
    }

    /// Pulls a host's cable, or plugs it in: LAN and arbiter at once.
    pub fn set_cable(&self, host: Host, plugged: bool) -> Result<()> {
        self.set_arbiter(host, plugged)?;
        self.lan.set_cable(host, plugged)
    }

    /// Starts a primary (`peer` is `None`) or a backup on a host.
    pub fn start(&mut self, host: Host, peer: Option<Host>) -> Result<Replica> {
        self.replicas += 1;
        let state = self.directory.join(format!("replica-{}", self.replicas));
        let config = state.with_extension("toml");
        fs::write(&config, self.configuration(host, peer, &state)?)?;
        let role = if peer.is_some() { "backup" } else { "primary" };
        let mut command = self.lan.on_host(host, &self.program);
        let process = Process::start(command.args([role, "--config"]).arg(&config))?;
        Ok(Replica {
            host,
            process,
            state,
            program: self.program.clone(),
        })
    }

    fn configuration(&self, host: Host, peer: Option<Host>, state: &Path) -> Result<String> {
        let manifest: Value = serde_json::from_slice(&fs::read(self.guest.join("manifest.json"))?)?;
        let command_line = manifest["command_line"]
            .as_str()
            .context("no command line in the manifest")?;
        let peer = peer.map_or(String::new(), |peer| {
            format!("peer = \"{}:7400\"\n", peer.address())
        });
        Ok(format!(
            "name = \"cable\"\nmemory = \"256M\"\ncommand_line = \"{command_line}\"\n\
             firmware = \"{guest}/firmware\"\nkernel = \"{guest}/kernel\"\ninitrd = \"{guest}/initrd\"\n\
             state_directory = \"{state}\"\n\
             [network]\nswitch = \"tcp:{LAN_ADDRESS}:7500\"\n\
             [pair]\nlisten = \"{address}:7400\"\n{peer}\
             [arbiter]\ndirectory = \"{arbiter}\"\n",
            guest = self.guest.display(),
            state = state.display(),
            address = host.address(),
            arbiter = self.arbiter_path(host).display(),
        ))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for a look: {}", self.directory.display());
        } else {
            // What cannot be removed now, nobody can remove here.
            let _removed = fs::remove_dir_all(&self.directory);
        }
    }
}

/// The demonstration's guest, where the demonstration keeps it, built now if it is not there.
fn demo_guest(program: &Path) -> Result<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    let guest = cache
        .context("no home directory")?
        .join("understudy/guests/demo");
    let status = Command::new(program)
        .args(["guest", "build", "--output"])
        .arg(&guest)
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        bail!("the guest cannot be built: {status}");
    }
    Ok(guest)
}
