//! Checkpoints of a live machine, for backups that execute nothing. `docs/decisions/state-transfer.md`.
//!
//! They are made from the snapshot on with which the first backup joins, until the event loop says that nobody is
//! left. Meanwhile outputs wait for the checkpoint that contains them, and no other record is made.

use super::super::messages::Step;
use super::{Flush, Live};
use crate::checkpoint::{Moment, PIECE_BYTES, Taken, Work};
use crate::host_time::monotonic_ns;
use machine::memory::{BATCH_PAGES, Extent, PageBatch};
use replication::guest::Guest;
use replication::record::InstructionCount;
use std::time::Duration;

/// How checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// Host time between two moments, nanoseconds, while something waits for the next.
    pub interval_ns: u64,
    /// One of at most so many pages is taken at once. Of a larger one half as many are taken at its moment, while
    /// the guest stands still, and the others while it runs.
    pub pages_at_once: usize,
    /// Bytes of a piece, before it is compressed.
    pub piece_bytes: usize,
    /// Bytes written to disks that make one due at once; until it can be made the guest is not told of the end of
    /// further requests.
    pub written_bytes: usize,
}

impl CheckpointOptions {
    /// Usual ones, so often.
    pub fn every(interval: Duration) -> CheckpointOptions {
        CheckpointOptions {
            interval_ns: interval.as_nanos() as u64,
            // That takes less time than a quantum or two.
            pages_at_once: 512,
            // One message of the channel, once it is compressed.
            piece_bytes: PIECE_BYTES,
            written_bytes: 8 << 20,
        }
    }
}

/// While nothing waits for it the next one may be so many intervals later, but no later than a digest.
const LAZY: u64 = 20;

/// For how long the outputs have waited that wait now.
#[derive(Default)]
pub(super) struct OutputWaits {
    outputs: u64,
    /// When they were made, in nanoseconds: the sum.
    made_ns: u128,
}

impl OutputWaits {
    /// So many more are made.
    pub(super) fn add(&mut self, outputs: usize, now_ns: u64) {
        self.outputs += outputs as u64;
        self.made_ns += u128::from(now_ns) * outputs as u128;
    }

    /// On average until then.
    fn mean_until(self, now_ns: u64) -> Duration {
        let mean_ns = self.made_ns.checked_div(self.outputs.into());
        let mean_ns = mean_ns.map_or(now_ns, |mean_ns| mean_ns as u64);
        Duration::from_nanos(now_ns.saturating_sub(mean_ns))
    }
}

/// The guest runs so many times as long as copying for a checkpoint takes, once that is under way: outputs wait
/// for it.
const RUN_PER_COPY: u64 = 2;
/// What is copied at once while the guest waits: an input hardly waits for that.
const IDLE_SLICE_NS: u64 = 300_000;
/// Batches of a megabyte that are kept for the next one.
const SPARE_BATCHES: usize = 8;
/// Pages between two looks at the time.
const PAGES_A_LOOK: usize = 16;

/// How far checkpoints are.
#[derive(Default)]
pub(super) struct Checkpoints {
    options: Option<CheckpointOptions>,
    /// The newest pairing with whose snapshot they began; `None` while there are none.
    since: Option<u64>,
    /// The last moment.
    began_ns: u64,
    /// So many are not held by everybody.
    unheld: u32,
    /// The instruction count of the last report.
    reported: InstructionCount,
    /// An input took effect, or the guest ran, since the last moment.
    has_changed: bool,
    /// Buttons that took effect since then.
    presses: Vec<u64>,
    /// The one of which pages are still being taken.
    under_way: Option<(Box<Moment>, Taken)>,
    /// Room for the pages of the next one.
    spare: Vec<PageBatch>,
}

impl Checkpoints {
    pub(super) fn new(options: Option<CheckpointOptions>) -> Checkpoints {
        Checkpoints {
            options,
            ..Checkpoints::default()
        }
    }

    /// Whether no record tells what the machine is made to do.
    pub(super) fn replace_records(&self) -> bool {
        self.options.is_some()
    }

    /// Whether outputs wait for one.
    pub(super) fn are_made(&self) -> bool {
        self.since.is_some()
    }

    fn pages_at_once(&self) -> usize {
        self.options.map_or(0, |options| options.pages_at_once)
    }

    pub(super) fn changed(&mut self) {
        self.has_changed = true;
    }
}

