//! A recording under a debugger: any position again, forward and back, and gdb's protocol.

#[path = "../support/mod.rs"]
mod support;

mod guest;
mod protocol;
mod timeline;
mod with_gdb;
