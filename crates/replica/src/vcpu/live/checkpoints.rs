//! Checkpoints of a live machine, for backups that execute nothing. `docs/decisions/state-transfer.md`.
//!
//! They are made from the snapshot on with which the first backup joins, until the event loop says that nobody is
//! left. Meanwhile outputs wait for the checkpoint that contains them, and no other record is made.

use super::super::messages::Step;
use super::{Flush, Live};
use crate::checkpoint::{Moment, Taken, Work};
use crate::host_time::monotonic_ns;
use machine::input::InstructionCount;
use machine::memory::BATCH_PAGES;
use std::sync::atomic::Ordering;

/// How checkpoints are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointOptions {
    /// Host time between two moments, nanoseconds, while something waits for the next.
    pub interval_ns: u64,
}

/// While nothing waits for it the next one may be so many intervals later.
const LAZY: u64 = 8;
/// What the guest wrote to its disks makes a checkpoint due at once; until one can be made the guest is not told
/// of the end of further requests.
const MOST_WRITTEN_BYTES: usize = 8 << 20;

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

    pub(super) fn changed(&mut self) {
        self.has_changed = true;
    }
}

impl Live<'_> {
    /// A backup begins with the snapshot that was begun here.
    pub(super) fn begin_checkpoints(&mut self, pairing: u64) {
        let count = self.guest.machine.instruction_count();
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
        self.guest.written_bytes() >= MOST_WRITTEN_BYTES
    }

    /// Requests that ended waited for a checkpoint, and wait no longer.
    pub(super) fn was_held_up(&self) -> bool {
        self.checkpoints.are_made() && self.guest.has_completions() && !self.has_written_too_much()
    }

    /// For how long no checkpoint is due, in nanoseconds; `None`: before something else happens, none is.
    pub(super) fn until_checkpoint_ns(&self) -> Option<u64> {
        let checkpoints = &self.checkpoints;
        let options = checkpoints.options.as_ref()?;
        if !checkpoints.are_made() || checkpoints.unheld > 0 {
            return None;
        }
        let is_awaited = !self.outputs.is_empty()
            || self.guest.has_written()
            || !checkpoints.presses.is_empty();
        let now_ns = monotonic_ns();
        let at_ns = |intervals: u64| checkpoints.began_ns + intervals * options.interval_ns;
        let due_ns = match (is_awaited, checkpoints.has_changed) {
            _ if self.has_written_too_much() => now_ns,
            (true, _) => at_ns(1),
            (false, true) => at_ns(LAZY),
            // One that stands still is compared as well, and heard of.
            (false, false) => self.digest_at_ns.max(at_ns(LAZY)),
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
        let now_ns = monotonic_ns();
        let digest = self.takes_digest(now_ns).then(|| {
            self.digest_at_ns = now_ns.saturating_add(self.options.digest_interval_ns);
            self.guest.machine.digest()
        });
        self.ends.pack(Work::Begin(self.checkpoints.reported));
        let state = self.take_pages();
        let machine = &*self.guest.machine;
        let taken = Taken {
            count: machine.instruction_count(),
            visible: machine.visible_outputs(),
            digest,
            presses: std::mem::take(&mut self.checkpoints.presses),
        };
        let (writes, entropy) = self.guest.take_written();
        let moment = Moment {
            state,
            writes,
            outputs: std::mem::take(&mut self.outputs),
            entropy,
        };
        self.urgent_since_ns = None;
        let checkpoints = &mut self.checkpoints;
        checkpoints.began_ns = now_ns;
        checkpoints.reported = taken.count;
        checkpoints.unheld += 1;
        checkpoints.has_changed = false;
        self.ends.pack(Work::End(Box::new(moment), taken));
        let gauges = &self.ends.gauges;
        let took_ns = monotonic_ns().saturating_sub(now_ns);
        gauges.checkpoints.fetch_add(1, Ordering::Relaxed);
        gauges.checkpoint_ns.fetch_add(took_ns, Ordering::Relaxed);
        gauges.longest_checkpoint_ns.fetch_max(took_ns, Ordering::Relaxed);
    }

    fn takes_digest(&self, now_ns: u64) -> bool {
        self.options.digest_interval_ns > 0 && now_ns >= self.digest_at_ns
    }

    /// The pages that were written since the last moment, and the state.
    fn take_pages(&mut self) -> Vec<u8> {
        let ends = self.ends;
        let mut batch = ends.empty_batch();
        let mut pages = 0;
        let state = self.guest.machine.take_checkpoint(&mut |index, bytes| {
            pages += 1;
            batch.add_any(index, bytes);
            if batch.len() == BATCH_PAGES {
                let full = std::mem::replace(&mut batch, ends.empty_batch());
                ends.pack(Work::Pages(full));
            }
        });
        ends.pack(Work::Pages(batch));
        ends.gauges.checkpoint_pages.fetch_add(pages, Ordering::Relaxed);
        state
    }

    /// Whoever pressed a button may be told when an output that was made here might leave.
    pub(super) fn tell_pressed(&mut self, press: u64) {
        self.flush(Flush::Whole);
        let machine = &self.guest.machine;
        self.steps.push(Step::Pressed {
            count: machine.instruction_count(),
            visible: machine.visible_outputs(),
            press,
        });
        self.flush(Flush::Whole);
    }
}
