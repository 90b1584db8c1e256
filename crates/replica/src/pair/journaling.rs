//! A primary's journal: what the core wants of it, and what it says.

use super::journal_chain::{LoadingSpeed, SnapshotChain, replay_within};
use super::primary::PrimaryLoop;
use crate::config::JournalPlace;
use crate::disk::DiskThread;
use crate::disk::overlay::LayerId;
use crate::host_time::{monotonic, monotonic_ns, rfc3339, unix_ns};
use crate::journal::{JournalDesk, JournalNews, Loading, WrittenSnapshot};
use crate::vcpu::{BegunSnapshot, DiskRead, SnapshotDisks};
use environment::mpsc::{self, Sender};
use machine::memory::Extent;
use replication::event::Event;
use replication::mutation::Mutation;
use replication::primary::{JournalStart, StoredRecords};
use replication::record::InstructionCount;
use replication::succession::JournalId;
use std::time::Duration;

/// The snapshot of a journal, on its way.
#[derive(Default)]
pub(super) struct JournalSnapshot {
    /// The journal's identity and its own number, from when it is asked for until it is there.
    asked: Option<(JournalId, u64)>,
    /// Those on which it builds; none: it is whole.
    base: Option<SnapshotChain>,
    /// Begun, and to be written.
    begun: Option<Box<BegunSnapshot>>,
    /// Tells who writes it that it may be found.
    counts: Option<Sender<()>>,
}

impl JournalSnapshot {
    /// Whether one was asked for and is not there yet.
    pub(super) fn is_under_way(&self) -> bool {
        self.asked.is_some()
    }
}

/// No machine is taken to replay more slowly than so many instructions a second.
const LEAST_SPEED: f64 = 100e6;
/// Snapshots of a journal take at most one part in so many of the time.
const SNAPSHOT_SHARE: u32 = 10;
/// It is looked so often whether another one is due, at most.
const LEAST_SPACING: Duration = Duration::from_secs(1);

/// In a bucket each commit is an object, and reading each takes as long as the way there and back: another snapshot
/// is due after so many.
const MOST_OBJECTS: u64 = 1000;

/// Another one is also due when so much was written to the disks since the last.
const LONGEST_LAYERS_BYTES: u64 = 1 << 30;

/// How long ago, as a replay counts, the snapshot of a journal was taken.
#[derive(Default)]
pub(super) struct JournalAge {
    /// Where the newest one that is whole was taken, and the one that is being written.
    snapshot_at: InstructionCount,
    next_at: InstructionCount,
    /// When it was begun.
    begun: Duration,
    not_before: Duration,
    /// How often something was made durable since then.
    commits: u64,
    /// The most instructions a second that the machine was seen to run: a replay waits for nothing.
    speed: f64,
    /// Bytes of the newest snapshot that is whole, and of those on which it builds.
    bytes: u64,
    loading: LoadingSpeed,
}

impl JournalAge {
    /// Of a machine that went on from a snapshot that was taken there, which took so long to read.
    pub fn since(count: InstructionCount, loading: Loading) -> JournalAge {
        JournalAge {
            snapshot_at: count,
            bytes: loading.bytes,
            loading: LoadingSpeed::measured(loading),
            ..JournalAge::default()
        }
    }

    fn begins(&mut self, now: Duration, count: InstructionCount) {
        self.next_at = count;
        self.commits = 0;
        self.begun = now;
    }

    fn asked(&mut self, now: Duration) {
        self.not_before = now + LEAST_SPACING;
    }

    fn snapshot_is_there(&mut self, now: Duration, chain: &SnapshotChain) {
        self.snapshot_at = self.next_at;
        self.bytes = chain.bytes();
        let took = now.saturating_sub(self.begun);
        self.not_before = now + LEAST_SPACING.max(took * SNAPSHOT_SHARE);
    }

    /// Whether reading so many objects would take long.
    fn has_many(&self) -> bool {
        self.commits >= MOST_OBJECTS
    }

    fn saw_speed(&mut self, instructions_per_second: f64) {
        self.speed = self.speed.max(instructions_per_second);
    }

    fn replays_in(&self, count: InstructionCount) -> Duration {
        let instructions = count.beyond(self.snapshot_at) as f64;
        Duration::from_secs_f64(instructions / self.speed.max(LEAST_SPEED))
    }

    fn loads_in(&self) -> Duration {
        self.loading.of(self.bytes)
    }

    fn is_free(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// Half of what is allowed is left for the snapshot itself, and for a host that is slower then; more of it where
    /// the snapshot is large.
    fn is_due(&self, now: Duration, count: InstructionCount, within: Duration) -> bool {
        self.is_free(now) && self.replays_in(count) >= replay_within(within, self.loads_in())
    }
}

impl PrimaryLoop {
    fn journal_desk(&self) -> &JournalDesk {
        let desk = self.host.journal.as_ref();
        desk.expect("the core keeps a journal only where one is configured")
    }

