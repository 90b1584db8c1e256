//! The section `[journal]`.

use super::{ByteSize, Milliseconds};
use replica::config::JournalOptions;
use replication::config::JournalRole;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The journal of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalSection {
    /// Where it is: on a disk that survives a loss of power. Made when absent.
    pub directory: PathBuf,
    /// Who has to hold an output before it leaves.
    #[serde(default)]
    pub outputs_wait_for: OutputsWaitFor,
    /// It has failed when something is not durable after so long.
    #[serde(default = "default_timeout")]
    pub timeout: Milliseconds,
    /// Another snapshot is taken when going on from the journal would take longer.
    #[serde(default = "default_recover_within")]
    pub recover_within: Milliseconds,
    /// Bytes that are kept of what is older than its newest snapshot.
    #[serde(default = "default_keep")]
    pub keep: ByteSize,
}

/// Who has to hold an output before it leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputsWaitFor {
    /// Every backup, and the journal, durably.
    #[default]
    All,
    /// Every backup; the journal keeps the history, and the machine does not go on from it.
    Backup,
}

fn default_timeout() -> Milliseconds {
    Milliseconds(10_000)
}

fn default_recover_within() -> Milliseconds {
    Milliseconds(10_000)
}

fn default_keep() -> ByteSize {
    ByteSize(0)
}

impl JournalSection {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.timeout.0 == 0 {
            let message = "0 ms is no time: give some seconds";
            return Err(("journal.timeout", message.into()));
        }
        if self.recover_within.0 < 1000 {
            let message = format!(
                "{} ms: a snapshot for every such stretch would be all that the machine does; give a \
                 second at least",
                self.recover_within.0
            );
            return Err(("journal.recover_within", message));
        }
        Ok(())
    }

    /// As a replica takes it.
    pub(super) fn options(&self) -> JournalOptions {
        JournalOptions {
            directory: self.directory.clone(),
            role: match self.outputs_wait_for {
                OutputsWaitFor::All => JournalRole::Member,
                OutputsWaitFor::Backup => JournalRole::History,
            },
            timeout: self.timeout.duration(),
            recover_within: self.recover_within.duration(),
            keep_bytes: self.keep.0,
        }
    }
}
