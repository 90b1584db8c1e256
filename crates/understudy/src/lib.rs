//! The program around the deterministic machine and the replication core: command line, threads,
//! sockets, disks, arbiter, status and demonstration.
#![forbid(unsafe_code)]

pub mod clock;
pub mod command_line;
pub mod config;
pub mod control;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod events;
pub mod exit;
pub mod host_time;
pub mod outside;
pub mod pair;
pub mod recording;
pub mod replaying;
pub mod setup;
pub mod signals;
pub mod single;
pub mod status;
pub mod terminal;
pub mod transport;
pub mod vcpu;
pub mod wake;
