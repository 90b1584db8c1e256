//! What is said of a difference, for the people who will look for its cause.

use super::{CHUNK, Paranoid, Step};
use crate::emitter::paranoid::architecture::Architecture;
use crate::interpreter::environment::Environment;
use crate::isa;
use crate::memory::RAM_BASE;
use std::fmt::Write;

/// Double-words of RAM that a report shows at most.
const WORDS_SHOWN: usize = 16;

impl Paranoid {
    /// All that is known when compiled code did not do what the interpreter did.
    #[cold]
    pub(super) fn report(&self, environment: &Environment, executed: usize) -> String {
        let start = self.start_count;
        let mut text = format!(
            "Engine::Paranoid: compiled code and the interpreter differ. This is a fault of this \
             program, not of the guest.\n\
             hart {}, {executed} instructions of compiled code from instruction count {start} on\n\
             (interpreted, then compiled; the instruction is where the interpreter changed it last)\n",
            environment.hart.id
        );
        if executed > self.steps.len() {
            let _ = writeln!(
                text,
                "  compiled code had to give up after {} instructions: {:?}",
                self.steps.len(),
                self.end
            );
        } else {
            self.describe_registers(environment, executed, &mut text);
            self.describe_memory(environment, executed, &mut text);
        }
        self.describe_instructions(&mut text);
        let _ = writeln!(
            text,
            "to replay: bring the machine to instruction count {start} by Engine::Interpreter (a \
             snapshot, the replay log, the seed of the test) and go on by Engine::Paranoid. If it \
             agrees then, what compiled code remembers is at fault: run all by Engine::Paranoid, \
             which compares after {CHUNK} instructions at most."
        );
        text
    }

    fn describe_registers(&self, environment: &Environment, executed: usize, text: &mut String) {
        let expected = self.expected(executed);
        let found = Architecture::of(environment.hart);
        for (number, ((name, expected), (_, found))) in
            expected.registers().zip(found.registers()).enumerate()
        {
            if expected != found {
                let value = |step: &Architecture| step.registers().nth(number);
                let writer =
                    self.last_change(executed, |before, after| value(before) != value(after));
                let _ = writeln!(text, "  {name}: {expected:#x}, {found:#x} {writer}");
            }
        }
        let (expected, found) = (expected.fields(), found.fields());
        for (expected, found) in expected.lines().zip(found.lines()) {
            if expected != found {
                let (expected, found) = (expected.trim(), found.trim());
                let _ = writeln!(text, "  {expected} {found}");
            }
        }
        let attention = self.attention(executed);
        if attention != environment.attention {
            let found = environment.attention;
            let _ = writeln!(text, "  asks for attention: {attention}, {found}");
        }
    }

    /// The instruction count of the last instruction after which something was different.
    fn last_change(
        &self,
        executed: usize,
        changed: impl Fn(&Architecture, &Architecture) -> bool,
    ) -> String {
        (0..executed)
            .rev()
            .find(|&step| changed(self.expected(step), self.expected(step + 1)))
            .map_or("(not changed)".into(), |step| {
                format!("(instruction {})", self.start_count + step as u64)
            })
    }

    fn describe_memory(&self, environment: &Environment, executed: usize, text: &mut String) {
        let total = self.wrong_words(environment, executed).count();
        if total > WORDS_SHOWN {
            let _ = writeln!(
                text,
                "  RAM: the first {WORDS_SHOWN} of {total} double-words:"
            );
        }
        for (offset, expected) in self.wrong_words(environment, executed).take(WORDS_SHOWN) {
            let found = environment.memory.load_u64(offset);
            let clean = if environment.memory.is_clean(offset) {
                "clean"
            } else {
                "dirty"
            };
            let address = RAM_BASE + offset as u64;
            let writer = self.steps[..executed]
                .iter()
                .rposition(|step| {
                    let words = &self.trial.journal.words[..step.words];
                    words.last().is_some_and(|word| word.offset == offset)
                })
                .map_or("not written".into(), |step| {
                    format!("instruction {}", self.start_count + step as u64)
                });
            let _ = writeln!(
                text,
                "  RAM {address:#x}: {expected:#018x}, {found:#018x}, page {clean} ({writer})"
            );
        }
    }

    fn describe_instructions(&self, text: &mut String) {
        let _ = writeln!(text, "instructions as interpreted, then {:?}:", self.end);
        for (index, step) in self.steps.iter().enumerate() {
            let count = self.start_count + index as u64;
            let pc = self.expected(index).pc;
            let _ = writeln!(text, "  {count} {}", describe(step, pc));
        }
    }
}

fn describe(step: &Step, pc: u64) -> String {
    let fetched = &step.fetched;
    let address = RAM_BASE + fetched.offset as u64;
    let digits = 2 * usize::from(fetched.op.length);
    let name = isa::encodings()
        .find(|row| row.op == fetched.op.op)
        .map_or("illegal", |row| row.name);
    let op = &fetched.op;
    format!(
        "{pc:#x} (physical {address:#x}) {:0digits$x} {name} rd {} rs1 {} rs2 {} immediate {:#x}",
        fetched.bits, op.rd, op.rs1, op.rs2, op.immediate
    )
}
