//! Disks that fail or are slow, for real processes: a library that is loaded before the C library
//! stands in front of the two calls by which a replica writes to its images. What it does is said by
//! files beside the configuration, so that a test can change it while the process runs.

use super::Process;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What stands before `pwrite64` and `fdatasync` of files whose name ends in `.img`, `fsync` too.
const SOURCE: &str = r#"
use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
    fn usleep(microseconds: c_uint) -> c_int;
    fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn getenv(name: *const c_char) -> *const c_char;
    fn __errno_location() -> *mut c_int;
}
const EIO: c_int = 5;
fn is_image(fd: c_int) -> bool {
    let link = format!("/proc/self/fd/{fd}\0");
    let mut name = [0u8; 4096];
    let length = unsafe { readlink(link.as_ptr().cast(), name.as_mut_ptr().cast(), name.len()) };
    length > 0 && name[..length as usize].ends_with(b".img")
}
/// Whether the file `$FAULTS.what` is there.
fn is_asked_for(what: &str) -> bool {
    let faults = unsafe { getenv(c"FAULTS".as_ptr()) };
    if faults.is_null() {
        return false;
    }
    let faults = unsafe { std::ffi::CStr::from_ptr(faults) };
    let mut path = faults.to_bytes().to_vec();
    path.extend_from_slice(what.as_bytes());
    path.push(0);
    unsafe { access(path.as_ptr().cast(), 0) == 0 }
}
fn fails(fd: c_int, what: &str) -> bool {
    if !is_image(fd) {
        return false;
    }
    if is_asked_for(&format!(".slow-{what}")) {
        unsafe { usleep(50_000) };
    }
    if is_asked_for(&format!(".stuck-{what}")) {
        unsafe { usleep(1_500_000) };
    }
    if is_asked_for(&format!(".fail-{what}")) {
        unsafe { *__errno_location() = EIO };
        return true;
    }
    false
}
#[unsafe(no_mangle)]
pub extern "C" fn pwrite64(fd: c_int, data: *const c_void, length: usize, at: i64) -> isize {
    if fails(fd, "write") {
        return -1;
    }
    unsafe { syscall(WRITE, fd, data, length, at) as isize }
}
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    if fails(fd, "sync") {
        return -1;
    }
    unsafe { syscall(DATASYNC, fd) as c_int }
}
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    if fails(fd, "sync") {
        return -1;
    }
    unsafe { syscall(SYNC, fd) as c_int }
}
#[cfg(target_arch = "x86_64")]
const WRITE: c_long = 18;
#[cfg(target_arch = "x86_64")]
const SYNC: c_long = 74;
#[cfg(target_arch = "x86_64")]
const DATASYNC: c_long = 75;
#[cfg(not(target_arch = "x86_64"))]
const WRITE: c_long = 68;
#[cfg(not(target_arch = "x86_64"))]
const SYNC: c_long = 82;
#[cfg(not(target_arch = "x86_64"))]
const DATASYNC: c_long = 83;
"#;

/// The library, compiled once a test binary.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let (source, library) = ("faults.rs", "libfaults.so");
        std::fs::write(directory.path().join(source), SOURCE).unwrap();
        let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let output = Command::new(compiler)
            .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort"])
            .args(["-o", library, source])
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let library = directory.path().join(library);
        (directory, library)
    });
    library
}

/// What goes wrong with the images of one process.
pub struct Faults(PathBuf);

/// A kind of request.
#[derive(Clone, Copy)]
pub enum Request {
    Write,
    Sync,
}

impl Faults {
    /// Of the process whose faults are told by files of this name; at first it has none.
    pub fn new(path: PathBuf) -> Faults {
        Faults(path)
    }

    /// Starts a replica of this configuration with these faults.
    pub fn start(&self, config: &str) -> Process {
        let child = super::understudy()
            .args(["replica", "--config", config])
            .env("LD_PRELOAD", library())
            .env("FAULTS", &self.0)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Process { child }
    }

    fn file(&self, how: &str, request: Request) -> PathBuf {
        let what = match request {
            Request::Write => "write",
            Request::Sync => "sync",
        };
        let mut path = self.0.clone().into_os_string();
        path.push(format!(".{how}-{what}"));
        path.into()
    }

    /// These requests end with an I/O error from here on.
    pub fn fail(&self, request: Request) {
        std::fs::write(self.file("fail", request), "").unwrap();
    }

    /// These take 50 ms each.
    pub fn slow(&self, request: Request) {
        std::fs::write(self.file("slow", request), "").unwrap();
    }

    /// These take 1.5 s each.
    pub fn stick(&self, request: Request) {
        std::fs::write(self.file("stuck", request), "").unwrap();
    }

    /// All is well again.
    pub fn end(&self) {
        for request in [Request::Write, Request::Sync] {
            for how in ["fail", "slow", "stuck"] {
                let _removed = std::fs::remove_file(self.file(how, request));
            }
        }
    }
}
