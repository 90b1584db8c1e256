//! Snapshots that people keep: a machine and its disks in one file, taken while it runs, and what becomes of
//! such a file when a machine is made of it again. `docs/decisions/kept-snapshots.md`.
//!
//! The format is `replication::snapshot_file`'s; here it is packed, written, read and unpacked.

mod placing;
mod restored;
mod source;
mod taking;

pub use placing::{PlaceError, check, place};
pub(crate) use restored::forget;
pub use restored::{RestoredMachine, begin_restoring, end_restoring, obstacle};
pub use source::{MachineBytes, SnapshotFileError, SnapshotSource};
pub use taking::TakingSnapshot;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packing::Packer;
    use replication::configuration::{Build, Configuration};
    use replication::message::LifeId;
    use replication::record::InstructionCount;
    use replication::snapshot_file::{FileHead, FilePart, FileWriter};
    use replication::succession::{Generation, LifeNumber, MachineName};
    use std::path::Path;

    pub(super) fn head(disks: &[u64]) -> FileHead {
        FileHead {
            machine: MachineName::new("vm").unwrap(),
            host: "hosta".into(),
            build: Build::new("test"),
            taken_unix_ns: 1,
            life: LifeNumber(1),
            life_id: LifeId(6),
            generation: Generation(4),
            count: InstructionCount(1000),
            semantics_version: 8,
            configuration: Configuration::new(1),
            memory_bytes: 4096,
            disks: disks.to_vec(),
        }
    }

    pub(super) fn write_file(path: &Path, head: &FileHead, parts: &[(FilePart, &[u8])]) {
        let mut packer = Packer::new().unwrap();
        let mut writer = FileWriter::begin(head);
        for (part, bytes) in parts {
            writer.part(*part, &packer.pack(bytes).unwrap());
        }
        writer.end();
        std::fs::write(path, writer.take_bytes()).unwrap();
    }

    /// The checks of a file that somebody made otherwise are right, and what is in it is not.
    #[test]
    fn a_part_that_is_not_what_it_says_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("kept");
        let (from, to) = (0, 512);
        let part = FilePart::Disk {
            device: 0,
            from,
            to,
        };
        write_file(&file, &head(&[512]), &[(part, &[7; 100])]);
        let mut source = SnapshotSource::open(&file).unwrap();
        let (part, packed) = source.next_packed().unwrap().unwrap();
        let told = source.unpack(part, &packed).unwrap_err().to_string();
        assert!(told.contains("disk 0, bytes 0 to 512"), "{told}");
        assert!(source.next_packed().unwrap().is_none());
    }
}
