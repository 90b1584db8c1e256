//! Runs a program on the reference and on another engine, stops both where the seed says, and finds
//! the first instruction count at which they differ.

use super::execution::Execution;
use super::layout::{MEMORY_BYTES, OFFSET_MASK};
use super::random::Random;
use super::{Account, Program};
use machine::input::{ClockRecord, Console, Input, InstructionCount};
use machine::output::Output;
use machine::{Machine as _, Stop};
use riscv::Machine;
use riscv::isa;
use riscv::memory::RAM_BASE;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Instructions after which a program that has not finished is given up.
const LIMIT: InstructionCount = 600_000;
/// Waits without a timer after which it is given up.
const MOST_DEAD_WAITS: u32 = 3;

/// A place at which the reference was stopped.
struct Event {
    count: InstructionCount,
    /// Takes effect here.
    input: Option<Input>,
    /// After the input.
    digest: u128,
}

/// What the reference did.
pub struct Reference {
    events: Vec<Event>,
    outputs: Vec<Output>,
    /// What the runs did.
    pub account: Account,
}

impl Reference {
    /// Instructions.
    pub fn length(&self) -> InstructionCount {
        self.events.last().map_or(0, |event| event.count)
    }
}

/// Adds outputs, so that it does not matter when they were collected.
fn append(all: &mut Vec<Output>, new: Vec<Output>) {
    for output in new {
        if let Output::ConsoleBytes { console, bytes } = &output
            && let Some(Output::ConsoleBytes {
                console: last,
                bytes: before,
            }) = all.last_mut()
            && last == console
        {
            before.extend(bytes);
        } else {
            all.push(output);
        }
    }
}

/// Runs to `until`, or to where the machine waits or finishes.
fn run(machine: &mut Machine, until: InstructionCount, outputs: &mut Vec<Output>) -> Stop {
    loop {
        let stop = machine.run(until);
        append(outputs, machine.outputs());
        if stop != Stop::Output {
            return stop;
        }
    }
}

/// Runs `program` on the reference, with inputs at random counts.
pub fn reference(program: &Program, random: &mut Random) -> Reference {
    let mut machine = program.machine();
    Execution::REFERENCE.apply(&mut machine);
    let (mut events, mut outputs, mut dead_waits) = (Vec::new(), Vec::new(), 0);
    loop {
        let until = machine.instruction_count() + 1 + random.magnitude() % 8192;
        let stop = run(&mut machine, until, &mut outputs);
        let input = match stop {
            Stop::Idle { wake_at_ns } => {
                dead_waits += u32::from(wake_at_ns.is_none());
                Some(time_passes(&machine, wake_at_ns.unwrap_or(0)))
            }
            Stop::Reached if random.once_in(8) => random_input(&machine, random),
            _ => None,
        };
        if let Some(input) = &input {
            machine.inject(input).expect("the board has such a device");
        }
        events.push(Event {
            count: machine.instruction_count(),
            input,
            digest: machine.digest(),
        });
        let is_over = matches!(stop, Stop::Finished(_))
            || machine.instruction_count() >= LIMIT
            || dead_waits > MOST_DEAD_WAITS;
        if is_over {
            break;
        }
    }
    Reference {
        events,
        outputs,
        account: Account::of(&machine),
    }
}

fn time_passes(machine: &Machine, to_ns: u64) -> Input {
    Input::Clock(ClockRecord {
        time_ns: to_ns.max(machine.guest_time_ns()),
        rate: machine.clock().rate,
    })
}

fn random_input(machine: &Machine, random: &mut Random) -> Option<Input> {
    match random.below(3) {
        0 => Some(Input::ConsoleBytes {
            console: Console::Uart,
            bytes: vec![random.bits() as u8],
        }),
        1 => Some(time_passes(machine, 0)),
        _ => None,
    }
}

/// How another engine is stopped on its way from one event to the next. Replayed for every question
/// asked of it: its caches depend on it.
struct Visit<'a> {
    program: &'a Program,
    reference: &'a Reference,
    execution: Execution,
    seed: u64,
}

/// Where an engine differs from the reference.
struct Difference {
    /// Events before this one agree.
    event: usize,
    what: String,
}

