//! `understudy run` and `understudy replay` on small guests.

mod support;

use riscv::isa::Op;
use rustix::process::Signal;
use std::fs;
use support::assembler::{A0, A1, Assembler, ZERO};
use support::guest_program::{counting_and_resetting, counting_busily, counting_to};
use support::{Process, error_text, no_jit_line, run, wait_for};

const ENGINES: [&str; 3] = ["interpreter", "jit", "paranoid"];

fn expected_lines(count: u32) -> String {
    (0..count).map(|line| format!("{line:04x}\n")).collect()
}

#[test]
fn the_finishers_code_is_the_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    let kernel_name = kernel.to_str().unwrap();
    for (status, expected) in [(0u16, 0), (7, 7), (0x0100, 1)] {
        fs::write(&kernel, counting_to(20, status)).unwrap();
        let output = run(&[
            "run",
            "--firmware",
            "none",
            "--kernel",
            kernel_name,
            "--memory",
            "8M",
        ]);
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{}",
            error_text(&output)
        );
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected_lines(20));
    }
}

/// Whatever executes it, the guest does the same; on a host without a JIT that is said once.
#[test]
fn each_engine_replays_what_each_recorded() {
    for recorder in ENGINES {
        let directory = tempfile::tempdir().unwrap();
        let log = record_with(directory.path(), recorder);
        for engine in ENGINES {
            let output = run(&["replay", log.to_str().unwrap(), "--engine", engine]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{recorder}, {engine}: {said}");
            let expected = if engine == "interpreter" {
                String::new()
            } else {
                no_jit_line()
            };
            let (first, rest) = said.split_at(expected.len());
            assert_eq!(first, expected);
            assert_eq!(rest.lines().count(), 1, "{said}");
            let runs = if expected.is_empty() {
                engine
            } else {
                "interpreter"
            };
            assert!(rest.contains(&format!("MIPS ({runs})")), "{said}");
        }
    }
}

fn record(directory: &std::path::Path) -> std::path::PathBuf {
    record_with(directory, "jit")
}

fn record_with(directory: &std::path::Path, engine: &str) -> std::path::PathBuf {
    let kernel = directory.join("guest.elf");
    fs::write(&kernel, counting_to(200, 0)).unwrap();
    let log = directory.join("run.log");
    let output = run(&[
        "run",
        "--kernel",
        kernel.to_str().unwrap(),
        "--memory",
        "8M",
        "--record",
        log.to_str().unwrap(),
        "--engine",
        engine,
    ]);
    assert!(output.status.success(), "{}", error_text(&output));
    log
}

#[test]
fn a_recording_replays_to_the_same_output_and_digest() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let output = run(&["replay", log.to_str().unwrap(), "--dump-console"]);
    let said = error_text(&output);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected_lines(200));
    assert!(said.contains("complete"), "{said}");
    let output = run(&[
        "replay",
        log.to_str().unwrap(),
        "--until",
        "5000",
        "--dump-console",
    ]);
    assert!(output.status.success(), "{}", error_text(&output));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        expected_lines(200).starts_with(&printed) && printed.len() < 1000,
        "{printed}"
    );
}

#[test]
fn a_torn_recording_replays_as_far_as_it_goes_and_a_damaged_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = record(directory.path());
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..whole.len() - 30]).unwrap();
    let output = run(&["replay", log.to_str().unwrap()]);
    let said = error_text(&output);
    assert!(
        output.status.success() && said.contains("died writing"),
        "{said}"
    );
    let mut damaged = whole.clone();
    let place = damaged.len() - 400;
    damaged[place] ^= 0x10;
    fs::write(&log, &damaged).unwrap();
    let output = run(&["replay", log.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", error_text(&output));
    fs::write(&log, b"something else").unwrap();
    let output = run(&["replay", log.to_str().unwrap()]);
    let said = error_text(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("not a replay log") && said.contains("run.log"),
        "{said}"
    );
}

#[test]
fn a_recorder_that_was_killed_leaves_a_recording_that_replays() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    fs::write(&kernel, counting_busily()).unwrap();
    let log = directory.path().join("run.log");
    let (kernel, log_name) = (kernel.to_str().unwrap(), log.to_str().unwrap());
    let mut process = Process::start(&[
        "run", "--kernel", kernel, "--memory", "8M", "--record", log_name,
    ]);
    // What is there so far replays at any time: it is killed when there is a digest in it.
    wait_for("the first digest", || {
        let output = run(&["replay", log_name]);
        let has_digest = output.status.success() && !error_text(&output).contains(" 0 digests");
        has_digest.then_some(())
    });
    process.kill();
    let output = run(&["replay", log_name]);
    let said = error_text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("not complete"), "{said}");
    assert!(!said.contains(" 0 digests"), "{said}");
}

#[test]
fn a_guest_that_resets_begins_anew_and_so_does_its_replay() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("guest.elf"), counting_and_resetting(20)).unwrap();
    let (kernel, log) = (path("guest.elf"), path("run.log"));
    let arguments = [
        "run", "--kernel", &kernel, "--memory", "8M", "--record", &log,
    ];
    let printed = || fs::read_to_string(path("printed")).unwrap();
    let mut process = Process::start_printing(&arguments, path("printed").as_ref());
    let three_boots = expected_lines(20).repeat(3);
    wait_for("three boots", || {
        (printed().len() >= three_boots.len()).then_some(())
    });
    process.signal(Signal::TERM);
    let (status, said) = process.end();
    assert!(status.success(), "{said}");
    let boots = printed().len().div_ceil(expected_lines(20).len());
    assert!(expected_lines(20).repeat(boots).starts_with(&printed()));
    assert!(said.matches("rebooted").count() >= 2, "{said}");
    for engine in ENGINES {
        let output = run(&["replay", &log, "--dump-console", "--engine", engine]);
        assert!(output.status.success(), "{}", error_text(&output));
        assert_eq!(String::from_utf8_lossy(&output.stdout), printed());
    }
}

