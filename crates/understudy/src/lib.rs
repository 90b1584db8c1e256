//! The program around one replica of a deterministic machine: command line, configuration, status
//! and demonstration. It alone chooses the machine's architecture ([`architecture`]).
#![forbid(unsafe_code)]

pub mod architecture;
pub mod build;
pub mod command_line;
pub mod config;
pub mod debugging;
pub mod demo;
pub mod engine;
pub mod exit;
pub mod leftovers;
pub mod line_counts;
pub mod replaying;
pub mod setup;
pub mod single;
mod speed;
pub mod status;
pub mod terminal;
