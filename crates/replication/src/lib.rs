//! The replication core: sans-I/O. Time is an argument; sockets, files and threads are the caller's.
//!
//! The program's event loop owns one [`Primary`](primary::Primary) or [`Backup`](backup::Backup).
//! It tells it what happened (a message came, the vcpu produced a record, the arbiter answered, time
//! passed) and then drains the actions. Every method takes `now`: the time since an arbitrary start,
//! never going backwards. `docs/protocol.md` has the whole protocol, `docs/log-format.md` the bytes.
#![forbid(unsafe_code)]

mod arrears;
pub mod backup;
pub mod blocks;
pub mod capacity;
pub mod config;
pub mod configuration;
pub mod cursor;
pub mod event;
pub mod failure_detector;
pub mod frame;
pub mod guest;
pub mod journal;
pub mod lag;
pub mod life_log;
mod line;
pub mod links;
pub mod log;
pub mod marker;
pub mod message;
pub mod mutation;
mod output_gate;
pub mod preamble;
pub mod primary;
pub mod record;
pub mod replay;
mod round_trip;
pub mod snapshot_file;
pub mod startup;
pub mod succession;
pub mod watch;
pub mod wire;

/// Names a connection of the logging channel. The caller numbers them and never uses a number twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);
