//! The program around the deterministic machine and the replication core.
#![forbid(unsafe_code)]

pub mod guest_image;
