//! Compresses checkpoints, on a thread of its own beside the machine's.
//!
//! Everything that the machine's thread reports goes through it while there may be checkpoints, so that the order
//! is that in which it happened.

use super::{
    End, MOMENT_BYTES, Moment, PIECE_BYTES, TAG_DELTA, TAG_MOMENT, TAG_PAGE, TAG_ZERO, Taken,
};
use crate::vcpu::{LiveReport, Step, VisibleOutputs};
use crate::wake::Waker;
use environment::mpsc::{self, Receiver, Sender};
use environment::thread::JoinHandle;
use machine::memory::{PAGE_SIZE, PageBatch};
use replication::record::{InstructionCount, Record, RecordBody};
use replication::wire::put_varint;
use std::collections::{HashMap, VecDeque};
use std::io;
use xxhash_rust::xxh3::Xxh3;
use zstd::bulk::Compressor;

const PAGE: usize = PAGE_SIZE as usize;
/// Pages are sent as what changed since they were sent last, as long as that is remembered: so many.
const REMEMBERED_PAGES: usize = (64 << 20) / PAGE;
/// zstd's quickest level that is not "fast": see `docs/decisions/state-transfer.md` for what others came to.
const LEVEL: i32 = 1;

/// What the thread is given.
pub(crate) enum Work {
    /// To be passed on, and whether the event loop is to look at once.
    Report(LiveReport, bool),
    /// A copy of the machine begins here, which holds no page as it was sent.
    Forget,
    /// The pieces of a checkpoint begin; its records follow what was reported at this instruction count.
    Begin(InstructionCount),
    /// Pages of it.
    Pages(PageBatch),
    /// All its pages were given.
    End(Box<Moment>, Taken),
}

/// The thread, as the machine's has it. It ends, after everything that it was given, when this is dropped.
pub struct Packer {
    work: Option<Sender<Work>>,
    used: Receiver<PageBatch>,
    thread: Option<JoinHandle<()>>,
}

impl Packer {
    /// Starts it.
    ///
    /// # Errors
    /// The host gives no thread.
    pub(crate) fn start(
        reports: Sender<LiveReport>,
        waker: Waker,
        piece_bytes: usize,
    ) -> io::Result<Packer> {
        assert!(piece_bytes <= PIECE_BYTES, "no backup takes longer pieces");
        let (work, given) = mpsc::channel();
        let (give_back, used) = mpsc::channel();
        let packing = Packing {
            reports,
            waker,
            compressor: Compressor::new(LEVEL)?,
            remembered: Remembered::default(),
            hash: Xxh3::new(),
            items: Vec::with_capacity(piece_bytes + PAGE),
            piece_bytes,
            pieces: 0,
            base: InstructionCount::POWER_ON,
        };
        let thread = environment::thread::Builder::new()
            .name("checkpoint".into())
            .spawn(move || packing.serve(&given, &give_back))?;
        Ok(Packer {
            work: Some(work),
            used,
            thread: Some(thread),
        })
    }

    /// Gives it something, after everything that was given before.
    pub(crate) fn give(&self, work: Work) {
        if let Some(sender) = &self.work {
            // The thread ends only with this object.
            let _sent = sender.send(work);
        }
    }

    /// Room for pages.
    pub(crate) fn empty_batch(&self) -> PageBatch {
        let used = self.used.try_recv().ok();
        used.unwrap_or_else(|| PageBatch::with_capacity(machine::memory::BATCH_PAGES))
    }
}

impl Drop for Packer {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process.
            let _joined = thread.join();
        }
    }
}

/// Pages as they were sent last.
#[derive(Default)]
struct Remembered {
    pages: HashMap<u32, Box<[u8]>>,
    /// The oldest first.
    order: VecDeque<u32>,
}

impl Remembered {
    fn put(&mut self, index: u32, bytes: &[u8]) {
        if self.pages.len() >= REMEMBERED_PAGES
            && let Some(oldest) = self.order.pop_front()
        {
            self.pages.remove(&oldest);
        }
        self.pages.insert(index, bytes.into());
        self.order.push_back(index);
    }

    fn clear(&mut self) {
        self.pages.clear();
        self.order.clear();
    }
}

struct Packing {
    reports: Sender<LiveReport>,
    waker: Waker,
    compressor: Compressor<'static>,
    remembered: Remembered,
    hash: Xxh3,
    items: Vec<u8>,
    piece_bytes: usize,
    pieces: u32,
    base: InstructionCount,
}

