//! The guest of a simulated replica: a machine of a page or two, whose every output depends on all
//! inputs so far and on the instruction counts at which they came.

use super::guest_disk::{DiskNews, GuestDisk, SECTORS};
use super::shared::{ProcessId, Shared};
use crate::guest::StubOutput;
use crate::random::mix;
use machine::clock::Clock;
use machine::config::{BoardConfig, DiskConfig, NetworkConfig};
use machine::engine::Engine;
use machine::input::{ClockRecord, Input, InstructionCount};
use machine::memory::{Capture, Consumer, Extent, OutsideRam, PAGE_SIZE, PageBatch, Ram, Region};
use machine::output::{DiskRequest, Finish, Output, Outputs};
use machine::snapshot::{Snapshot, SnapshotError, SnapshotHead, SnapshotReader, replace_pages};
use machine::{Failure, InjectError, Machine, Stop};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

/// The guest's Ethernet address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// That of the clients.
const CLIENT: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// For experiments (IEEE 802, table of EtherTypes): everything else is none of the guest's.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
/// As architectures have.
const NAME: &str = "simulated";
/// As architectures have.
pub const SEMANTICS: u32 = 1;
/// Bytes of RAM.
pub const MEMORY_BYTES: u64 = 64 * PAGE_SIZE;
/// Where in memory the sum of the first words of all pages is kept.
const SUM_AT: usize = 8;
/// Instructions that it works after each request.
const WORK: u64 = 20_000;
/// Between two outputs that nobody asked for, in nanoseconds of guest time.
const SPACING_NS: u64 = 40_000_000;
/// Host time that an instruction takes, in picoseconds.
const INSTRUCTION_PS: u64 = 50_000;
/// So many a second of a host that is as fast as it can be.
pub const INSTRUCTIONS_A_SECOND: u64 = 1_000_000_000_000 / INSTRUCTION_PS;

const RAM: Region = Region {
    base: 0,
    length: MEMORY_BYTES,
};

/// A request as a frame.
pub fn request_frame(request: u64) -> Vec<u8> {
    frame(MAC, CLIENT, &[request])
}

fn frame(to: [u8; 6], from: [u8; 6], words: &[u64]) -> Vec<u8> {
    let mut frame = [&to[..], &from[..], &ETHERTYPE[..]].concat();
    frame.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    frame
}

/// The words in a frame, if it is the guest's or its clients'.
fn words(frame: &[u8]) -> Option<Vec<u64>> {
    let payload = frame.get(14..)?;
    if frame[12..14] != ETHERTYPE || !payload.len().is_multiple_of(8) {
        return None;
    }
    let word = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    payload.chunks(8).map(word).collect()
}

/// What the guest says in this frame, and what of its disk.
pub fn said(frame: &[u8]) -> Option<(StubOutput, DiskNews)> {
    let words = words(frame)?;
    let [index, previous, content, answers, ref news @ ..] = words[..] else {
        return None;
    };
    let news = DiskNews::read(news)?;
    let output = StubOutput {
        index,
        previous,
        content,
        answers,
        durable: news.durable,
    };
    Some((output, news))
}

/// Whether the frame tells the network where the guest is: a reverse ARP request of its own address to
/// everybody (RFC 903).
pub fn is_announcement(frame: &[u8]) -> bool {
    let Some((head, arp)) = frame.split_at_checked(14) else {
        return false;
    };
    head[..6] == [0xff; 6]
        && head[6..12] == MAC
        && head[12..] == [0x80, 0x35]
        && arp.get(..8) == Some(&[0, 1, 8, 0, 6, 4, 0, 3])
        && arp.get(8..14) == Some(&MAC)
}

/// The machine.
pub struct SimulatedMachine {
    board: BoardConfig,
    ram: Ram,
    outputs: Outputs,
    clock: Clock,
    words: Words,
    finish: Option<Finish>,
    /// So many times slower this host is than others. Not part of the state.
    pub slowness: u64,
    /// Who is told what is done to it. Not part of the state.
    pub watcher: Option<(Arc<Shared>, ProcessId)>,
    /// Who knows of bits of its memory that flip. Not part of the state.
    pub may_differ: Option<(Arc<Shared>, ProcessId)>,
    /// It keeps a sum of its memory there, and whoever has it is told when that is wrong: memory of two moments.
    /// The same on all hosts.
    pub sums: Option<(Arc<Shared>, ProcessId)>,
}

/// What is neither RAM nor clock.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Words {
    count: u64,
    state: u64,
    chain: u64,
    /// Instructions that it works before it answers.
    work: u64,
    /// The request that it works for.
    request: u64,
    /// Requests that wait.
    waiting: Vec<u64>,
    /// Guest time of the next output that nobody asked for.
    timer_ns: u64,
    unix_base_ns: u64,
    paused: bool,
    disk: GuestDisk,
}

