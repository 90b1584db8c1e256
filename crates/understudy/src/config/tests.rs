use super::*;

/// Finding: the handbook's configuration named files that `guest build` does not make.
#[test]
fn the_handbooks_configuration_is_whole_and_names_what_guest_build_makes() {
    let handbook = include_str!("../../../../docs/operations.md");
    let (_, text) = handbook.split_once("```toml\nname = ").unwrap();
    let (text, _) = text.split_once("```").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.toml");
    std::fs::write(&path, format!("name = {text}")).unwrap();
    let config = VmConfig::load(&path).unwrap();
    let guest = |name| Some(directory.path().join("guest").join(name));
    assert_eq!(config.firmware, guest("firmware"));
    assert_eq!(config.kernel, guest("kernel"));
    assert_eq!(config.initrd, guest("initrd"));
    assert!(
        config
            .command_line
            .ends_with(" root=/dev/vda rw net.ifnames=0")
    );
    assert!(config.entropy && config.disks.len() == 1);
}

const WHOLE: &str = r#"
name = "demo"
memory = "512M"
harts = 2
firmware = "fw_dynamic.bin"
kernel = "/boot/Image"
initrd = "initrd.gz"
command_line = "console=ttyS0"
state_directory = "state"
engine = "interpreter"

[[disks]]
path = "disk.raw"

[network]
switch = "unix:/run/switch.sock"
mac = "52:54:00:aa:bb:cc"

[pair]
keys = "keys"
members = ["hosta", "hostb"]
listen = "127.0.0.1:7400"
peer = "127.0.0.1:7401"
suspect_after = "250ms"

[arbiter]
directory = "arbiter"
"#;

fn load(text: &str) -> Result<VmConfig, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vm.toml");
    std::fs::write(&path, text).unwrap();
    VmConfig::load(&path)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn a_whole_file_is_read_and_its_paths_are_relative_to_it() {
    let config = load(WHOLE).unwrap();
    assert_eq!(config.memory, ByteSize(512 << 20));
    assert_eq!(config.harts, 2);
    assert_eq!(config.engine.to_string(), "interpreter");
    assert_eq!(config.kernel.as_deref(), Some(Path::new("/boot/Image")));
    assert!(config.initrd.unwrap().is_absolute());
    assert!(config.disks[0].path.is_absolute());
    assert!(config.arbiter.unwrap().directory.unwrap().is_absolute());
    assert_eq!(
        config.network.unwrap().mac,
        MacAddress([0x52, 0x54, 0, 0xaa, 0xbb, 0xcc])
    );
    let pair = config.pair.unwrap();
    assert_eq!(
        (pair.heartbeat, pair.suspect_after),
        (Milliseconds(60), Milliseconds(250))
    );
}

