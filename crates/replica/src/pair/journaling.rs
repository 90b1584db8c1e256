//! A primary's journal: what the core wants of it, and what it says.

use super::primary::PrimaryLoop;
use crate::host_time::monotonic;
use crate::journal::{JournalDesk, JournalNews};
use crate::vcpu::BegunSnapshot;
use replication::primary::{JournalStart, StoredRecords};
use replication::succession::JournalId;

/// The snapshot of a journal, on its way.
#[derive(Default)]
pub(super) struct JournalSnapshot {
    /// Its number, from when it is asked for until it is there.
    number: Option<u64>,
    /// Begun, and to be written.
    begun: Option<Box<BegunSnapshot>>,
}

impl PrimaryLoop {
    fn journal_desk(&self) -> &JournalDesk {
        let desk = self.host.journal.as_ref();
        desk.expect("the core keeps a journal only where one is configured")
    }

    /// A snapshot is to be taken for a journal.
    pub(super) fn ask_journal_snapshot(&mut self, number: u64) {
        self.journal_snapshot.number = Some(number);
        self.requests.ask(number);
    }

    /// Whether this snapshot is the journal's.
    pub(super) fn is_journals(&self, number: u64) -> bool {
        self.journal_snapshot.number == Some(number)
    }

    /// It was begun; the core says what journal it is for.
    pub(super) fn journal_snapshot_begun(&mut self, begun: Box<BegunSnapshot>) {
        self.journal_snapshot.begun = Some(begun);
    }

    pub(super) fn begin_journal(&mut self, start: JournalStart) {
        if let Some(begun) = self.journal_snapshot.begun.take() {
            self.journal_desk().begin(start, begun);
        }
    }

    pub(super) fn store(&self, id: JournalId, batches: Vec<StoredRecords>) {
        self.journal_desk().store(id, batches);
    }

    pub(super) fn end_journal(&mut self, id: JournalId) {
        self.journal_desk().end(id);
        let snapshot = std::mem::take(&mut self.journal_snapshot);
        if snapshot.number.is_some() {
            self.requests.cancel();
            self.vcpu.cancel_snapshot();
        }
    }

    /// Takes what happened to it.
    pub(super) fn journal_news(&mut self) {
        while let Some(news) = self.host.journal.as_ref().and_then(JournalDesk::news) {
            let now = monotonic();
            match news {
                JournalNews::HasSnapshot(id) => {
                    self.journal_snapshot = JournalSnapshot::default();
                    self.core.journal_has_snapshot(now, id);
                }
                JournalNews::Durable(id, sequence) => {
                    self.core.journal_durable(now, id, sequence);
                }
                JournalNews::Failed(id, why) => self.core.journal_failed(now, id, why),
            }
            self.actions();
        }
    }
}
