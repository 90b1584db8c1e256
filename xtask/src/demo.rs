//! The demonstration as a child process, and what it says of itself.

use crate::program;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// `understudy demo --headless`, ended with everything it started when dropped.
pub struct Demo {
    child: Child,
    program: PathBuf,
    /// Its directory.
    pub directory: PathBuf,
    /// From its start to the line that says that the service answers.
    pub ready_after: Duration,
}

impl Demo {
    /// Starts it and waits for the line that says that the service answers.
    pub fn start(directory: PathBuf, arguments: &[&str]) -> Result<Demo> {
        let program = program::path()?;
        let start = Instant::now();
        let mut child = Command::new(&program)
            .args(["demo", "--headless", "--dir"])
            .arg(&directory)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .context("the demonstration does not start")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("no standard output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line.is_empty() {
            let status = child.wait()?;
            bail!("the demonstration ended before the service answered: {status}");
        }
        print!("{line}");
        Ok(Demo {
            child,
            program,
            directory,
            ready_after: start.elapsed(),
        })
    }

    /// `understudy switchover`; what it said.
    pub fn switch_over(&self) -> Result<String> {
        let output = Command::new(&self.program)
            .args(["switchover", "--dir"])
            .arg(&self.directory)
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `understudy status --json` says.
    pub fn status(&self) -> Result<Value> {
        let output = Command::new(&self.program)
            .args(["status", "--json", "--dir"])
            .arg(&self.directory)
            .output()?;
        // Its exit status tells whether the machine is protected, which it need not be.
        serde_json::from_slice(&output.stdout).with_context(|| {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            format!("status printed no JSON: {said}")
        })
    }

    /// Host address of the forward to Redis.
    pub fn redis_address(&self) -> Result<String> {
        let status = self.status()?;
        let host = status["forwards"]
            .as_array()
            .and_then(|forwards| {
                forwards
                    .iter()
                    .find(|f| f["guest"].as_str().is_some_and(|g| g.ends_with(":6379")))
            })
            .and_then(|forward| forward["host"].as_str());
        host.map(String::from)
            .context("the status names no forward to port 6379")
    }

    /// The replica with this role, if it answers.
    pub fn replica(&self, role: &str) -> Result<Option<Value>> {
        let status = self.status()?;
        let replicas = status["replicas"].as_array().cloned().unwrap_or_default();
        Ok(replicas.into_iter().find(|replica| replica["role"] == role))
    }

    /// Waits until a primary is protected by a backup; gives the primary.
    pub fn wait_until_protected(&self, patience: Duration) -> Result<Value> {
        let start = Instant::now();
        loop {
            if let Some(primary) = self.replica("primary")?
                && primary["protected"] == true
                && self
                    .replica("backup")?
                    .is_some_and(|backup| backup["protected"] == true)
            {
                return Ok(primary);
            }
            if start.elapsed() > patience {
                bail!("no protected pair after {patience:?}: {}", self.status()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The process of the replica with this role.
    pub fn pid(&self, role: &str) -> Result<i64> {
        let replica = self.replica(role)?.with_context(|| format!("no {role}"))?;
        replica["pid"]
            .as_i64()
            .context("a replica without a process")
    }

    /// `kill -9` for the replica with this role.
    pub fn kill(&self, role: &str) -> Result<()> {
        program::signal(self.pid(role)?, "KILL")
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}
