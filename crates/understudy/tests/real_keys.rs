//! Strangers at the logging channel of real replicas, whoever they are and whatever they do; and keys that
//! change while a pair runs.

mod support;

use keys::{BlockingSession, HostName, Keys, LetIn, Purpose, Site, UnixTime, Validity};
use rustix::net::{AddressFamily, SocketType};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use support::guest_program::{counting_busily, counting_slowly};
use support::{PATIENCE, PairDirectory, Process, ReplicaFiles, keys_of, run, wait_for};

fn days(days: i64) -> UnixTime {
    let now = UnixTime::now().as_secs() as i64;
    UnixTime::since_unix_epoch(Duration::from_secs((now + days * 86_400) as u64))
}

/// Keys of another host, in a site of their own or in the pair's.
fn another_hosts(site: &Path, host: &str, validity: Validity) -> Keys {
    let site = Site::open(site).or_else(|_| Site::init(site)).unwrap();
    let directory = site.issue(&host.parse().unwrap(), validity).unwrap();
    Keys::open(&directory, Purpose::Replica, LetIn::Site).unwrap()
}

/// What events of this name say.
fn details(replica: &ReplicaFiles, event: &str) -> String {
    let text = std::fs::read_to_string(replica.state.join("events.jsonl")).unwrap_or_default();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let of_name = lines.filter(|line: &serde_json::Value| line["event"] == event);
    of_name
        .map(|line| format!("{}\n", line["detail"].as_str().unwrap_or_default()))
        .collect()
}

fn await_detail(replica: &ReplicaFiles, event: &str, words: &str) {
    wait_for(&format!("{event} of {words:?}"), || {
        details(replica, event).contains(words).then_some(())
    });
}

fn assert_undisturbed(replicas: [&ReplicaFiles; 2]) {
    for replica in replicas {
        for event in ["suspected", "join_failed", "claimed", "diverged"] {
            assert!(
                !replica.has_event(event),
                "{event}: {}",
                details(replica, event)
            );
        }
    }
    assert_eq!(replicas[0].await_state("protected")["generation"], 2);
}

/// Waits until the replica closes the connection.
fn read_to_end(mut stream: impl Read) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
}

#[test]
fn whoever_is_no_member_is_turned_away_and_both_are_told_why() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    let site = pair.path().join("site");
    let expired = Validity {
        from: days(-90),
        until: days(-1),
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = another_hosts(elsewhere.path(), "here", Validity::days(9));
    let cases = [
        (
            another_hosts(&site, "other", Validity::days(9)),
            "it is other, which is not one of a, b, ",
            "pair.members",
        ),
        (
            another_hosts(&site, "late", expired),
            "its certificate expired on",
            "keys rotate",
        ),
        // Who connects sees first that the replica is not of its site, and hangs up.
        (
            foreign,
            "does not want to be here",
            "not of this site's authority",
        ),
    ];
    for (keys, at_replica, at_stranger) in cases {
        let socket = TcpStream::connect(&listen).unwrap();
        let said = BlockingSession::connect(&keys, socket, PATIENCE)
            .and_then(|mut session| session.read(&mut [0; 99]))
            .unwrap_err()
            .to_string();
        assert!(said.contains(at_stranger), "{said}");
        await_detail(&primary, "turned_away", at_replica);
    }
    assert_undisturbed([&primary, &backup]);
}

#[test]
fn a_stranger_without_a_certificate_hears_nothing_but_that_one_is_wanted() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let mut session = strangers_session();
    let mut socket = TcpStream::connect(&listen).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = loop {
        match session.complete_io(&mut socket) {
            Ok(_) if session.is_handshaking() => {}
            Ok(_) => {
                let read = session.reader().read(&mut [0; 99]);
                assert!(read.is_err(), "a stranger was told something");
            }
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("CertificateRequired"), "{error}");
    await_detail(&primary, "turned_away", "it showed no certificate");
}

/// A TLS client that believes everybody and shows nothing.
fn strangers_session() -> rustls::ClientConnection {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    struct Everybody;
    impl ServerCertVerifier for Everybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Everybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"understudy-replica".to_vec()];
    let name = "anybody.invalid".try_into().unwrap();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap()
}