#[test]
fn a_guest_that_shall_not_reboot_ends_and_its_replay_knows() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("guest.elf"), counting_and_resetting(20)).unwrap();
    let (kernel, log) = (path("guest.elf"), path("run.log"));
    let output = run(&[
        "run",
        "--no-reboot",
        "--kernel",
        &kernel,
        "--memory",
        "8M",
        "--record",
        &log,
    ]);
    assert!(output.status.success(), "{}", error_text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected_lines(20));
    let output = run(&["replay", &log, "--dump-console"]);
    assert!(output.status.success(), "{}", error_text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected_lines(20));
}

/// Ends with the number of ones in 21 as its status: 3, or 7 if `cpop` is illegal.
fn counting_ones() -> Vec<u8> {
    let mut asm = Assembler::default();
    asm.skip_faults();
    asm.immediate(Op::Addi, A0, ZERO, 7);
    asm.immediate(Op::Addi, A1, ZERO, 21);
    asm.immediate(Op::Cpop, A0, A1, 0);
    asm.finish_with(A0);
    asm.elf(0, &[])
}

#[test]
fn bit_manipulation_is_there_unless_it_is_left_out_and_a_replay_knows() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("guest.elf"), counting_ones()).unwrap();
    for (key, option, expected) in [
        ("", None, 3),
        ("bit_manipulation = true\n", None, 3),
        ("bit_manipulation = false\n", None, 7),
        ("", Some("--no-bit-manipulation"), 7),
    ] {
        let text = format!(
            "name = \"m\"\nmemory = \"8M\"\nkernel = \"guest.elf\"\nstate_directory = \"s\"\n{key}"
        );
        fs::write(path("vm.toml"), text).unwrap();
        let (config, log) = (path("vm.toml"), path("run.log"));
        let mut arguments = vec!["run", "--config", &config, "--record", &log];
        arguments.extend(option);
        let output = run(&arguments);
        let said = error_text(&output);
        assert_eq!(
            output.status.code(),
            Some(expected),
            "{key}{option:?}: {said}"
        );
        let output = run(&["replay", &log]);
        assert!(output.status.success(), "{}", error_text(&output));
        fs::remove_file(log).unwrap();
    }
}

/// Ends with the status 3, or 7 if `cbo.zero` is illegal.
fn zeroing_a_block() -> Vec<u8> {
    let mut asm = Assembler::default();
    asm.skip_faults();
    asm.load(A0, 0x8010_0000);
    asm.immediate(Op::Addi, A1, ZERO, 7);
    asm.store(Op::Sd, A1, A0, 8);
    asm.immediate(Op::CboZero, 0, A0, 0);
    asm.immediate(Op::Ld, A1, A0, 8);
    asm.branch_ahead(Op::Bne, A1, ZERO);
    asm.immediate(Op::Addi, A1, ZERO, 3);
    asm.land();
    asm.finish_with(A1);
    asm.elf(0, &[])
}

#[test]
fn each_extension_is_there_unless_it_is_left_out_and_a_replay_knows() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("guest.elf"), zeroing_a_block()).unwrap();
    let text = "name = \"m\"\nmemory = \"8M\"\nkernel = \"guest.elf\"\nstate_directory = \"s\"\n";
    for (keys, option, expected) in [
        ("", None, 3),
        ("without_extensions = [\"zicboz\", \"zcb\"]\n", None, 7),
        ("", Some("zicboz"), 7),
        ("", Some("zbc"), 3),
        ("", Some("zicbox"), 2),
        (
            "arch = \"x86-64\"\nwithout_extensions = [\"zcb\"]\n",
            None,
            2,
        ),
    ] {
        fs::write(path("vm.toml"), format!("{text}{keys}")).unwrap();
        let (config, log) = (path("vm.toml"), path("run.log"));
        let mut arguments = vec!["run", "--config", &config, "--record", &log];
        if let Some(name) = option {
            arguments.extend(["--without-extension", name]);
        }
        let output = run(&arguments);
        let said = error_text(&output);
        let status = output.status.code();
        assert_eq!(status, Some(expected), "{keys}{option:?}: {said}");
        if expected == 2 {
            assert!(said.contains("without_extensions"), "{said}");
            continue;
        }
        let output = run(&["replay", &log]);
        assert!(output.status.success(), "{}", error_text(&output));
        fs::remove_file(log).unwrap();
    }
}

#[test]
fn wrong_images_and_options_are_one_clear_error_and_status_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("empty"), b"").unwrap();
    fs::write(path("torn.elf"), &counting_to(1, 0)[..100]).unwrap();
    fs::write(path("good.elf"), counting_to(1, 0)).unwrap();
    fs::write(path("odd.raw"), vec![0; 1000]).unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["--kernel", &path("missing")], "missing"),
        (&["--kernel", &path("empty")], "kernel"),
        (&["--kernel", &path("torn.elf")], "kernel"),
        (
            &["--kernel", &path("good.elf"), "--disk", &path("odd.raw")],
            "1000 bytes",
        ),
        (
            &["--kernel", &path("good.elf"), "--disk", &path("nodisk")],
            "nodisk",
        ),
        (&["--kernel", &path("good.elf"), "--harts", "0"], "harts"),
        (&["--config", &path("vm.toml")], "vm.toml"),
    ];
    for (arguments, named) in cases {
        let output = run(&[&["run", "--memory", "8M"], arguments].concat());
        let said = error_text(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(
            said.contains(named) && said.lines().count() == 1,
            "{arguments:?}: {said}"
        );
    }
}
