//! The copy of the machine for a backup that joins: begun when the core wants it, in rounds, and sent to
//! whoever has connected for it. What is taken for a journal, or to be kept, goes its own way.

use super::channel::Fetcher;
use super::primary::PrimaryLoop;
use super::snapshot_sender::{Beginning, Round, SnapshotSender};
use crate::host_time::monotonic;
use crate::packing::{Compression, CopyPacker};
use crate::status::JoinProgress;
use crate::vcpu::{BegunCopy, BegunDisks, BegunSnapshot, SnapshotDisks};
use environment::mpsc::{self, Receiver, Sender};
use machine::memory::Extent;
use replication::ConnectionId;
use replication::succession::RunId;
use std::time::Duration;

/// The copy that is being made, if there is one.
#[derive(Default)]
pub(super) struct Copy {
    /// Takes the rounds after what it began with, of this pairing.
    rounds: Option<(u64, Sender<Round>)>,
    /// Nobody has connected for it yet.
    begun: Option<(u64, Beginning, Receiver<Round>)>,
    /// Who has connected for which pairing, before it was begun.
    fetcher: Option<(u64, Fetcher, Compression)>,
    sender: Option<SnapshotSender>,
}

impl Copy {
    /// How far it is.
    pub(super) fn progress(&self) -> Option<JoinProgress> {
        self.sender.as_ref().map(SnapshotSender::progress)
    }

    /// Whether none is being made.
    pub(super) fn is_idle(&self) -> bool {
        self.rounds.is_none() && self.begun.is_none() && self.sender.is_none()
    }

    /// Whether it is for this pairing.
    fn is_of(&self, pairing: u64) -> bool {
        self.rounds.as_ref().is_some_and(|(its, _)| *its == pairing)
    }

    /// A round of this pairing's, after what it began with.
    pub(super) fn round(&self, pairing: u64, round: Round) {
        if let Some((its, rounds)) = &self.rounds
            && *its == pairing
        {
            // Who sends them has failed, perhaps, and says so.
            let _sent = rounds.send(round);
        }
    }
}

impl PrimaryLoop {
    /// Begins what was asked for, when it may be.
    pub(super) fn begin_snapshots(&mut self) {
        match self.requests.begin(monotonic()) {
            Some(number) if self.is_journals(number) => {
                let disks = self.journals_disks(number);
                self.vcpu.snapshot(number, self.journals_extent(), disks);
            }
            Some(number) if self.keeping.is_its(number) => {
                self.vcpu
                    .snapshot(number, Extent::Whole, SnapshotDisks::Copied);
            }
            Some(pairing) => self.vcpu.copy(pairing, self.may_send_disks_first()),
            None => {}
        }
    }

    /// Whether whoever joins takes them: not a program of before.
    fn may_send_disks_first(&self) -> bool {
        let joiner = self.core.joining().map(|joiner| joiner.connection);
        joiner.is_some_and(|connection| self.host.takes_disks_first(connection))
    }

    /// A copy was begun, with its disks.
    pub(super) fn disks_begun(&mut self, begun: BegunDisks) {
        let pairing = begun.asks.pairing();
        if self.requests.taken(monotonic(), pairing, Duration::ZERO) {
            self.begin(pairing, Beginning::Disks(begun));
        }
    }

    /// The first round of a copy was begun.
    pub(super) fn copy_begun(&mut self, begun: BegunCopy) {
        self.snapshot_pause = self.snapshot_pause.max(begun.pause);
        let pairing = begun.pairing;
        if !self.requests.taken(monotonic(), pairing, begun.pause) {
            // Dropped here it is not taken any further.
            return;
        }
        match self.copy.is_of(pairing) {
            true => self.copy.round(pairing, Round::First(Box::new(begun))),
            false => self.begin(pairing, Beginning::Machine(begun)),
        }
    }

    fn begin(&mut self, pairing: u64, begun: Beginning) {
        let (sender, rounds) = mpsc::channel();
        self.copy.rounds = Some((pairing, sender));
        self.copy.begun = Some((pairing, begun, rounds));
        self.begin_sending();
    }

    /// A snapshot was begun: a journal's, or the last round of a copy.
    pub(super) fn snapshot_begun(&mut self, begun: Box<BegunSnapshot>) {
        let (number, count) = (begun.pairing, begun.count);
        self.snapshots_taken += 1;
        self.snapshot_pause = self.snapshot_pause.max(begun.pause);
        if !self.requests.taken(monotonic(), number, begun.pause) {
            return self.core.snapshot_is_late(number);
        }
        if self.is_journals(number) {
            self.journal_snapshot_begun(begun);
            return self.core.snapshot_taken(monotonic(), number, count);
        }
        if self.keeping.is_its(number) {
            return self.keeping_begun(begun);
        }
        self.core.snapshot_taken(monotonic(), number, count);
        self.copy.round(number, Round::Last(begun));
    }

    /// Somebody has connected for a snapshot's pieces.
    pub(super) fn is_asked(&mut self, connection: ConnectionId, pairing: u64, run: RunId) {
        let joining = self.core.joining();
        let Some(joiner) = joining.filter(|joiner| (joiner.pairing, joiner.run) == (pairing, run))
        else {
            return self.host.close(connection);
        };
        let compression = match self.host.unpacks(joiner.connection) {
            true => self.host.config.pair.compression,
            false => Compression::Never,
        };
        if let Some(fetcher) = self.host.take_fetcher(connection) {
            self.copy.fetcher = Some((pairing, fetcher, compression));
            self.begin_sending();
        }
    }

    /// Sends the copy, if there is one and somebody has connected for it.
    fn begin_sending(&mut self) {
        let pairing = self.copy.begun.as_ref().map(|(pairing, ..)| *pairing);
        let is_its = |fetcher: &mut (u64, Fetcher, Compression)| Some(fetcher.0) == pairing;
        let Some((pairing, fetcher, compression)) = self.copy.fetcher.take_if(is_its) else {
            return;
        };
        let Some((_, begun, rounds)) = self.copy.begun.take() else {
            return;
        };
        let mutations = self.host.pair_config.mutations;
        let waker = self.host.waker.clone();
        let started = CopyPacker::new(compression).and_then(|packer| {
            SnapshotSender::start(begun, rounds, fetcher, packer, mutations, waker)
        });
        match started {
            Ok(sender) => self.copy.sender = Some(sender),
            Err(error) => self.copy_failed(pairing, error.to_string()),
        }
    }

    fn copy_failed(&mut self, pairing: u64, reason: String) {
        self.drop_copy();
        let generation = self.core.status().generation.0;
        self.host
            .events
            .add("snapshot_failed", generation, 0, reason);
        self.core.snapshot_failed(monotonic(), pairing);
    }

    /// Takes what came of sending the copy.
    pub(super) fn copy_ended(&mut self) {
        let ended = self.copy.sender.as_ref().and_then(SnapshotSender::ended);
        let pairing = self.copy.sender.as_ref().map_or(0, SnapshotSender::pairing);
        match ended {
            Some(Ok(sent)) => {
                self.drop_copy();
                let generation = self.core.status().generation.0;
                let event = "snapshot_sent";
                self.host.events.add(event, generation, 0, sent.to_string());
            }
            Some(Err(reason)) => self.copy_failed(pairing, reason),
            None => return,
        }
        self.actions();
    }

    pub(super) fn drop_copy(&mut self) {
        self.requests.cancel();
        self.vcpu.cancel_snapshot();
        self.copy = Copy::default();
    }
}
