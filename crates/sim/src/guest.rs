//! A cheap guest: a state machine whose every output depends on all inputs so far and on the
//! instruction counts at which they came.

use crate::random::mix;
use replication::guest::{Guest, GuestStop, Injection, InjectionError};
use replication::record::InstructionCount;

/// What the stub says to the outside. `previous` chains it to the output before, so that the
/// outside notices a history that forgot something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StubOutput {
    /// Running number from 1.
    pub index: u64,
    /// `content` of the output before.
    pub previous: u64,
    /// Depends on everything so far.
    pub content: u64,
    /// The request that it answers, or 0.
    pub answers: u64,
    /// So many of the guest's writes are durable, it says; 0: says nothing.
    pub durable: u64,
}

/// What comes to the stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StubInput {
    /// A request from outside; it is answered by one output.
    Request(u64),
    /// Idle time was skipped.
    Clock(u64),
    /// Something that this host's own disk must have done first.
    Disk(u64),
    /// Ends the machine.
    PowerOff,
    /// A flush is complete: so many writes are durable.
    Flushed(u64),
    /// The host's disk failed a request, and nobody could take over: the guest is told.
    DiskError(u64),
    /// The machine stands still.
    Pause,
    /// It goes on.
    Resume,
}

impl StubInput {
    /// As the log holds it.
    pub fn encode(self) -> Vec<u8> {
        let (tag, value) = match self {
            StubInput::Request(id) => (0, id),
            StubInput::Clock(ns) => (1, ns),
            StubInput::Disk(id) => (2, id),
            StubInput::PowerOff => (3, 0),
            StubInput::Flushed(writes) => (4, writes),
            StubInput::DiskError(id) => (5, id),
            StubInput::Pause => (6, 0),
            StubInput::Resume => (7, 0),
        };
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&u64::to_le_bytes(value));
        bytes
    }
}

/// Stands for a write that a host's disk does not have.
const LOST_WRITE: u64 = u64::MAX - 1;

/// Why a replica whose own disk failed cannot take an input.
pub const DISK_FAILED: &str = "this host's disk failed";

/// The machine.
#[derive(Clone, Debug)]
pub struct StubGuest {
    count: u64,
    state: u64,
    visible: u64,
    chain: u64,
    busy_until: u64,
    next_output: u64,
    work_per_input: u64,
    output_spacing: u64,
    finished: bool,
    paused: bool,
    /// The flush that is not complete: instruction count at which it was asked for, and how many
    /// writes it covers (0: none).
    flush: (u64, u64),
    /// Everything that it wrote to its disk, from the beginning.
    disk: Vec<u64>,
    waiting: Vec<StubOutput>,
    /// How often a disk input says "not yet" on this host. Not part of the state.
    pub disk_slowness: u32,
    /// This host's disk fails, or says that it did what it did not do. Not part of the state.
    pub disk_fails: bool,
    /// See there.
    pub disk_lies: bool,
    /// It did lie.
    pub was_lied_to: bool,
    /// An old bug: this host's disk is not asked how it went.
    pub ignores_disk: bool,
    not_yet: u32,
}

const WORDS: usize = 12;

impl StubGuest {
    /// Powers on, with what is on its disk. It works for `work_per_input` instructions after each input, and speaks unasked
    /// about every `output_spacing` instructions.
    pub fn new(seed: u64, disk: Vec<u64>, work_per_input: u64, output_spacing: u64) -> StubGuest {
        StubGuest {
            count: 0,
            state: mix(seed),
            visible: 0,
            chain: mix(seed ^ 1),
            busy_until: work_per_input,
            next_output: output_spacing,
            work_per_input,
            output_spacing,
            finished: false,
            paused: false,
            flush: (0, 0),
            disk,
            waiting: Vec::new(),
            disk_slowness: 0,
            disk_fails: false,
            disk_lies: false,
            was_lied_to: false,
            ignores_disk: false,
            not_yet: 0,
        }
    }

