//! RISC-V as one of the architectures that a program may choose from.

use crate::emitter::Jit;
use crate::isa::{Extension, Extensions};
use crate::machine::{Config, Machine};
use machine::config::{BoardConfig, BootImages, MachineConfig};
use machine::engine::Engine;
use machine::snapshot::{Snapshot, SnapshotError};
use machine::{Architecture, Failure};
use std::collections::BTreeSet;
use std::io::Read;
use thiserror::Error;

/// Its name.
pub const NAME: &str = "riscv64";

/// Number of the semantics: what the machine computes from the same inputs. Two builds replay each
/// other's logs only when it is equal; every change of an instruction, a device or the clock that a
/// guest could see raises it.
pub const SEMANTICS_VERSION: u32 = 8;

/// RV64GC on the `virt` board.
pub const RISCV64: &dyn Architecture = &Riscv64;

/// A feature that RISC-V harts do not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{NAME} has no extension {name:?} to choose: there are {all}", name = .0, all = EXTENSIONS.join(", "))]
pub struct NoSuchFeature(pub String);

/// The features that harts may have or not: the names of all [`Extension`]s.
pub const EXTENSIONS: &[&str] = &{
    let mut names = [""; Extension::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Extension::ALL[index].name();
        index += 1;
    }
    names
};

struct Riscv64;

impl Architecture for Riscv64 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn semantics_version(&self) -> u32 {
        SEMANTICS_VERSION
    }

    fn available(&self, engine: Engine) -> Engine {
        if engine == Engine::Interpreter || Jit::new().is_some() {
            engine
        } else {
            Engine::Interpreter
        }
    }

    fn configuration_hash(&self, config: &MachineConfig) -> Result<u64, Failure> {
        let extensions = extensions(&config.features)?;
        Ok(configuration_hash(&config.board, extensions))
    }

    fn power_on(
        &self,
        config: &MachineConfig,
        images: &BootImages,
    ) -> Result<Box<dyn machine::Machine>, Failure> {
        let config = Config {
            board: config.board.clone(),
            extensions: extensions(&config.features)?,
            unix_base_ns: config.unix_base_ns,
        };
        Ok(Box::new(Machine::new(config, images)?))
    }

    fn restore(&self, snapshot: &Snapshot) -> Result<Box<dyn machine::Machine>, SnapshotError> {
        Ok(Box::new(Machine::restore(snapshot)?))
    }

    fn restore_from(
        &self,
        snapshot: &mut dyn Read,
    ) -> Result<Box<dyn machine::Machine>, SnapshotError> {
        Ok(Box::new(Machine::restore_from(snapshot)?))
    }
}

/// What features say of the harts.
fn extensions(features: &BTreeSet<String>) -> Result<Extensions, NoSuchFeature> {
    features.iter().try_fold(
        Extensions::NONE,
        |extensions, name| match Extension::of_name(name) {
            Some(extension) => Ok(extensions.with(extension)),
            None => Err(NoSuchFeature(name.clone())),
        },
    )
}

/// See [`Architecture::configuration_hash`].
pub(crate) fn configuration_hash(board: &BoardConfig, extensions: Extensions) -> u64 {
    let bytes = postcard::to_stdvec(&(NAME, SEMANTICS_VERSION, board, extensions))
        .expect("plain data serialises");
    xxhash_rust::xxh3::xxh3_64(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_there_is_not_is_refused_by_its_name() {
        let features = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(extensions(&features(EXTENSIONS)), Ok(Extensions::ALL));
        assert_eq!(extensions(&features(&[])), Ok(Extensions::NONE));
        let some = Extensions::NONE.with(Extension::Zicboz);
        assert_eq!(extensions(&features(&["zicboz"])), Ok(some));
        let unknown = extensions(&features(&["zicboz", "vector"])).unwrap_err();
        assert_eq!(unknown, NoSuchFeature("vector".to_owned()));
        assert!(unknown.to_string().contains("bit-manipulation, zbc, "));
    }
}
