//! Real servers: etcd's members from Debian's `etcd-server`, S3 by `moto` from PyPI.

use crate::namespaces::{Host, Lan};
use crate::way::{Behind, Proxy, Way};
use arbiter::{
    Address, DirectoryStore, EtcdSettings, EtcdStore, S3Credentials, S3Settings, S3Store,
};
use arbiter::{Store, TlsFiles};
use replication::succession::{Outcome, Request};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Says that a test did not run, or fails where it has to.
fn cannot_be_had(what: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "{what} is not installed, and this is CI: `.ci/run` installs it"
    );
    // Not through the test's captured output: a test that did not run must not look like one that did.
    use std::io::Write;
    let said = format!("\n*** NOT TESTED: {what} is not installed\n");
    let _said = std::io::stderr().write_all(said.as_bytes());
}

/// An address of the loopback network, which has many, that no other test listens at.
fn own_host() -> String {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id() % 25_000;
    let host = HOSTS.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{host}", 20 + process / 250, process % 250)
}

/// A process that is killed at the end.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command) -> Server {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Server(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.0.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// How many races are run: `RACES` of the environment (`RACES=1000 cargo test -p arbiter --test stores race`), or as
/// many as there is time for in every run.
pub fn races(in_every_run: u64) -> u64 {
    std::env::var("RACES").map_or(in_every_run, |races| races.parse().unwrap())
}

/// A kind of store, with everything that it takes.
pub trait Backend: Sized + Sync {
    /// How many races there is time for in every run.
    const RACES: u64;

    /// `None`, loudly, if the server cannot be had.
    fn start() -> Option<Self>;

    /// The store, as another process sees it on this way.
    fn open(&self, way: &Way) -> Box<dyn Store>;

    /// Takes everything out of it, as a store does that lost its disk.
    fn empty(&mut self);
}

/// A store and the proxy that leads to it.
struct Via<S> {
    store: S,
    _proxy: Proxy,
}

impl<S: Store> Store for Via<S> {
    fn name(&self) -> String {
        self.store.name()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        self.store.answer(request)
    }
}

pub struct Directory(TempDir);

impl Backend for Directory {
    const RACES: u64 = 300;

    fn start() -> Option<Directory> {
        Some(Directory(tempfile::tempdir().unwrap()))
    }

    fn open(&self, way: &Way) -> Box<dyn Store> {
        let store = DirectoryStore::open(self.0.path()).unwrap();
        Box::new(Behind::new(store, way.clone()))
    }

    fn empty(&mut self) {
        fs::remove_dir_all(self.0.path()).unwrap();
        fs::create_dir(self.0.path()).unwrap();
    }
}

/// A cluster of etcd.
pub struct Etcd {
    directory: TempDir,
    hosts: Vec<String>,
    /// Each member is on a host of its own there.
    lan: Option<Lan>,
    pub members: Vec<Option<Server>>,
    /// Certificates, if its clients are spoken to by TLS.
    pub tls: Option<Certificates>,
}

/// A certification authority for one test, a certificate for etcd and one for its client.
pub struct Certificates(TempDir);

impl Certificates {
    fn make(host: &str) -> Certificates {
        let directory = tempfile::tempdir().unwrap();
        let openssl = |arguments: &str| {
            let output = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(directory.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "openssl {arguments}: {output:?}");
        };
        let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {new} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"
        ));
        for (name, names) in [
            ("server", format!("IP:{host}")),
            ("client", "DNS:client".into()),
        ] {
            let extensions = directory.path().join("extensions");
            fs::write(extensions, format!("subjectAltName = {names}\n")).unwrap();
            openssl(&format!(
                "req {new} -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                 -extfile extensions -out {name}.pem"
            ));
        }
        Certificates(directory)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Etcd {
    /// So many members, which answer.
    pub fn members(count: usize) -> Option<Etcd> {
        Etcd::start_on((0..count).map(|_| own_host()).collect(), None)
    }

    /// Three members on hosts of their own, between which the calling thread is.
    pub fn on_lan(lan: Lan) -> Option<Etcd> {
        lan.enter().unwrap();
        let hosts = Host::ALL.map(|host| host.address().to_owned());
        Etcd::start_on(hosts.into(), Some(lan))
    }

    pub fn lan(&self) -> &Lan {
        self.lan.as_ref().expect("it is on one")
    }

    fn start_on(hosts: Vec<String>, lan: Option<Lan>) -> Option<Etcd> {
        let count = hosts.len();
        if Command::new("etcd").arg("--version").output().is_err() {
            cannot_be_had("etcd (Debian's etcd-server)");
            return None;
        }
        let mut etcd = Etcd {
            directory: tempfile::tempdir().unwrap(),
            hosts,
            lan,
            members: (0..count).map(|_| None).collect(),
            tls: None,
        };
        for member in 0..count {
            etcd.run(member);
        }
        for member in 0..count {
            etcd.await_member(member);
        }
        Some(etcd)
    }

    /// One member whose clients need a certificate.
    pub fn with_tls() -> Option<Etcd> {
        let mut etcd = Etcd::members(1)?;
        etcd.kill(0);
        etcd.tls = Some(Certificates::make(&etcd.hosts[0]));
        etcd.run(0);
        let client = etcd.endpoint(0);
        wait_for("etcd", || TcpStream::connect(&client).ok());
        Some(etcd)
    }

    /// Starts a member, with whatever it has on its disk.
    pub fn run(&mut self, member: usize) {
        let (name, host) = (format!("member-{member}"), &self.hosts[member]);
        let cluster = self.hosts.iter().enumerate();
        let cluster: Vec<String> = cluster
            .map(|(member, host)| format!("member-{member}=http://{host}:2380"))
            .collect();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://{host}:2379");
        let peer = format!("http://{host}:2380");
        let mut command = match &self.lan {
            Some(lan) => lan.on_host(Host::ALL[member], Path::new("etcd")),
            None => Command::new("etcd"),
        };
        if let Some(tls) = &self.tls {
            command.arg("--client-cert-auth");
            for (option, file) in [
                ("cert", "server.pem"),
                ("key", "server.key"),
                ("trusted-ca", "ca.pem"),
            ] {
                command.arg(format!("--{option}-file")).arg(tls.path(file));
            }
        }
        let server = Server::start(
            command
                // Debian builds it for more architectures than etcd knows.
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH)
                .args(["--name", &name, "--initial-cluster", &cluster.join(",")])
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
                .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
                .arg("--data-dir")
                .arg(self.data(member)),
        );
        self.members[member] = Some(server);
    }

    fn data(&self, member: usize) -> PathBuf {
        self.directory.path().join(format!("member-{member}"))
    }

    pub fn endpoint(&self, member: usize) -> String {
        format!("{}:2379", self.hosts[member])
    }

    /// Until it answers a linearizable read.
    pub fn await_member(&self, member: usize) {
        wait_for("etcd", || {
            let mut store = open_etcd(&[self.endpoint(member)]).ok()?;
            let read = store.answer(&Request::Read {
                key: crate::key(u64::MAX),
            });
            (read == Outcome::Absent).then_some(())
        });
    }

    pub fn kill(&mut self, member: usize) {
        self.members[member].take().unwrap().kill();
    }

    /// All members, with no proxy between.
    pub fn open_all(&self) -> EtcdStore {
        let endpoints: Vec<String> = (0..self.hosts.len()).map(|m| self.endpoint(m)).collect();
        open_etcd(&endpoints).unwrap()
    }
}

