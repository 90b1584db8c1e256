//! `understudy status`.

use crate::exit::{ExitStatus, Failure};
use crate::status;
use anyhow::anyhow;
use clap::Args;
use std::io::Write;
use std::path::PathBuf;

/// Ask the replicas of a demonstration, or of one state directory, how they are.
#[derive(Debug, Args)]
pub struct Status {
    /// The demonstration's directory, or a replica's state directory
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        if !self.dir.is_dir() {
            return Err(Failure::usage(anyhow!(
                "{} is no directory",
                self.dir.display()
            )));
        }
        let status = status::collect(&self.dir);
        let text = if self.json {
            let json = serde_json::to_string(&status).map_err(anyhow::Error::from)?;
            format!("{json}\n")
        } else {
            status::describe(&status)
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(verdict(&status))
    }
}

/// One status, one meaning, so that a monitor needs to read nothing.
fn verdict(status: &status::Status) -> ExitStatus {
    let mut replicas = status.replicas.iter();
    if status.replicas.iter().any(|replica| replica.protected) {
        match replicas.any(|replica| replica.arbiter_trouble.is_some()) {
            true => ExitStatus::NoArbiter,
            false => ExitStatus::Success,
        }
    } else if !status.not_permitted.is_empty() || !status.unreadable.is_empty() {
        ExitStatus::NotPermitted
    } else if status.replicas.is_empty() {
        ExitStatus::NoReplica
    } else {
        ExitStatus::NotProtected
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::status::{ArbiterTrouble, ReplicaStatus};

    #[test]
    fn each_verdict_has_a_status_of_its_own() {
        let replica = |protected| ReplicaStatus {
            protected,
            ..ReplicaStatus::default()
        };
        let without_arbiter = |protected| ReplicaStatus {
            arbiter_trouble: Some(ArbiterTrouble::default()),
            ..replica(protected)
        };
        let of = |replicas: Vec<ReplicaStatus>, not_permitted: &[&str]| {
            let not_permitted = not_permitted.iter().map(PathBuf::from).collect();
            verdict(&status::Status {
                replicas,
                not_permitted,
                ..status::Status::default()
            })
        };
        assert_eq!(of(vec![replica(true)], &[]).code(), 0);
        assert_eq!(of(vec![replica(false)], &[]).code(), 7);
        // By whichever of its hosts that is known.
        let one_knows = vec![replica(true), without_arbiter(true)];
        assert_eq!(of(one_knows, &[]).code(), 16);
        assert_eq!(of(vec![without_arbiter(false)], &[]).code(), 7);
        assert_eq!(of(vec![], &[]).code(), 8);
        assert_eq!(of(vec![], &["/another/users"]).code(), 9);
        // Who may not ask all of them does not know that it is not protected.
        assert_eq!(of(vec![replica(false)], &["/another/users"]).code(), 9);
        assert_eq!(of(vec![replica(true)], &["/another/users"]).code(), 0);
        let unreadable = status::Status {
            unreadable: vec!["/another/users".into()],
            ..status::Status::default()
        };
        assert_eq!(verdict(&unreadable).code(), 9);
    }
}
