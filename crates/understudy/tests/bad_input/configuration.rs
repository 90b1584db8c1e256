//! `vm.toml`, and what it names besides images.

use crate::assert_refused;
use crate::support::guest_program::counting_slowly;
use crate::support::{PairDirectory, Process, error_text, run, wait_for};
use std::fs;
use std::net::TcpListener;
use std::path::Path;

const GOOD: &str = r#"name = "test"
memory = "8M"
kernel = "guest.elf"
state_directory = "state"

[pair]
keys = "site/hosts/here"
members = ["here"]
listen = "127.0.0.1:0"
peer = "127.0.0.1:1"

[arbiter]
directory = "arbiter"
"#;

/// Refuses `GOOD` with `from` replaced, and leaves no socket behind.
fn refuse_changed(command: &str, from: &str, to: &str, words: &[&str]) {
    assert!(GOOD.contains(from), "{from:?}");
    refuse_text(command, &GOOD.replace(from, to), words);
}

fn refuse_text(command: &str, text: &str, words: &[&str]) {
    let pair = PairDirectory::new(&counting_slowly());
    let config = pair.path().join("vm.toml");
    fs::write(&config, text).unwrap();
    let words = [&[config.file_name().unwrap().to_str().unwrap()], words].concat();
    assert_refused(&[command, "--config", config.to_str().unwrap()], 2, &words);
    assert_no_socket(pair.path());
}

fn assert_no_socket(directory: &Path) {
    assert!(
        !directory.join("state/control.sock").exists(),
        "a control socket was left behind"
    );
}

#[test]
fn a_configuration_that_cannot_be_read_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for command in ["run", "replica", "start", "new-life"] {
        let refused = |path: &str, words: &[&str]| {
            let mut arguments = vec![command, "--config", path];
            if command == "start" {
                arguments.extend(["--without", "b"]);
            }
            assert_refused(&arguments, 2, words);
        };
        refused("/nonexistent/vm.toml", &["/nonexistent/vm.toml"]);
        let path = directory.path().to_str().unwrap();
        refused(path, &[path, "directory"]);
        // A file without an end is not read for ever.
        refused("/dev/zero", &["/dev/zero"]);
    }
    let binary = env!("CARGO_BIN_EXE_understudy");
    assert_refused(&["replica", "--config", binary], 2, &["configuration"]);
}

#[test]
fn wrong_syntax_keys_and_types_are_refused_with_their_line() {
    refuse_text("replica", "", &["name"]);
    refuse_text("replica", "name = \n", &["line 1"]);
    refuse_changed("replica", "[pair]", "[pair", &["line 6"]);
    refuse_changed("replica", "memory =", "memroy =", &["line 2", "memroy"]);
    refuse_changed("replica", "listen =", "lisen =", &["line 9", "lisen"]);
    refuse_changed("replica", "\"test\"", "7", &["line 1", "name"]);
    refuse_changed(
        "replica",
        "\"8M\"",
        "\"8X\"",
        &["line 2", "memory", "8X", "512M"],
    );
    refuse_changed("replica", "\"8M\"", "-8", &["line 2", "memory"]);
    refuse_changed(
        "replica",
        "\"8M\"",
        "\"8M\"\nmemory = \"9M\"",
        &["line 3", "memory"],
    );
    refuse_changed("replica", "[arbiter]", "[[arbiter]]", &["line 12"]);
}

#[test]
fn an_engine_that_is_none_is_refused_with_the_engines_that_there_are() {
    let names = ["jit", "interpreter", "paranoid"];
    for value in ["\"fast\"", "\"JIT\"", "\"\"", "3", "[\"jit\"]"] {
        let line = format!("\"8M\"\nengine = {value}");
        let words = [&["line 3", "engine"], &names[..]].concat();
        refuse_changed("replica", "\"8M\"", &line, &words);
        refuse_changed("replica", "\"8M\"", &line, &words);
    }
    for command in [
        &["run"][..],
        &["replica", "--config", "vm.toml"],
        &["replica", "--config", "vm.toml"],
        &["replay", "run.log"],
        &["demo"],
    ] {
        for value in ["fast", "JIT", ""] {
            let output = run(&[command, &["--engine", value]].concat());
            let said = error_text(&output);
            assert_eq!(
                output.status.code(),
                Some(2),
                "{command:?} {value:?}: {said}"
            );
            let names_it = |line: &str| names.iter().all(|name| line.contains(name));
            assert!(
                said.contains("--engine <ENGINE>") && said.lines().any(names_it),
                "{command:?} {value:?}: {said}"
            );
        }
    }
}

