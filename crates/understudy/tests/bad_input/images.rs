//! Kernel, firmware, initrd and disks.

use crate::support::guest_program::{counting_slowly, counting_to};
use crate::support::{Process, run, wait_for};
use crate::{assert_refusal, assert_refused};
use std::fs;
use std::path::Path;

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        let files = Files(tempfile::tempdir().unwrap());
        fs::write(files.path("good.elf"), counting_to(1, 0)).unwrap();
        files
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.0.path().join(name), bytes).unwrap();
        self.path(name)
    }
}

fn refuse(arguments: &[&str], words: &[&str]) {
    assert_refused(&[&["run", "--memory", "8M"], arguments].concat(), 2, words);
}

#[test]
fn a_kernel_that_is_none_is_refused() {
    let files = Files::new();
    let kernel = |path: &str, words: &[&str]| refuse(&["--kernel", path], words);
    kernel(
        &files.path("missing"),
        &["kernel", "missing", "No such file"],
    );
    kernel(files.0.path().to_str().unwrap(), &["kernel", "directory"]);
    kernel(&files.write("empty", b""), &["kernel", "empty"]);
    kernel(
        &files.write("text", b"hello, this is a letter to a friend\n"),
        &["kernel", "text"],
    );
    kernel(
        &files.write("gzip", [&[0x1f, 0x8b, 8, 0][..], &[7; 99]].concat()),
        &["gzip", "unpacked"],
    );
    // This very program is an ELF file of another architecture, wherever the tests run.
    kernel(env!("CARGO_BIN_EXE_understudy"), &["kernel"]);
    // A file without an end is not read for ever.
    kernel("/dev/zero", &["kernel", "/dev/zero", "memory"]);
}

#[test]
fn a_truncated_elf_file_is_refused_wherever_it_is_cut() {
    let files = Files::new();
    let whole = counting_to(1, 0);
    for length in [4, 16, 63, 64, 100, 119, 120, whole.len() - 1] {
        let path = files.write("torn.elf", &whole[..length]);
        refuse(&["--kernel", &path], &["kernel", "truncated"]);
    }
}

#[test]
fn an_image_that_does_not_fit_the_memory_is_refused() {
    let files = Files::new();
    let large = files.write("large", vec![0x13; 9 << 20]);
    refuse(&["--kernel", &large], &["kernel", "memory"]);
    let kernel = files.path("good.elf");
    refuse(
        &["--kernel", &kernel, "--initrd", &large],
        &["initrd", "memory"],
    );
    refuse(
        &["--kernel", &kernel, "--firmware", &large],
        &["firmware", "memory"],
    );
}

/// No host has it before somebody has got it.
#[test]
fn a_pc_without_its_firmware_is_told_where_there_is_one() {
    let files = Files::new();
    let pc = |path: &str, words: &[&str]| {
        refuse(&["--arch", "x86-64", "--firmware", path], words);
    };
    let package = "cloudhv-efi-x86-64";
    pc(&files.path("missing"), &["firmware", "missing", package]);
    let other = files.write("OVMF.fd", vec![0; 4096]);
    pc(&other, &["firmware", "no ELF file", package]);
}

#[test]
fn memory_that_the_host_does_not_have_is_refused() {
    let files = Files::new();
    let kernel = files.path("good.elf");
    assert_refused(
        &["run", "--kernel", &kernel, "--memory", "1000000G"],
        2,
        &["memory"],
    );
}

#[test]
fn firmware_and_initrd_that_are_none_are_refused() {
    let files = Files::new();
    let kernel = files.path("good.elf");
    let torn = files.write("torn", &counting_to(1, 0)[..70]);
    let empty = files.write("empty", b"");
    for (option, name) in [("--firmware", "firmware"), ("--initrd", "initrd")] {
        let with = |path: &str, words: &[&str]| refuse(&["--kernel", &kernel, option, path], words);
        with(&files.path("missing"), &[name, "missing"]);
        with(files.0.path().to_str().unwrap(), &[name, "directory"]);
        with(&empty, &[name, "empty"]);
    }
    refuse(
        &["--kernel", &kernel, "--firmware", &torn],
        &["firmware", "truncated"],
    );
}

