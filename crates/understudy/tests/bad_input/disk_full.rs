//! File systems without room, each a small one of the test's own.

use crate::support::device_programs::disk_writer;
use crate::support::guest_program::{counting_busily, counting_slowly};
use crate::support::{PairDirectory, keys_of, without_no_jit};
use std::fs;
use std::process::{Command, Output, Stdio};

/// Runs a shell script in a mount namespace of its own, where `$FULL` is a file system of
/// `size_kib` KiB, `$PROGRAM` is the program and `$1` is `argument`. `None` where the host does not
/// allow that; it is said why.
fn with_small_file_system(size_kib: u32, argument: &str, script: &str) -> Option<Output> {
    let mount = format!("mount -t tmpfs -o size={size_kib}k small \"$FULL\"");
    let directory = tempfile::tempdir().unwrap();
    let shell = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
                argument,
            ])
            .env("FULL", directory.path())
            .env("PROGRAM", env!("CARGO_BIN_EXE_understudy"))
            .stdin(Stdio::null());
        command.output()
    };
    let possible = shell(&mount);
    if !possible
        .as_ref()
        .is_ok_and(|output| output.status.success())
    {
        println!("skipped: no mount namespace here: {possible:?}");
        return None;
    }
    Some(shell(&format!("{mount} || exit 99\n{script}")).unwrap())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| without_no_jit(&String::from_utf8_lossy(bytes));
    (text(&output.stdout), text(&output.stderr))
}

