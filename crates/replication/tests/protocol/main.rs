//! `docs/protocol.md`, section by section, with two cores and a wire that loses nothing.

mod claims;
mod endings;
mod failing_disks;
mod flushes;
mod going_live;
mod handing_over;
mod joining;
mod journal;
mod lag;
mod output_rule;
mod pair;
mod returning;
mod same_arbiter;
#[path = "../support/mod.rs"]
mod support;
mod suspicion;
