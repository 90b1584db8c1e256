//! A seeded world around the real replication core, and checkers that watch it. Not shipped.
#![forbid(unsafe_code)]
