//! A backup's machine, from the first piece of its snapshot to the moment when it goes live.

use crate::config::ReplicaConfig;
use crate::disk::Disk;
use crate::evidence::EvidenceStore;
use crate::machines::{Machine, Machines};
use crate::vcpu::{CommandChannel, InputEncoding, Parts, ReplayingVcpu, ReplicaGuest, start_disks};
use crate::wake::Waker;
use machine::state::Snapshot;
use replication::message::{SnapshotChunk, SnapshotPart};
use replication::record::Record;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// No machine's snapshot is longer, whatever the peer sends: RAM and as much again.
fn snapshot_limit(config: &ReplicaConfig) -> u64 {
    config.memory_bytes * 2 + (128 << 20)
}

/// The machine, or what has come of it so far.
#[derive(Default)]
pub struct BackupMachine {
    stage: Stage,
    /// The first thing that went wrong: told when the snapshot is whole.
    trouble: Option<String>,
    /// Records that came before the machine was made.
    early: Vec<Record>,
}

enum Stage {
    /// Pieces of the machine's snapshot come.
    Receiving(Vec<u8>),
    /// The machine is made, its disks are coming.
    Disks(Box<dyn Machine>, Vec<Disk>),
    /// The machine replays.
    Running(ReplayingVcpu),
    /// The snapshot was of no use.
    Failed,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Receiving(Vec::new())
    }
}

impl BackupMachine {
    /// The vcpu thread, to be ended.
    pub fn vcpu_mut(&mut self) -> Option<&mut ReplayingVcpu> {
        match &mut self.stage {
            Stage::Running(vcpu) => Some(vcpu),
            Stage::Receiving(_) | Stage::Disks(..) | Stage::Failed => None,
        }
    }

    /// The vcpu thread, once it runs.
    pub fn vcpu(&self) -> Option<&ReplayingVcpu> {
        match &self.stage {
            Stage::Running(vcpu) => Some(vcpu),
            Stage::Receiving(_) | Stage::Disks(..) | Stage::Failed => None,
        }
    }

    /// Keeps a piece of the snapshot.
    pub fn store(&mut self, chunk: SnapshotChunk, config: &ReplicaConfig, machines: &dyn Machines) {
        let stored = match chunk.part {
            SnapshotPart::Machine => self.store_machine(&chunk, config),
            SnapshotPart::Disk(index) => self
                .make_machine(config, machines)
                .and_then(|()| self.store_disk(index, &chunk)),
        };
        if let Err(reason) = stored {
            self.fail(reason);
        }
    }

    fn fail(&mut self, reason: String) {
        self.trouble.get_or_insert(reason);
        self.stage = Stage::Failed;
    }

    fn store_machine(
        &mut self,
        chunk: &SnapshotChunk,
        config: &ReplicaConfig,
    ) -> Result<(), String> {
        match &mut self.stage {
            Stage::Receiving(bytes) if chunk.offset == bytes.len() as u64 => {
                bytes.extend_from_slice(&chunk.bytes);
                let fits = bytes.len() as u64 <= snapshot_limit(config);
                if fits {
                    Ok(())
                } else {
                    Err("its snapshot is larger than its memory".into())
                }
            }
            Stage::Failed => Ok(()),
            Stage::Receiving(_) | Stage::Disks(..) | Stage::Running(_) => {
                Err("the pieces of its snapshot are out of order".into())
            }
        }
    }

    fn store_disk(&mut self, index: u8, chunk: &SnapshotChunk) -> Result<(), String> {
        match &self.stage {
            Stage::Disks(_, disks) => {
                let disk = disks
                    .get(usize::from(index))
                    .ok_or("it has more disks than this configuration")?;
                disk.write_copied(chunk.offset, &chunk.bytes)
                    .map_err(|error| format!("its disk {index} cannot be written here: {error}"))
            }
            Stage::Failed => Ok(()),
            Stage::Receiving(_) | Stage::Running(_) => {
                Err("the pieces of its disks are out of order".into())
            }
        }
    }

