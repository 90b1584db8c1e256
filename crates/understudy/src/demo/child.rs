//! The demonstration's processes. None of them outlives the supervisor, however it ends.

use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// The hidden option by which a child learns of its supervisor.
pub const SUPERVISOR_OPTION: &str = "--supervisor";

/// A process of this program under a supervisor.
#[derive(Debug)]
pub struct Supervised {
    child: Child,
    log: PathBuf,
}

impl Supervised {
    /// Starts this program with `arguments`; its output goes to `log`.
    ///
    /// To be called on the main thread: the kernel ends the child with the thread that started it.
    pub fn start(arguments: Vec<OsString>, log: &Path) -> io::Result<Supervised> {
        let output: File = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(std::env::current_exe()?)
            .arg(SUPERVISOR_OPTION)
            .arg(std::process::id().to_string())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Supervised {
            child,
            log: log.into(),
        })
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        // It may have ended.
        let _killed = self.child.kill();
    }

    /// Asks it to end.
    pub fn terminate(&self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _sent = kill_process(pid, Signal::TERM);
        }
    }

    /// The last lines that it printed.
    pub fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill();
        let _reaped = self.child.wait();
    }
}

/// In the child: end when the supervisor does, also when that is killed.
pub fn die_with_supervisor(supervisor: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    if parent != supervisor {
        return Err(io::Error::other(
            "the supervisor ended before this process began",
        ));
    }
    Ok(())
}