impl SimulatedMachine {
    /// At power-on, with or without a disk.
    pub fn power_on(has_disk: bool) -> SimulatedMachine {
        let words = Words {
            state: mix(7),
            chain: mix(8),
            timer_ns: SPACING_NS,
            disk: GuestDisk::new(if has_disk { SECTORS } else { 0 }),
            ..Words::default()
        };
        SimulatedMachine::new(Ram::new(&[RAM]), words, Clock::new(), Outputs::default())
    }

    fn new(ram: Ram, words: Words, clock: Clock, outputs: Outputs) -> SimulatedMachine {
        let disk = DiskConfig {
            sectors: words.disk.sectors(),
            read_only: false,
            serial: "simulated".into(),
        };
        SimulatedMachine {
            board: BoardConfig {
                memory_bytes: MEMORY_BYTES,
                harts: 1,
                network: vec![NetworkConfig { mac: MAC }],
                disks: Some(disk)
                    .filter(|disk| disk.sectors > 0)
                    .into_iter()
                    .collect(),
                virtio_console: false,
                entropy: false,
                transport: Default::default(),
            },
            ram,
            outputs,
            clock,
            words,
            finish: None,
            slowness: 1,
            watcher: None,
            may_differ: None,
            sums: None,
        }
    }

    /// The machine of a snapshot.
    pub fn restore(snapshot: &mut dyn Read) -> Result<SimulatedMachine, Failure> {
        let mut reader = SnapshotReader::open(snapshot)?;
        let ram = reader.ram(&[RAM])?;
        let state = reader.state(NAME, SEMANTICS)?;
        let (words, clock, outputs) = postcard::from_bytes(state)?;
        Ok(SimulatedMachine::new(ram, words, clock, outputs))
    }

    fn encode(&self) -> Vec<u8> {
        // Plain data in a growing vector: it cannot fail.
        postcard::to_stdvec(&(&self.words, &self.clock, &self.outputs))
            .expect("the state is plain data")
    }

    /// Something happened: it is in the state, and in some page of RAM.
    fn note(&mut self, value: u64) {
        let state = mix(self.words.state ^ value ^ self.words.count.rotate_left(17));
        self.words.state = state;
        let page = state % (MEMORY_BYTES / PAGE_SIZE);
        let at = (page * PAGE_SIZE) as usize;
        if self.sums.is_some() {
            let sum = self.ram.load_u64(SUM_AT).wrapping_add(state);
            let sum = sum.wrapping_sub(self.ram.load_u64(at));
            self.ram.store(SUM_AT, 8, sum);
        }
        self.ram.store(at, 8, state);
    }

    /// The sum that it keeps of its pages is theirs.
    fn check_sum(&self) {
        if let Some((shared, process)) = &self.sums {
            let words = (0..MEMORY_BYTES / PAGE_SIZE).map(|page| page * PAGE_SIZE);
            let words = words.map(|at| self.ram.load_u64(at as usize));
            if words.fold(0, u64::wrapping_add) != self.ram.load_u64(SUM_AT) {
                let what = format!(
                    "process {} has a machine with memory of two moments",
                    process.0
                );
                shared.lock().observer.broken(what);
            }
        }
    }

    /// A bit of its memory flips.
    pub(super) fn flip(&mut self, flip: u64) {
        let place = super::differing::place(flip);
        self.ram.store(place as usize, 8, 1);
    }

    fn speak(&mut self, answers: u64) {
        self.check_sum();
        let previous = self.words.chain;
        let index = self.outputs.visible() + 1;
        self.words.chain = mix(previous ^ self.words.state ^ index);
        let mut said = vec![index, previous, self.words.chain, answers];
        said.extend(self.words.disk.news().words());
        self.outputs.network_frame(0, frame(CLIENT, MAC, &said));
        for request in self.words.disk.wants(self.words.state, answers != 0) {
            self.outputs.other(Output::Disk(request));
        }
    }

    fn next_request(&mut self) {
        if self.words.work == 0 && !self.words.waiting.is_empty() {
            self.words.request = self.words.waiting.remove(0);
            self.words.work = WORK;
        }
    }
}

