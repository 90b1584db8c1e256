//! What the tests of real pairs share: replicas as processes, and a client on one connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod client;
pub mod replica;
