//! What is said of a difference, for the people who will look for its cause.

use super::{CHUNK, Paranoid};
use crate::interpreter::core::Core;
use std::fmt::Write;

/// Double-words of RAM that a report shows at most.
const WORDS_SHOWN: usize = 16;

impl Paranoid {
    /// All that is known when compiled code did not do what the interpreter did.
    #[cold]
    pub(super) fn report(&self, core: &Core<'_>, executed: usize) -> String {
        let start = self.start_count;
        let mut text = format!(
            "Engine::Paranoid: compiled code and the interpreter differ. This is a fault of this \
             program, not of the guest.\n\
             {executed} instructions of compiled code from instruction count {start} on\n"
        );
        if executed > self.steps.len() {
            let _ = writeln!(
                text,
                "  compiled code had to give up after {} instructions: {:?}",
                self.steps.len(),
                self.end
            );
        } else {
            let expected = format!("{:#x?}", self.expected(executed));
            let found = format!("{:#x?}", core.cpu());
            text += "  interpreted, then compiled:\n";
            for (expected, found) in expected.lines().zip(found.lines()) {
                if expected != found {
                    let _ = writeln!(text, "  {} {}", expected.trim(), found.trim());
                }
            }
            for (address, expected) in self.wrong_words(core, executed).take(WORDS_SHOWN) {
                let found = core.ram.load(address as u64, 8);
                let _ = writeln!(text, "  RAM {address:#x}: {expected:#018x}, {found:#018x}");
            }
        }
        let _ = writeln!(text, "instructions as interpreted, then {:?}:", self.end);
        for index in 0..=self.steps.len() {
            let registers = &self.expected(index).registers;
            let _ = writeln!(
                text,
                "  {} {:#x} rflags {:#x}",
                start + index as u64,
                registers.rip,
                registers.rflags
            );
        }
        let _ = writeln!(
            text,
            "to replay: bring the machine to instruction count {start} by Engine::Interpreter (a \
             snapshot, the replay log, the seed of the test) and go on by Engine::Paranoid. If it \
             agrees then, what compiled code remembers is at fault: run all by Engine::Paranoid, \
             which compares after {CHUNK} instructions at most."
        );
        text
    }
}