#[test]
fn values_that_cannot_be_are_refused_with_their_key() {
    refuse_changed("replica", "\"8M\"", "\"0\"", &["memory", "1M"]);
    refuse_changed("replica", "\"8M\"", "\"1000001\"", &["memory", "4096"]);
    refuse_changed("replica", "\"8M\"", "\"17179869184G\"", &["memory"]);
    refuse_changed("replica", "\"test\"", "\"\"", &["name"]);
    refuse_changed("replica", "\"test\"", "\"../evil\"", &["name"]);
    refuse_changed(
        "replica",
        "\"8M\"",
        "\"8M\"\nharts = 0",
        &["harts", "1 to 8"],
    );
    refuse_changed(
        "replica",
        "\"8M\"",
        "\"8M\"\nharts = 9",
        &["harts", "1 to 8"],
    );
    refuse_changed("replica", "kernel = \"guest.elf\"\n", "", &["kernel"]);
    refuse_changed(
        "replica",
        "[pair]",
        "[network]\nmac = \"52:54:00:12:34\"\n[pair]",
        &["mac", "52:54:00:12:34"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[network]\n[pair]",
        &["network", "switch", "tap"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[network]\nswitch = \"unix:a\"\ntap = \"b\"\n[pair]",
        &["network"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[pair]\nsuspect_after = \"60ms\"",
        &["suspect_after", "heartbeat"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[pair]\nlag_policy = \"drop\"\nlag_limit = \"200ms\"",
        &["lag_limit", "lag_target"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[pair]\nlag_policy = \"forget\"",
        &["lag_policy", "drop-any"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[pair]\nheartbeat = \"0ms\"",
        &["heartbeat", "1ms"],
    );
    refuse_changed(
        "replica",
        "[pair]",
        "[pair]\nheartbeat = \"5h\"",
        &["heartbeat", "5h"],
    );
}

#[test]
fn a_multicast_or_empty_ethernet_address_is_refused() {
    for mac in [
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "53:54:00:12:34:56",
    ] {
        let network = format!("[network]\nswitch = \"unix:a\"\nmac = \"{mac}\"\n[pair]");
        refuse_changed("replica", "[pair]", &network, &["mac", mac]);
    }
}

#[test]
fn addresses_that_cannot_be_are_refused_with_their_key() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999", ":7400", ""] {
        let address = format!("{address:?}");
        refuse_changed(
            "replica",
            "\"127.0.0.1:0\"",
            &address,
            &["pair.listen", &address],
        );
        refuse_changed(
            "replica",
            "\"127.0.0.1:1\"",
            &address,
            &["pair.peer", &address],
        );
    }
}

#[test]
fn sections_that_a_pair_needs_are_asked_for() {
    refuse_changed(
        "replica",
        "[arbiter]\ndirectory = \"arbiter\"\n",
        "",
        &["[arbiter]"],
    );
    let (before, rest) = GOOD.split_once("[pair]").unwrap();
    let (_, arbiter) = rest.split_once("[arbiter]").unwrap();
    let without_pair = format!("{before}[arbiter]{arbiter}");
    refuse_text("replica", &without_pair, &["[pair]"]);
}

/// Refuses to start with `GOOD` in a directory that `prepare` made unfit.
fn refuse_in(prepare: impl Fn(&PairDirectory), text: &str, words: &[&str]) {
    for command in [&["replica"][..], &["new-life", "--yes"]] {
        let pair = PairDirectory::new(&counting_slowly());
        prepare(&pair);
        let config = pair.path().join("vm.toml");
        fs::write(&config, text).unwrap();
        let arguments = [command, &["--config", config.to_str().unwrap()]].concat();
        assert_refused(&arguments, 2, words);
        assert_no_socket(pair.path());
    }
}

#[test]
fn an_arbiter_that_is_no_directory_is_refused_at_once() {
    let file = |pair: &PairDirectory| {
        fs::remove_dir(pair.path().join("arbiter")).unwrap();
        fs::write(pair.path().join("arbiter"), "").unwrap();
    };
    refuse_in(file, GOOD, &["arbiter", "is no directory"]);
    let empty = GOOD.replace("\"arbiter\"", "\"\"");
    refuse_in(|_| {}, &empty, &["line 13", "arbiter.directory", "empty"]);
}

/// Finding: an arbiter that was mounted a little later ended the replica with status 2.
#[test]
fn an_arbiter_that_is_not_there_is_waited_for_and_the_status_says_so() {
    let pair = PairDirectory::new(&counting_slowly());
    let waits = |name: &str, arbiter: &str, words: &[&str]| {
        let replica = pair.replica(name, None, "");
        let text = fs::read_to_string(&replica.config).unwrap();
        let text = text.replace("\"arbiter\"", &format!("{arbiter:?}"));
        fs::write(&replica.config, text).unwrap();
        let process = Process::start(&["replica", "--config", replica.config()]);
        wait_for("the replica to say what it waits for", || {
            let status = replica.status()?;
            let state = status["state"].as_str()?;
            let says_so = words.iter().all(|word| state.contains(word));
            (status["role"] == "waiting" && says_so).then_some(())
        });
        (replica, process)
    };
    let (replica, _process) = waits("r1", "later", &["later", "mounted"]);
    fs::create_dir(pair.path().join("later")).unwrap();
    replica.await_state("alone");
    // sysfs takes no files, not even root's.
    let _waiting = waits("r2", "/sys", &["/sys", "able to write"]);
}

#[test]
fn a_state_directory_that_cannot_be_made_is_refused() {
    let file = |pair: &PairDirectory| fs::write(pair.path().join("state"), "").unwrap();
    refuse_in(file, GOOD, &["state directory"]);
    let nowhere = GOOD.replace("\"state\"", "\"/sys/state\"");
    refuse_in(|_| {}, &nowhere, &["state directory /sys/state"]);
}

#[test]
fn a_port_in_use_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let text = GOOD.replace("127.0.0.1:0", &address);
    let pair = PairDirectory::new(&counting_slowly());
    let config = pair.path().join("vm.toml");
    fs::write(&config, text).unwrap();
    assert_refused(
        &["replica", "--config", config.to_str().unwrap()],
        2,
        &[&address, "in use"],
    );
    assert_no_socket(pair.path());
    let listen = format!("tcp:{address}");
    let keys = pair.path().join("site/hosts/here");
    let with_keys = [
        "switch",
        "--listen",
        &listen,
        "--keys",
        keys.to_str().unwrap(),
    ];
    assert_refused(&with_keys, 2, &[&address, "in use"]);
    assert_refused(&["switch", "--listen", &listen], 2, &["--keys", "unix:"]);
    let directory = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}", directory.path().join("s").display());
    let forward = format!("{address}=10.0.2.15:6379");
    assert_refused(
        &["switch", "--listen", &socket, "--forward", &forward],
        2,
        &[&address, "in use"],
    );
    assert!(
        !directory.path().join("s").exists(),
        "the switch left its socket behind"
    );
}

#[test]
fn a_state_directory_in_use_is_refused_and_its_user_goes_on() {
    let pair = PairDirectory::new(&counting_slowly());
    let (primary, process, listen) = pair.primary("r1");
    let second = pair.replica("r1", Some(&listen), "");
    let refused = || {
        let user = format!("in use by process {}", process.pid());
        assert_refused(&["replica", "--config", second.config()], 6, &[&user]);
    };
    refused();
    // One that answers nothing is as much there as any other, and is asked when it goes on.
    process.signal(rustix::process::Signal::STOP);
    refused();
    let status = run(&["status", "--dir", pair.path().to_str().unwrap()]);
    let said = String::from_utf8(status.stdout).unwrap();
    let expected = format!("does not answer (process {})", process.pid());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(status.status.code(), Some(8));
    process.signal(rustix::process::Signal::CONT);
    primary.await_state("alone");
}

#[test]
fn a_replica_that_finds_no_life_and_no_peer_powers_the_machine_on() {
    let pair = PairDirectory::new(&counting_slowly());
    let backup = pair.replica("r1", Some("127.0.0.1:1"), "");
    let mut process = Process::start(&["replica", "--config", backup.config()]);
    backup.await_state("alone");
    process.signal(rustix::process::Signal::TERM);
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(12), "{said}");
    assert!(said.is_empty() && !backup.state.join("control.sock").exists());
}

/// Finding: with a slip in its name a replica waited for ever, as "its machine makes no sense".
#[test]
fn a_name_that_is_not_that_of_the_markers_ends_the_start() {
    let pair = PairDirectory::new(&counting_slowly());
    let disk = "[[disks]]\npath = \"disk.raw\"\n";
    fs::write(pair.path().join("disk.raw"), [0; 512]).unwrap();
    let (primary, mut process, _) = pair.primary_with("r1", disk);
    wait_for("the disk's marker", || {
        let marker = pair.path().join("disk.raw.understudy");
        marker.exists().then_some(())
    });
    process.kill();
    let text = fs::read_to_string(&primary.config).unwrap();
    let text = text.replace("name = \"test\"", "name = \"testt\"");
    fs::write(&primary.config, text).unwrap();
    let both = ["beside", "disk.raw", "machine \"test\"", "name = \"testt\""];
    for command in [&["replica"][..], &["new-life", "--yes"]] {
        let arguments = [command, &["--config", primary.config()]].concat();
        assert_refused(&arguments, 2, &both);
    }
}

/// Finding: it joined the pair's network with the pair's MAC address, and wrote its disk, without a word.
#[test]
fn a_machine_of_a_pair_is_run_alone_only_by_a_persons_word() {
    let pair = PairDirectory::new(&counting_slowly());
    let config = pair.path().join("vm.toml");
    fs::write(&config, GOOD).unwrap();
    let config = config.to_str().unwrap();
    let words = ["--ignore-pair", "understudy replica", config];
    assert_refused(&["run", "--config", config], 2, &words);
    let printed = pair.path().join("printed");
    let arguments = ["run", "--config", config, "--ignore-pair"];
    let _alone = Process::start_printing(&arguments, &printed);
    wait_for("the guest's output", || {
        let said = fs::read_to_string(&printed).unwrap();
        (said.lines().count() > 3).then_some(())
    });
    assert!(!pair.path().join("state").exists(), "it is no replica");
}
