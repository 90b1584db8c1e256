//! The architectures that a machine may have. Here, and nowhere else, one is chosen.

use crate::engine::EngineName;
use clap::ValueEnum;
use machine::config::{BootImages, MachineConfig, Transport};
use machine::snapshot::{Snapshot, SnapshotError};
use machine::{Failure, Machine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io::Read;

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
    fn implementation(self) -> &'static dyn machine::Architecture {
        match self {
            Architecture::Riscv64 => riscv::RISCV64,
            Architecture::X86_64 => x86::X86_64,
        }
    }

    /// As it is written in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Riscv64 => "riscv64",
            Architecture::X86_64 => "x86-64",
        }
    }

    /// The number of its semantics: no number belongs to two architectures.
    pub fn semantics_version(self) -> u32 {
        self.implementation().semantics_version()
    }

    /// The architecture whose machines compute this semantics version here.
    pub fn of_semantics(version: u32) -> Option<Architecture> {
        let all = Architecture::value_variants().iter().copied();
        all.into_iter()
            .find(|architecture| architecture.semantics_version() == version)
    }

    /// The engine that runs on this host where this one is asked for.
    pub fn available(self, engine: EngineName) -> EngineName {
        EngineName(self.implementation().available(engine.0))
    }

    /// Bytes that the host has to provide for so many bytes of memory.
    pub fn host_memory(self, memory: u64) -> u64 {
        match self {
            Architecture::Riscv64 => memory,
            Architecture::X86_64 => x86::ram::host_bytes(memory),
        }
    }

    /// Its number in ELF files (`e_machine`).
    pub fn elf_machine(self) -> u16 {
        match self {
            Architecture::Riscv64 => 243,
            Architecture::X86_64 => 62,
        }
    }

    /// How virtio devices are reached where nobody says it: what unmodified images of this architecture have the
    /// drivers for when they boot.
    pub fn usual_transport(self) -> Transport {
        match self {
            Architecture::Riscv64 => Transport::Mmio,
            Architecture::X86_64 => Transport::Pci,
        }
    }

    /// The names of the extensions that a machine may have or not.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Architecture::Riscv64 => riscv::architecture::EXTENSIONS,
            Architecture::X86_64 => &[],
        }
    }

    /// All extensions but these.
    pub fn features(self, without: &BTreeSet<String>) -> BTreeSet<String> {
        let names = self.extensions().iter().copied();
        let names = names.filter(|name| !without.contains(*name));
        names.map(str::to_owned).collect()
    }

    /// Equal for machines that can replay each other's inputs.
    ///
    /// # Errors
    /// There is no such feature.
    pub fn configuration_hash(self, config: &MachineConfig) -> Result<u64, Failure> {
        self.implementation().configuration_hash(config)
    }

    /// A machine at power-on.
    ///
    /// # Errors
    /// The images cannot be started, or the board cannot be built.
    pub fn power_on(
        self,
        config: &MachineConfig,
        images: &BootImages,
        engine: EngineName,
    ) -> Result<Box<dyn Machine>, Failure> {
        let machine = self.implementation().power_on(config, images)?;
        Ok(driven(machine, engine))
    }

    /// The machine as it was when the snapshot was taken.
    ///
    /// # Errors
    /// [`SnapshotError`] for a snapshot that is damaged, or of another architecture.
    pub fn restore(
        self,
        snapshot: &Snapshot,
        engine: EngineName,
    ) -> Result<Box<dyn Machine>, SnapshotError> {
        let machine = self.implementation().restore(snapshot)?;
        Ok(driven(machine, engine))
    }

    /// The same, made while the snapshot is read.
    ///
    /// # Errors
    /// As [`Architecture::restore`].
    pub fn restore_from(
        self,
        snapshot: &mut dyn Read,
        engine: EngineName,
    ) -> Result<Box<dyn Machine>, SnapshotError> {
        let machine = self.implementation().restore_from(snapshot)?;
        Ok(driven(machine, engine))
    }
}

fn driven(mut machine: Box<dyn Machine>, engine: EngineName) -> Box<dyn Machine> {
    engine.drive(&mut *machine);
    machine
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
    use machine::config::BoardConfig;

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
            assert_eq!(name, architecture.name());
        }
    }

    #[test]
    fn what_cannot_replay_each_other_has_another_configuration_hash() {
        let hash_with = |architecture: Architecture, without: &[&str], transport| {
            let board = BoardConfig {
                memory_bytes: 1 << 20,
                harts: 1,
                network: Vec::new(),
                disks: Vec::new(),
                virtio_console: false,
                entropy: true,
                transport,
            };
            let config = MachineConfig {
                board,
                features: architecture
                    .features(&without.iter().map(|name| (*name).to_owned()).collect()),
                unix_base_ns: 0,
            };
            architecture.configuration_hash(&config).unwrap()
        };
        let hash =
            |architecture, without: &[&str]| hash_with(architecture, without, Transport::Mmio);
        let with = hash(Architecture::Riscv64, &[]);
        assert_ne!(with, hash(Architecture::Riscv64, &["bit-manipulation"]));
        assert_ne!(with, hash(Architecture::Riscv64, &["zicboz"]));
        assert_ne!(with, hash(Architecture::X86_64, &[]));
        assert_ne!(with, hash_with(Architecture::Riscv64, &[], Transport::Pci));
    }
}
