//! A snapshot that somebody asked for at the control socket, to keep it: begun when no other one is under way,
//! and written to them by a thread, while the machine runs on.

use super::backup::BackupLoop;
use super::host::Host;
use super::primary::PrimaryLoop;
use crate::control::{Answer, ConversationId};
use crate::host_time::unix_ns;
use crate::snapshot_file::TakingSnapshot;
use crate::vcpu::BegunSnapshot;
use replication::backup::BackupPhase;
use replication::message::LifeId;
use replication::snapshot_file::FileHead;
use replication::succession::{Generation, LifeNumber};
use std::time::Duration;

/// Whoever takes nothing of it for so long gets no more: the machine keeps pages for it meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of a pairing, or of a journal's snapshot, is never so high.
const FIRST_NUMBER: u64 = 1 << 63;

/// Who wants one, and how far it is. One at a time.
#[derive(Default)]
pub(super) struct Keeping {
    /// Who waits until it begins.
    waiting: Option<ConversationId>,
    /// Its number, from when the machine is asked for it until it has begun.
    asked: Option<u64>,
    last: u64,
    taking: Option<TakingSnapshot>,
}

impl Keeping {
    fn is_free(&self) -> bool {
        self.waiting.is_none() && self.taking.is_none()
    }

    /// Whether the machine is asked for it, or it is being written.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some() || self.taking.is_some()
    }

    /// Whether this snapshot is the one that was asked for.
    pub(super) fn is_its(&self, number: u64) -> bool {
        self.asked == Some(number)
    }

    /// Another snapshot comes first: this one has to be begun again, if it has not begun.
    pub(super) fn gives_way(&mut self) {
        self.asked = None;
    }

    fn next_number(&mut self) -> u64 {
        self.last += 1;
        let number = FIRST_NUMBER + self.last;
        self.asked = Some(number);
        number
    }

    /// It has begun: whoever waits for it gets its file, if they still do.
    fn begun(
        &mut self,
        host: &mut Host,
        begun: Box<BegunSnapshot>,
        of: (LifeNumber, LifeId, Generation),
    ) {
        self.asked = None;
        let Some(id) = self.waiting.take() else {
            return;
        };
        let (count, pause) = (begun.count, begun.pause);
        let head = host.file_head(&begun, of);
        let Some(to) = host.hand_over(id, PATIENCE) else {
            return;
        };
        let detail = format!("the guest stood still for it for {} us", pause.as_micros());
        match TakingSnapshot::start(begun, head, to, host.waker.clone()) {
            Ok(taking) => {
                self.taking = Some(taking);
                host.events.add("snapshot_begun", of.2.0, count.0, detail);
            }
            // The connection ends without a file.
            Err(error) => host
                .events
                .add("snapshot_not_taken", of.2.0, count.0, error.to_string()),
        }
    }

    /// Takes what came of writing it.
    fn look(&mut self, host: &mut Host, generation: Generation) {
        match self.taking.as_ref().and_then(TakingSnapshot::ended) {
            Some(Ok(taken)) => {
                let detail = taken.to_string();
                host.events.add("snapshot_taken", generation.0, 0, detail);
            }
            Some(Err(why)) => {
                host.events.add("snapshot_not_taken", generation.0, 0, why);
            }
            None => return,
        }
        self.taking = None;
    }

    fn refuse(&mut self, host: &mut Host, why: &str) {
        self.asked = None;
        if let Some(id) = self.waiting.take() {
            host.answer(id, &Answer::Refused(why.into()));
        }
    }
}

impl Host {
    fn file_head(
        &self,
        begun: &BegunSnapshot,
        (life, life_id, generation): (LifeNumber, LifeId, Generation),
    ) -> FileHead {
        let greeting = &self.pair_config.greeting;
        FileHead {
            machine: greeting.machine.clone(),
            host: greeting.host.node().to_owned(),
            build: greeting.build.clone(),
            taken_unix_ns: unix_ns(),
            life,
            life_id,
            generation,
            count: begun.count,
            semantics_version: greeting.semantics_version,
            configuration: self.machines.configuration(),
            memory_bytes: begun.memory_bytes,
            disks: begun.disk_lengths.clone(),
        }
    }
}

