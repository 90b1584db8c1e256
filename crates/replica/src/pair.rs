//! A replica of a pair: the event loop around the replication core.
//!
//! One thread waits for everything that can happen to a replica, tells the core, and does what the
//! core says. The vcpu, the disks, the arbiter and the sending of a snapshot have their own threads.

mod backup;
mod backup_machine;
mod channel;
mod host;
mod identity;
mod primary;
mod rates;
mod restore;
mod snapshot_sender;

pub use backup::run_backup;
pub use primary::run_primary;

use machine::output::Output;

/// What the core holds back and releases.
type ReplicationCore = replication::primary::Primary<Output>;