    /// A snapshot is to be taken for a journal. It builds on what is there, if that has become whole: from the moment at
    /// which it begins no other may build on that, as the machine knows only what changed since.
    pub(super) fn ask_journal_snapshot(&mut self, id: JournalId, number: u64) {
        let options = self.host.config.journal.as_ref();
        let within = options.map_or(Duration::ZERO, |options| options.recover_within);
        let speed = self.journal_age.loading;
        let base = self.journal_chain.take();
        let base = base.filter(|chain| chain.journal() == id);
        self.journal_snapshot = JournalSnapshot {
            asked: Some((id, number)),
            base: base.filter(|chain| chain.may_grow(speed, within)),
            begun: None,
            counts: None,
        };
        self.keeping.gives_way();
        self.requests.ask(number);
    }

    /// What of RAM is in the journal's snapshot.
    pub(super) fn journals_extent(&self) -> Extent {
        let mutations = self.host.pair_config.mutations;
        match self.journal_snapshot.base {
            None => Extent::Base,
            Some(_) if mutations.active(Mutation::JournalSharesAnEpoch) => Extent::Changes,
            Some(_) => Extent::Increment,
        }
    }

    /// What becomes of the disks at the journal's snapshot of this number.
    pub(super) fn journals_disks(&mut self, number: u64) -> SnapshotDisks {
        if !self.host.config.has_layers() {
            return SnapshotDisks::Untouched;
        }
        self.has_layers = true;
        // No other snapshot of any run has this name.
        let run = self.host.pair_config.greeting.run.0;
        SnapshotDisks::Layered(LayerId(run.wrapping_add(u128::from(number))))
    }

    /// Once no key says that a machine goes on from a journal here, the guest writes into the images again.
    pub(super) fn leave_layers(&mut self) {
        if self.has_layers
            && self.core.is_without_journal()
            && let Some(disks) = self.vcpu.thread().disk_thread()
        {
            self.has_layers = false;
            disks.leave_layers();
        }
    }

    /// The life is over, and nobody goes on from a journal of it.
    pub(super) fn end_layers(&mut self) {
        if let (true, Some(disks)) = (self.has_layers, self.vcpu.thread().disk_thread()) {
            disks.leave_layers();
        }
    }

    /// The guest was told that a disk failed: no replay of what came before comes to the same.
    pub(super) fn disk_error_was_told(&mut self) {
        let journal = self.core.journal().map(|journal| journal.id);
        if let (true, Some(id)) = (self.has_layers, journal) {
            let why = "the guest was told that a disk here failed, which no replay does again";
            self.core.journal_failed(monotonic(), id, why.into());
        }
    }

    /// Whether this snapshot is the journal's.
    pub(super) fn is_journals(&self, number: u64) -> bool {
        let asked = self.journal_snapshot.asked;
        asked.is_some_and(|(_, asked)| asked == number)
    }

    /// It was begun; the core says what journal it is for.
    pub(super) fn journal_snapshot_begun(&mut self, begun: Box<BegunSnapshot>) {
        self.journal_snapshot.begun = Some(begun);
    }

    pub(super) fn begin_journal(&mut self, start: JournalStart) {
        if let Some(begun) = self.journal_snapshot.begun.take() {
            self.journal_age.begins(monotonic(), start.place.count);
            let base = self.journal_snapshot.base.as_ref();
            let builds_on = base.map(SnapshotChain::newest);
            let (counts, may_count) = mpsc::channel();
            self.journal_desk()
                .begin(start, begun, builds_on, may_count);
            self.journal_snapshot.counts = Some(counts);
        }
    }

    /// All that was said before it has left.
    pub(super) fn journal_snapshot_counts(&mut self, id: JournalId) {
        let asked = self.journal_snapshot.asked;
        assert!(
            asked.is_some_and(|(of, _)| of == id),
            "nothing counts but the snapshot that was asked for"
        );
        if let Some(counts) = self.journal_snapshot.counts.take() {
            // Whoever wrote it may have failed.
            let _sent = counts.send(());
        }
    }

    pub(super) fn store(&self, id: JournalId, batches: Vec<StoredRecords>) {
        self.journal_desk().store(id, batches);
    }

    /// The record that tells of it follows.
    pub(super) fn keep_read(&mut self, read: DiskRead) {
        if let Some(id) = self.core.store_beside(read.data.len()) {
            self.journal_desk().keep_read(id, read);
        }
    }

    pub(super) fn end_journal(&mut self, id: JournalId) {
        self.journal_desk().end(id);
        let snapshot = std::mem::take(&mut self.journal_snapshot);
        if snapshot.is_under_way() {
            self.requests.cancel();
            self.vcpu.cancel_snapshot();
        }
    }

