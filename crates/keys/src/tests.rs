//! Sessions between hosts of all kinds, over a wire in memory.

mod strangers;

use crate::certificate::Fingerprint;
use crate::date::DAY;
use crate::{
    Date, HOST_FILE, HostName, Keys, KeysError, LetIn, Purpose, Refusal, SMALLEST_BUFFER, Session,
    Site, SiteError, UnixTime, Validity,
};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tempfile::TempDir;

/// One end of a wire: it takes so many bytes and would block then.
#[derive(Clone)]
struct End {
    from: Rc<RefCell<VecDeque<u8>>>,
    to: Rc<RefCell<VecDeque<u8>>>,
    capacity: usize,
}

fn wire(capacity: usize) -> (End, End) {
    type Bytes = Rc<RefCell<VecDeque<u8>>>;
    let (one, other) = (Bytes::default(), Bytes::default());
    let end = |from: &Bytes, to: &Bytes| End {
        from: from.clone(),
        to: to.clone(),
        capacity,
    };
    (end(&one, &other), end(&other, &one))
}

impl Read for End {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut from = self.from.borrow_mut();
        if from.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        from.read(buffer)
    }
}

impl Write for End {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut to = self.to.borrow_mut();
        let room = self.capacity - to.len().min(self.capacity);
        if room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        to.write(&bytes[..bytes.len().min(room)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn name(text: &str) -> HostName {
    text.parse().unwrap()
}

fn hosts(names: &[&str]) -> LetIn {
    LetIn::Hosts(names.iter().map(|text| name(text)).collect())
}

fn site(directory: &TempDir) -> Site {
    let path = directory.path().join("site");
    Site::open(&path).or_else(|_| Site::init(&path)).unwrap()
}

fn issue(directory: &TempDir, host: &str, validity: Validity) -> PathBuf {
    site(directory).issue(&name(host), validity).unwrap()
}

fn keys(directory: &Path, let_in: LetIn) -> Keys {
    Keys::open(directory, Purpose::Replica, let_in).unwrap()
}

/// A certificate whose time was over yesterday.
fn expired() -> Validity {
    let now = Duration::from_secs(UnixTime::now().as_secs());
    Validity {
        from: UnixTime::since_unix_epoch(now - DAY * 90),
        until: UnixTime::since_unix_epoch(now - DAY),
    }
}

struct Pair {
    client: Session,
    client_end: End,
    server: Session,
    server_end: End,
}

/// What came of a handshake at either end.
struct Outcome {
    client: Result<(), String>,
    server: Result<(), String>,
}

impl Pair {
    fn new(client: &Keys, server: &Keys, capacity: usize) -> Pair {
        let (client_end, server_end) = wire(capacity);
        Pair {
            client: client.connect().unwrap(),
            client_end,
            server: server.accept().unwrap(),
            server_end,
        }
    }

    /// Turns both ends until nothing moves any more.
    fn shake_hands(&mut self) -> Outcome {
        let mut client = None;
        let mut server = None;
        for _ in 0..10_000 {
            if client.is_none() {
                client = ended(self.client.handshake(&mut self.client_end));
            }
            if server.is_none() {
                server = ended(self.server.handshake(&mut self.server_end));
            }
            let refused = |ended: &Option<Result<(), String>>| matches!(ended, Some(Err(_)));
            if refused(&client) || refused(&server) || (client.is_some() && server.is_some()) {
                break;
            }
        }
        if let (None, Some(Err(_))) = (&client, &server) {
            client = ended(self.client.handshake(&mut self.client_end));
        }
        // The client hears of a refusal when it reads (RFC 8446, 2): its part was over before.
        if let (Some(Ok(())), Some(Err(_))) = (&client, &server) {
            let mut buffer = vec![0; SMALLEST_BUFFER];
            let read = self.client.read_now(&mut self.client_end, &mut buffer);
            client = Some(read.map(|_| ()).map_err(|error| error.to_string()));
        }
        let over = |ended: Option<Result<(), String>>| ended.unwrap_or(Err("no end".into()));
        Outcome {
            client: over(client),
            server: over(server),
        }
    }
}

fn ended(turned: io::Result<bool>) -> Option<Result<(), String>> {
    match turned {
        Ok(false) => None,
        Ok(true) => Some(Ok(())),
        Err(error) => Some(Err(error.to_string())),
    }
}

fn meet(client: &Keys, server: &Keys) -> Outcome {
    Pair::new(client, server, 1 << 20).shake_hands()
}

fn assert_refused(outcome: &Outcome, at_server: &str, at_client: &str) {
    let server = outcome.server.as_ref().unwrap_err();
    assert!(server.contains(at_server), "{server}");
    let client = outcome.client.as_ref().unwrap_err();
    assert!(client.contains(at_client), "{client}");
}

#[test]
fn members_of_a_machine_prove_who_they_are_to_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let members = hosts(&["hosta", "hostb"]);
    let a = keys(
        &issue(&directory, "hosta", Validity::days(10)),
        members.clone(),
    );
    let b = keys(&issue(&directory, "hostb", Validity::days(10)), members);
    let mut pair = Pair::new(&a, &b, 100);
    let outcome = pair.shake_hands();
    assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
    assert_eq!(pair.client.peer(), Some(&name("hostb")));
    assert_eq!(pair.server.peer(), Some(&name("hosta")));
}

#[test]
fn a_host_of_another_site_is_refused_and_told_so() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let a = keys(&issue(&here, "hosta", Validity::days(10)), LetIn::Site);
    let foreign = keys(&issue(&there, "hosta", Validity::days(10)), LetIn::Site);
    // Who connects sees the other's certificate first.
    let outcome = meet(&foreign, &a);
    let client = outcome.client.unwrap_err();
    assert!(client.contains("not of this site's authority"), "{client}");
    assert!(outcome.server.is_err());
}

#[test]
fn a_host_of_the_site_that_is_no_member_is_refused_by_name_and_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let a = keys(
        &issue(&directory, "hosta", Validity::days(10)),
        hosts(&["hosta", "hostb"]),
    );
    let other = keys(&issue(&directory, "other", Validity::days(10)), LetIn::Site);
    let outcome = meet(&other, &a);
    assert_refused(
        &outcome,
        "it is other, which is not one of hosta, hostb",
        "pair.members",
    );
    // …nor is anybody taken for a member who connects to one.
    let outcome = meet(&a, &other);
    let client = outcome.client.unwrap_err();
    assert!(
        client.contains("it is other, which is not one of"),
        "{client}"
    );
}