/// The first message of a handshake, as a member sends it.
fn client_hello(keys: &Keys) -> Vec<u8> {
    struct Wire(Vec<u8>);
    impl Read for Wire {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::WouldBlock.into())
        }
    }
    impl Write for Wire {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut wire = Wire(Vec::new());
    assert!(!keys.connect().unwrap().handshake(&mut wire).unwrap());
    wire.0
}

/// Connects from one of this host's many addresses.
fn connect_from(source: Ipv4Addr, listen: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::new(IpAddr::V4(source), 0))?;
    rustix::net::connect(&socket, &listen)?;
    Ok(socket.into())
}

/// Threads that connect as fast as they can and say nothing, or the beginning of a handshake.
struct Flood {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

/// Connections that one thread of the flood keeps open.
const KEPT: usize = 200;

impl Flood {
    fn start(listen: &str, hello: Vec<u8>) -> Flood {
        let listen: SocketAddr = listen.parse().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let connected = Arc::new(AtomicUsize::new(0));
        let flood = |says: Vec<u8>, network: u8| {
            let (stop, connected) = (stop.clone(), connected.clone());
            std::thread::spawn(move || {
                let mut open = std::collections::VecDeque::new();
                for number in (0..=u8::MAX).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let source = Ipv4Addr::new(127, 0, network, number.max(1));
                    let Ok(mut stream) = connect_from(source, listen) else {
                        continue;
                    };
                    // It may be closed by now.
                    let _written = stream.write_all(&says);
                    connected.fetch_add(1, Ordering::Relaxed);
                    open.push_back(stream);
                    if open.len() > KEPT {
                        open.pop_front();
                    }
                }
            })
        };
        let threads = vec![flood(Vec::new(), 1), flood(hello, 2)];
        Flood {
            stop,
            connected,
            threads,
        }
    }