const ANOTHER: &str =
    "another snapshot of this machine is being taken here: ask again when it is there";

const SHARED: &str = "the machine has a shared disk, of which no copy is made while it runs: take a snapshot where that disk is kept";

impl PrimaryLoop {
    /// Somebody wants a snapshot to keep. `here`: although there is a backup.
    pub(super) fn keep(&mut self, id: ConversationId, here: bool) {
        if self.host.config.has_shared_disks() {
            return self.host.answer(id, &Answer::Refused(SHARED.into()));
        }
        if !self.keeping.is_free() {
            return self.host.answer(id, &Answer::Refused(ANOTHER.into()));
        }
        self.keeping.waiting = Some(id);
        if !here && let Some(why) = self.better_at_a_backup() {
            self.keeping.refuse(&mut self.host, &why);
        }
    }

    /// Where it is taken without the guest's noticing it, if there is such a host.
    fn better_at_a_backup(&self) -> Option<String> {
        let members = &self.core.opened().membership().members;
        let names: Vec<&str> = members.iter().map(|host| host.node()).collect();
        let name = names.first()?;
        Some(format!(
            "host {} follows the machine: ask there (`understudy snapshot --config FILE.toml FILE` on {name}), and \
             the live one does nothing for it; --here takes it from the live one all the same",
            names.join(" or ")
        ))
    }

    /// Begins it when no other snapshot is under way.
    pub(super) fn begin_keeping(&mut self) {
        let generation = self.core.status().generation;
        self.keeping.look(&mut self.host, generation);
        let waits = self.keeping.waiting.is_some() && !self.keeping.is_under_way();
        if waits && self.takes_no_other_snapshot() {
            let number = self.keeping.next_number();
            self.requests.ask(number);
        }
    }

    fn takes_no_other_snapshot(&self) -> bool {
        self.core.joining().is_none()
            && self.copy.is_idle()
            && !self.journal_snapshot.is_under_way()
            && self.requests.is_idle()
    }

    /// The machine is live here no more.
    pub(super) fn end_keeping(&mut self) {
        let why =
            "the machine is live here no more: ask again where `understudy status` says that it is";
        self.keeping.refuse(&mut self.host, why);
    }

    pub(super) fn keeping_begun(&mut self, begun: Box<BegunSnapshot>) {
        let opened = self.core.opened();
        let of = (opened.key.life, opened.life, opened.next_generation());
        self.keeping.begun(&mut self.host, begun, of);
    }
}

impl BackupLoop {
    /// Somebody wants a snapshot to keep.
    pub(super) fn keep(&mut self, id: ConversationId) {
        if self.host.config.has_shared_disks() {
            return self.host.answer(id, &Answer::Refused(SHARED.into()));
        }
        let is_following = self.core.status().phase == BackupPhase::Following;
        if is_following && self.vcpu().is_some() && self.keeping.is_free() {
            self.keeping.waiting = Some(id);
            let number = self.keeping.next_number();
            if let Some(vcpu) = self.vcpu() {
                vcpu.snapshot(number);
            }
            return;
        }
        let why = if self.keeping.is_free() {
            "this replica does not follow the live machine yet, or no more: ask again when it does, or at the live \
             machine's host"
        } else {
            ANOTHER
        };
        self.host.answer(id, &Answer::Refused(why.into()));
    }

    pub(super) fn keeping_begun(&mut self, begun: Box<BegunSnapshot>) {
        if self.keeping.is_its(begun.pairing) {
            let standing = self.core.standing(self.host.markers.worth());
            let of = (standing.life, standing.life_id, standing.generation);
            self.keeping.begun(&mut self.host, begun, of);
        }
    }

    /// Takes what came of writing it.
    pub(super) fn look_at_keeping(&mut self) {
        let generation = self.core.status().generation;
        self.keeping.look(&mut self.host, generation);
    }

    /// The machine that it was to be taken of is there no more, or about to be live.
    pub(super) fn end_keeping(&mut self) {
        let why = "this replica follows the live machine no more: ask again where `understudy status` says that \
                   it is live, or followed";
        self.keeping.refuse(&mut self.host, why);
    }
}
