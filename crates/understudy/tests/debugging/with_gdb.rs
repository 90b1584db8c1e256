//! The same with a real gdb, where there is one.

use crate::guest::Recorded;
use crate::support::Process;
use crate::support::wait_for;
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::process::Command;

const GDB: &str = "gdb-multiarch";

#[test]
fn a_real_gdb_steps_and_runs_forward_and_back() {
    steps_and_runs(Recorded::new, ["mcause", "fcsr"]);
}

#[test]
fn a_real_gdb_does_so_on_x86_64() {
    steps_and_runs(Recorded::pc, ["cr3", "mxcsr"]);
}

fn steps_and_runs(record: fn() -> Recorded, registers: [&str; 2]) {
    if Command::new(GDB).arg("--version").output().is_err() {
        eprintln!(
            "SKIPPED: there is no {GDB} here, so nobody has tried the debugger with a real one"
        );
        return;
    }
    let recorded = record();
    let places = recorded.places;
    let socket = recorded.directory().join("gdb");
    let address = format!("unix:{}", socket.display());
    let log = recorded.log();
    let mut process = Process::start(&["replay", log.to_str().unwrap(), "--gdb", &address]);
    wait_for("the debugger's socket", || socket.exists().then_some(()));
    let script = [
        "set confirm off".to_owned(),
        "set pagination off".to_owned(),
        format!("target remote {}", socket.display()),
        "info threads".to_owned(),
        format!("break *{:#x}", places.handler),
        "continue".to_owned(),
        "printf \"handler %#lx\\n\", $pc".to_owned(),
        "stepi".to_owned(),
        "reverse-stepi".to_owned(),
        "printf \"again %#lx\\n\", $pc".to_owned(),
        "delete".to_owned(),
        format!("watch *(int *){:#x}", places.counted),
        "continue".to_owned(),
        "continue".to_owned(),
        "reverse-continue".to_owned(),
        "reverse-continue".to_owned(),
        "printf \"store %#lx\\n\", $pc".to_owned(),
        "delete".to_owned(),
        "reverse-continue".to_owned(),
        "monitor where".to_owned(),
        format!("info registers {}", registers.join(" ")),
        "x/2i $pc".to_owned(),
        "kill".to_owned(),
    ];
    let mut gdb = Command::new(GDB);
    gdb.args(["-nx", "-batch"]);
    for line in &script {
        gdb.args(["-ex", line]);
    }
    let output = gdb.output().unwrap();
    process.signal(rustix::process::Signal::TERM);
    let served = process.end().1;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    for expected in [
        format!("handler {:#x}", places.handler),
        format!("again {:#x}", places.handler),
        format!("store {:#x}", places.store),
        "Hardware watchpoint".to_owned(),
        "No more reverse-execution history".to_owned(),
        "instruction 0, record".to_owned(),
        format!("{} ", registers[0]),
    ] {
        assert!(
            said.contains(&expected),
            "no {expected:?} in\n{said}\n{served}"
        );
    }
}

/// Finding: Ctrl-C left the socket, which the next one of its name could not take.
#[test]
fn the_debuggers_socket_goes_with_a_process_that_a_signal_ends() {
    let recorded = Recorded::new();
    let socket = recorded.directory().join("gdb");
    let address = format!("unix:{}", socket.display());
    let log = recorded.log();
    for signal in [Signal::INT, Signal::TERM] {
        let mut process = Process::start(&["replay", log.to_str().unwrap(), "--gdb", &address]);
        let mut said = BufReader::new(process.child.stderr.take().unwrap()).lines();
        let invited = said.find(|line| line.as_ref().unwrap().contains("waiting for gdb"));
        assert!(invited.is_some(), "it ended before anybody could come");
        process.signal(signal);
        let (status, _) = process.end();
        assert_eq!(status.code(), Some(1));
        assert!(!socket.exists(), "the socket is left after {signal:?}");
    }
}
