//! A host whose sandbox refuses `getrandom(2)`, as some containers' do: a program that gives itself such a
//! filter for system calls and then becomes `understudy`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Becomes the program that its arguments name, after the kernel was told to refuse that call (seccomp(2)).
const SOURCE: &str = r#"
use std::ffi::{c_int, c_ulong};
use std::os::unix::process::CommandExt;
use std::process::Command;
#[repr(C)]
struct Instruction { code: u16, if_true: u8, if_false: u8, operand: u32 }
#[repr(C)]
struct Program { length: u16, first: *const Instruction }
unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}
const NO_NEW_PRIVILEGES: c_int = 38;
const SET_SECCOMP: c_int = 22;
const FILTER: c_ulong = 2;
const fn instruction(code: u16, if_false: u8, operand: u32) -> Instruction {
    Instruction { code, if_true: 0, if_false, operand }
}
static FILTERS: [Instruction; 4] = [
    instruction(0x20, 0, 0),                 // loads the system call's number
    instruction(0x15, 1, GETRANDOM),         // another one: skips the next
    instruction(0x06, 0, 0x0005_0000 | 1),   // EPERM
    instruction(0x06, 0, 0x7fff_0000),       // allowed
];
fn main() {
    let program = Program { length: 4, first: FILTERS.as_ptr() };
    let on: c_ulong = 1;
    let off: c_ulong = 0;
    // SAFETY: the program and its instructions outlive the calls, which copy them.
    let refused = unsafe {
        prctl(NO_NEW_PRIVILEGES, on, off, off, off) == 0 && prctl(SET_SECCOMP, FILTER, &program) == 0
    };
    assert!(refused, "{}", std::io::Error::last_os_error());
    let mut arguments = std::env::args_os().skip(1);
    let error = Command::new(arguments.next().unwrap()).args(arguments).exec();
    panic!("{error}");
}
#[cfg(target_arch = "x86_64")]
const GETRANDOM: u32 = 318;
#[cfg(not(target_arch = "x86_64"))]
const GETRANDOM: u32 = 278;
"#;

/// The launcher, compiled once a test binary.
fn launcher() -> &'static Path {
    static LAUNCHER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, launcher) = LAUNCHER.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let (source, launcher) = ("without_random.rs", "without_random");
        std::fs::write(directory.path().join(source), SOURCE).unwrap();
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let output = Command::new(compiler)
            .args(["--edition=2024", "-o", launcher, source])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let launcher = directory.path().join(launcher);
        (directory, launcher)
    });
    launcher
}

/// The program on such a host.
pub fn understudy() -> Command {
    let mut command = Command::new(launcher());
    command
        .arg(env!("CARGO_BIN_EXE_understudy"))
        .stdin(Stdio::null());
    command
}