/// The guest ends rather than run on unrecorded, and what is recorded up to there replays.
#[test]
fn a_recording_that_no_longer_fits_ends_the_run_and_replays() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    fs::write(&kernel, counting_busily()).unwrap();
    // The snapshot fits, and then some seconds of records at most: the guest prints all the time.
    let script = r#"
        "$PROGRAM" run --memory 4M --kernel "$1" --record "$FULL/run.log" >/dev/null
        echo "run $?"
        "$PROGRAM" replay "$FULL/run.log" 2>&1
        echo "replay $?""#;
    let Some(output) = with_small_file_system(16, kernel.to_str().unwrap(), script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(
        printed.contains("run 1\n") && printed.contains("replay 0\n"),
        "{printed}{said}"
    );
    assert!(
        printed.contains("not complete: its writer died"),
        "{printed}"
    );
    assert!(
        said.contains("cannot write the recording") && said.contains("No space left"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_recording_whose_snapshot_does_not_fit_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    fs::write(&kernel, [&counting_busily()[..], &[7; 64 << 10]].concat()).unwrap();
    let large = directory.path().join("initrd");
    fs::write(&large, vec![7; 200 << 10]).unwrap();
    let script = format!(
        r#""$PROGRAM" run --memory 4M --kernel "$1" --initrd {} --record "$FULL/run.log""#,
        large.display()
    );
    let Some(output) = with_small_file_system(64, kernel.to_str().unwrap(), &script) else {
        return;
    };
    let (_, said) = texts(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("No space left") && said.lines().count() == 1,
        "{said}"
    );
}

/// The guest sees an I/O error, as from a broken disk, and the user is told the cause.
#[test]
fn a_disk_without_room_is_an_io_error_for_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    fs::write(&kernel, disk_writer()).unwrap();
    let script = r#"
        truncate -s 1M "$FULL/disk" && cat /dev/zero >"$FULL/rest" 2>/dev/null
        "$PROGRAM" run --memory 4M --kernel "$1" --disk "$FULL/disk"
        echo "full $?"
        rm "$FULL/rest"
        "$PROGRAM" run --memory 4M --kernel "$1" --disk "$FULL/disk"
        echo "room $?""#;
    let Some(output) = with_small_file_system(64, kernel.to_str().unwrap(), script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(
        printed.contains("full 2\n") && printed.contains("room 1\n"),
        "{printed}{said}"
    );
    assert!(said.contains("disk: write: No space left"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// The record of events and the guest's console are for people; the service goes on without them.
#[test]
fn a_state_directory_that_fills_up_does_not_disturb_a_pair() {
    let pair = PairDirectory::new(&counting_slowly());
    for (name, peer) in [("r1", ""), ("r2", "peer = \"PEER\"")] {
        let keys = keys_of(pair.path(), name);
        let text = format!(
            "name = \"test\"\nmemory = \"4M\"\nkernel = \"guest.elf\"\nstate_directory = \"FULL/{name}\"\n\
             power_off_wait = \"1ms\"\n\
             [pair]\n{keys}listen = \"127.0.0.1:0\"\n{peer}\n[arbiter]\ndirectory = \"arbiter\"\n"
        );
        fs::write(pair.path().join(format!("{name}.toml")), text).unwrap();
    }
    let script = r#"
        cd "$1"
        status() { "$PROGRAM" status --dir "$FULL/$1" --json; }
        # until_says REPLICA PATTERN
        until_says() {
            for attempt in $(seq 600); do status "$1" | grep -q "$2" && return; sleep 0.1; done
            echo "$1 never said $2"; status "$1"; kill -9 $!; exit 1
        }
        sed -i "s|FULL|$FULL|" r1.toml r2.toml
        "$PROGRAM" replica --config r1.toml & primary=$!
        until_says r1 '"listen":"127'
        listen=$(status r1 | grep -o '"listen":"[^"]*' | cut -d'"' -f4)
        sed -i "s|PEER|$listen|" r2.toml
        "$PROGRAM" replica --config r2.toml & backup=$!
        until_says r1 '"state":"protected"'
        cat /dev/zero >"$FULL/rest" 2>/dev/null
        console() { cat "$FULL/$1/console.log" | wc -c; }
        # Whatever was left of the last page is filled up as well.
        before=$(console r1); sleep 0.3
        until [ "$(console r1)" = "$before" ]; do before=$(console r1); sleep 0.3; done
        until_says r1 '"state":"protected"'
        # It goes on all the same when the primary is lost, and is not handed the machine before.
        until_says r1 '"event":"cannot_take_over"'
        until_says r2 'could not go on with the machine: .*No space left'
        kill -9 $primary
        until_says r2 '"role":"primary"'
        until_says r2 '"event":"live"'
        kill -TERM $backup; wait $backup
        echo "backup $?""#;
    let Some(output) = with_small_file_system(256, pair.path().to_str().unwrap(), script) else {
        return;
    };
    let (printed, said) = texts(&output);
    assert!(printed.ends_with("backup 12\n"), "{printed}{said}");
}

/// The service goes on without its journal, by a key, and everybody is told.
#[test]
fn a_journal_without_room_is_given_up_and_the_machine_goes_on() {
    let pair = PairDirectory::new(&counting_busily());
    let files = pair.replica("a", None, "memory = \"4M\"\n");
    let text = fs::read_to_string(&files.config).unwrap();
    let journal = "[journal]\ndirectory = \"FULL/journal\"\n";
    fs::write(&files.config, text + journal).unwrap();
    let script = r#"
        sed -i "s#FULL#$FULL#" "$1"
        state="${1%.toml}"
        "$PROGRAM" replica --config "$1" & pid=$!
        await() {
            for attempt in $(seq 600); do
                if eval "$1"; then return; fi
                sleep 0.05
            done
            echo "in vain: $1"
        }
        await 'grep -q journal_failed "$state/events.jsonl"'
        await '"$PROGRAM" status --dir "$state" | grep -q "primary  alone"'
        before=$(stat -c %s "$state/console.log")
        await '[ $(stat -c %s "$state/console.log") -gt $((before + 50)) ]'
        kill -9 $pid
        cat "$state/events.jsonl""#;
    let argument = files.config.to_str().unwrap();
    let Some(output) = with_small_file_system(160, argument, script) else {
        return;
    };
    let (printed, said) = texts(&output);
    let place = |what: &str| {
        printed
            .find(what)
            .unwrap_or_else(|| panic!("{what}: {printed}{said}"))
    };
    assert!(!printed.contains("in vain"), "{printed}{said}");
    assert!(
        place("journal_in_force") < place("journal_failed"),
        "{printed}"
    );
    assert!(place("No space left") < place("\"claimed\""), "{printed}");
}