pub fn etcd_settings(endpoints: &[String]) -> EtcdSettings {
    let url = format!("etcd://{}/tests", endpoints.join(","));
    let Ok(Address::Etcd(address)) = url.parse() else {
        panic!("{url}")
    };
    EtcdSettings {
        address,
        tls: TlsFiles::default(),
        login: None,
    }
}

pub fn open_etcd(endpoints: &[String]) -> Result<EtcdStore, arbiter::EtcdError> {
    EtcdStore::open(&etcd_settings(endpoints))
}

impl Backend for Etcd {
    const RACES: u64 = 300;

    fn start() -> Option<Etcd> {
        Etcd::members(1)
    }

    fn open(&self, way: &Way) -> Box<dyn Store> {
        let proxy = Proxy::start(&self.endpoint(0), way.clone());
        let store = open_etcd(&[proxy.address.to_string()]).unwrap();
        Box::new(Via {
            store,
            _proxy: proxy,
        })
    }

    fn empty(&mut self) {
        self.kill(0);
        fs::remove_dir_all(self.data(0)).unwrap();
        self.run(0);
        self.await_member(0);
    }
}

/// A service of S3 with one bucket.
pub struct S3 {
    host: String,
    /// Taken only while it is begun anew.
    server: Option<Server>,
}

/// One request after the other: a test of conditions in more than one thread is one of its races.
const MOTO: &str = "
import sys
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
app = DomainDispatcherApplication(create_backend_app)
run_simple(sys.argv[1], 5000, app, threaded=False)
";

impl S3 {
    pub fn endpoint(&self) -> String {
        format!("{}:5000", self.host)
    }

    fn run(&mut self) {
        let command = ["-c", MOTO, &self.host];
        self.server = Some(Server::start(Command::new("python3").args(command)));
        let endpoint = self.endpoint();
        wait_for("moto", || TcpStream::connect(&endpoint).ok());
        let url = format!("http://{endpoint}/bucket");
        let made = ureq::put(url).send_empty().unwrap();
        assert_eq!(made.status(), 200);
    }
}

pub fn s3_settings(endpoint: &str) -> S3Settings {
    let Ok(Address::S3(address)) = "s3://bucket/tests".parse() else {
        panic!("no address")
    };
    S3Settings {
        address,
        endpoint: Some(format!("http://{endpoint}")),
        region: "us-east-1".into(),
        credentials: S3Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "secret".into(),
            session_token: None,
        },
        tls: TlsFiles::default(),
    }
}

/// A bucket behind a way that is the proxy's.
pub fn open_s3(proxy: &Proxy) -> Result<S3Store, arbiter::S3Error> {
    S3Store::open(&s3_settings(&proxy.address.to_string()))
}

impl Backend for S3 {
    const RACES: u64 = 60;

    fn start() -> Option<S3> {
        let has_moto = Command::new("python3")
            .args(["-c", "import moto.server"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !has_moto {
            cannot_be_had("moto (PyPI's moto[s3,server])");
            return None;
        }
        let mut s3 = S3 {
            host: own_host(),
            server: None,
        };
        s3.run();
        Some(s3)
    }

    fn open(&self, way: &Way) -> Box<dyn Store> {
        let proxy = Proxy::start(&self.endpoint(), way.clone());
        let store = open_s3(&proxy).unwrap();
        Box::new(Via {
            store,
            _proxy: proxy,
        })
    }

    /// It has everything in memory.
    fn empty(&mut self) {
        self.server.take().unwrap().kill();
        self.run();
    }
}
