//! What the tests of real pairs share: a client on one connection.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod client;
