//! The option that every command with a machine has.

use crate::engine::EngineName;
use clap::Args;

/// Which engine executes the guest.
#[derive(Debug, Args)]
pub struct EngineOption {
    /// What executes the guest, which cannot tell; the other replica may run another one (default:
    /// the configuration's, or jit)
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineName>,
}

impl EngineOption {
    /// The engine that was named here, or else this one.
    pub fn or(&self, configured: EngineName) -> EngineName {
        self.engine.unwrap_or(configured)
    }
}