    /// Waits until so many more have connected.
    fn await_more(&self, count: usize) {
        let until = self.connected.load(Ordering::Relaxed) + count;
        wait_for("the flood", || {
            (self.connected.load(Ordering::Relaxed) >= until).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_pair_joins_and_stays_protected_among_thousands_of_strangers() {
    let pair = PairDirectory::new(&counting_busily());
    let (primary, _process, listen) = pair.primary("r1");
    let flood = Flood::start(&listen, client_hello(&pair.keys()));
    flood.await_more(1000);
    let (backup, mut backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let count = |replica: &ReplicaFiles| replica.status().unwrap()["instruction_count"].as_u64();
    let before = count(&primary).unwrap();
    flood.await_more(4000);
    wait_for("the guest to go on", || {
        (count(&primary)? > before).then_some(())
    });
    assert_undisturbed([&primary, &backup]);
    // Another one joins in the middle of it.
    backup_process.kill();
    primary.await_state("alone");
    let (_another, _another_process) = pair.backup("r3", &listen);
    primary.await_state("protected");
    flood.end();
    assert!(primary.has_event("turned_away"));
    let events = std::fs::metadata(primary.state.join("events.jsonl")).unwrap();
    assert!(events.len() < 64 << 10, "{} bytes of events", events.len());
}

#[test]
fn slow_and_oversized_senders_are_closed() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    let hello = client_hello(&pair.keys());
    let connect = || {
        let stream = TcpStream::connect(&listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let mut half = connect();
    half.write_all(&hello[..hello.len() / 2]).unwrap();
    // A handshake message of 16 MiB, and a record of 64 KiB (RFC 8446, 4 and 5.1).
    for oversized in [
        vec![22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff],
        vec![22, 3, 1, 0xff, 0xff, 1, 0, 0, 0],
    ] {
        let mut stream = connect();
        let _written = stream.write_all(&oversized);
        let _written = stream.write_all(&vec![0; 1 << 20]);
        read_to_end(&mut stream);
    }
    read_to_end(&mut half);
    await_detail(&primary, "turned_away", "did not say within 5 s who it is");
    assert_undisturbed([&primary, &backup]);
}

/// Between a member and a replica somebody keeps every byte that the member says.
#[test]
fn a_recorded_session_sent_again_is_nobodys() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tap.local_addr().unwrap().to_string();
    let replica = listen.clone();
    let recorder = std::thread::spawn(move || {
        let (mut near, _) = tap.accept().unwrap();
        let mut far = TcpStream::connect(replica).unwrap();
        let (mut back, mut forth) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        let answers = std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
        let mut recorded = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = near.read(&mut buffer) {
            recorded.extend_from_slice(&buffer[..length]);
            far.write_all(&buffer[..length]).unwrap();
        }
        far.shutdown(std::net::Shutdown::Both).unwrap();
        let _copied = answers.join().unwrap();
        recorded
    });
    // Garbage is told only of a member: it was let in.
    let mut session = pair.speak(&address);
    session.write_all(&[0xa5; 1000]).unwrap();
    wait_for("the member to be heard", || {
        primary.has_event("garbage").then_some(())
    });
    drop(session);
    let recorded = recorder.join().unwrap();
    let heard = details(&primary, "garbage");
    for _ in 0..10 {
        let mut stream = TcpStream::connect(&listen).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _written = stream.write_all(&recorded);
        read_to_end(&mut stream);
    }
    await_detail(&primary, "turned_away", "was not let in");
    assert_eq!(details(&primary, "garbage"), heard);
}

/// Has the configuration of this name say something else of its keys.
fn give_keys(pair: &PairDirectory, files: &ReplicaFiles, name: &str, keys: &str) {
    let text = std::fs::read_to_string(&files.config).unwrap();
    let before = keys_of(pair.path(), name);
    assert!(text.contains(&before));
    std::fs::write(&files.config, text.replace(&before, keys)).unwrap();
}

/// Two hosts that know nobody else.
fn two_members(pair: &PairDirectory) -> ([ReplicaFiles; 2], PathBuf) {
    let site = pair.path().join("two");
    let at = site.to_str().unwrap();
    assert!(run(&["keys", "init", "--site", at]).status.success());
    assert!(
        run(&["keys", "issue", "--site", at, "r1", "r2"])
            .status
            .success()
    );
    let files = pair.two_hosts(["r1", "r2"], |_| String::new());
    for (files, name) in files.iter().zip(["r1", "r2"]) {
        let own = format!("keys = \"two/hosts/{name}\"\nmembers = [\"r1\", \"r2\"]\n");
        give_keys(pair, files, name, &own);
    }
    (files, site)
}

/// Today's outsider was told "does not answer", and declared the live machine's host to be off.
#[test]
fn a_host_that_is_not_listed_says_so_and_the_one_that_answers_is_not_declared_off() {
    let pair = PairDirectory::new(&counting_slowly());
    let ([r1, _], site) = two_members(&pair);
    let _first = Process::start(&["replica", "--config", r1.config()]);
    let status = r1.await_state("alone");
    let at = site.to_str().unwrap();
    let issued = run(&["keys", "issue", "--site", at, "r3"]);
    assert!(issued.status.success(), "{issued:?}");
    let r3 = pair.replica("r3", status["listen"].as_str(), "");
    let own = "keys = \"two/hosts/r3\"\nmembers = [\"r1\", \"r2\", \"r3\"]\n";
    give_keys(&pair, &r3, "r3", own);
    let _third = Process::start(&["replica", "--config", r3.config()]);
    let told = "r1 answers, but lets nobody named r3 in: pair.members there does not list it";
    await_detail(&r3, "connect_failed", told);
    await_detail(&r3, "waiting", told);
    await_detail(&r1, "turned_away", "it is r3, which is not one of r1, r2");
    let state = r3.status().unwrap()["state"].to_string();
    assert!(state.contains(told), "{state}");
    let word = ["start", "--config", r3.config(), "--without", "r1", "--yes"];
    let said = run(&word);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains(told), "{said}");
    assert_eq!(r1.await_state("alone")["generation"], 1);
}

/// Keys that were copied from a member make nobody a member beside it; a host that was set up anew, with its
/// keys and without its state, is one as soon as the one before has gone.
#[test]
fn copied_keys_let_nobody_in_beside_the_host_that_they_are_of() {
    let pair = PairDirectory::new(&counting_slowly());
    let (r1, _first, listen) = pair.primary("r1");
    let (_r2, mut second) = pair.backup("r2", &listen);
    r1.await_state("protected");
    let copy = pair.replica("r3", Some(&listen), "");
    let of_member = keys_of(pair.path(), "r2");
    give_keys(&pair, &copy, "r3", &of_member);
    let _copy = Process::start(&["replica", "--config", copy.config()]);
    let told = "a host called r2 is here already";
    await_detail(&copy, "looks_again", told);
    await_detail(&r1, "refused", told);
    assert!(copy.status().unwrap()["state"].to_string().contains(told));
    assert_eq!(r1.await_state("protected")["followers"][0]["host"], "r2");
    second.kill();
    copy.await_state("replaying");
    assert_eq!(r1.await_state("protected")["followers"][0]["host"], "r2");
}

/// With the primary's own keys both say so, and the copy waits.
#[test]
fn a_host_with_the_primarys_keys_is_told_so_and_so_is_the_primary() {
    let pair = PairDirectory::new(&counting_slowly());
    let (r1, _first, listen) = pair.primary("r1");
    let copy = pair.replica("r3", Some(&listen), "");
    let of_primary = keys_of(pair.path(), "r1");
    give_keys(&pair, &copy, "r3", &of_primary);
    let _copy = Process::start(&["replica", "--config", copy.config()]);
    let told = "two hosts are called r1: the keys of one were copied to the other";
    await_detail(&copy, "connect_failed", told);
    await_detail(&copy, "waiting", told);
    await_detail(&r1, "refused", told);
    assert_eq!(r1.await_state("alone")["generation"], 1);
}

#[test]
fn a_copied_state_directory_and_another_name_in_the_configuration_are_refused() {
    let pair = PairDirectory::new(&counting_slowly());
    let (r1, mut first, _) = pair.primary("r1");
    first.kill();
    let copy = pair.replica("r3", None, "");
    std::fs::create_dir(&copy.state).unwrap();
    std::fs::copy(r1.state.join("host-id"), copy.state.join("host-id")).unwrap();
    let named = pair.replica("r4", None, "");
    let text = std::fs::read_to_string(&named.config).unwrap();
    std::fs::write(
        &named.config,
        text.replace("listen =", "host = \"elsewhere\"\nlisten ="),
    )
    .unwrap();
    for (files, words) in [
        (
            &copy,
            ["the state directory is that of host r1", "an empty one"],
        ),
        (&named, ["pair.host: this host is called r4", "elsewhere"]),
    ] {
        let (status, said) = Process::start(&["replica", "--config", files.config()]).end();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn keys_rotate_under_a_running_pair() {
    let pair = PairDirectory::new(&counting_slowly());
    let ([r1, r2], site) = two_members(&pair);
    let start = |files: &ReplicaFiles| Process::start(&["replica", "--config", files.config()]);
    let _first = start(&r1);
    r1.await_state("alone");
    let mut second = start(&r2);
    r1.await_state("protected");
    let before = r1.status().unwrap()["key_expires"].clone();
    let at = site.to_str().unwrap();
    let rotated = run(&["keys", "rotate", "--site", at, "--days", "20"]);
    assert!(rotated.status.success(), "{rotated:?}");
    for replica in [&r1, &r2] {
        wait_for("the new keys to be taken", || {
            replica.has_event("keys_changed").then_some(())
        });
        await_detail(replica, "key_expires", "keys rotate");
    }
    let status = r1.await_state("protected");
    assert_eq!(status["generation"], 2, "a failover");
    assert_ne!(status["key_expires"], before);
    let shown = run(&["status", "--dir", r1.state.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("the certificate of r1 expires in"),
        "{shown}"
    );
    second.kill();
    r1.await_state("alone");
    let _second = start(&r2);
    r1.await_state("protected");
}

#[test]
fn a_replica_says_what_is_wrong_with_its_keys() {
    let pair = PairDirectory::new(&counting_slowly());
    let files = pair.replica("r1", None, "");
    let text = std::fs::read_to_string(&files.config).unwrap();
    let other: HostName = "other".parse().unwrap();
    let site = Site::open(&pair.path().join("site")).unwrap();
    site.issue(&other, Validity::days(9)).unwrap();
    let host_file = pair.path().join("site/hosts/r1/host.pem");
    let modes = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    for (from, to, mode, words) in [
        ("hosts/r1", "hosts/nobody", 0o600, "understudy keys issue"),
        ("hosts/r1", "hosts/other", 0o600, "is not among the members"),
        ("hosts/r1", "hosts/r1", 0o644, "chmod 600"),
    ] {
        std::fs::write(&files.config, text.replace(from, to)).unwrap();
        std::fs::set_permissions(&host_file, modes(mode)).unwrap();
        let (status, said) = Process::start(&["replica", "--config", files.config()]).end();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("pair.keys") && said.contains(words), "{said}");
    }
}
