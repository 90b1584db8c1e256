//! A machine goes on from the journal of its host: its snapshot, everything that was recorded after
//! that, and then it meets the world again where the world saw it last.

use super::host::{Happened, Host};
use super::journaling::JournalAge;
use super::primary::{PrimaryLoop, live_options};
use crate::control::Answer;
use crate::disk::{BegunDisks, Disk};
use crate::end::ReplicaError;
use crate::evidence::EvidenceStore;
use crate::host_time::monotonic;
use crate::journal::{DiskPlace, Inspected, Loading, Recovered, Recovering};
use crate::status::ReplicaStatus;
use crate::vcpu::{
    CommandChannel, InputEncoding, Parts, ReplayReport, ReplayingVcpu, ReplicaGuest,
    VisibleOutputs, start_layered_disks,
};
use environment::mpsc::Receiver;
use machine::Machine;
use replication::life_log::LifeLog;
use replication::message::Message;
use replication::primary::{Beginning, Primary};
use replication::record::{InstructionCount, Record, RecordNumber};
use replication::startup::{Stance, Standing};
use replication::succession::Entry;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Records that are given to the machine ahead.
const AHEAD_RECORDS: u64 = 100_000;

/// A machine on its way from its journal.
struct Recovery {
    inspected: Inspected,
    recovering: Recovering,
    vcpu: Option<ReplayingVcpu>,
    log: LifeLog,
    /// The last record that the machine has replayed.
    replayed: RecordNumber,
    all_read: bool,
    /// What the disks hold is made theirs, once all was replayed; true when it is.
    committing: Option<Receiver<Result<(), String>>>,
    is_committed: bool,
    /// Outputs that may not have left.
    outputs: VecDeque<VisibleOutputs>,
    began: Duration,
    /// What reading the snapshots took.
    loading: Loading,
}

impl Recovery {
    fn begin(host: &mut Host, won: &Entry) -> Result<Recovery, ReplicaError> {
        let waker = host.waker.clone();
        let machines = host.machines.clone();
        let disks = DiskPlace {
            files: host.config.disks.clone(),
            state_directory: host.config.state_directory.clone(),
            previous: host.discarding.take(),
        };
        let id = won.membership().journal;
        let (Some(id), Some(journal)) = (id, &mut host.journal) else {
            // The key was asked for with a journal that was found here.
            let error = io::Error::other("the journal is not there any more");
            return Err(error.into());
        };
        let (inspected, recovering) = journal.recover(id, machines, disks, waker)?;
        let (place, log_bytes) = (inspected.head().place, host.pair_config.log_bytes);
        Ok(Recovery {
            log: LifeLog::from(place, log_bytes),
            inspected,
            recovering,
            vcpu: None,
            replayed: place.record,
            all_read: false,
            committing: None,
            is_committed: false,
            outputs: VecDeque::new(),
            began: monotonic(),
            loading: Loading::default(),
        })
    }

    fn has_replayed(&self) -> bool {
        self.all_read && self.replayed == self.log.last() && self.vcpu.is_some()
    }

    /// Whether the machine may go live: everything was replayed, and the disks are what that made of them.
    fn is_done(&mut self, host: &Host) -> Result<bool, ReplicaError> {
        let disks = self
            .vcpu
            .as_ref()
            .and_then(|vcpu| vcpu.thread().disk_thread());
        if !self.has_replayed() || disks.is_none() || self.is_committed {
            return Ok(self.has_replayed());
        }
        let Some(committing) = &self.committing else {
            let waker = host.waker.clone();
            self.committing = disks.map(|disks| disks.commit_layers(move || waker.wake()));
            return Ok(false);
        };
        match committing.try_recv() {
            Ok(Ok(())) => self.is_committed = true,
            Ok(Err(why)) => return Err(ReplicaError::Journal(why)),
            // A panic has ended the process.
            Err(_) => {}
        }
        Ok(self.is_committed)
    }