#[test]
fn an_expired_certificate_is_refused_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let a = keys(&issue(&directory, "hosta", Validity::days(10)), LetIn::Site);
    let late = keys(&issue(&directory, "hostb", expired()), LetIn::Site);
    let outcome = meet(&late, &a);
    let day = Date(late.certificate().not_after).to_string();
    assert_refused(&outcome, &day, "`understudy keys rotate`");
    assert_refused(&outcome, "`understudy keys rotate`", "has expired");
}

/// What expires in the night takes nobody's protection away: whoever was let in while its certificate
/// held is let in with the same one for as long as the process runs.
#[test]
fn who_was_let_in_before_its_certificate_expired_is_let_in_again() {
    let directory = tempfile::tempdir().unwrap();
    let a = keys(&issue(&directory, "hosta", Validity::days(10)), LetIn::Site);
    let soon = Validity {
        from: expired().from,
        until: UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs() + 2)),
    };
    let b = keys(&issue(&directory, "hostb", soon), LetIn::Site);
    assert_eq!(meet(&b, &a).server, Ok(()));
    // The calendar has to go beyond the certificate's end: there is no other one in the handshake.
    while UnixTime::now() <= soon.until {
        std::thread::sleep(Duration::from_millis(50));
    }
    let outcome = meet(&b, &a);
    assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
    let newcomer = keys(
        &site(&directory).host_directory(&name("hosta")),
        LetIn::Site,
    );
    assert_refused(&meet(&b, &newcomer), "expired on", "has expired");
}

/// A host whose clock is behind lets in who was issued a certificate just now.
#[test]
fn a_certificate_from_tomorrow_is_good_today() {
    let directory = tempfile::tempdir().unwrap();
    let tomorrow = Validity {
        from: UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + DAY),
        until: Validity::days(10).until,
    };
    let a = keys(&issue(&directory, "hosta", Validity::days(10)), LetIn::Site);
    let b = keys(&issue(&directory, "hostb", tomorrow), LetIn::Site);
    assert_eq!(meet(&b, &a).server, Ok(()));
}

