//! The architectures that a machine may have. Here, and nowhere else, one is chosen.

mod x86_64;

use crate::engine::EngineName;
use crate::setup::SetupError;
use clap::ValueEnum;
use machine::boot::BootImages;
use machine::bus::BoardConfig;
use machine::machine::{Machine, MachineConfig};
use machine::state::{Snapshot, SnapshotError};
use serde::{Deserialize, Serialize};
use std::io::Read;
use x86_64::X86Machine;

/// What executes the guest's instructions, and the board around it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
pub enum Architecture {
    /// 64-bit RISC-V on QEMU's `virt` board
    #[default]
    #[serde(rename = "riscv64")]
    #[value(name = "riscv64")]
    Riscv64,
    /// An x86-64 PC without legacy devices
    #[serde(rename = "x86-64", alias = "amd64")]
    #[value(name = "x86-64", alias = "amd64")]
    X86_64,
}

impl Architecture {
    /// The number of its semantics: no number belongs to two architectures.
    pub fn semantics_version(self) -> u32 {
        match self {
            Architecture::Riscv64 => machine::machine::SEMANTICS_VERSION,
            Architecture::X86_64 => x86::machine::SEMANTICS_VERSION,
        }
    }

    /// The architecture whose machines compute this semantics version here.
    pub fn of_semantics(version: u32) -> Option<Architecture> {
        let all = Architecture::value_variants().iter().copied();
        all.into_iter()
            .find(|architecture| architecture.semantics_version() == version)
    }

    /// Equal for boards that can replay each other's inputs.
    pub fn configuration_hash(self, board: &BoardConfig) -> u64 {
        match self {
            Architecture::Riscv64 => machine::machine::configuration_hash(board),
            Architecture::X86_64 => x86::machine::configuration_hash(board),
        }
    }

    /// A machine at power-on.
    ///
    /// # Errors
    /// [`SetupError`] for images that cannot be started, and for a board that cannot be built.
    pub fn power_on(
        self,
        config: MachineConfig,
        images: BootImages,
        engine: EngineName,
    ) -> Result<Box<dyn replica::Machine>, SetupError> {
        match self {
            Architecture::Riscv64 => {
                let mut machine = Machine::new(config, &images)?;
                engine.drive(&mut machine);
                Ok(Box::new(machine))
            }
            Architecture::X86_64 => Ok(Box::new(X86Machine::power_on(config, images)?)),
        }
    }

    /// The machine as it was when the snapshot was taken.
    ///
    /// # Errors
    /// [`SnapshotError`] for a snapshot that is damaged, or of another architecture.
    pub fn restore(
        self,
        snapshot: &Snapshot,
        engine: EngineName,
    ) -> Result<Box<dyn replica::Machine>, SnapshotError> {
        match self {
            Architecture::Riscv64 => {
                let mut machine = Machine::restore(snapshot)?;
                engine.drive(&mut machine);
                Ok(Box::new(machine))
            }
            Architecture::X86_64 => Ok(Box::new(X86Machine::restore(snapshot)?)),
        }
    }

    /// The same, made while the snapshot is read.
    ///
    /// # Errors
    /// As [`Architecture::restore`].
    pub fn restore_from(
        self,
        snapshot: &mut dyn Read,
        engine: EngineName,
    ) -> Result<Box<dyn replica::Machine>, SnapshotError> {
        match self {
            Architecture::Riscv64 => {
                let mut machine = Machine::restore_from(snapshot)?;
                engine.drive(&mut machine);
                Ok(Box::new(machine))
            }
            Architecture::X86_64 => Ok(Box::new(X86Machine::restore_from(snapshot)?)),
        }
    }
}

impl From<guest_image::Architecture> for Architecture {
    fn from(architecture: guest_image::Architecture) -> Architecture {
        match architecture {
            guest_image::Architecture::Riscv64 => Architecture::Riscv64,
            guest_image::Architecture::Amd64 => Architecture::X86_64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semantics_version_names_one_architecture() {
        for &architecture in Architecture::value_variants() {
            let version = architecture.semantics_version();
            assert_eq!(Architecture::of_semantics(version), Some(architecture));
        }
        assert_eq!(Architecture::of_semantics(0), None);
    }

    #[test]
    fn the_file_and_the_command_line_have_the_same_names() {
        for &architecture in Architecture::value_variants() {
            let json = serde_json::to_string(&architecture).unwrap();
            let name = json.trim_matches('"');
            assert_eq!(Architecture::from_str(name, false), Ok(architecture));
        }
    }

    #[test]
    fn what_cannot_replay_each_other_has_another_configuration_hash() {
        let board = BoardConfig {
            memory_bytes: 1 << 20,
            harts: 1,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: true,
            bit_manipulation: true,
        };
        assert_ne!(
            Architecture::Riscv64.configuration_hash(&board),
            Architecture::X86_64.configuration_hash(&board)
        );
    }
}
