//! One replica of one machine: the machine's thread, its disks, the copying of both, and the event
//! loop around the replication core.
//!
//! The machine comes from outside, by way of [`Machines`]: nothing here knows its architecture.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::disallowed_types, clippy::disallowed_methods))]

pub mod calendar;
mod checkpoint;
pub mod clock;
pub mod config;
pub mod control;
pub mod disk;
pub mod door;
pub mod end;
pub mod events;
pub mod evidence;
mod host_memory;
pub mod host_time;
pub mod journal;
pub mod key_watch;
pub mod machines;
pub mod outside;
pub mod packing;
pub mod pair;
pub mod panic;
pub mod peer_addresses;
pub mod peer_stream;
mod priority;
pub mod recording;
pub mod snapshot_file;
pub mod state_directory;
pub mod status;
pub mod transport;
mod turned_away;
pub mod vcpu;
pub mod wake;

use environment::random;

pub use config::ReplicaConfig;
pub use end::{Ended, ReplicaError};
pub use environment::StopSignals;
pub use machines::Machines;
pub use pair::{new_life, run_mutated, run_replica};
pub use peer_addresses::PeerAddresses;
