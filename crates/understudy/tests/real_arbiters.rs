//! Real pairs with a real etcd of three members as their arbiter: the primary is killed, and so is a
//! member. Where etcd is not installed this says so and does nothing, but fails in CI.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::guest_program::counting_slowly;
use support::history::{assert_one_history, await_lines};
use support::{PairDirectory, Process, ReplicaFiles, error_text, run, wait_for};

/// etcd's members, which end with it.
struct Etcd {
    /// One cluster at a time: each member syncs what it hears, and two clusters on one busy disk outlast each
    /// other's elections.
    _alone: MutexGuard<'static, ()>,
    directory: tempfile::TempDir,
    hosts: [String; 3],
    members: Vec<Child>,
}

impl Etcd {
    fn start() -> Option<Etcd> {
        if Command::new("etcd").arg("--version").output().is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "etcd is not installed, and this is CI: `.ci/run` installs it"
            );
            let said = b"\n*** NOT TESTED: etcd (Debian's etcd-server) is not installed\n";
            let _said = std::io::stderr().write_all(said);
            return None;
        }
        let process = std::process::id() % 25_000;
        // Each test of this process has its own.
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let first = 10 * CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let host = |member: u32| {
            let (high, low) = (120 + process / 250, process % 250);
            format!("127.{high}.{low}.{}", first + member)
        };
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut etcd = Etcd {
            _alone: alone,
            directory: tempfile::tempdir().unwrap(),
            hosts: [1, 2, 3].map(host),
            members: Vec::new(),
        };
        for member in 0..3 {
            let process = etcd.member(member);
            etcd.members.push(process);
        }
        Some(etcd)
    }

    fn member(&self, member: usize) -> Child {
        let name = |member: usize| format!("member-{member}");
        let cluster = self.hosts.iter().enumerate();
        let cluster: Vec<String> = cluster
            .map(|(member, host)| format!("{}=http://{host}:2380", name(member)))
            .collect();
        let host = &self.hosts[member];
        let (client, peer) = (format!("http://{host}:2379"), format!("http://{host}:2380"));
        Command::new("etcd")
            .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
            .args([
                "--name",
                &name(member),
                "--initial-cluster",
                &cluster.join(","),
            ])
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .arg("--data-dir")
            .arg(self.directory.path().join(name(member)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    fn kill(&mut self, member: usize) {
        self.members[member].kill().unwrap();
        self.members[member].wait().unwrap();
    }

    /// Until each member says that there is a quorum: the first question to a cluster that has just been started
    /// may take longer than whoever asks has patience.
    fn await_quorum(&self) {
        let health = |host: &String| -> Option<String> {
            let mut stream = TcpStream::connect((host.as_str(), 2379)).ok()?;
            stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok()?;
            let mut said = String::new();
            stream.read_to_string(&mut said).ok()?;
            Some(said)
        };
        for host in &self.hosts {
            wait_for("a quorum", || {
                health(host).filter(|said| said.contains("\"health\":\"true\""))
            });
        }
    }

    fn url(&self) -> String {
        let [a, b, c] = &self.hosts;
        format!("etcd://{a}:2379,{b}:2379,{c}:2379/shop")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            let _killed = member.kill();
            let _reaped = member.wait();
        }
    }
}

fn await_event(replica: &ReplicaFiles, event: &str) {
    wait_for(event, || replica.has_event(event).then_some(()));
}

#[test]
fn a_pair_on_etcd_survives_its_primary_and_a_member_and_waits_where_two_members_are_gone() {
    let Some(mut etcd) = Etcd::start() else {
        return;
    };
    let directory = PairDirectory::new(&counting_slowly());
    let [a, b] = directory.two_hosts(["a", "b"], |_| String::new());
    for files in [&a, &b] {
        let text = std::fs::read_to_string(&files.config).unwrap();
        let url = format!("url = \"{}\"", etcd.url());
        std::fs::write(&files.config, text.replace("directory = \"arbiter\"", &url)).unwrap();
    }
    let start = |files: &ReplicaFiles| Process::start(&["replica", "--config", files.config()]);
    let mut first = start(&a);
    a.await_state("alone");
    let mut second = start(&b);
    let status = a.await_state("protected");
    assert_eq!(status["arbiter"], etcd.url());
    await_lines(&a, 20);

    // A member dies with the primary: the others are asked.
    etcd.kill(0);
    first.kill();
    await_event(&b, "live");
    await_lines(&b, 20);
    assert_one_history(&a, &b);
    let _first = start(&a);
    b.await_state("protected");

    // Without a quorum nobody goes live, and it is told.
    etcd.kill(1);
    second.kill();
    await_event(&a, "arbiter_unanswered");
    assert_eq!(a.status().unwrap()["role"], "backup");
    etcd.members[1] = etcd.member(1);
    wait_for("a to go live", || {
        a.status().filter(|status| status["role"] == "primary")
    });
}

/// "Another arbiter" in docs/protocol.md: from the directory to etcd while the machine runs, and it stays
/// protected; who starts with the old configuration is led on; the directory can be cut then.
#[test]
fn a_running_machine_moves_from_a_directory_to_etcd_and_a_host_of_the_old_configuration_follows() {
    let Some(etcd) = Etcd::start() else {
        return;
    };
    etcd.await_quorum();
    let directory = PairDirectory::new(&counting_slowly());
    let [a, b] = directory.two_hosts(["a", "b"], |_| String::new());
    let start = |files: &ReplicaFiles| Process::start(&["replica", "--config", files.config()]);
    let mut first = start(&a);
    a.await_state("alone");
    let second = start(&b);
    a.await_state("protected");
    await_lines(&a, 20);
    let moves = |files: &ReplicaFiles, to: &str| {
        let output = run(&["arbiter", "move", "--config", files.config(), "--to", to]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &error_text(&output);
        (output.status.code(), said)
    };
    // Nothing is there; and it is for the live host to do.
    let nowhere = directory.path().join("nowhere");
    let (code, said) = moves(&a, nowhere.to_str().unwrap());
    assert!(code == Some(1) && said.contains("nowhere"), "{said}");
    let (code, said) = moves(&b, &etcd.url());
    assert!(
        code == Some(1) && said.contains("ask at its host"),
        "{said}"
    );

    let (code, said) = moves(&a, &etcd.url());
    assert!(code == Some(0) && said.contains("arbiter = "), "{said}");
    for files in [&a, &b] {
        wait_for("the new arbiter in the status", || {
            files
                .status()
                .filter(|status| status["arbiter"] == etcd.url())
        });
    }
    a.await_state("protected");
    assert!(!b.has_event("claim_lost") && !a.has_event("suspected"));

    // The backup takes over by etcd, and the old primary comes back with the directory in its configuration.
    await_lines(&a, 20);
    first.kill();
    await_event(&b, "live");
    await_lines(&b, 20);
    assert_one_history(&a, &b);
    let _first = start(&a);
    let status = b.await_state("protected");
    assert_eq!(status["arbiter"], etcd.url());
    assert_eq!(a.status().unwrap()["arbiter"], etcd.url());
    drop(second);
}
