//! An ext4 file system in a real Debian guest, under a load of synced appends, whose hosts are killed
//! one after the other and then both at once.

use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use xtask::bench;
use xtask::engines::image;
use xtask::program;
use xtask::replica::{Configuration, HostDisk, Process, Replica, wait_for};

/// Failovers before both hosts lose power.
const KILLS: usize = 2;
/// Lines between two kills.
const LINES: u64 = 50;
const PORT: u16 = 7000;

/// The guest with its disk, built if it is not there: the files of a whole Debian, whose first process
/// is the load's.
fn guest() -> Result<(PathBuf, PathBuf)> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"));
    let directory = workspace.join("../target/guest-workloads/ext4");
    let disk = directory.join("disk");
    if !disk.exists() {
        let files = workspace.join("guest-workloads");
        let added = [
            "ext4_init.sh:/usr/sbin/init:755",
            "numbered_lines.pl:/workload/numbered_lines.pl",
            // Nothing of the packages has to be configured for this.
            "/dev/null:/usr/lib/understudy/first-boot:644",
        ];
        let mut arguments = vec![
            "--root-filesystem".to_owned(),
            disk.display().to_string(),
            "--size".to_owned(),
            "1G".to_owned(),
        ];
        for file in added {
            arguments.push("--add-file".to_owned());
            arguments.push(files.join(file).display().to_string());
        }
        image::build(&directory, &arguments)?;
    }
    Ok((directory.canonicalize()?, disk.canonicalize()?))
}

/// Two hosts and a switch.
struct Hosts {
    directory: PathBuf,
    program: PathBuf,
    guest: PathBuf,
    addresses: [String; 2],
    service: String,
    /// Both hosts reach one disk.
    is_shared: bool,
    _switch: Process,
}

