//! `docs/protocol.md`, section by section, with two cores and a wire that loses nothing.

mod abilities;
mod booting;
mod checkpoints;
mod claims;
mod endings;
mod failing_disks;
mod fitness;
mod flushes;
mod going_live;
mod group;
mod handing_over;
mod joining;
mod journal;
mod lag;
mod lagging;
mod majority;
mod moving;
mod output_rule;
mod pair;
mod returning;
mod same_arbiter;
mod shared_disks;
mod spares;
#[path = "../support/mod.rs"]
mod support;
mod suspicion;
mod versions;