impl Machine for SimulatedMachine {
    fn run(&mut self, until: InstructionCount) -> Stop {
        if let Some(finish) = self.finish {
            return Stop::Finished(finish);
        }
        self.flip_when_due();
        loop {
            if !self.outputs.is_empty() {
                return Stop::Output;
            }
            if self.words.count >= until {
                return Stop::Reached;
            }
            if self.words.paused {
                return Stop::Idle { wake_at_ns: None };
            }
            if self.clock.time_ns(self.words.count) >= self.words.timer_ns {
                // It works before it speaks: an output comes after some instruction.
                let now_ns = self.clock.time_ns(self.words.count);
                self.words.timer_ns = now_ns + SPACING_NS;
                self.note(now_ns);
                self.words.waiting.push(0);
            }
            self.next_request();
            if self.words.work == 0 {
                let wake_at_ns = Some(self.words.timer_ns);
                return Stop::Idle { wake_at_ns };
            }
            let timer = self.clock.count_at(self.words.timer_ns);
            let step = self
                .words
                .work
                .min(until - self.words.count)
                .min(timer.saturating_sub(self.words.count).max(1));
            self.words.count += step;
            self.words.work -= step;
            environment::thread::sleep(Duration::from_nanos(
                step * INSTRUCTION_PS / 1000 * self.slowness,
            ));
            if self.words.work == 0 {
                self.note(self.words.request);
                self.speak(self.words.request);
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.words.paused
    }

    fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        match input {
            Input::NetworkFrame { frame, .. } => {
                if let Some([request]) = words(frame).as_deref() {
                    self.note(*request);
                    self.words.waiting.push(*request);
                }
            }
            Input::Clock(record) => {
                self.clock.set(self.words.count, *record)?;
                self.note(record.time_ns);
            }
            Input::Calendar { unix_base_ns } => {
                self.words.unix_base_ns = *unix_base_ns;
                self.note(*unix_base_ns);
            }
            Input::PowerButton => {
                self.note(1);
                self.finish = Some(Finish::PowerOff);
            }
            Input::Pause | Input::Resume => self.words.paused = *input == Input::Pause,
            Input::DiskCompletion {
                device: _,
                request,
                status,
                data,
            } => {
                let has_news = self.words.disk.completed(*request, *status, data)?;
                self.note(*request);
                if has_news {
                    self.words.waiting.push(0);
                }
            }
            Input::ConsoleBytes { .. } | Input::Entropy { .. } | Input::ResetButton => self.note(2),
        }
        Ok(())
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.outputs.take()
    }

    fn visible_outputs(&self) -> u64 {
        self.outputs.visible()
    }

    fn instruction_count(&self) -> InstructionCount {
        self.words.count
    }

    fn guest_time_ns(&self) -> u64 {
        self.clock.time_ns(self.words.count)
    }

    fn clock(&self) -> ClockRecord {
        self.clock.record()
    }

    fn board(&self) -> &BoardConfig {
        &self.board
    }

    fn unix_base_ns(&self) -> u64 {
        self.words.unix_base_ns
    }

    fn configuration_hash(&self) -> u64 {
        1
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.words.disk.open().to_vec()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(SnapshotHead::new(NAME, SEMANTICS, self.encode()), &self.ram)
    }

    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        // A checkpoint is no copy for somebody who joins.
        if let Some((shared, process)) = &self.watcher
            && extent != Extent::Checkpoint
        {
            shared.lock().snapshot_begun(*process);
        }
        self.ram.begin_capture(extent);
        SnapshotHead::new(NAME, SEMANTICS, self.encode())
    }

    fn pages_changed(&self) -> usize {
        self.ram.pages_changed()
    }

    fn capture(&mut self) -> Option<Capture<'_>> {
        self.ram.capture()
    }

    fn begin_checkpoints(&mut self) {
        self.ram.begin_epoch(Consumer::Checkpoint);
    }

    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.ram.visit_written(Consumer::Checkpoint, page);
        self.encode()
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        (index < self.ram.pages()).then(|| self.ram.page(index))
    }

    fn pages_since_checkpoint(&self) -> usize {
        self.ram.pages_unseen(Consumer::Checkpoint)
    }

    fn apply_checkpoint(&mut self, state: &[u8], pages: &[PageBatch]) -> Result<(), SnapshotError> {
        let decoded = postcard::from_bytes(state);
        let decoded = decoded.map_err(|_| SnapshotError::Damaged("its state does not decode"))?;
        replace_pages(&mut self.ram, pages)?;
        (self.words, self.clock, self.outputs) = decoded;
        Ok(())
    }

    fn pages_in_use(&self) -> usize {
        self.ram.pages_in_use()
    }

    fn digest(&mut self) -> u128 {
        self.tell_flips();
        let ram = self.ram.digest();
        let state = self.encode();
        let low = state
            .iter()
            .fold(ram as u64, |hash, byte| mix(hash ^ u64::from(*byte)));
        u128::from(low) | u128::from(mix(low ^ (ram >> 64) as u64)) << 64
    }

    fn set_engine(&mut self, _: Engine) -> Engine {
        Engine::Interpreter
    }

    fn engine(&self) -> Engine {
        Engine::Interpreter
    }

    fn set_chaos(&mut self, _: Option<u64>) {}

    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        self.ram.read(address, buffer)
    }

    fn memory_regions(&self) -> Vec<Region> {
        vec![RAM]
    }

    fn describe(&self) -> String {
        format!("{:?}", self.words)
    }
}
