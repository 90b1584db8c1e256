//! The program around the deterministic machine and the replication core.

pub mod network;
