//! A host that is too small, or too slow, for the machine is known for it before it is relied on.
//! `docs/protocol.md`, "What a host has".

mod support;

use machine::engine::Engine;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use std::process::{Command, Stdio};
use support::guest_program::{counting_busily, counting_slowly};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};

const MEMORY: &str = "memory = \"1G\"";
/// What the small host's process may have of addresses, in KiB: less than that, and more than a replica without
/// a machine has.
const LIMIT_KIB: u64 = 900 << 10;

/// The last event of this name of a replica.
fn told(files: &ReplicaFiles, event: &str) -> Option<String> {
    let text = std::fs::read_to_string(files.state.join("events.jsonl")).ok()?;
    let mut events = text.lines().rev().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == event).then(|| line["detail"].as_str().map(str::to_owned))?
    });
    events.next()
}

/// A replica whose process may have no more than so much memory.
fn start_limited(files: &ReplicaFiles) -> Process {
    let script = format!("ulimit -S -v {LIMIT_KIB} && exec \"$@\"");
    let program = env!("CARGO_BIN_EXE_understudy");
    let child = Command::new("sh")
        .args(["-c", &script, "sh", program, "replica", "--config"])
        .arg(files.config())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Process { child }
}

#[test]
fn a_joiner_without_the_memory_is_refused_with_the_reason_and_taken_when_it_has_it() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, _process, listen) = pair.primary_with("r1", MEMORY);
    let small = pair.replica("r2", Some(&listen), MEMORY);
    let process = start_limited(&small);
    let state = wait_for("the small host to say why it waits", || {
        let status = small.status()?;
        let state = status["state"].as_str()?.to_owned();
        state.contains("memory").then_some(state)
    });
    assert!(state.contains("needs 1152 MiB"), "{state}");
    let at_primary = wait_for("the primary to say so", || told(&primary, "refused"));
    assert!(
        at_primary.contains("host r2") && at_primary.contains("needs 1152 MiB"),
        "{at_primary}"
    );
    assert!(told(&small, "looks_again").is_some_and(|why| why.contains("memory")));
    assert!(!small.has_event("joining"));
    let status = small.status().unwrap();
    let has = status["has"]["memory_bytes"].as_u64().unwrap();
    assert!(has > 0 && has < LIMIT_KIB << 10, "{status}");
    assert!(status["has"]["cores"].as_u64().unwrap() > 0, "{status}");
    // It comes again, and is told about once.
    let pid = Pid::from_raw(process.pid());
    let unlimited = Rlimit {
        current: None,
        maximum: None,
    };
    prlimit(pid, Resource::As, unlimited).unwrap();
    primary.await_state("protected");
    let text = std::fs::read_to_string(primary.state.join("events.jsonl")).unwrap();
    assert_eq!(text.matches("\"refused\"").count(), 1, "{text}");
}

/// The primary's machine does as much as compiled code can; the backup's host interprets.
#[test]
fn a_joiner_that_is_too_slow_is_said_to_be_on_both_hosts() {
    if riscv::RISCV64.available(Engine::Jit) != Engine::Jit {
        println!("skipped: without a JIT both hosts are as slow");
        return;
    }
    let pair = PairDirectory::new(&counting_busily());
    let (primary, _process, listen) = pair.primary("r1");
    wait_for("the primary to know what its machine needs", || {
        let status = primary.status()?;
        let needed = status["needs"]["speed_mips"].as_f64()?;
        let has = status["has"]["speed_mips"].as_f64()?;
        (needed > has / 2.0 && has > 0.0).then_some(())
    });
    let slow = pair.replica("r2", Some(&listen), "engine = \"interpreter\"");
    let _slow = Process::start(&["replica", "--config", slow.config()]);
    let status = primary.await_state("protected");
    for files in [&primary, &slow] {
        let what = told(files, "slow_joiner").expect("it is said");
        assert!(what.contains("host r2 may be too slow"), "{what}");
    }
    let text = std::fs::read_to_string(primary.state.join("events.jsonl")).unwrap();
    let at = |event: &str| text.find(&format!("\"event\":\"{event}\"")).unwrap();
    assert!(
        at("slow_joiner") < at("protected"),
        "before it is relied on"
    );
    assert_eq!(status["followers"][0]["slow"], true, "{status}");
    let status = slow.status().unwrap();
    assert_eq!(status["slow"], true, "{status}");
    assert!(status["needs"]["speed_mips"].as_f64() > status["has"]["speed_mips"].as_f64());
}

/// Finding: a backup whose host would boot something else was taken without a word. It follows the machine that runs.
#[test]
fn a_joiner_that_would_boot_something_else_is_said_to_on_both_hosts() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, mut process, listen) = pair.primary("r1");
    std::fs::write(pair.path().join("initrd"), b"of another release").unwrap();
    let more = "command_line = \"debug\"\ninitrd = \"initrd\"";
    let (backup, _backup) = pair.backup_with("r2", &listen, more);
    let status = primary.await_state("protected");
    let followers = &status["followers"][0]["boots_otherwise"];
    for (told, at) in [
        (followers, "r2"),
        (&backup.status().unwrap()["boots_otherwise"], "r1"),
    ] {
        let told: Vec<&str> = told
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        let [command_line, initrd] = told[..] else {
            panic!("{told:?}")
        };
        assert!(
            command_line.starts_with("command_line: \""),
            "{command_line}"
        );
        assert!(
            initrd.starts_with("initrd: ") && initrd.ends_with(&format!(" at {at}")),
            "{initrd}"
        );
    }
    for files in [&primary, &backup] {
        let what = told(files, "boots_otherwise").expect("it is said");
        assert!(
            what.contains("initrd: ") && !what.contains("kernel: "),
            "{what}"
        );
    }
    let text = std::fs::read_to_string(primary.state.join("events.jsonl")).unwrap();
    let at = |event: &str| text.find(&format!("\"event\":\"{event}\"")).unwrap();
    assert!(
        at("boots_otherwise") < at("protected"),
        "before it is relied on"
    );
    process.kill();
    wait_for("the backup to go on with the machine that ran", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
}