impl Visit<'_> {
    /// Follows the reference up to and including event number `last`; compares digests on the way.
    fn follow(&self, last: usize, compares: bool) -> Result<(Machine, Vec<Output>), Difference> {
        let mut machine = self.program.machine();
        self.execution.apply(&mut machine);
        let mut random = Random::new(self.seed);
        let mut outputs = Vec::new();
        for (number, event) in self.reference.events.iter().enumerate().take(last + 1) {
            let differs = |what: String| Difference {
                event: number,
                what,
            };
            if random.once_in(4) {
                // stopped a few times in between
                for _ in 0..random.below(4) {
                    let left = event.count - machine.instruction_count();
                    let until = machine.instruction_count() + random.magnitude() % (left + 1);
                    run(&mut machine, until, &mut outputs);
                }
            }
            let stop = run(&mut machine, event.count, &mut outputs);
            let count = machine.instruction_count();
            if count != event.count {
                let expected = event.count;
                return Err(differs(format!("{stop:?} at {count}, not at {expected}")));
            }
            if let Some(input) = &event.input {
                let injected = machine.inject(input);
                injected.map_err(|error| differs(format!("at {count}: {error}")))?;
            }
            let is_last = number + 1 == self.reference.events.len();
            if (random.once_in(2) || is_last) && machine.digest() != event.digest && compares {
                return Err(differs(format!("the digest differs at {count}")));
            }
        }
        Ok((machine, outputs))
    }

    fn check(&self) -> Result<(), String> {
        let events = self.reference.events.len();
        match self.follow(events - 1, true) {
            Ok((_, outputs)) if outputs == self.reference.outputs => Ok(()),
            Ok((_, outputs)) => Err(format!(
                "outputs differ: {outputs:?}, expected {:?}",
                self.reference.outputs
            )),
            Err(difference) => Err(self.explain(&difference)),
        }
    }

    /// The two machines, `count` being between the first event that does not agree and the one
    /// before it.
    fn both_at(&self, event: usize, count: InstructionCount) -> [Machine; 2] {
        let reference = Visit {
            execution: Execution::REFERENCE,
            ..*self
        };
        [&reference, self].map(|visit| {
            let mut machine = match event.checked_sub(1) {
                Some(last) => match visit.follow(last, false) {
                    Ok((machine, _)) => machine,
                    Err(difference) => panic!("it was well before: {}", difference.what),
                },
                None => {
                    let mut machine = self.program.machine();
                    visit.execution.apply(&mut machine);
                    machine
                }
            };
            run(&mut machine, count, &mut Vec::new());
            machine
        })
    }

    /// Finds the first count that differs, and says how.
    fn explain(&self, difference: &Difference) -> String {
        let Difference { event, what } = difference;
        // the last count known to agree, and one at which they differ
        let first = (0..*event)
            .rev()
            .find(|&earlier| {
                self.follow(earlier, false).is_ok_and(|(mut machine, _)| {
                    machine.digest() == self.reference.events[earlier].digest
                })
            })
            .map_or(0, |earlier| earlier + 1);
        let events = &self.reference.events;
        let mut equal = first.checked_sub(1).map_or(0, |last| events[last].count);
        let mut differs = events[first].count;
        let are_equal = |count| {
            let [mut a, mut b] = self.both_at(first, count);
            a.instruction_count() == b.instruction_count() && a.digest() == b.digest()
        };
        if are_equal(differs) {
            return format!(
                "{what}\nbut it is the same when stopped there only: an input differs?"
            );
        }
        while differs - equal > 1 {
            let middle = equal + (differs - equal) / 2;
            if are_equal(middle) {
                equal = middle;
            } else {
                differs = middle;
            }
        }
        let [before, _] = self.both_at(first, equal);
        let [good, bad] = self.both_at(first, differs);
        format!(
            "{what}\nthe first count that differs when stopped there: {differs}\n{}\n\
             the reference at {equal}:\n{}{}",
            differences(&good, &bad),
            before.describe(),
            code(&before)
        )
    }
}

/// What two machines differ in.
fn differences(good: &Machine, bad: &Machine) -> String {
    let mut text = String::new();
    let (expected, found) = (good.describe(), bad.describe());
    for (expected, found) in expected.split_whitespace().zip(found.split_whitespace()) {
        if expected != found {
            let _ = writeln!(text, "  {found}, expected {expected}");
        }
    }
    let word = |machine: &Machine, address| {
        u64::from_le_bytes(machine.read_array(address).expect("it is RAM"))
    };
    let addresses = (RAM_BASE..RAM_BASE + MEMORY_BYTES).step_by(8);
    for address in addresses
        .filter(|&address| word(good, address) != word(bad, address))
        .take(8)
    {
        let (expected, found) = (word(good, address), word(bad, address));
        let _ = writeln!(
            text,
            "  at {address:#x}: {found:#x}, expected {expected:#x}"
        );
    }
    if text.is_empty() {
        text.push_str("  neither in x registers nor in RAM: f registers, CSRs or devices\n");
    }
    text
}

/// The instructions around the current one of each hart.
fn code(machine: &Machine) -> String {
    let mut text = String::new();
    let description = machine.describe();
    for word in description.split("pc 0x").skip(1) {
        let digits = word.split(' ').next().unwrap_or("");
        let pc = u64::from_str_radix(digits, 16).unwrap_or(0);
        let mut at = pc & OFFSET_MASK | RAM_BASE;
        let _ = writeln!(text, "code at {pc:#x}, seen at {at:#x}:");
        for _ in 0..24 {
            let Ok(bytes) = machine.read_array(at) else {
                break;
            };
            let mut bits = u32::from_le_bytes(bytes);
            let instruction = isa::decode(bits, isa::Extensions::ALL);
            if instruction.length == 2 {
                bits &= 0xffff;
            }
            let _ = writeln!(text, "  {at:#x}: {bits:08x} {instruction:?}");
            at += u64::from(instruction.length);
        }
    }
    text
}

/// Judges every execution but the reference by it; `executions` to try, or all of this host.
///
/// # Errors
/// What differs, where, and how to see it again.
pub fn judge(program: &Program, seed: u64, executions: &[Execution]) -> Result<Reference, String> {
    let reference = reference(program, &mut Random::new(seed ^ 0x5709));
    for execution in executions {
        let visit = Visit {
            program,
            reference: &reference,
            execution: *execution,
            seed,
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| visit.check()));
        let difference = match outcome {
            Ok(Ok(())) => continue,
            Ok(Err(difference)) => difference,
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "it panicked".into()),
        };
        return Err(format!("seed {seed}, {execution:?}: {difference}"));
    }
    Ok(reference)
}