    /// Takes another snapshot when going on from the journal would take too long.
    pub(super) fn renew_journal(&mut self) {
        let Some(options) = &self.host.config.journal else {
            return;
        };
        let is_in_bucket = matches!(options.place, JournalPlace::Bucket(_));
        let (now, count) = (monotonic(), self.count());
        let speed = self.host.speed.per_second(monotonic_ns(), count.0);
        self.journal_age.saw_speed(speed);
        let disks = self.vcpu.thread().disk_thread();
        let layer_bytes = disks.map_or(0, DiskThread::layer_bytes);
        let is_due = self.journal_age.is_due(now, count, options.recover_within)
            || self.journal_age.is_free(now)
                && (layer_bytes >= LONGEST_LAYERS_BYTES
                    || is_in_bucket && self.journal_age.has_many());
        // One that somebody keeps would end.
        let is_due = is_due && !self.keeping.is_under_way();
        if is_due && self.core.renew_journal(now) {
            self.journal_age.asked(now);
            self.actions();
        }
    }

    /// It is there; another one may build on it.
    fn has_journal_snapshot(&mut self, id: JournalId, written: WrittenSnapshot) {
        // Of a journal that is kept no longer it is nothing to the one that is.
        let is_its = |snapshot: &JournalSnapshot| snapshot.asked.is_some_and(|(of, _)| of == id);
        if is_its(&self.journal_snapshot) {
            let JournalSnapshot { base, .. } = std::mem::take(&mut self.journal_snapshot);
            let chain = SnapshotChain::with(base, id, written);
            self.journal_age.snapshot_is_there(monotonic(), &chain);
            self.journal_chain = Some(chain);
        }
    }

    /// How long going on from the journal would take now.
    pub(super) fn recovers_in(&self) -> Duration {
        self.journal_age.loads_in() + self.journal_age.replays_in(self.count())
    }

    /// Tells, once, that what is to be durable waits for a place that does not answer, and that it answers again.
    fn journal_answers(&mut self, trouble: Option<String>) {
        let Some(desk) = &mut self.host.journal else {
            return;
        };
        if !desk.is_unanswered(trouble.clone()) {
            return;
        }
        let (event, detail) = match trouble {
            Some(why) => (
                "journal_unanswered",
                format!(
                    "{} does not answer, and is asked again: {why}",
                    desk.place()
                ),
            ),
            None => ("journal_answers", String::new()),
        };
        let generation = self.core.generation().0;
        self.host.events.add(event, generation, 0, detail);
    }

    /// What failed for want of an answer failed for the reason that there is none.
    pub(super) fn with_silence(&self, event: Event) -> Event {
        let desk = self.host.journal.as_ref();
        let silence = desk.and_then(|desk| Some((desk.place(), desk.unanswered()?.to_owned())));
        match (event, silence) {
            (Event::JournalFailed { id, why, again_in }, Some((place, silence))) => {
                let why = format!("{why}; {place} does not answer: {silence}");
                Event::JournalFailed { id, why, again_in }
            }
            (event, _) => event,
        }
    }

    /// That none is kept though one is configured shows until one is kept again, for as long as that may be.
    pub(super) fn note_journal(&mut self, event: &Event) {
        match event {
            Event::JournalFailed { why, again_in, .. } => {
                let again_ns = unix_ns().saturating_add(again_in.as_nanos() as u64);
                self.journal_trouble = Some(format!(
                    "NO JOURNAL is kept, though one is configured: if all hosts are lost, so is the machine: {why}. Another one is \
                     begun from {} on",
                    rfc3339(again_ns)
                ));
            }
            Event::JournalInForce { .. } | Event::JournalKept { .. } => self.journal_trouble = None,
            _ => {}
        }
    }

    /// Takes what happened to it.
    pub(super) fn journal_news(&mut self) {
        while let Some(news) = self.host.journal.as_ref().and_then(JournalDesk::news) {
            let now = monotonic();
            match news {
                JournalNews::HasSnapshot(id, written) => {
                    self.journal_desk().trim(id, written.is.segment);
                    self.has_journal_snapshot(id, written);
                    self.core.journal_has_snapshot(now, id);
                }
                JournalNews::Durable(id, record) => {
                    self.journal_answers(None);
                    self.journal_age.commits += 1;
                    self.core.journal_durable(now, id, record);
                }
                JournalNews::Trimmed(_, kept) => {
                    if let Some(desk) = &mut self.host.journal {
                        desk.keeps(kept);
                    }
                }
                JournalNews::Waits(_, why) => self.journal_answers(Some(why)),
                JournalNews::Moves(id) => self.core.journal_moves(now, id),
                JournalNews::NotTrimmed(_, why) => {
                    let detail = format!(
                        "what is too old cannot be removed from the journal, and stays until the next snapshot: {why}"
                    );
                    self.host.events.add("journal_not_trimmed", 0, 0, detail);
                }
                JournalNews::Failed(id, why) => {
                    if let Some(desk) = &mut self.host.journal {
                        desk.is_unanswered(None);
                    }
                    self.core.journal_failed(now, id, why);
                }
            }
            self.actions();
        }
    }
}
