//! The program around the deterministic machine and the replication core.

#![deny(unsafe_code)] // allowed in `network::tap` only

pub mod network;