#[test]
fn a_disk_that_is_none_is_refused() {
    let files = Files::new();
    let kernel = files.path("good.elf");
    let disk = |path: &str, words: &[&str]| refuse(&["--kernel", &kernel, "--disk", path], words);
    disk(&files.path("missing"), &["disk", "missing"]);
    disk(
        &files.write("odd", [0; 1000]),
        &["1000 bytes", "512", "truncated"],
    );
    disk(&files.write("empty", b""), &["0 bytes"]);
    disk(files.0.path().to_str().unwrap(), &["disk"]);
    disk("/dev/zero", &["neither a file nor a block device"]);
    let pipe = files.path("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    disk(&pipe, &["neither a file nor a block device"]);
    let readonly = format!("{},readonly", files.path("missing"));
    disk(&readonly, &["missing"]);
}

#[test]
fn a_disk_in_use_by_another_run_is_refused_and_the_other_goes_on() {
    let files = Files::new();
    let disk = files.write("disk", [0; 4096]);
    let slow = files.write("slow.elf", counting_slowly());
    let console = files.path("console");
    let mut first = Process::start_printing(
        &["run", "--memory", "8M", "--kernel", &slow, "--disk", &disk],
        Path::new(&console),
    );
    let length = || fs::metadata(&console).map_or(0, |metadata| metadata.len());
    wait_for("the first run", || (length() > 0).then_some(()));
    let kernel = files.path("good.elf");
    refuse(&["--kernel", &kernel, "--disk", &disk], &["in use", &disk]);
    let before = length();
    wait_for("the first run to go on", || {
        (length() > before).then_some(())
    });
    first.signal(rustix::process::Signal::TERM);
    let (status, said) = first.end();
    assert!(status.success(), "{said}");
    let output = run(&[
        "run", "--memory", "8M", "--kernel", &kernel, "--disk", &disk,
    ]);
    assert!(output.status.success(), "the lock went with the first run");
}

#[test]
fn two_disks_of_one_file_are_refused() {
    let files = Files::new();
    let (kernel, disk) = (files.path("good.elf"), files.write("disk", [0; 4096]));
    refuse(
        &["--kernel", &kernel, "--disk", &disk, "--disk", &disk],
        &["in use"],
    );
}

#[test]
fn a_network_that_is_not_there_is_refused() {
    let files = Files::new();
    let kernel = files.path("good.elf");
    let network =
        |address: &str, words: &[&str]| refuse(&["--kernel", &kernel, "--network", address], words);
    network(
        &format!("unix:{}", files.path("nobody.sock")),
        &["network.switch", "nobody.sock"],
    );
    network("nonsense", &["network.switch", "unix:/path"]);
    network("tcp:127.0.0.1:1", &["switch_host"]);
    network(
        "tap:ThisNameIsMuchTooLongForOne",
        &["network.tap", "ThisNameIsMuchTooLongForOne"],
    );
}

#[test]
fn options_that_cannot_be_are_refused_with_status_2() {
    for arguments in [
        &["run"][..],
        &["run", "--memory", "lots"],
        &["run", "--memory", "99999999999G"],
        &["run", "--kernel", "x", "--harts", "-1"],
        &["run", "--kernel", "x", "--mac", "52:54:00"],
        &["nonsense"],
        &["replica"],
        &["primary", "--config", "vm.toml"],
        &["start", "--config", "vm.toml"],
        &["new-life"],
        &["replay"],
        &["switch", "--listen", "nonsense"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            !output.stderr.is_empty() && output.stdout.is_empty(),
            "{arguments:?}"
        );
    }
    let output = run(&["status", "--dir", "/nonexistent"]);
    assert_refusal(&output, 2, &["/nonexistent"], "status");
}
