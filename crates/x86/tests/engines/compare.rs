//! Runs a guest on both engines and says where they part.

use crate::code::{FAULTS, MEMORY_BYTES, generate};
use crate::random::Random;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig};
use machine::engine::Engine;
use machine::input::InstructionCount;
use x86::boot::BootImages;
use x86::machine::Machine;

/// Instructions of a guest.
const LENGTH: InstructionCount = 60_000;

/// How the compiled side is treated.
#[derive(Clone, Copy, Debug)]
enum Treatment {
    /// Stopped where the interpreter was looked at.
    Plain,
    /// Stopped after each few instructions.
    Steps,
    /// Disturbed; the seed's.
    Chaos(u64),
    /// Disturbed, and watched by the interpreter.
    Paranoid(u64),
}

fn machine(seed: u64, treatment: Option<Treatment>) -> Machine {
    let board = BoardConfig {
        memory_bytes: MEMORY_BYTES,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let images = BootImages {
        kernel: generate(seed),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board,
        features: Default::default(),
        unix_base_ns: 1 << 60,
    };
    let mut machine = Machine::new(config, &images).expect("the guest is a kernel");
    if let Some(treatment) = treatment {
        machine.set_engine(match treatment {
            Treatment::Paranoid(_) => Engine::Paranoid,
            _ => Engine::Jit,
        });
        if let Treatment::Chaos(seed) | Treatment::Paranoid(seed) = treatment {
            machine.set_chaos(Some(seed));
        }
    }
    machine
}

/// Runs to a count; false if the guest ended before.
fn run(machine: &mut Machine, until: InstructionCount, steps: Option<&mut Random>) -> bool {
    let mut steps = steps;
    while machine.instruction_count() < until {
        let step = steps
            .as_mut()
            .map_or(u64::MAX, |random| 1 + random.below(90));
        let stop = machine.run(until.min(machine.instruction_count().saturating_add(step)));
        if stop != Stop::Reached {
            return false;
        }
    }
    true
}

fn digest_at(seed: u64, treatment: Option<Treatment>, count: InstructionCount) -> (u128, String) {
    let mut machine = machine(seed, treatment);
    let mut random = Random::new(seed);
    let steps = matches!(treatment, Some(Treatment::Steps)).then_some(&mut random);
    run(&mut machine, count, steps);
    (machine.digest(), machine.describe())
}

/// Compares the engines; gives how often the guest faulted.
pub fn check(seed: u64) -> u64 {
    let mut random = Random::new(seed ^ 0xc0de);
    let mut counts: Vec<_> = (0..6).map(|_| 1 + random.below(LENGTH)).collect();
    counts.push(LENGTH);
    counts.sort_unstable();
    let mut reference = machine(seed, None);
    let mut ended = false;
    let expected: Vec<_> = counts
        .iter()
        .map(|&count| {
            ended = ended || !run(&mut reference, count, None);
            (reference.instruction_count(), reference.digest())
        })
        .collect();
    for treatment in [
        Treatment::Plain,
        Treatment::Steps,
        Treatment::Chaos(2 * seed),
        Treatment::Chaos(2 * seed + 1),
        Treatment::Paranoid(2 * seed),
    ] {
        let mut compiled = machine(seed, Some(treatment));
        let mut steps = Random::new(seed);
        let mut before = 0;
        for (&count, &expected) in counts.iter().zip(&expected) {
            let steps = matches!(treatment, Treatment::Steps).then_some(&mut steps);
            run(&mut compiled, count, steps);
            let found = (compiled.instruction_count(), compiled.digest());
            if found != expected {
                let report = locate(seed, treatment, before, expected.0.max(1));
                panic!(
                    "seed {seed}, {treatment:?}: differs at {count}\n{report}\nto see it again: \
                     UNDERSTUDY_SEED={seed} cargo test -p x86 --test engines one_seed"
                );
            }
            before = expected.0;
        }
    }
    let faults = reference.read_memory(FAULTS).map(u64::from_le_bytes);
    faults.unwrap_or_default()
}

/// The first count at which the engines differ, and both states there.
fn locate(
    seed: u64,
    treatment: Treatment,
    equal: InstructionCount,
    different: InstructionCount,
) -> String {
    let (mut equal, mut different) = (equal, different);
    while different - equal > 1 {
        let middle = equal + (different - equal) / 2;
        let same = digest_at(seed, None, middle).0 == digest_at(seed, Some(treatment), middle).0;
        if same {
            equal = middle;
        } else {
            different = middle;
        }
    }
    let before = digest_at(seed, None, equal).1;
    let expected = digest_at(seed, None, different).1;
    let found = digest_at(seed, Some(treatment), different).1;
    let mut reference = machine(seed, None);
    run(&mut reference, equal, None);
    let rip = before
        .split("rip: ")
        .nth(1)
        .and_then(|text| u64::from_str_radix(text.split(',').next()?, 16).ok())
        .unwrap_or_default();
    let code = reference
        .memory(rip.wrapping_sub(0x30), 0x40)
        .map(<[u8]>::to_vec);
    format!(
        "before, at {equal}, the code up to RIP and 16 bytes more {code:02x?}:\n{before}\ninterpreted:\n{expected}\ncompiled:\n{found}"
    )
}