    /// Takes what was read.
    fn take(&mut self, host: &mut Host) -> Result<(), ReplicaError> {
        while self.log.last().since(self.replayed) < AHEAD_RECORDS {
            match self.recovering.next() {
                Some(Recovered::Machine(machine, disks, loading)) => {
                    self.loading = loading;
                    let vcpu = start(host, machine, disks)?;
                    vcpu.hurry();
                    self.vcpu = Some(vcpu);
                }
                Some(Recovered::Records(records)) => self.replay(records),
                Some(Recovered::End) => self.all_read = true,
                Some(Recovered::Failed(why)) => return Err(ReplicaError::Journal(why)),
                None => break,
            }
        }
        Ok(())
    }

    fn replay(&mut self, records: Vec<Record>) {
        let after = self.log.last();
        for record in &records {
            self.log.push(record.clone());
        }
        self.log.forget_beyond_limit(self.log.last());
        // The machine comes before its records.
        if let Some(vcpu) = &self.vcpu {
            vcpu.replay(after, records);
        }
    }

    /// Takes what the machine says.
    fn reports(&mut self, host: &mut Host) -> Result<(), ReplicaError> {
        let released = self.inspected.released();
        while let Some(report) = self.vcpu.as_ref().and_then(ReplayingVcpu::report) {
            match report {
                ReplayReport::Progress {
                    outputs, replayed, ..
                } => {
                    self.replayed = replayed;
                    let may_be_missing = |batch: &VisibleOutputs| batch.visible > released;
                    self.outputs
                        .extend(outputs.into_iter().filter(may_be_missing));
                }
                ReplayReport::Diverged { report, .. } => {
                    return Err(ReplicaError::Journal(format!(
                        "at record {}, instruction {}, the machine does something else than \
                         its journal says: {}",
                        report.record, report.count, report.what
                    )));
                }
                ReplayReport::Durable { .. } | ReplayReport::Snapshot(_) => {}
                ReplayReport::DiskFailed(how) => return Err(ReplicaError::Journal(how)),
                ReplayReport::Failed(failure) => {
                    if let Some(vcpu) = &mut self.vcpu {
                        return Err(host.machine_failed(&failure, vcpu.thread_mut()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Records that the machine has replayed, of how many.
    fn records(&self) -> (u64, u64) {
        let before = self.inspected.head().place.record;
        let all = self.inspected.last().since(before);
        (self.replayed.since(before), all)
    }

    /// For a peer that asks.
    fn standing(&self, host: &Host, won: &Entry) -> Standing {
        let (replayed, all) = self.records();
        let tenths = replayed * 10 / all.max(1);
        let greeting = &host.pair_config.greeting;
        Standing {
            machine: greeting.machine.clone(),
            host: greeting.host.clone(),
            stance: Stance::Recovering {
                percent: tenths.min(10) as u8 * 10,
            },
            life: won.key.life,
            life_id: won.life,
            generation: won.next_generation(),
            worth: host.markers.worth(),
        }
    }

    /// For people. Of a large machine the snapshots take the most of it.
    fn progress(&self, host: &Host) -> String {
        match (&self.vcpu, &host.journal) {
            (None, Some(journal)) => format!("its snapshots are read, {}", journal.meter()),
            _ => {
                let (replayed, all) = self.records();
                format!("record {replayed} of {all}")
            }
        }
    }

    fn status(&self, host: &Host) -> ReplicaStatus {
        ReplicaStatus {
            role: "waiting".into(),
            state: format!(
                "going on from the journal: {}; all of it anew if this process ends before",
                self.progress(host)
            ),
            listen: host.listen_address(),
            ..host.base_status(self.vcpu.as_ref().map(ReplayingVcpu::thread))
        }
    }
}

fn start(
    host: &Host,
    machine: Box<dyn Machine>,
    (disks, begun): BegunDisks,
) -> Result<ReplayingVcpu, ReplicaError> {
    let sectors = machine.board().disks.iter().map(|disk| disk.sectors);
    if !disks.iter().map(Disk::sectors).eq(sectors) {
        let why = "its disks are not as long as they were when it was written";
        return Err(ReplicaError::Journal(why.into()));
    }
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_layered_disks(Arc::new(disks), begun, &channel)?)
    };
    let parts = Parts {
        guest: ReplicaGuest::new(machine, disks),
        encoding: InputEncoding::WithoutDiskData,
        evidence: Some(EvidenceStore::new(&host.config.state_directory)),
    };
    Ok(ReplayingVcpu::start(parts, channel, host.waker.clone())?)
}

impl PrimaryLoop {
    /// Goes on from the journal here, at this host's key.
    pub(super) fn from_journal(mut host: Host, won: Entry) -> Result<PrimaryLoop, ReplicaError> {
        let mut recovery = Recovery::begin(&mut host, &won)?;
        let generation = won.key.generation.0;
        host.events
            .add("recovering", generation, 0, won.to_string());
        // Whoever comes meanwhile is dealt with afterwards.
        let mut meanwhile: Vec<Happened> = Vec::new();
        loop {
            recovery.reports(&mut host)?;
            recovery.take(&mut host)?;
            if recovery.is_done(&host)? {
                break;
            }
            let mut happened = host.wait(None, true, |host| recovery.status(host))?;
            refuse_for_now(&mut host, &mut happened);
            for (connection, message) in happened.messages.drain(..) {
                match message {
                    Message::Ask { greeting, .. } | Message::Hello { greeting, .. } => {
                        let standing = recovery.standing(&host, &won);
                        host.answer_peer(connection, &greeting, standing);
                    }
                    _ => host.close(connection),
                }
            }
            meanwhile.push(happened);
        }
        let mut primary = go_live(host, won, recovery);
        for happened in meanwhile {
            primary.take(happened);
        }
        Ok(primary)
    }
}

/// Whoever asks for something now is told to ask again: nothing is done when nobody expects it any more.
/// The guest hears nothing, as one that moves to another host.
fn refuse_for_now(host: &mut Host, happened: &mut Happened) {
    for (id, _) in happened.requests.drain(..) {
        let why = "the machine is going on from its journal: ask again when `understudy status` says \
                   that it is live";
        host.answer(id, &Answer::Refused(why.into()));
    }
    happened.frames.clear();
    happened.typed.clear();
}

fn go_live(mut host: Host, opened: Entry, recovery: Recovery) -> PrimaryLoop {
    let Recovery {
        inspected,
        vcpu,
        log,
        outputs,
        began,
        loading,
        ..
    } = recovery;
    let vcpu = vcpu.expect("a machine that has replayed all of its records is there");
    let gauges = vcpu.thread().gauges();
    let count = gauges.count.load(Ordering::Acquire);
    let visible_outputs = gauges.visible.load(Ordering::Acquire);
    assert!(
        log.last() == inspected.last() && log.last().next() == opened.record,
        "the records of the next generation follow those of the journal"
    );
    if let Some(journal) = &host.journal {
        journal.go_on(inspected.clone(), log.end(), visible_outputs);
    }
    let torn = match inspected.torn_bytes() {
        0 => String::new(),
        bytes => format!("; {bytes} bytes at its end, which nobody had seen, were cut off"),
    };
    let records = log.last().since(inspected.head().place.record);
    let detail = format!(
        "the machine goes on where it was seen last: {records} records of its journal replayed in {} ms, \
         outputs sent again: {}{torn}",
        monotonic().saturating_sub(began).as_millis(),
        outputs.len()
    );
    host.events
        .add("recovered", opened.next_generation().0, count, detail);
    let vcpu = vcpu.go_live(live_options(&host));
    if let Some(network) = &mut host.outside.network {
        // A network that has gone is announced to when it is back.
        network.announce();
    }
    for output in outputs.iter().flat_map(|batch| &batch.outputs) {
        host.emit(output);
    }
    host.flush();
    let beginning = Beginning {
        opened,
        log,
        count: InstructionCount(count),
        visible_outputs,
    };
    let core = Primary::new(monotonic(), host.pair_config.clone(), beginning);
    let mut primary = PrimaryLoop::new(host, vcpu, core);
    primary.journal_age = JournalAge::since(inspected.head().place.count, loading);
    primary.has_layers = inspected.head().disk_layer != 0;
    primary
}
