//! Garbage and floods at every socket while others use it: they do not notice.

use crate::peers::{greeting, right_greeting};
use crate::support::guest_program::counting_slowly;
use crate::support::{PairDirectory, Process, ReplicaFiles, issue_keys, wait_for};
use keys::BlockingSession;
use network::SwitchPort;
use replication::capacity::HostFacts;
use replication::frame::FrameWriter;
use replication::message::{Message, MessageWriter, PROTOCOL_VERSION};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// Pseudo-random bytes.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(step).collect()
}

/// What a stranger may say on the logging channel.
fn openings() -> Vec<Vec<u8>> {
    let mut said: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, 3000)).collect();
    // A length field of the largest kind, rightly checked, and not much after it.
    let mut whole = Vec::new();
    FrameWriter::default().write(&mut whole, 1, &vec![7; 9 << 20]);
    said.push(whole[..5000].to_vec());
    said.push(vec![
        1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
    ]);
    said.push(vec![0; 100_000]);
    let greeting = greeting();
    let mut hello = Vec::new();
    let mut writer = MessageWriter::default();
    writer.write(
        &mut hello,
        &Message::Hello {
            protocol: PROTOCOL_VERSION,
            greeting,
            is_spare: false,
            stands_at: None,
            facts: HostFacts::default(),
            boot: Default::default(),
        },
    );
    said.push(hello.clone());
    said.push(hello[..hello.len() / 2].to_vec());
    said.push([hello.clone(), hello].concat());
    said
}

/// Resident memory of a process, in KiB.
fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn assert_undisturbed(replicas: [&ReplicaFiles; 2]) {
    for replica in replicas {
        for event in ["suspected", "join_failed", "claimed", "diverged"] {
            assert!(!replica.has_event(event), "{event}");
        }
    }
    let status = replicas[0].await_state("protected");
    assert_eq!(status["generation"], 2);
}

#[test]
fn a_pair_does_not_notice_garbage_and_floods_on_the_logging_channel() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let before_kib = resident_kib(&process);
    let count = primary.status().unwrap()["instruction_count"]
        .as_u64()
        .unwrap();
    let mut silent: Vec<TcpStream> = Vec::new();
    let mut talking = Vec::new();
    for round in 0..10 {
        // Half-open: connected, and never a word.
        silent.extend((0..30).map(|_| TcpStream::connect(&listen).unwrap()));
        for opening in openings() {
            let mut stream = TcpStream::connect(&listen).unwrap();
            // It may be closed in the middle.
            let _written = stream.write_all(&opening);
            if round % 2 == 0 {
                silent.push(stream);
            }
        }
        // A member may have gone mad.
        for opening in openings() {
            let mut member = pair.speak(&listen);
            let _written = member.write_all(&opening);
            if round % 2 == 0 {
                talking.push(member);
            }
        }
    }
    for event in ["garbage", "turned_away"] {
        wait_for(event, || primary.has_event(event).then_some(()));
    }
    drop(talking);
    drop(silent);
    wait_for("the guest to go on", || {
        (primary.status()?["instruction_count"].as_u64()? > count).then_some(())
    });
    assert_undisturbed([&primary, &backup]);
    let grown_kib = resident_kib(&process).saturating_sub(before_kib);
    assert!(grown_kib < 32 << 10, "the flood cost {grown_kib} KiB");
    let events = std::fs::metadata(primary.state.join("events.jsonl"))
        .unwrap()
        .len();
    assert!(
        events < 64 << 10,
        "the flood wrote {events} bytes of events"
    );
}

#[test]
fn a_pair_does_not_notice_garbage_on_its_control_sockets() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let (backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    let mut open = Vec::new();
    for replica in [&primary, &backup] {
        let socket = replica.state.join("control.sock");
        for seed in 0..100 {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.set_nonblocking(true).unwrap();
            let _written = stream.write_all(&noise(seed, 100_000));
            open.push(stream);
        }
    }
    assert!(
        primary.status().is_some() && backup.status().is_some(),
        "both still answer"
    );
    assert_undisturbed([&primary, &backup]);
}

/// A frame from one station to all.
fn frame(from: u8, text: &[u8]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
    frame.extend_from_slice(text);
    frame.resize(64, 0);
    frame
}