#[test]
fn rfc7301_a_session_of_another_purpose_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let replica = keys(&path, LetIn::Site);
    let switch = Keys::open(&path, Purpose::Switch, LetIn::Site).unwrap();
    let outcome = meet(&replica, &switch);
    assert!(outcome.server.is_err());
    let client = outcome.client.unwrap_err();
    assert!(client.contains("something else listens there"), "{client}");
}

/// The bytes of a whole session, sent again: the server's part of the handshake is new each time (RFC
/// 8446, 4.1.3), nothing is resumed, and nothing is believed before it.
#[test]
fn a_recorded_session_sent_again_says_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let a = keys(&issue(&directory, "hosta", Validity::days(10)), LetIn::Site);
    let b = keys(&issue(&directory, "hostb", Validity::days(10)), LetIn::Site);
    let mut pair = Pair::new(&b, &a, 1 << 20);
    // What the client says is read off the wire before the server gets it.
    let mut recorded = Vec::new();
    let mut buffer = vec![0; SMALLEST_BUFFER];
    let mut heard = Vec::new();
    let mut client_done = false;
    for turn in 0..20 {
        client_done = client_done || pair.client.handshake(&mut pair.client_end).unwrap();
        if turn == 10 {
            pair.client
                .write_now(&mut pair.client_end, b"the word")
                .unwrap();
        }
        recorded.extend(pair.server_end.from.borrow().iter());
        if pair.server.peer().is_none() {
            pair.server.handshake(&mut pair.server_end).unwrap();
        } else if let Some(length) = pair
            .server
            .read_now(&mut pair.server_end, &mut buffer)
            .unwrap()
        {
            heard.extend_from_slice(&buffer[..length]);
        }
    }
    assert_eq!(heard, b"the word");
    let (_, mut end) = wire(1 << 20);
    end.from.borrow_mut().extend(&recorded);
    let mut again = a.accept().unwrap();
    let error = (0..10).find_map(|_| again.handshake(&mut end).err());
    assert!(error.is_some() && again.peer().is_none(), "{error:?}");
}

#[test]
fn what_follows_the_handshake_at_once_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let a = keys(&path, LetIn::Site);
    let mut pair = Pair::new(&a, &a, 1 << 20);
    assert!(!pair.client.handshake(&mut pair.client_end).unwrap());
    assert!(!pair.server.handshake(&mut pair.server_end).unwrap());
    assert!(pair.client.handshake(&mut pair.client_end).unwrap());
    pair.client
        .write_now(&mut pair.client_end, b"first")
        .unwrap();
    assert!(pair.server.handshake(&mut pair.server_end).unwrap());
    let mut buffer = vec![0; SMALLEST_BUFFER];
    let read = pair.server.read_now(&mut pair.server_end, &mut buffer);
    assert_eq!(read.unwrap(), Some(5));
    assert_eq!(&buffer[..5], b"first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the socket takes and gives at a time, bytes arrive whole and in order.
    #[test]
    fn bytes_arrive_in_order_however_the_wire_cuts_them(
        capacity in 1usize..100_000,
        pieces in proptest::collection::vec(1usize..200_000, 1..6),
        room in SMALLEST_BUFFER..300_000,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let a = keys(&issue(&directory, "hosta", Validity::days(10)), LetIn::Site);
        let mut pair = Pair::new(&a, &a, capacity);
        let outcome = pair.shake_hands();
        prop_assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
        let sent: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|n| (n / 7) as u8).collect();
        let mut unsent = &sent[..];
        let (mut received, mut buffer) = (Vec::new(), vec![0; room]);
        let mut idle = 0;
        while received.len() < sent.len() && idle < 1000 {
            idle += 1;
            if !unsent.is_empty() {
                let taken = pair.client.write_now(&mut pair.client_end, unsent).unwrap();
                unsent = &unsent[taken.unwrap_or(0)..];
            } else {
                pair.client.flush(&mut pair.client_end).unwrap();
            }
            while let Some(length) = pair.server.read_now(&mut pair.server_end, &mut buffer).unwrap() {
                prop_assert!(length > 0);
                received.extend_from_slice(&buffer[..length]);
                idle = 0;
            }
            if capacity < 1000 { idle = 0; }
        }
        prop_assert!(received == sent);
    }
}

