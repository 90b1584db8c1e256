//! Real pairs whose replicas have different engines: the digests are compared all the time, and
//! whichever primary is killed, the guest goes on under the other engine.

mod support;

use machine::engine::Engine;
use std::path::Path;
use support::device_programs::counting_on_all_harts;
use support::guest_program::{counting_busily, counting_slowly};
use support::history::{assert_one_history, await_lines, numbers};
use support::{PairDirectory, Process, ReplicaFiles, wait_for};
use understudy::engine::EngineName;

/// Digests that have to be compared before a kill means anything.
const DIGESTS: u64 = 5;

fn guest(program: &[u8]) -> PairDirectory {
    let mut pair = PairDirectory::new(program);
    pair.pair_keys = "digest_interval = \"50ms\"\n";
    pair
}

fn named(engine: Engine) -> String {
    format!("engine = \"{}\"", EngineName(engine))
}

/// Waits until the backup has compared so many digests, and nothing of it differs.
fn await_digests(backup: &ReplicaFiles) {
    wait_for("digests to be compared", || {
        assert!(!backup.has_event("diverged"), "the engines differ");
        (backup.status()?["digests_compared"].as_u64().unwrap() >= DIGESTS).then_some(())
    });
}

fn assert_runs(replica: &ReplicaFiles, engine: Engine) {
    let runs = EngineName(riscv::RISCV64.available(engine)).to_string();
    assert_eq!(replica.status().unwrap()["engine"], runs.as_str());
}

/// A life of the guest under one engine after the other: every primary is killed once the backup
/// that follows it has compared digests.
fn hand_on(pair: &PairDirectory, engines: &[Engine], extra: &str) {
    let configure = |engine| format!("{}\n{extra}", named(engine));
    let (mut primary, mut process, mut listen) = pair.primary_with("r0", &configure(engines[0]));
    assert_runs(&primary, engines[0]);
    for (index, engine) in engines.iter().enumerate().skip(1) {
        let name = format!("r{index}");
        let (backup, backup_process) = pair.backup_with(&name, &listen, &configure(*engine));
        primary.await_state("protected");
        assert_runs(&backup, *engine);
        let lines = numbers(&whole_lines(&primary, index)).len();
        await_more(&primary, index, lines + 20);
        await_digests(&backup);
        process.kill();
        let status = wait_for("the backup to go live", || {
            backup.status().filter(|status| status["role"] == "primary")
        });
        await_more(&backup, index + 1, 20);
        assert_runs(&backup, *engine);
        if index == 1 {
            assert_one_history(&primary, &backup);
        }
        listen = status["listen"].as_str().unwrap().to_owned();
        (primary, process) = (backup, backup_process);
    }
}

/// What the replica number `index` (from 1 on) let out; the first line of one that took over may be
/// cut, because outputs are released by the byte.
fn whole_lines(replica: &ReplicaFiles, index: usize) -> String {
    let console = replica.console();
    if index == 1 {
        return console;
    }
    console
        .split_once('\n')
        .map_or(String::new(), |(_, rest)| rest.to_owned())
}

fn await_more(replica: &ReplicaFiles, index: usize, lines: usize) {
    wait_for("the guest's output", || {
        (numbers(&whole_lines(replica, index)).len() >= lines).then_some(())
    });
}

#[test]
fn the_interpreter_goes_on_where_the_jit_was_killed_and_the_jit_where_that_was() {
    use Engine::{Interpreter, Jit};
    hand_on(&guest(&counting_slowly()), &[Jit, Interpreter, Jit], "");
}

#[test]
fn a_guest_that_only_computes_is_handed_from_engine_to_engine() {
    use Engine::{Interpreter, Jit, Paranoid};
    let engines = [Interpreter, Jit, Interpreter, Paranoid, Jit];
    hand_on(&guest(&counting_busily()), &engines, "");
}

#[test]
fn a_machine_of_two_harts_is_handed_from_engine_to_engine() {
    use Engine::{Interpreter, Jit};
    let pair = guest(&counting_on_all_harts());
    hand_on(&pair, &[Jit, Interpreter, Jit], "harts = 2");
}

/// The option is of one start of one replica: the file stays as it is, and so does the pairing.
#[test]
fn the_option_comes_before_the_file_and_is_no_part_of_the_pairing() {
    let pair = guest(&counting_slowly());
    let engine = named(Engine::Interpreter);
    let primary = pair.replica("r1", None, &engine);
    let start = |config: &Path, engine| {
        let config = config.to_str().unwrap();
        Process::start(&["replica", "--config", config, "--engine", engine])
    };
    let _process = start(&primary.config, "jit");
    let listen = wait_for("the primary to listen", || {
        let status = primary
            .status()
            .filter(|status| status["role"] == "primary")?;
        status["listen"].as_str().map(str::to_owned)
    });
    let backup = pair.replica("r2", Some(&listen), "");
    let _backup_process = start(&backup.config, "interpreter");
    backup.await_state("replaying");
    assert_runs(&primary, Engine::Jit);
    assert_runs(&backup, Engine::Interpreter);
    await_lines(&primary, 20);
    await_digests(&backup);
}
