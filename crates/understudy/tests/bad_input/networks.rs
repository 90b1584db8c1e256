//! A switch that is out of reach, or does not want this host: a replica starts all the same, says so and
//! tries again. What no waiting makes good ends in one clear error.

use crate::support::guest_program::counting_slowly;
use crate::support::{PairDirectory, Process, ReplicaFiles, run, wait_for};
use crate::{assert_refusal, assert_refused};
use keys::{Site, UnixTime, Validity};
use std::fs;
use std::path::Path;
use std::time::Duration;

const MAC: &str = "52-54-00-12-34-56";

fn section(switch: &str, more: &str) -> String {
    format!("[network]\nswitch = \"{switch}\"\nmac = \"52:54:00:12:34:56\"\n{more}")
}

/// How often an event of this name happened.
fn count(replica: &ReplicaFiles, event: &str) -> usize {
    let events = fs::read_to_string(replica.state.join("events.jsonl")).unwrap();
    events.matches(&format!("\"{event}\"")).count()
}

/// Why the network is out of reach, once the replica says so.
fn await_trouble(replica: &ReplicaFiles, words: &str) {
    wait_for(&format!("the network's trouble: {words}"), || {
        let status = replica.status()?;
        let why = status["network_lost"].as_str()?;
        why.contains(words).then_some(())
    });
    assert!(replica.has_event("network_lost"));
}

fn switch_status(file: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

/// A boot unit may start a replica before its switch.
#[test]
fn a_switch_that_is_not_there_yet_is_waited_for() {
    let pair = PairDirectory::new(&counting_slowly());
    let socket = format!("unix:{}", pair.path().join("switch.sock").display());
    let (replica, mut process, _) = pair.primary_with("r1", &section(&socket, ""));
    await_trouble(&replica, "switch.sock");
    let text = run(&["status", "--dir", replica.state.to_str().unwrap()]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("network is out of reach"), "{text}");

    let file = pair.path().join("switch.json");
    let _switch = Process::start(&[
        "switch",
        "--listen",
        &socket,
        "--status-file",
        file.to_str().unwrap(),
        "--forward",
        "127.0.0.1:0=10.0.2.15:6379",
    ]);
    wait_for("the network to be back", || {
        replica.has_event("network_back").then_some(())
    });
    let status = replica.status().unwrap();
    assert_eq!(status["network_lost"], serde_json::Value::Null, "{status}");
    assert_eq!(count(&replica, "network_lost"), 1);
    wait_for("the guest's port", || {
        let serves = &switch_status(&file)?["ports"][0]["serves"];
        (serves.as_str()?.to_lowercase() == MAC).then_some(())
    });
    // Finding: the forwards of a switch were told only if its file had one name and place.
    let all = run(&["status", "--dir", pair.path().to_str().unwrap(), "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(all["forwards"][0]["guest"], "10.0.2.15:6379", "{all}");
    process.kill();
    let mut said = String::new();
    let mut stderr = process.child.stderr.take().unwrap();
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert!(said.contains("warning: network_lost: "), "{said}");
}

/// A switch of this directory's site, by its own keys, and where it listens.
fn tcp_switch(pair: &PairDirectory, keys: &Path, file: &Path) -> (Process, String) {
    let printed = pair.path().join("switch.out");
    let arguments = [
        "switch",
        "--listen",
        "tcp:127.0.0.1:0",
        "--keys",
        keys.to_str().unwrap(),
        "--status-file",
        file.to_str().unwrap(),
    ];
    let process = Process::start_printing(&arguments, &printed);
    let address = wait_for("the switch to say where it listens", || {
        let text = fs::read_to_string(&printed).ok()?;
        let address = text.strip_prefix("listening at ")?.split_once('\n')?.0;
        Some(address.to_owned())
    });
    (process, address)
}

#[test]
fn an_expired_certificate_of_a_switch_or_for_it_keeps_no_replica_from_starting() {
    let pair = PairDirectory::new(&counting_slowly());
    let site = Site::open(&pair.path().join("site")).unwrap();
    let day = |day: i64| {
        let now = UnixTime::now().as_secs() as i64;
        UnixTime::since_unix_epoch(Duration::from_secs((now + day * 86_400) as u64))
    };
    let issue = |name: &str, until: i64| {
        let (from, until) = (day(-90), day(until));
        let validity = Validity { from, until };
        site.issue(&name.parse().unwrap(), validity).unwrap()
    };
    let (good, late) = (issue("switch1", 9), issue("switch2", -1));
    issue("old", -1);
    let file = pair.path().join("switch.json");
    let arbiter = pair.path().join("arbiter");
    let forget_life = || {
        fs::remove_dir_all(&arbiter).unwrap();
        fs::create_dir(&arbiter).unwrap();
    };

    // Nobody there at all.
    let network = section("tcp:127.0.0.1:1", "switch_host = \"switch1\"\n");
    let (replica, process, _) = pair.primary_with("r1", &network);
    await_trouble(&replica, "tcp:127.0.0.1:1");
    drop(process);

    let (switch, address) = tcp_switch(&pair, &late, &file);
    let network = section(&address, "switch_host = \"switch2\"\n");
    forget_life();
    let (replica, process, _) = pair.primary_with("r2", &network);
    await_trouble(&replica, "its certificate expired on");
    drop((switch, process));

    let (_switch, address) = tcp_switch(&pair, &good, &file);
    let more = "switch_host = \"switch1\"\nkeys = \"site/hosts/old\"\n";
    forget_life();
    let (replica, _process, _) = pair.primary_with("r3", &section(&address, more));
    await_trouble(&replica, "this host's certificate has expired");
    // It knocks five times a second, and no oftener; that is no coming and going.
    wait_for("the switch to turn it away again", || {
        let status = switch_status(&file)?;
        let events = status["events"].as_array()?;
        let turned_away = events.iter().find(|e| e["event"] == "turned_away")?;
        (turned_away["count"].as_u64()? >= 4).then_some(())
    });
    assert_eq!(count(&replica, "network_lost"), 1);
    assert_eq!(count(&replica, "network_back"), 0);
}

#[test]
fn a_network_that_cannot_be_is_refused_and_a_person_who_waits_is_told_at_once() {
    let pair = PairDirectory::new(&counting_slowly());
    let long = format!("unix:{}", pair.path().join("x".repeat(120)).display());
    let no_keys = "switch_host = \"switch1\"\nkeys = \"nowhere\"\n";
    for (switch, more, words) in [
        ("nonsense", "", &["network.switch", "nonsense"][..]),
        (&*long, "", &["network.switch", "at most 107"]),
        ("tcp:127.0.0.1:1", "", &["network.switch_host"]),
        ("tcp:127.0.0.1:1", no_keys, &["nowhere/host.pem"]),
    ] {
        let replica = pair.replica("r1", None, &section(switch, more));
        assert_refused(&["replica", "--config", replica.config()], 2, words);
    }
    let kernel = pair.path().join("guest.elf");
    let kernel = kernel.to_str().unwrap();
    let nobody = format!("unix:{}", pair.path().join("s").display());
    let output = run(&["run", "--kernel", kernel, "--network", &nobody]);
    assert_refusal(&output, 2, &["network.switch", &nobody], "run");
    for listen in [&*long, "unix:"] {
        let output = run(&["switch", "--listen", listen]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(listen), "{said}");
    }
}