    /// Makes the machine of its snapshot, and empty disks of the right length, if not yet done.
    fn make_machine(
        &mut self,
        config: &ReplicaConfig,
        machines: &dyn Machines,
    ) -> Result<(), String> {
        let Stage::Receiving(bytes) = &mut self.stage else {
            return Ok(());
        };
        let bytes = std::mem::take(bytes);
        let snapshot = Snapshot::read_from(&mut &bytes[..]).map_err(|error| error.to_string())?;
        drop(bytes);
        let machine = machines
            .restore(&snapshot)
            .map_err(|error| error.to_string())?;
        let sectors = machine.disk_sectors();
        if machine.memory_bytes() != config.memory_bytes || sectors.len() != config.disks.len() {
            return Err("its memory or disks are not those of this configuration".into());
        }
        let disks: Result<Vec<Disk>, _> = config
            .disks
            .iter()
            .zip(sectors)
            .map(|(own, sectors)| {
                Disk::for_copy(
                    &own.path,
                    own.read_only,
                    sectors * crate::disk::SECTOR_BYTES,
                )
            })
            .collect();
        let disks = disks.map_err(|error| error.to_string())?;
        self.stage = Stage::Disks(machine, disks);
        Ok(())
    }

    /// The snapshot is whole: the machine replays from here on.
    pub fn start(
        &mut self,
        config: &ReplicaConfig,
        machines: &dyn Machines,
        evidence: EvidenceStore,
        waker: Waker,
    ) -> Result<(), String> {
        if let Err(reason) = self.make_machine(config, machines) {
            self.fail(reason);
        }
        match std::mem::replace(&mut self.stage, Stage::Failed) {
            Stage::Disks(machine, disks) => {
                let vcpu = run(machine, disks, evidence, waker)?;
                vcpu.replay(std::mem::take(&mut self.early));
                self.stage = Stage::Running(vcpu);
                Ok(())
            }
            Stage::Receiving(_) | Stage::Running(_) | Stage::Failed => Err(self
                .trouble
                .take()
                .unwrap_or_else(|| "its snapshot is not whole".into())),
        }
    }

    /// Replays records after those that came before.
    pub fn replay(&mut self, records: Vec<Record>) {
        match &self.stage {
            Stage::Running(vcpu) => vcpu.replay(records),
            Stage::Receiving(_) | Stage::Disks(..) | Stage::Failed => self.early.extend(records),
        }
    }

    /// The vcpu thread, the instruction count and the number of visible outputs to go live with.
    pub fn into_live(self) -> Option<(ReplayingVcpu, u64, u64)> {
        match self.stage {
            Stage::Running(vcpu) => {
                let count = vcpu.thread().gauges().count.load(Ordering::Acquire);
                let visible = vcpu.thread().gauges().visible.load(Ordering::Acquire);
                Some((vcpu, count, visible))
            }
            Stage::Receiving(_) | Stage::Disks(..) | Stage::Failed => None,
        }
    }
}

fn run(
    machine: Box<dyn Machine>,
    disks: Vec<Disk>,
    evidence: EvidenceStore,
    waker: Waker,
) -> Result<ReplayingVcpu, String> {
    for disk in &disks {
        disk.sync()
            .map_err(|error| format!("its disks cannot be written here: {error}"))?;
    }
    let channel = CommandChannel::new();
    let start = || {
        let disks = if disks.is_empty() {
            None
        } else {
            Some(start_disks(Arc::new(disks), &channel)?)
        };
        let guest = ReplicaGuest::new(machine, disks);
        let parts = Parts {
            guest,
            encoding: InputEncoding::WithoutDiskData,
            evidence: Some(evidence),
        };
        ReplayingVcpu::start(parts, channel, waker)
    };
    start().map_err(|error| format!("its thread cannot be started: {error}"))
}