impl Packing {
    fn serve(mut self, given: &Receiver<Work>, give_back: &Sender<PageBatch>) {
        while let Ok(work) = given.recv() {
            match work {
                Work::Report(report, wakes) => self.report(report, wakes),
                Work::Forget => self.remembered.clear(),
                Work::Begin(base) => {
                    self.base = base;
                    self.pieces = 0;
                    self.hash.reset();
                    self.items.clear();
                }
                Work::Pages(mut batch) => {
                    batch
                        .iter()
                        .for_each(|(index, bytes)| self.page(index, bytes));
                    batch.clear();
                    // The machine's thread may have ended.
                    let _sent = give_back.send(batch);
                }
                Work::End(moment, taken) => self.end(*moment, taken),
            }
        }
    }

    fn report(&self, report: LiveReport, wakes: bool) {
        // An event loop that has gone needs no reports.
        let _sent = self.reports.send(report);
        if wakes {
            self.waker.wake();
        }
    }

    fn page(&mut self, index: u32, bytes: &[u8]) {
        let is_zero = bytes.iter().all(|byte| *byte == 0);
        let mut head = [0; 5];
        head[1..].copy_from_slice(&index.to_le_bytes());
        match self.remembered.pages.get_mut(&index) {
            _ if is_zero => head[0] = TAG_ZERO,
            Some(_) => head[0] = TAG_DELTA,
            None => head[0] = TAG_PAGE,
        }
        self.items.extend_from_slice(&head);
        match (head[0], self.remembered.pages.get_mut(&index)) {
            (TAG_DELTA, Some(before)) => {
                let delta = before.iter().zip(bytes).map(|(old, new)| old ^ new);
                self.items.extend(delta);
                before.copy_from_slice(bytes);
            }
            (TAG_PAGE, _) => {
                self.items.extend_from_slice(bytes);
                self.remembered.put(index, bytes);
            }
            (_, Some(before)) => before.fill(0),
            (_, None) => {}
        }
        self.piece_if_full();
    }

    fn piece_if_full(&mut self) {
        if self.items.len() >= self.piece_bytes {
            let piece = self.piece();
            let report = LiveReport::Steps {
                steps: vec![piece],
                count: self.base,
            };
            self.report(report, true);
        }
    }

    /// The record of what is in the items.
    fn piece(&mut self) -> Step {
        self.hash.update(&self.items);
        let mut body = Vec::with_capacity(self.items.len() / 4);
        put_varint(&mut body, self.pieces.into());
        put_varint(&mut body, self.items.len() as u64);
        let compressed = self.compressor.compress(&self.items);
        // It fails for want of memory only, as any other vector does.
        body.extend(compressed.expect("there is memory for a piece"));
        self.items.clear();
        self.pieces += 1;
        Step::Record(Record {
            count: self.base,
            body: RecordBody::Piece(body),
        })
    }

    fn end(&mut self, moment: Moment, taken: Taken) {
        // Plain data in a growing vector.
        let encoded = postcard::to_stdvec(&moment).expect("a moment is plain data");
        for chunk in encoded.chunks(MOMENT_BYTES) {
            self.items.push(TAG_MOMENT);
            put_varint(&mut self.items, chunk.len() as u64);
            self.items.extend_from_slice(chunk);
            self.piece_if_full();
        }
        let mut steps = Vec::new();
        if !self.items.is_empty() {
            steps.push(self.piece());
        }
        let end = End {
            pieces: self.pieces,
            hash: self.hash.digest(),
        };
        let body = postcard::to_stdvec(&end).expect("two numbers are plain data");
        let Taken {
            count,
            visible,
            digest,
            presses,
            waited,
        } = taken;
        let record = |body| Step::Record(Record { count, body });
        steps.push(record(RecordBody::Checkpoint(body)));
        steps.extend(digest.map(|digest| record(RecordBody::Digest(digest))));
        steps.push(Step::Outputs(VisibleOutputs {
            count,
            visible,
            outputs: moment.outputs,
            waited,
        }));
        let pressed = presses.into_iter().map(|press| Step::Pressed {
            count,
            visible,
            press,
        });
        steps.extend(pressed);
        self.report(LiveReport::Steps { steps, count }, true);
    }
}