#[test]
fn what_is_written_is_read_again() {
    let config = load(WHOLE).unwrap();
    assert_eq!(load(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let text = WHOLE.replace("harts = 2", "hart = 2");
    let error = error(&text);
    assert!(
        error.contains("vm.toml, line 4") && error.contains("hart"),
        "{error}"
    );
}

#[test]
fn a_wrong_size_is_named_with_its_line_and_key() {
    let error = error(&WHOLE.replace("\"512M\"", "\"512X\""));
    assert!(
        error.contains("line 3, memory: ") && error.contains("512X"),
        "{error}"
    );
}

#[test]
fn values_that_cannot_be_are_named_by_key() {
    for (from, to, key, line) in [
        ("\"512M\"", "\"512K\"", "memory", 3),
        ("harts = 2", "harts = 9", "harts", 4),
        ("name = \"demo\"", "name = \"a/b\"", "name", 2),
        ("switch = \"unix:/run/switch.sock\"", "", "network", 15),
        ("\"250ms\"", "\"60ms\"", "pair.suspect_after", 24),
        (
            "listen = \"127.0.0.1:7400\"",
            "listen = \"x\"",
            "pair.listen",
            22,
        ),
    ] {
        let error = error(&WHOLE.replace(from, to));
        let place = format!("vm.toml, line {line}: {key}: ");
        assert!(error.contains(&place), "{key}: {error}");
    }
}

/// Finding 10: an empty state directory was taken for the configuration's own.
#[test]
fn an_empty_path_is_no_path() {
    for (from, key, line) in [
        ("\"fw_dynamic.bin\"", "firmware", 5),
        ("\"/boot/Image\"", "kernel", 6),
        ("\"initrd.gz\"", "initrd", 7),
        ("\"state\"", "state_directory", 9),
        ("\"disk.raw\"", "disks.path", 13),
        ("\"arbiter\"", "arbiter.directory", 27),
    ] {
        let error = error(&WHOLE.replace(from, "\"\""));
        let place = format!("vm.toml, line {line}: {key}: an empty path");
        assert!(error.contains(&place), "{key}: {error}");
    }
}

/// Firmware of a PC takes kernel, initrd and command line from a disk: given beside it, they would never be used.
/// Finding: a journal whose directory was the arbiter's, or in the state directory, was begun there.
#[test]
fn a_journal_that_would_lie_among_other_files_is_refused() {
    let with = |state: &str, arbiter: &str, journal: &str| {
        format!(
            "name = \"m\"\nmemory = \"8M\"\nkernel = \"k\"\nstate_directory = \"{state}\"\n\
             [arbiter]\ndirectory = \"{arbiter}\"\n[journal]\ndirectory = \"{journal}\"\n"
        )
    };
    load(&with("a/state", "a/arbiter", "a/journal")).unwrap();
    load(&with("a/state", "a/arbiter", "a/state-journal")).unwrap();
    for (journal, said) in [
        ("a/state", "it is the state directory, "),
        ("a/state/journal", "it lies in the state directory, "),
        ("a/state/x/../journal", "it lies in the state directory, "),
        ("a", "it has in it the state directory, "),
        ("arbiter", "it is the arbiter's directory, "),
        ("arbiter/journal", "it lies in the arbiter's directory, "),
    ] {
        let error = error(&with("a/state", "arbiter", journal));
        assert!(
            error.contains("journal.directory: ") && error.contains(said),
            "{journal}: {error}"
        );
    }
    let links = tempfile::tempdir().unwrap();
    let (real, link) = (links.path().join("real"), links.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let journal = link.join("not/yet/there");
    let error = error(&with(
        "state",
        real.to_str().unwrap(),
        journal.to_str().unwrap(),
    ));
    assert!(
        error.contains("it lies in the arbiter's directory"),
        "{error}"
    );
}

#[test]
fn what_stands_beside_the_firmware_of_a_pc_is_refused() {
    const PC: &str = "name = \"m\"\nmemory = \"1G\"\narch = \"x86-64\"\nfirmware = \"CLOUDHV.fd\"\n\
        state_directory = \"state\"\n[arbiter]\ndirectory = \"arbiter\"\n";
    let with = |line: &str| PC.replace("state_directory", &format!("{line}\nstate_directory"));
    load(PC).unwrap();
    for (line, key) in [
        ("kernel = \"k\"", "kernel"),
        ("initrd = \"i\"", "initrd"),
        ("command_line = \"quiet\"", "command_line"),
        ("transport = \"mmio\"", "transport"),
    ] {
        let error = error(&with(line));
        let place = format!("vm.toml, line 5: {key}: the firmware of an x86-64 machine ");
        assert!(error.contains(&place), "{key}: {error}");
    }
}

#[test]
fn a_multicast_address_is_refused() {
    assert!("53:54:00:12:34:56".parse::<MacAddress>().is_err());
    assert!("52:54:00:12:34".parse::<MacAddress>().is_err());
}

#[test]
fn a_missing_file_is_one_clear_error() {
    let error = VmConfig::load(Path::new("/nonexistent/vm.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cannot read the configuration /nonexistent/vm.toml"),
        "{error}"
    );
}

#[test]
fn what_does_not_go_with_a_shared_disk_is_refused_by_name() {
    let with = |keys: &str| {
        WHOLE.replace(
            "\"disk.raw\"\n",
            &format!("\"disk.raw\"\nshared = true\n{keys}"),
        )
    };
    let config = load(&with("fencing = \"lock\"\n")).unwrap();
    let (replica, _) = config.replica(Path::new("vm.toml")).unwrap();
    assert!(replica.has_shared_disks());
    assert_eq!(replica.disks[0].fencing, Some(Fencing::Lock));
    let qcow2 = with("").replace("disk.raw", "disk.qcow2");
    let journal = format!("{}\n[journal]\ndirectory = \"journal\"\n", with(""));
    let both = format!("disk_durability = \"both\"{}", with(""));
    let transferring = with("").replace(
        "suspect_after",
        "replication = \"state-transfer\"\nsuspect_after",
    );
    let unshared = WHOLE.replace("\"disk.raw\"\n", "\"disk.raw\"\nfencing = \"outside\"\n");
    for (text, key) in [
        (with("read_only = true\n"), "disks.read_only"),
        (with("overwrite = true\n"), "disks.overwrite"),
        (qcow2, "disks.shared"),
        (unshared, "disks.fencing"),
        (journal, "journal"),
        (both, "disk_durability"),
        (transferring, "pair.replication"),
    ] {
        let error = error(&text);
        assert!(error.contains(&format!("{key}: ")), "{key}: {error}");
        assert!(error.contains("disk."), "{error}");
    }
    let error = error(&with("fencing = \"hope\"\n"));
    assert!(
        error.contains("outside") && error.contains("lock"),
        "{error}"
    );
}

/// What does not go with state transfer is refused by name, and not found out by a pair.
#[test]
fn what_does_not_go_with_state_transfer_is_refused() {
    let transferring = |rest: &str| {
        WHOLE.replace(
            "suspect_after",
            &format!("replication = \"state-transfer\"\n{rest}suspect_after"),
        )
    };
    let config = load(&transferring("checkpoint_interval = \"40ms\"\n")).unwrap();
    let (replica, _) = config.replica(Path::new("vm.toml")).unwrap();
    let checkpoints = replica.pair.checkpoints.expect("they are made");
    assert_eq!(checkpoints.interval_ns, 40_000_000);
    let (replica, _) = load(WHOLE).unwrap().replica(Path::new("vm.toml")).unwrap();
    assert_eq!(replica.pair.checkpoints, None);
    let journal = format!("{}\n[journal]\ndirectory = \"journal\"\n", transferring(""));
    let both = format!("disk_durability = \"both\"{}", transferring(""));
    let often = transferring("checkpoint_interval = \"1ms\"\n");
    for (text, key) in [
        (journal, "journal"),
        (both, "disk_durability"),
        (often, "pair.checkpoint_interval"),
    ] {
        let error = error(&text);
        assert!(error.contains(key), "{error}");
    }
}

/// A host with two network cards is one host; a list of two hosts is what it was before.
#[test]
fn a_peer_has_one_address_or_several_and_peers_are_as_many_hosts_as_the_list_has_items() {
    let peer = |value: &str| WHOLE.replace("peer = \"127.0.0.1:7401\"", value);
    let peers = |text: &str| {
        let config = load(text).unwrap();
        let written = toml::to_string(&config).unwrap();
        assert_eq!(load(&written).unwrap(), config, "{written}");
        let (replica, _) = config.replica(Path::new("vm.toml")).unwrap();
        let peers: Vec<String> = config.peers().iter().map(ToString::to_string).collect();
        (replica.pair.backups, peers)
    };
    let one = peers(WHOLE);
    assert_eq!(one, (1, vec!["127.0.0.1:7401".to_owned()]));
    let two_cards = peers(&peer(r#"peer = ["10.1.0.2:7400", "10.2.0.2:7400"]"#));
    assert_eq!(
        two_cards,
        (1, vec!["10.1.0.2:7400, 10.2.0.2:7400".to_owned()])
    );
    let two_hosts = peers(&peer(r#"peers = ["10.1.0.2:7400", "10.1.0.3:7400"]"#));
    assert_eq!(two_hosts.0, 2);
    let text = r#"peers = [["10.1.0.2:7400", "10.2.0.2:7400"], "10.1.0.3:7400"]
spares = [["10.1.0.4:7400", "10.2.0.4:7400"]]"#;
    let (backups, hosts) = peers(&peer(text));
    assert_eq!((backups, hosts.len()), (2, 3));
    assert_eq!(hosts[2], "10.1.0.4:7400, 10.2.0.4:7400");
    for (value, what) in [
        ("peer = []", "0 addresses of one host"),
        (
            r#"peer = ["a:1", "b:1", "c:1", "d:1", "e:1"]"#,
            "5 addresses of one host",
        ),
        (r#"peer = ["a:1", "a:0"]"#, "pair.peer: \"a:0\" has no port"),
        (
            r#"peer = ["a:1", "a:1"]"#,
            "pair.peer: \"a:1\" is there twice",
        ),
        (
            r#"peers = ["a:1", ["b:1", "a:1"]]"#,
            "pair.peers: \"a:1\" is there twice",
        ),
        (
            r#"peer = ["a:1", "b"]"#,
            "pair.peer: \"b\" is not an address",
        ),
        ("peer = 7400", "a list of all addresses of one host"),
    ] {
        let error = error(&peer(value));
        assert!(error.contains(what), "{value}: {error}");
    }
}