impl Hosts {
    fn new(is_shared: bool) -> Result<Hosts> {
        let directory = bench::scratch("ext4")?;
        let (guest, disk) = guest()?;
        let copied = Command::new("cp")
            .arg("--sparse=always")
            .args([&disk, &directory.join("a.raw")])
            .status()?;
        ensure!(copied.success(), "the disk is not copied");
        std::fs::create_dir(directory.join("arbiter"))?;
        let program = program::path()?;
        let free = || Ok::<_, anyhow::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?);
        let service = free()?.to_string();
        let mut switch = Command::new(&program);
        switch.arg("switch").arg("--listen");
        switch.arg(format!("unix:{}", directory.join("switch").display()));
        switch.args(["--forward", &format!("{service}=10.0.2.15:{PORT}")]);
        let switch = Process::start(switch.stdout(Stdio::null()))?;
        let socket = directory.join("switch");
        wait_for("the switch", || Ok(socket.exists().then_some(())))?;
        Ok(Hosts {
            _switch: switch,
            addresses: [free()?.to_string(), free()?.to_string()],
            directory,
            program,
            guest,
            service,
            is_shared,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn disk(&self, host: usize) -> PathBuf {
        match self.is_shared {
            true => self.path("a.raw"),
            false => self.path(["a.raw", "b.raw"][host]),
        }
    }

    fn start(&self, host: usize) -> Result<Replica> {
        let switch = format!("unix:{}", self.path("switch").display());
        let configuration = Configuration {
            program: &self.program,
            guest: &self.guest,
            memory: "256M",
            state: &self.path(["a", "b"][host]),
            switch: &switch,
            listen: &self.addresses[host],
            peer: Some(&self.addresses[1 - host]),
            peers: &[],
            arbiter: &self.path("arbiter"),
            engine: None,
            disk: Some(HostDisk {
                path: &self.disk(host),
                is_shared: self.is_shared,
            }),
            journal: None,
        };
        Replica::start(Command::new(&self.program), &configuration)
    }

    /// Says a word to the guest, once it listens; the lines that it answers.
    fn say(&self, word: &str) -> Result<impl Iterator<Item = String> + use<>> {
        wait_for("the guest to answer", || {
            let Ok(mut stream) = TcpStream::connect(&self.service) else {
                return Ok(None);
            };
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            // What the switch accepts for a guest that does not listen yet ends at once.
            if writeln!(stream, "{word}").is_err() {
                return Ok(None);
            }
            let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
            Ok(lines
                .next()
                .map(|first| std::iter::once(first).chain(lines)))
        })
    }
}

/// Reads acknowledged numbers on one connection, for as long as it lasts.
struct Reader {
    acknowledged: Arc<AtomicU64>,
    wrong: Arc<Mutex<Option<String>>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(hosts: &Hosts, after: u64) -> Result<Reader> {
        let acknowledged = Arc::new(AtomicU64::new(after));
        let wrong = Arc::new(Mutex::new(None));
        let lines = hosts.say("go")?;
        let (told, trouble) = (acknowledged.clone(), wrong.clone());
        let thread = std::thread::spawn(move || {
            for (line, number) in lines.zip(after + 1..) {
                if line != number.to_string() {
                    *trouble.lock().expect("nobody panics") =
                        Some(format!("{line:?} where {number} was to come"));
                    return;
                }
                told.store(number, Ordering::Relaxed);
            }
        });
        Ok(Reader {
            acknowledged,
            wrong,
            thread,
        })
    }

    fn await_more(&self) -> Result<()> {
        let until = self.acknowledged.load(Ordering::Relaxed) + LINES;
        wait_for("lines to be acknowledged", || {
            if let Some(wrong) = &*self.wrong.lock().expect("nobody panics") {
                anyhow::bail!("{wrong}");
            }
            ensure!(!self.thread.is_finished(), "the connection broke");
            Ok((self.acknowledged.load(Ordering::Relaxed) >= until).then_some(()))
        })
    }

    /// After the machine is gone.
    fn last(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("kept for a look: {}", self.directory.display());
        } else {
            // What cannot be removed now is in nobody's way.
            let _removed = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn assert_clean(disk: &Path) -> Result<()> {
    let output = Command::new("e2fsck").args(["-f", "-n"]).arg(disk).output();
    let output = output.context("e2fsck does not start")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {said}", disk.display());
    Ok(())
}

fn run(is_shared: bool) -> Result<()> {
    let hosts = Hosts::new(is_shared)?;
    let mut primary = hosts.start(0)?;
    let mut live = 0;
    primary.await_live()?;
    let mut backup = hosts.start(1)?;
    let reader = Reader::start(&hosts, 0)?;
    for _ in 0..KILLS {
        primary.await_state("protected")?;
        reader.await_more()?;
        primary.process.kill()?;
        backup.await_live()?;
        reader.await_more()?;
        let again = hosts.start(live)?;
        live = 1 - live;
        primary = std::mem::replace(&mut backup, again);
    }
    primary.await_state("protected")?;
    reader.await_more()?;
    // Both hosts lose power: the backup's first, or it would go on.
    backup.process.kill()?;
    primary.process.kill()?;
    let acknowledged = reader.last();

    // Whichever is started first, it starts from the primary's disk.
    let _backup = hosts.start(1 - live)?;
    let primary = hosts.start(live)?;
    primary.await_live()?;
    let lines: Vec<String> = hosts.say("list")?.collect();
    for number in 1..=acknowledged {
        let line = lines.get(number as usize - 1).map(String::as_str);
        let expected = format!("{number} {}", "x".repeat(200));
        ensure!(
            line == Some(&expected),
            "line {number} of {acknowledged} is {line:?}"
        );
    }
    primary.await_state("protected")?;
    let told: Vec<String> = hosts.say("end")?.collect();
    ensure!(told == ["whole"], "{told:?}");
    let (mut primary, mut backup) = (primary, _backup);
    wait_for("both to end", || {
        Ok(primary.process.ended()?.and(backup.process.ended()?))
    })?;
    println!("{acknowledged} lines were acknowledged, and none is missing");
    for host in [0, 1] {
        assert_clean(&hosts.disk(host))?;
    }
    Ok(())
}

fn run_where_it_can_be_checked(is_shared: bool) {
    if Command::new("e2fsck").arg("-V").output().is_err() {
        println!("not tried: e2fsck is missing (apt-get install e2fsprogs)");
        return;
    }
    run(is_shared).expect("the file system keeps what it promised");
}

#[test]
fn no_synced_line_is_lost_when_hosts_die_one_after_the_other_and_then_both() {
    run_where_it_can_be_checked(false);
}

#[test]
fn no_synced_line_is_lost_on_a_disk_that_both_hosts_share() {
    run_where_it_can_be_checked(true);
}