    /// The whole state, and what is on the disk.
    pub fn snapshot(&self) -> Vec<u8> {
        assert!(
            self.waiting.is_empty(),
            "outputs are collected before a snapshot"
        );
        self.words()
            .iter()
            .chain(&self.disk)
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    /// The machine of a [`snapshot`](Self::snapshot).
    pub fn restore(bytes: &[u8]) -> Option<StubGuest> {
        if bytes.len() < WORDS * 8 || !bytes.len().is_multiple_of(8) {
            return None;
        }
        let word = |i: usize| Some(u64::from_le_bytes(bytes[i * 8..i * 8 + 8].try_into().ok()?));
        Some(StubGuest {
            count: word(0)?,
            state: word(1)?,
            visible: word(2)?,
            chain: word(3)?,
            busy_until: word(4)?,
            next_output: word(5)?,
            work_per_input: word(6)?,
            output_spacing: word(7)?,
            finished: word(8)? != 0,
            flush: (word(9)?, word(10)?),
            paused: word(11)? != 0,
            disk: (WORDS..bytes.len() / 8).map(word).collect::<Option<_>>()?,
            waiting: Vec::new(),
            disk_slowness: 0,
            disk_fails: false,
            disk_lies: false,
            was_lied_to: false,
            ignores_disk: false,
            not_yet: 0,
        })
    }

    fn words(&self) -> [u64; WORDS] {
        [
            self.count,
            self.state,
            self.visible,
            self.chain,
            self.busy_until,
            self.next_output,
            self.work_per_input,
            self.output_spacing,
            u64::from(self.finished),
            self.flush.0,
            self.flush.1,
            u64::from(self.paused),
        ]
    }

    /// Of everything that is state.
    pub fn fingerprint(&self) -> u64 {
        self.words()
            .iter()
            .fold(0, |hash, word| mix(hash ^ word).wrapping_add(1))
    }

    /// Everything on its disk.
    pub fn disk(&self) -> &[u64] {
        &self.disk
    }

    /// The flush that it waits for: instruction count at which it was asked for, writes that it
    /// covers.
    pub fn open_flush(&self) -> Option<(InstructionCount, u64)> {
        let (asked_at, writes) = self.flush;
        (writes > 0).then_some((InstructionCount(asked_at), writes))
    }

    /// A bit of its memory flips.
    pub fn poison(&mut self) {
        self.state ^= 1 << 17;
    }

    /// Whether it stands still.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    fn loses_write(&self) -> bool {
        self.disk_fails && self.ignores_disk
    }

    fn speak(&mut self, answers: u64, durable: u64) {
        assert!(!self.paused, "a machine that stands still says nothing");
        self.visible += 1;
        let previous = self.chain;
        self.chain = mix(self.chain ^ self.state ^ self.count.rotate_left(20) ^ self.visible);
        let output = StubOutput {
            index: self.visible,
            previous,
            content: self.chain,
            answers,
            durable,
        };
        self.waiting.push(output);
    }
}

impl Guest for StubGuest {
    type Output = StubOutput;

    fn instruction_count(&self) -> InstructionCount {
        InstructionCount(self.count)
    }

    fn run(&mut self, until: InstructionCount) -> GuestStop {
        let until = until.0;
        assert!(until >= self.count);
        if self.finished {
            return GuestStop::Finished;
        }
        if self.paused {
            return match self.count == until {
                true => GuestStop::Reached,
                false => GuestStop::Idle,
            };
        }
        let next = until
            .min(self.busy_until)
            .min(self.next_output.max(self.count));
        self.count = self.count.max(next);
        if self.count >= self.next_output {
            self.state = mix(self.state ^ self.count);
            self.speak(0, 0);
            self.next_output = self.count + 1 + self.state % self.output_spacing.max(1);
            return GuestStop::Output;
        }
        if self.count == until {
            GuestStop::Reached
        } else {
            GuestStop::Idle
        }
    }

    fn inject(&mut self, input: &[u8]) -> Result<Injection, InjectionError> {
        let bad = || InjectionError("not an input of the stub".to_owned());
        if self.finished || input.len() != 9 {
            return Err(bad());
        }
        let value = u64::from_le_bytes(input[1..9].try_into().map_err(|_| bad())?);
        if let 6 | 7 = input[0] {
            self.paused = input[0] == 6;
            return Ok(Injection::Done);
        }
        if input[0] == 2 && self.not_yet < self.disk_slowness {
            self.not_yet += 1;
            return Ok(Injection::NotYet);
        }
        if input[0] == 2 && self.disk_fails && !self.ignores_disk {
            return Err(InjectionError(DISK_FAILED.to_owned()));
        }
        if input[0] == 2 && self.disk_lies {
            self.was_lied_to = true;
            self.state ^= 1 << 23;
        }
        self.not_yet = 0;
        self.state = mix(self.state ^ value ^ u64::from(input[0]) << 56 ^ self.count);
        self.busy_until = self.busy_until.max(self.count) + 1 + self.work_per_input;
        match input[0] {
            0 => {
                self.disk.push(value);
                if self.flush.1 == 0 {
                    self.flush = (self.count, self.disk.len() as u64);
                }
                self.speak(value, 0);
            }
            1 | 5 => {}
            2 => self.disk.push(if self.loses_write() {
                LOST_WRITE
            } else {
                value
            }),
            3 => {
                self.finished = true;
                self.speak(0, 0);
            }
            4 if value == self.flush.1 => {
                self.flush = (0, 0);
                self.speak(0, value);
            }
            _ => return Err(bad()),
        }
        Ok(Injection::Done)
    }

    fn take_outputs(&mut self) -> Vec<StubOutput> {
        std::mem::take(&mut self.waiting)
    }

    fn visible_outputs(&self) -> u64 {
        self.visible
    }

    fn digest(&mut self) -> u128 {
        let low = self.fingerprint();
        u128::from(low) | u128::from(mix(low)) << 64
    }
}