impl Live<'_> {
    /// A backup begins with the snapshot that was begun here.
    pub(super) fn begin_checkpoints(&mut self, pairing: u64) {
        let count = self.guest.instruction_count();
        let checkpoints = &mut self.checkpoints;
        if checkpoints.options.is_none() {
            return;
        }
        if checkpoints.since.replace(pairing).is_none() {
            self.guest.machine.begin_checkpoints();
            self.guest.keep_written();
            checkpoints.began_ns = monotonic_ns();
            checkpoints.has_changed = false;
        }
        checkpoints.reported = count;
        // What it has of a page is not what was sent last.
        self.ends.pack(Work::Forget);
    }

    /// Nobody is left who began with a snapshot up to this pairing's.
    pub(super) fn end_checkpoints(&mut self, pairing: u64) {
        if self.checkpoints.since.is_none_or(|since| since > pairing) {
            return;
        }
        self.finish_checkpoint();
        self.checkpoints.since = None;
        self.guest.forget_written();
        self.ends.pack(Work::Forget);
        self.flush(Flush::Whole);
        for press in std::mem::take(&mut self.checkpoints.presses) {
            self.tell_pressed(press);
        }
    }

    /// All members hold the oldest of which that was not known.
    pub(super) fn checkpoint_held(&mut self) {
        assert!(self.checkpoints.unheld > 0, "each is held once");
        self.checkpoints.unheld -= 1;
    }

    /// A button took effect: whoever pressed it is told when what the machine did until then is held.
    pub(super) fn pressed_before_checkpoint(&mut self, press: u64) {
        self.checkpoints.presses.push(press);
    }

    /// The guest's disks have done as much as a checkpoint can take along.
    pub(super) fn has_written_too_much(&self) -> bool {
        let most = self
            .checkpoints
            .options
            .map(|options| options.written_bytes);
        most.is_some_and(|most| self.guest.written_bytes() >= most)
    }

    /// Requests that ended waited for a checkpoint, and wait no longer.
    pub(super) fn was_held_up(&self) -> bool {
        self.checkpoints.are_made() && self.guest.has_completions() && !self.has_written_too_much()
    }

    /// For how long no checkpoint is due, in nanoseconds; `None`: before something else happens, none is.
    pub(super) fn until_checkpoint_ns(&self) -> Option<u64> {
        let checkpoints = &self.checkpoints;
        let options = checkpoints.options.as_ref()?;
        if !checkpoints.are_made() || checkpoints.unheld > 0 || checkpoints.under_way.is_some() {
            return None;
        }
        let is_awaited =
            !self.outputs.is_empty() || self.guest.has_written() || !checkpoints.presses.is_empty();
        let now_ns = monotonic_ns();
        let lazy_ns = match (LAZY * options.interval_ns, self.options.digest_interval_ns) {
            (lazy_ns, 0) => lazy_ns,
            (lazy_ns, digest_ns) => lazy_ns.min(digest_ns.max(options.interval_ns)),
        };
        let due_ns = match (is_awaited, checkpoints.has_changed) {
            _ if self.has_written_too_much() => now_ns,
            (true, _) => checkpoints.began_ns + options.interval_ns,
            (false, true) => checkpoints.began_ns + lazy_ns,
            // One that stands still is compared as well, and heard of.
            (false, false) => self.digest_at_ns.max(checkpoints.began_ns + lazy_ns),
        };
        Some(due_ns.saturating_sub(now_ns))
    }

    /// Makes a checkpoint, if one is due and can be made.
    pub(super) fn checkpoint_when_due(&mut self) {
        if self.until_checkpoint_ns() == Some(0) {
            self.checkpoint();
        }
    }

    /// Makes one, due or not.
    pub(super) fn checkpoint(&mut self) {
        self.finish_checkpoint();
        let now_ns = monotonic_ns();
        let digest = self.takes_digest(now_ns).then(|| {
            self.digest_at_ns = now_ns.saturating_add(self.options.digest_interval_ns);
            self.guest.machine.digest()
        });
        self.ends.pack(Work::Begin(self.checkpoints.reported));
        let pages = self.guest.machine.pages_since_checkpoint();
        // There is one capture at a time, and a copy for a backup that joins takes long.
        let most = self.checkpoints.pages_at_once();
        let at_once = pages <= most || self.is_copying();
        let state = match at_once {
            true => self.take_pages(),
            false => self.begin_pages(most / 2),
        };
        let machine = &*self.guest.machine;
        let taken = Taken {
            count: InstructionCount(machine.instruction_count()),
            visible: machine.visible_outputs(),
            digest,
            presses: std::mem::take(&mut self.checkpoints.presses),
            waited: std::mem::take(&mut self.output_waits).mean_until(now_ns),
        };
        let (writes, entropy) = self.guest.take_written();
        let moment = Box::new(Moment {
            state,
            writes,
            outputs: std::mem::take(&mut self.outputs),
            entropy,
        });
        self.urgent_since_ns = None;
        let checkpoints = &mut self.checkpoints;
        checkpoints.began_ns = now_ns;
        checkpoints.reported = taken.count;
        checkpoints.unheld += 1;
        checkpoints.has_changed = false;
        match at_once {
            true => self.ends.pack(Work::End(moment, taken)),
            false => checkpoints.under_way = Some((moment, taken)),
        }
        let took_ns = monotonic_ns().saturating_sub(now_ns);
        self.ends.gauges.checkpoint_made(pages, took_ns);
    }

    /// The guest ran for so long: takes the checkpoint that is under way along.
    pub(super) fn checkpoint_after_running(&mut self, ran_ns: u64) {
        if self.checkpoints.under_way.is_some() {
            let pages = self.checkpoints.pages_at_once();
            self.copy_for_checkpoint(pages, ran_ns / RUN_PER_COPY);
        }
    }

    /// The guest waits: takes it along. True if it needs more time.
    pub(super) fn checkpoint_while_waiting(&mut self) -> bool {
        let pages = self.checkpoints.pages_at_once();
        self.checkpoints.under_way.is_some() && !self.copy_for_checkpoint(pages, IDLE_SLICE_NS)
    }

    /// Takes all that is left of the one that is under way.
    pub(super) fn finish_checkpoint(&mut self) {
        if self.checkpoints.under_way.is_some() {
            self.copy_for_checkpoint(usize::MAX, u64::MAX);
        }
    }

    /// Copies so many pages at most, for so long at most; says whether those were all.
    fn copy_for_checkpoint(&mut self, most: usize, slice_ns: u64) -> bool {
        let began_ns = monotonic_ns();
        let mut left = most;
        let ends = self.ends;
        loop {
            let mut capture = self.guest.machine.capture();
            let capture = capture.as_mut().expect("a checkpoint is under way");
            capture.copy(left.min(PAGES_A_LOOK));
            left = left.saturating_sub(PAGES_A_LOOK);
            while let Some(batch) = capture.take_batch() {
                ends.pack(Work::Pages(batch));
                capture.reuse(ends.empty_batch());
            }
            if capture.is_complete() {
                break;
            }
            if left == 0 || monotonic_ns().saturating_sub(began_ns) >= slice_ns {
                return false;
            }
        }
        if let Some(capture) = self.guest.machine.capture() {
            for mut batch in capture.end() {
                batch.clear();
                self.checkpoints.spare.push(batch);
            }
            self.checkpoints.spare.truncate(SPARE_BATCHES);
        }
        if let Some((moment, taken)) = self.checkpoints.under_way.take() {
            ends.pack(Work::End(moment, taken));
        }
        true
    }

    /// Marks the pages that were written since the last moment, and gives the state.
    fn begin_pages(&mut self, at_its_moment: usize) -> Vec<u8> {
        let machine = &mut *self.guest.machine;
        let head = machine.begin_snapshot(Extent::Checkpoint);
        if let Some(mut capture) = machine.capture() {
            for batch in self.checkpoints.spare.drain(..) {
                capture.reuse(batch);
            }
            capture.copy(at_its_moment);
        }
        head.into_state()
    }

    fn takes_digest(&self, now_ns: u64) -> bool {
        self.options.digest_interval_ns > 0 && now_ns >= self.digest_at_ns
    }

    /// The pages that were written since the last moment, and the state.
    fn take_pages(&mut self) -> Vec<u8> {
        let ends = self.ends;
        let mut batch = ends.empty_batch();
        let state = self.guest.machine.take_checkpoint(&mut |index, bytes| {
            batch.add_any(index, bytes);
            if batch.len() == BATCH_PAGES {
                let full = std::mem::replace(&mut batch, ends.empty_batch());
                ends.pack(Work::Pages(full));
            }
        });
        ends.pack(Work::Pages(batch));
        state
    }

    /// Whoever pressed a button may be told when an output that was made here might leave.
    pub(super) fn tell_pressed(&mut self, press: u64) {
        self.flush(Flush::Whole);
        let machine = &self.guest.machine;
        self.steps.push(Step::Pressed {
            count: InstructionCount(machine.instruction_count()),
            visible: machine.visible_outputs(),
            press,
        });
        self.flush(Flush::Whole);
    }
}
