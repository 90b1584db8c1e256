//! The RAM of a snapshot, on its way from a machine that runs on.
//!
//! The vcpu thread copies it in slices between its quanta, so that no page is ever touched by two
//! threads; the pages go through a bounded channel to whoever wants them. While the guest runs, copying
//! has a share of the time only; while it waits, all of it, in slices so short that an input hardly
//! waits for one. What the guest is about to write is copied before, however full the channel is: the
//! memory for that is bounded by slowing the guest ([`Copying::share`]).

use super::messages::{Command, LiveCommand};
use crate::host_time::monotonic_ns;
use environment::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use machine::Machine;
use machine::memory::{BATCH_PAGES, Capture, PAGE_SIZE, PageBatch};
use replication::lag::{FULL_SPEED, RunShare};
use thiserror::Error;

/// Batches of a megabyte that are on their way.
const UNDER_WAY: usize = 4;
/// Nothing is copied ahead while so many pages wait for the channel.
const AHEAD_PAGES: usize = 2 * BATCH_PAGES;
/// The guest runs four times as long as copying for it takes.
const RUN_PER_COPY: u64 = 4;
/// What copying may do at once while the guest runs…
const LONGEST_SLICE_NS: u64 = 1_000_000;
/// …and while it waits.
const IDLE_SLICE_NS: u64 = 300_000;
/// Pages between two looks at the time.
const PAGES_A_LOOK: usize = 16;
/// What the copy of a page takes, until it was measured.
const FIRST_PAGE_NS: u64 = 1_000;
/// …and is taken to take at most: a host that does something else in between must not make a page
/// seem so dear that the shortest slice has no room for a look's pages, for then nothing would be copied
/// or measured again.
const MOST_PAGE_NS: u64 = IDLE_SLICE_NS / (2 * PAGES_A_LOOK as u64);
/// The memory for pages that wait: a quarter of the machine's, and not less than this.
const LEAST_WAITING_BYTES: u64 = 64 << 20;

/// The machine is gone, and with it the pages that did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the machine went away while the snapshot was taken")]
pub struct PagesLost;

enum Piece {
    Pages(PageBatch),
    /// Those were all.
    End,
}

/// The pages of a snapshot, as they come. Who drops this ends the snapshot.
pub struct SnapshotPages {
    pieces: Receiver<Piece>,
    used: Sender<PageBatch>,
    /// Wakes the vcpu thread, which may have waited for room.
    look: Sender<Command>,
    pairing: u64,
}

impl SnapshotPages {
    /// The next ones; `None` after the last. Waits for them.
    ///
    /// # Errors
    /// [`PagesLost`]
    pub fn next_batch(&self) -> Result<Option<PageBatch>, PagesLost> {
        let piece = self.pieces.recv().map_err(|_| PagesLost)?;
        // A thread that has ended needs no room.
        let _sent = self.look.send(Command::Look);
        Ok(match piece {
            Piece::Pages(batch) => Some(batch),
            Piece::End => None,
        })
    }

    /// All of these pages are on their way, and whoever gets them is ready for what changed meanwhile.
    pub fn ask_next_round(&self) {
        let pairing = self.pairing;
        // Who comes to no next round says so elsewhere.
        let _sent = self
            .look
            .send(Command::Live(LiveCommand::NextRound { pairing }));
    }

    /// Gives the room of a batch back.
    pub fn reuse(&self, batch: PageBatch) {
        // Nobody needs it any more, perhaps.
        let _sent = self.used.send(batch);
    }
}

/// How far a slice of copying came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is more to do at once.
    More,
    /// The channel has no room.
    Waits,
    /// All pages have left, or nobody wants them.
    Done,
}

/// A snapshot under way, as the vcpu thread has it.
pub(super) struct Copying {
    pairing: u64,
    pieces: SyncSender<Piece>,
    used: Receiver<PageBatch>,
    /// What the channel had no room for.
    next: Option<Piece>,
    end_is_under_way: bool,
    /// What the copy of a page takes, smoothed.
    page_ns: u64,
    /// Time that copying may take of the guest's.
    granted_ns: u64,
    /// Pages kept when they were last counted.
    kept: u64,
    waiting_pages: usize,
    limit_pages: usize,
}

