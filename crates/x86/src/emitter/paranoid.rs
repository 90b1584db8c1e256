//! Compiled code and the interpreter, side by side.
//!
//! Before compiled code is entered the interpreter rehearses the same instructions, on a copy of the CPU and
//! with RAM put back afterwards. It remembers the state after each, because where compiled code gives up is
//! for compiled code to choose. Wherever that is, CPU and RAM have to be what the interpreter had there.
//!
//! Nothing of what compiled code remembers is switched off: links, jumps and the TLB are what is checked. The
//! rehearsal remembers nothing from one instruction to the next: it walks the tables and decodes what is in
//! RAM then.
//!
//! What it cannot see: a store of compiled code to a place where the interpreter stores nothing; accesses to
//! devices, which the interpreter makes for both.

mod bus;
mod report;
#[cfg(test)]
mod tests;

use crate::cpu::Cpu;
use crate::interpreter::core::Core;
use crate::interpreter::exception::TripleFault;
use crate::interpreter::execute_alone;
use crate::mmu::{ACCESSED, Tlb};
use crate::ram::Trial;
use bus::RehearsalBus;
use machine::memory::journal::WrittenWord;

/// Instructions that compiled code may execute before it is compared: no piece is longer.
const CHUNK: u64 = 128;
const _: () = assert!(CHUNK as usize >= super::piece::LONGEST);

/// Why a rehearsal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All instructions that compiled code may execute were executed.
    Reached,
    /// An interrupt can be taken, or the CPU has halted.
    Interrupt,
    /// The next instruction reaches a device.
    Device,
    /// The next instruction shuts the CPU down.
    TripleFault,
}

/// The state after an instruction.
struct Step {
    after: Cpu,
    /// Entries of the journal up to here.
    words: usize,
}

/// A rehearsal and what came of it.
pub struct Paranoid {
    tlb: Tlb,
    start: Cpu,
    start_count: u64,
    steps: Vec<Step>,
    end: End,
    trial: Trial,
    #[cfg(test)]
    sabotage: Option<tests::Sabotage>,
}

impl Paranoid {
    /// Nothing is rehearsed.
    pub fn new() -> Paranoid {
        Paranoid {
            tlb: Tlb::new(),
            start: Cpu::long_mode(0, 0),
            start_count: 0,
            steps: Vec::new(),
            end: End::Reached,
            trial: Trial::default(),
            #[cfg(test)]
            sabotage: None,
        }
    }

    /// Interprets what compiled code is about to execute, up to the core's last count at most, and undoes
    /// it. Gives the count up to which compiled code may run: the present one if there is nothing that could
    /// be rehearsed.
    pub fn rehearse(&mut self, core: &mut Core<'_>) -> u64 {
        let until = core.until.min(core.now + CHUNK);
        self.start = core.cpu();
        self.start_count = core.now;
        self.steps.clear();
        let mut cpu = self.start.clone();
        let mut now = core.now;
        let mut bus = RehearsalBus::new(core.bus);
        let ram = &mut *core.ram;
        ram.begin_trial(&mut self.trial);
        self.end = loop {
            if now >= until {
                break End::Reached;
            }
            self.tlb.forget();
            let mut trial = Core::enter(&mut cpu, ram, &mut bus, &mut self.tlb, now, now + 1);
            trial.check_interrupts = false;
            let executed = execute_alone(&mut trial);
            now = trial.now;
            let interrupts = trial.check_interrupts;
            trial.leave();
            if bus.was_touched() {
                break End::Device;
            }
            if executed == Err(TripleFault) {
                break End::TripleFault;
            }
            let is_halted = cpu.registers.is_halted;
            self.steps.push(Step {
                after: cpu.clone(),
                words: ram.words_written(),
            });
            if is_halted || interrupts && bus.offers_interrupt() {
                break End::Interrupt;
            }
        };
        ram.undo_trial(&mut self.trial);
        self.start_count + self.steps.len() as u64
    }

    /// Compiled code has run.
    ///
    /// # Panics
    /// It did not do what the interpreter did.
    pub fn compare(&self, core: &mut Core<'_>) {
        #[cfg(test)]
        if let Some(sabotage) = self.sabotage {
            sabotage(core);
        }
        let executed = core.now.wrapping_sub(self.start_count) as usize;
        if !self.agrees(core, executed) {
            panic!("{}", self.report(core, executed));
        }
    }

    fn agrees(&self, core: &Core<'_>, executed: usize) -> bool {
        executed <= self.steps.len()
            && *self.expected(executed) == core.cpu()
            && self.wrong_words(core, executed).next().is_none()
    }

    /// The interpreter's state after so many instructions.
    fn expected(&self, executed: usize) -> &Cpu {
        match executed {
            0 => &self.start,
            _ => &self.steps[executed - 1].after,
        }
    }

    /// Double-words of RAM (address, what the interpreter left there) that hold something else.
    fn wrong_words(&self, core: &Core<'_>, executed: usize) -> impl Iterator<Item = (usize, u64)> {
        let ram = &*core.ram;
        let words = &self.trial.journal.words;
        let written = match executed {
            0 => 0,
            _ => self.steps[executed - 1].words,
        };
        let expected = words.iter().enumerate().filter_map(move |(index, word)| {
            let same = |other: &WrittenWord| other.offset == word.offset;
            if index < written {
                let is_last = !words[index + 1..written].iter().any(same);
                is_last.then_some((word.offset, word.new))
            } else {
                let is_first = !words[..index].iter().any(same);
                is_first.then_some((word.offset, word.old))
            }
        });
        let next = self.steps.get(executed).map_or(written, |step| step.words);
        expected.filter(move |&(offset, expected)| {
            let found = ram.load(offset as u64, 8);
            // The next instruction may have been fetched, and nothing else be done of it.
            let was_fetched = found == expected | ACCESSED
                && words[written..next]
                    .iter()
                    .any(|word| word.offset == offset);
            found != expected && !was_fetched
        })
    }
}