#[test]
fn a_switch_hangs_up_on_garbage_and_goes_on_switching() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("switch.sock");
    let status_file = directory.path().join("status.json");
    let unix = format!("unix:{}", socket.display());
    let keys = issue_keys(directory.path());
    let mut process = Process::start(&[
        "switch",
        "--listen",
        &unix,
        "--listen",
        "tcp:127.0.0.1:0",
        "--keys",
        keys.to_str().unwrap(),
        "--status-file",
        status_file.to_str().unwrap(),
    ]);
    let tcp = wait_for("the switch", || {
        let status: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&status_file).ok()?).ok()?;
        let listen = status["listen"]
            .as_array()?
            .iter()
            .filter_map(|address| address.as_str());
        listen
            .filter_map(|address| address.strip_prefix("tcp:"))
            .next()
            .map(str::to_owned)
    });
    let port = || SwitchPort::connect(&unix.parse().unwrap(), None).unwrap();
    let (mut one, mut other) = (port(), port());
    let mut open = Vec::new();
    for seed in 0..100 {
        let mut stream = TcpStream::connect(&tcp).unwrap();
        let said = match seed % 4 {
            0 => noise(seed, 5000),
            1 => u32::MAX.to_be_bytes().to_vec(),
            2 => vec![0; 4],
            // A frame that never ends.
            _ => [&1000u32.to_be_bytes()[..], &[7; 10]].concat(),
        };
        let _written = stream.write_all(&said);
        let mut local = UnixStream::connect(&socket).unwrap();
        let _written = local.write_all(&said);
        open.push((stream, local));
    }
    let text = b"still here";
    let received = wait_for("a frame to get through", || {
        one.send(&frame(1, text)).unwrap();
        other
            .receive()
            .unwrap()
            .filter(|frame| frame[14..].starts_with(text))
    });
    assert_eq!(received, frame(1, text));
    drop(open);
    process.signal(rustix::process::Signal::TERM);
    let (status, said) = process.end();
    assert!(status.success(), "{said}");
    let told = said
        .lines()
        .all(|line| line.starts_with("warning: turned_away: "));
    assert!(told && said.lines().count() < 10, "{said}");
    assert!(!socket.exists(), "the switch left its socket behind");
}

/// A greeting that the primary at the other end of `pair` takes for a backup's.
fn right_hello(config: &str) -> Vec<u8> {
    let greeting = right_greeting(config);
    let mut hello = Vec::new();
    MessageWriter::default().write(
        &mut hello,
        &Message::Hello {
            protocol: PROTOCOL_VERSION,
            greeting,
            is_spare: false,
            stands_at: None,
            facts: HostFacts::default(),
            boot: Default::default(),
        },
    );
    hello
}

/// Finding 6: each of them was worth a snapshot, which a hang-up did not cancel.
#[test]
fn a_hundred_greetings_and_hang_ups_cost_the_guest_a_few_snapshots() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let hello = right_hello(primary.config());
    for _ in 0..100 {
        let mut stream = pair.speak(&listen);
        stream.write_all(&hello).unwrap();
        // It is welcome, or refused because the one before has not gone yet.
        stream.read_exact(&mut [0]).unwrap();
    }
    let joined = |primary: &ReplicaFiles| {
        let text = std::fs::read_to_string(primary.state.join("events.jsonl")).unwrap();
        text.matches("\"join_failed\"").count()
    };
    wait_for("the greetings to be read", || {
        (joined(&primary) > 0).then_some(())
    });
    let (_backup, _backup_process) = pair.backup("r2", &listen);
    let status = primary.await_state("protected");
    let taken = status["snapshots_taken"].as_u64().unwrap();
    assert!((1..10).contains(&taken), "{taken} snapshots");
}

/// Finding 6: eight connections kept every backup out. These are a member's, and even say something that
/// makes sense.
#[test]
fn members_who_only_talk_keep_no_backup_out_and_are_closed() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary("r1");
    let mut said = Vec::new();
    let heartbeat = Message::Ready { pairing: 7 };
    MessageWriter::default().write(&mut said, &heartbeat);
    let strangers: Vec<BlockingSession> = (0..40)
        .map(|_| {
            let mut stream = pair.speak(&listen);
            stream.write_all(&said).unwrap();
            stream
        })
        .collect();
    let (_backup, _backup_process) = pair.backup("r2", &listen);
    primary.await_state("protected");
    for mut stream in strangers {
        // An end, however the primary makes it.
        let _ended = std::io::copy(&mut stream, &mut std::io::sink());
    }
    assert_undisturbed([&primary, &_backup]);
}