#[test]
fn keys_that_others_can_read_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for file in [
        "site/authority.pem",
        "site/authorities.pem",
        "site/hosts/hosta/host.pem",
    ] {
        assert_eq!(mode(&directory.path().join(file)), 0o600, "{file}");
    }
    let file = path.join(HOST_FILE);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let error = Keys::open(&path, Purpose::Replica, LetIn::Site).unwrap_err();
    assert!(
        matches!(error, KeysError::OpenToOthers { mode: 0o640, .. }),
        "{error}"
    );
}

/// A copy that was cut off anywhere is refused with the file, and with what to do.
#[test]
fn keys_that_were_cut_off_say_so_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    for file in [HOST_FILE, crate::AUTHORITIES_FILE] {
        let file = path.join(file);
        let whole = std::fs::read(&file).unwrap();
        let text = String::from_utf8(whole.clone()).unwrap();
        // The last line ends there, with or without a line's end.
        let ends = text.trim_end().len();
        for length in 0..ends {
            std::fs::write(&file, &whole[..length]).unwrap();
            let error = Keys::open(&path, Purpose::Replica, LetIn::Site).unwrap_err();
            let error = error.to_string();
            let is_named = error.starts_with(&file.display().to_string());
            assert!(is_named, "{length} bytes: {error}");
            assert!(
                error.contains("copy the host's directory"),
                "{length} bytes: {error}"
            );
        }
        std::fs::write(&file, &whole).unwrap();
    }
    keys(&path, LetIn::Site);
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let a = issue(&directory, "hosta", Validity::days(10)).join(HOST_FILE);
    let b = issue(&directory, "hostb", Validity::days(10)).join(HOST_FILE);
    let key = "-----BEGIN PRIVATE KEY-----";
    let certificate = std::fs::read_to_string(&a).unwrap();
    let other = std::fs::read_to_string(&b).unwrap();
    let mixed = format!(
        "{}{key}{}",
        certificate.split_once(key).unwrap().0,
        other.split_once(key).unwrap().1
    );
    std::fs::write(&a, mixed).unwrap();
    let error = Keys::open(a.parent().unwrap(), Purpose::Replica, LetIn::Site).unwrap_err();
    assert!(error.to_string().contains("of no use together"), "{error}");
}

/// Rotation, step by step: at each of them hosts that have taken it and hosts that have not believe each
/// other.
#[test]
fn hosts_believe_each_other_at_every_step_of_a_rotation() {
    let directory = tempfile::tempdir().unwrap();
    let names = [name("hosta"), name("hostb")];
    let paths = ["hosta", "hostb"].map(|host| issue(&directory, host, Validity::days(10)));
    let site = site(&directory);
    let [a, b] = [0, 1].map(|host| {
        let copy = directory.path().join(format!("copy-{host}"));
        std::fs::create_dir(&copy).unwrap();
        copy_keys(&paths[host], &copy);
        (
            paths[host].clone(),
            copy.clone(),
            keys(&copy, hosts(&["hosta", "hostb"])),
        )
    });
    let meet_both = |step: &str| {
        for (one, other) in [(&a.2, &b.2), (&b.2, &a.2)] {
            let outcome = meet(one, other);
            assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())), "{step}");
        }
    };
    let take = |step: &str| {
        for host in [&a, &b] {
            copy_keys(&host.0, &host.1);
            assert!(host.2.reload().unwrap(), "{step}");
            meet_both(step);
        }
        assert!(!a.2.reload().unwrap());
    };
    meet_both("as issued");
    site.rotate(&names, Validity::days(20)).unwrap();
    take("new keys");
    site.begin_authority().unwrap();
    assert!(matches!(
        site.begin_authority(),
        Err(SiteError::FollowsAlready)
    ));
    assert!(matches!(
        site.retire_authorities(),
        Err(SiteError::FollowsAlready)
    ));
    take("both authorities are believed");
    site.rotate(&names[..1], Validity::days(20)).unwrap();
    let early = site.retire_authorities().unwrap_err();
    assert!(early.to_string().contains("hostb"), "{early}");
    site.rotate(&names, Validity::days(20)).unwrap();
    take("keys of the new authority");
    site.retire_authorities().unwrap();
    assert_eq!(site.authority_count().unwrap(), 1);
    take("the new authority alone is believed");
}

