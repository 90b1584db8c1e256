//! A bucket of a real server, and machines whose journals are in it.

use super::slow_link::{SlowLink, Turns};
use super::{PairDirectory, Process, ReplicaFiles, run, wait_for};
use arbiter::{Attempt, ObjectBucket, S3Credentials, S3Settings, TlsFiles};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// One request after the other, as it does not look whether two put one object at once; and each takes as long as one
/// to a bucket at some distance, if that is asked for.
const MOTO: &str = "
import sys, time
from werkzeug.serving import run_simple
from moto.server import DomainDispatcherApplication, create_backend_app
app = DomainDispatcherApplication(create_backend_app)
delay = float(sys.argv[2])
def slowly(environ, start):
    time.sleep(delay)
    return app(environ, start)
run_simple(sys.argv[1], 5000, slowly, threaded=False)
";

/// Starts a server with an empty bucket.
fn serve(host: &str, delay_ms: u64) -> Child {
    let delay = format!("{}", delay_ms as f64 / 1e3);
    let server = Command::new("python3")
        .args(["-c", MOTO, host, &delay])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let endpoint = format!("{}:5000", host);
    wait_for("moto", || TcpStream::connect(&endpoint).ok());
    let mut socket = TcpStream::connect(&endpoint).unwrap();
    let made = format!("PUT /bucket HTTP/1.0\r\nHost: {endpoint}\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(made.as_bytes()).unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut socket, &mut answer).unwrap();
    assert!(answer.contains(" 200 "), "{answer}");
    server
}

/// S3 by `moto`, with one bucket.
pub struct Bucket {
    host: String,
    server: Child,
    /// By which machines reach it; the tests themselves go straight there.
    link: Option<SlowLink>,
}

impl Bucket {
    /// `None`, loudly, if it cannot be had.
    pub fn start() -> Option<Bucket> {
        Bucket::at_distance(0)
    }

    /// One that takes so many milliseconds longer for each answer.
    pub fn at_distance(delay_ms: u64) -> Option<Bucket> {
        let has_moto = Command::new("python3")
            .args(["-c", "import moto.server"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !has_moto {
            assert!(std::env::var_os("CI").is_none(), "moto is not installed");
            let said = b"\n*** NOT TESTED: moto (PyPI's moto[s3,server]) is not installed\n";
            let _said = std::io::stderr().write_all(said);
            return None;
        }
        static HOSTS: AtomicU8 = AtomicU8::new(1);
        let process = std::process::id() % 25_000;
        let host = format!(
            "127.{}.{}.{}",
            130 + process / 250,
            process % 250,
            HOSTS.fetch_add(1, Ordering::Relaxed)
        );
        let server = serve(&host, delay_ms);
        Some(Bucket {
            host,
            server,
            link: None,
        })
    }

    /// One that machines reach by a link.
    pub fn behind_link(turns: Turns) -> Option<Bucket> {
        let mut bucket = Bucket::start()?;
        let target = format!("{}:5000", bucket.host);
        bucket.link = Some(SlowLink::start(target, turns));
        Some(bucket)
    }

    /// The link.
    pub fn link(&self) -> &SlowLink {
        self.link.as_ref().unwrap()
    }

    /// Its server ends, and with it all that it had; another one is there in its place, with an empty bucket.
    pub fn replace(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = serve(&self.host, 0);
    }

    /// It hangs, or answers again.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.server.id() as i32).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn endpoint(&self) -> String {
        format!("http://{}:5000", self.host)
    }

    /// The section `[journal]` of this bucket.
    pub fn section(&self, pair: &PairDirectory) -> String {
        fs::write(pair.path().join("secret"), "secret\n").unwrap();
        format!(
            "[journal]\nurl = \"s3://bucket/journals\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\n\
             access_key_id = \"AKIDEXAMPLE\"\nsecret_access_key_file = \"secret\"\n",
            match &self.link {
                Some(link) => format!("http://{}", link.address()),
                None => self.endpoint(),
            }
        )
    }

    /// The names of its objects under the prefix, with their bytes.
    pub fn objects(&self) -> Vec<(String, u64)> {
        self.client()
            .list("", false, &mut Attempt::within(Duration::from_secs(20)))
            .unwrap()
            .objects
    }

    pub fn client(&self) -> ObjectBucket {
        ObjectBucket::new(&self.settings()).unwrap()
    }

    pub fn settings(&self) -> S3Settings {
        S3Settings {
            address: match "s3://bucket/journals".parse() {
                Ok(arbiter::Address::S3(address)) => address,
                other => panic!("{other:?}"),
            },
            endpoint: Some(self.endpoint()),
            region: "us-east-1".into(),
            credentials: S3Credentials {
                access_key_id: "AKIDEXAMPLE".into(),
                secret_access_key: "secret".into(),
                session_token: None,
            },
            tls: TlsFiles::default(),
        }
    }

    /// Runs the program in an environment that says how it is reached.
    pub fn understudy(&self, arguments: &[&str]) -> Output {
        super::understudy()
            .args(arguments)
            .env("AWS_ENDPOINT_URL_S3", self.endpoint())
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .output()
            .unwrap()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _killed = self.server.kill();
        let _reaped = self.server.wait();
    }
}

/// A replica whose journal is in a bucket, on a host of its own.
pub struct Host {
    pub name: &'static str,
    pub files: ReplicaFiles,
    pub process: Process,
}

impl Host {
    /// Starts it, with nothing of the machine but its configuration.
    pub fn start(
        pair: &PairDirectory,
        bucket: &Bucket,
        name: &'static str,
        [extra, journal]: [&str; 2],
    ) -> Host {
        let files = pair.replica(name, None, extra);
        let text = fs::read_to_string(&files.config).unwrap();
        let section = bucket.section(pair) + journal;
        fs::write(&files.config, text + &section).unwrap();
        let process = Process::start(&["replica", "--config", files.config()]);
        Host {
            name,
            files,
            process,
        }
    }

    /// Waits until outputs wait for its journal.
    pub fn in_force(self) -> Host {
        wait_for("the journal to be in force", || {
            self.files.has_event("journal_in_force").then_some(())
        });
        self
    }

    /// A person says that this host is off, and has the machine go on here.
    pub fn goes_on_without(self, gone: &str) -> Host {
        let said = wait_for("it to wait for what was there", || {
            let status = self.files.status()?;
            let state = status["state"].as_str()?.to_owned();
            state.contains("goes on from the journal").then_some(state)
        });
        assert!(said.contains(&format!("--without {gone}")), "{said}");
        let config = self.files.config();
        let started = run(&["start", "--config", config, "--without", gone, "--yes"]);
        assert!(started.status.success(), "{started:?}");
        self
    }

    pub fn restart(&mut self) {
        self.process = Process::start(&["replica", "--config", self.files.config()]);
    }

    /// Waits until the outside has seen so many bytes more.
    pub fn await_more(&self, bytes: usize) {
        let goal = self.files.console().len() + bytes;
        wait_for("the guest's output", || {
            (self.files.console().len() >= goal).then_some(())
        });
    }
}
