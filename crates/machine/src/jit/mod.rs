//! The JIT.

/// Whether there is an emitter for this host.
pub const IS_SUPPORTED: bool = false;