impl Copying {
    /// Of a snapshot that the machine has begun. `look` wakes the thread.
    pub fn begin(
        machine: &dyn Machine,
        pairing: u64,
        look: Sender<Command>,
    ) -> (Copying, SnapshotPages) {
        let (sender, pieces) = mpsc::sync_channel(UNDER_WAY);
        let (used, reused) = mpsc::channel();
        let memory = machine.board().memory_bytes;
        let copying = Copying {
            pairing,
            pieces: sender,
            used: reused,
            next: None,
            end_is_under_way: false,
            page_ns: FIRST_PAGE_NS,
            granted_ns: 0,
            kept: 0,
            waiting_pages: 0,
            limit_pages: (LEAST_WAITING_BYTES.max(memory / 4) / PAGE_SIZE) as usize,
        };
        let pages = SnapshotPages {
            pieces,
            used,
            look,
            pairing,
        };
        (copying, pages)
    }

    /// Whose snapshot it is.
    pub fn pairing(&self) -> u64 {
        self.pairing
    }

    /// The share of its time that the guest may run: less than all of it only when the pages that wait
    /// fill more than half of their memory.
    pub fn share(&self) -> RunShare {
        let left = self.limit_pages.saturating_sub(self.waiting_pages);
        let share = left * 2 * usize::from(FULL_SPEED) / self.limit_pages;
        share.min(usize::from(FULL_SPEED)) as RunShare
    }

    /// The guest ran for `ran_ns`: copies for the time that this grants.
    pub fn after_running(&mut self, machine: &mut dyn Machine, ran_ns: u64) -> Progress {
        self.granted_ns += ran_ns / RUN_PER_COPY;
        if let Some(capture) = machine.capture() {
            let kept =
                capture.kept_pages() - std::mem::replace(&mut self.kept, capture.kept_pages());
            self.granted_ns = self.granted_ns.saturating_sub(kept * self.page_ns);
        }
        let slice_ns = self.granted_ns.min(LONGEST_SLICE_NS);
        let began_ns = monotonic_ns();
        let progress = self.slice(machine, slice_ns);
        let took_ns = monotonic_ns().saturating_sub(began_ns);
        self.granted_ns = self.granted_ns.saturating_sub(took_ns);
        if progress != Progress::More {
            self.granted_ns = 0;
        }
        progress
    }

    /// The guest waits: copies for a little while.
    pub fn while_waiting(&mut self, machine: &mut dyn Machine) -> Progress {
        self.slice(machine, IDLE_SLICE_NS)
    }

    fn slice(&mut self, machine: &mut dyn Machine, slice_ns: u64) -> Progress {
        let Some(mut capture) = machine.capture() else {
            return Progress::Done;
        };
        let (mut now_ns, began_ns) = (monotonic_ns(), monotonic_ns());
        loop {
            if !self.hand_over(&mut capture) {
                return Progress::Done;
            }
            self.waiting_pages = capture.waiting_pages();
            let is_ahead = self.next.is_some() && self.waiting_pages >= AHEAD_PAGES;
            if is_ahead || capture.is_complete() {
                return if self.end_is_under_way && self.next.is_none() {
                    Progress::Done
                } else {
                    Progress::Waits
                };
            }
            if now_ns.saturating_sub(began_ns) + PAGES_A_LOOK as u64 * self.page_ns > slice_ns {
                return Progress::More;
            }
            let before_ns = now_ns;
            capture.copy(PAGES_A_LOOK);
            now_ns = monotonic_ns();
            let page_ns = now_ns.saturating_sub(before_ns) / PAGES_A_LOOK as u64;
            self.page_ns = (self.page_ns * 7 + page_ns.min(MOST_PAGE_NS)) / 8;
        }
    }

    /// Hands over what was copied, as far as there is room. False when nobody wants it.
    fn hand_over(&mut self, capture: &mut Capture<'_>) -> bool {
        while let Ok(batch) = self.used.try_recv() {
            capture.reuse(batch);
        }
        loop {
            let next = self.next.take().or_else(|| self.next_piece(capture));
            let Some(piece) = next else {
                return true;
            };
            match self.pieces.try_send(piece) {
                Ok(()) => {}
                Err(TrySendError::Full(piece)) => {
                    self.next = Some(piece);
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
    }

    fn next_piece(&mut self, capture: &mut Capture<'_>) -> Option<Piece> {
        if let Some(batch) = capture.take_batch() {
            return Some(Piece::Pages(batch));
        }
        if !capture.is_complete() || self.end_is_under_way {
            return None;
        }
        self.end_is_under_way = true;
        Some(Piece::End)
    }

    /// Nothing is kept any more, whether all pages have left or not. What waits is dropped on a thread
    /// of its own: that may be much.
    pub fn end(self, machine: &mut dyn Machine) {
        let waiting = machine.capture().map(Capture::end);
        let thread = environment::thread::Builder::new().name("discard".into());
        // A host without a thread to give drops it here and now.
        let _started = thread.spawn(move || drop((waiting, self)));
    }
}