fn copy_keys(from: &Path, to: &Path) {
    for file in [HOST_FILE, crate::AUTHORITIES_FILE] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

#[test]
fn keys_are_made_once_and_replaced_on_request_only() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let before = std::fs::read(path.join(HOST_FILE)).unwrap();
    let site = site(&directory);
    let again = site.issue(&name("hosta"), Validity::days(10));
    assert!(matches!(again, Err(SiteError::HasKeys(_))));
    assert!(matches!(
        Site::init(&directory.path().join("site")),
        Err(SiteError::Exists(_))
    ));
    assert!(matches!(
        site.rotate(&[name("hostb")], Validity::days(10)),
        Err(SiteError::Unknown(_))
    ));
    assert!(matches!(
        Site::open(&directory.path().join("elsewhere")),
        Err(SiteError::NoSite(_))
    ));
    assert_eq!(std::fs::read(path.join(HOST_FILE)).unwrap(), before);
    let names: BTreeSet<_> = site
        .hosts()
        .unwrap()
        .into_iter()
        .map(|host| host.name)
        .collect();
    assert_eq!(names, BTreeSet::from([name("hosta")]));
    let days = crate::whole_days(UnixTime::now(), site.hosts().unwrap()[0].not_after);
    assert!((9..=10).contains(&days), "{days}");
}

/// A mistake in one name leaves no host with keys that nobody was told to copy.
#[test]
fn a_name_given_twice_or_known_already_issues_nothing() {
    let directory = tempfile::tempdir().unwrap();
    issue(&directory, "hosta", Validity::days(10));
    let site = site(&directory);
    let issue = |names: &[&str]| {
        let names: Vec<HostName> = names.iter().map(|text| name(text)).collect();
        site.issue_all(&names, Validity::days(10)).map(drop)
    };
    let twice = issue(&["hostb", "hostc", "hostb"]).unwrap_err();
    assert!(matches!(&twice, SiteError::NamedTwice(host) if *host == name("hostb")));
    assert!(
        twice.to_string().contains("hostb is named twice"),
        "{twice}"
    );
    let known = issue(&["hostb", "hosta"]).unwrap_err();
    assert!(matches!(known, SiteError::HasKeys(_)), "{known}");
    assert_eq!(site.hosts().unwrap().len(), 1);
    issue(&["hostb", "hostc"]).unwrap();
    assert_eq!(site.hosts().unwrap().len(), 3);
    let names = [name("hosta"), name("hosta")];
    let twice = site.rotate(&names, Validity::days(10)).unwrap_err();
    assert!(matches!(twice, SiteError::NamedTwice(_)), "{twice}");
}

#[test]
fn with_one_authority_there_is_nothing_to_retire() {
    let directory = tempfile::tempdir().unwrap();
    let path = issue(&directory, "hosta", Validity::days(10));
    let site = site(&directory);
    let error = site.retire_authorities().unwrap_err();
    assert!(matches!(error, SiteError::NothingToRetire), "{error}");
    assert!(error.to_string().contains("nothing to retire"), "{error}");
    // A host's directory that an earlier attempt did not get to is a reason to go on.
    let authorities = path.join(crate::AUTHORITIES_FILE);
    let one = std::fs::read_to_string(&authorities).unwrap();
    std::fs::write(&authorities, format!("{one}{one}")).unwrap();
    site.retire_authorities().unwrap();
    assert_eq!(std::fs::read_to_string(&authorities).unwrap(), one);
}

#[test]
fn a_fingerprint_is_that_of_sha256() {
    let der = rustls_pki_types::CertificateDer::from(Vec::new());
    // FIPS 180-4, of nothing.
    assert!(
        Fingerprint::of(&der)
            .to_string()
            .starts_with("e3:b0:c4:42:98:fc:1c:14")
    );
    assert_ne!(Refusal::AnotherSite, Refusal::Nameless);
}
