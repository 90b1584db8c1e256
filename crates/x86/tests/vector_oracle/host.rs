//! The host's processor as the oracle.

use std::collections::BTreeMap;

use iced_x86::Instruction;
use x86::fault::PAGE_FAULT;

use crate::differences::{Start, forgive};
use crate::machine::{Machine, STATUS};
use crate::native::{DATA, DATA_SIZE, FxArea, Native, State};
use crate::state::{MEMORY_BYTES, Registers, place_image, state};
use crate::tolerance::Tolerance;
use crate::values::Random;
use crate::vendor::Vendor;
use crate::{forms, setting, whole};

/// Where RAX, RCX, RDX, RSI and RDI are among the general registers.
const GENERAL: [usize; 5] = [0, 1, 2, 6, 7];

/// What an instruction left.
pub struct Outcome {
    pub registers: Registers,
    pub memory: [u8; MEMORY_BYTES],
    /// The exception that it ended in: its vector, and where a page fault was.
    pub fault: Option<(u8, u64)>,
}

/// Runs an instruction by `execute`, which is the host or an interpreter.
fn run_by(
    execute: impl FnOnce(&mut State),
    start: &Registers,
    memory: &[u8; MEMORY_BYTES],
    base: u64,
) -> Outcome {
    let mut state = State::new();
    state.fx = FxArea(start.fxsave);
    for (place, value) in GENERAL.into_iter().zip(start.general) {
        state.gpr[place] = value;
    }
    state.rflags = start.flags;
    let window = (base - DATA) as usize..(base - DATA) as usize + MEMORY_BYTES;
    state.data[window.clone()].copy_from_slice(memory);
    execute(&mut state);
    Outcome {
        registers: Registers {
            fxsave: state.fx.0,
            general: GENERAL.map(|place| state.gpr[place]),
            flags: state.rflags,
        },
        memory: state.data[window].try_into().unwrap(),
        fault: state.raised.map(|raised| {
            let is_page_fault = raised.vector == u64::from(PAGE_FAULT);
            let address = if is_page_fault { raised.address } else { 0 };
            (raised.vector as u8, address)
        }),
    }
}

/// Runs an instruction by the units alone.
fn run_by_units(
    instruction: &Instruction,
    start: &Registers,
    memory: &[u8; MEMORY_BYTES],
    base: u64,
) -> Outcome {
    let mut machine = Machine::new(start, base, memory);
    let fault = machine.execute(instruction);
    Outcome {
        registers: Registers {
            fxsave: machine.fxsave(),
            general: machine.rest.general,
            flags: machine.rest.flags,
        },
        memory: machine.rest.memory,
        fault: fault.map(|fault| (fault.vector, fault.address)),
    }
}

/// What differs, in words.
fn differences(tolerance: &Tolerance, host: &Outcome, here: &Outcome, base: u64) -> Vec<String> {
    let mut found = Vec::new();
    let image = here.registers.fxsave;
    let control = u16::from_le_bytes([image[0], image[1]]);
    let operand = (here.registers.general[3] - base) as usize;
    let (host_memory, host_fault) = (&host.memory, host.fault);
    let host = &host.registers;
    let mut field = |name: &str, range: std::ops::Range<usize>| {
        let (host, ours) = (&host.fxsave[range.clone()], &image[range]);
        if host != ours {
            found.push(format!("{name}: host {} here {}", hex(host), hex(ours)));
        }
    };
    field("FCW", 0..2);
    if !tolerance.status(&host.fxsave, &image) {
        field("FSW", 2..4);
    }
    field("FTW", 4..5);
    field("MXCSR", 24..28);
    for i in 0..8 {
        let range = 32 + 16 * i..42 + 16 * i;
        if !tolerance.x87(&host.fxsave[range.clone()], &image[range.clone()], control) {
            field(&format!("ST{i}"), range);
        }
    }
    for i in 0..16 {
        let range = 160 + 16 * i..176 + 16 * i;
        if !tolerance.xmm(&host.fxsave[range.clone()], &image[range.clone()]) {
            field(&format!("XMM{i}"), range);
        }
    }
    let registers = &here.registers;
    if host.general != registers.general {
        found.push(format!(
            "general: host {:x?} here {:x?}",
            host.general, registers.general
        ));
    }
    let (host_flags, flags) = (host.flags & STATUS, registers.flags & STATUS);
    if !tolerance.flags(host_flags, flags, &image) {
        found.push(format!("flags: host {host_flags:x} here {flags:x}"));
    }
    if let Some(at) = tolerance.memory(host_memory, &here.memory, operand) {
        let end = (at + 16).min(MEMORY_BYTES);
        found.push(format!(
            "memory at {at}: host {:02x?} here {:02x?}",
            &host_memory[at..end],
            &here.memory[at..end]
        ));
    }
    if host_fault != here.fault {
        found.push(format!(
            "fault: host {host_fault:x?} here {:x?}",
            here.fault
        ));
    }
    found
}

/// As a number in memory is written.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().rev().map(|b| format!("{b:02x}")).collect()
}

/// What is compared with the host.
#[derive(Clone, Copy, PartialEq)]
enum Engine {
    /// `simd` and `x87` alone.
    Units,
    /// The interpreter: decoding, translation, and what an instruction needs to be set up.
    Interpreter,
}

/// Where operands in memory are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Anywhere.
    Mapped,
    /// Near the end of what is mapped, half of them beyond it.
    Edge,
}

/// Moves the operands to the last bytes that are mapped.
fn move_to_the_edge(random: &mut Random, base: u64, registers: &mut Registers) {
    let reach = [24, 24, 24, 130, 600][random.below(5) as usize];
    let mut address = || base + MEMORY_BYTES as u64 - random.below(reach);
    let (rsi, rdi) = (address(), address());
    registers.general[3] = if random.chance(2) { rsi & !15 } else { rsi };
    registers.general[4] = rdi;
}

/// Tries every form; the cases of each, and what went wrong.
fn run(
    engine: Engine,
    place: Place,
    seed: u64,
    cases: u64,
    only: Option<&str>,
) -> (BTreeMap<String, u64>, Vec<String>) {
    let mut native = Native::new();
    let mut interpreter = whole::Machine::new();
    let base = match place {
        Place::Mapped => DATA,
        Place::Edge => DATA + (DATA_SIZE - MEMORY_BYTES) as u64,
    };
    let mut counts = BTreeMap::new();
    let mut failures = Vec::new();
    let vendor = Vendor::of_host();
    for code in forms::all() {
        let name = format!("{code:?}");
        if only.is_some_and(|only| !name.starts_with(only)) {
            continue;
        }
        let mut failed = 0;
        let tolerance = Tolerance::of(code, vendor);
        let encodings = forms::encodings(code);
        for encoding_number in 0..encodings {
            let mut random = Random::of(seed, code, encoding_number);
            let encoding = forms::encode(code, encoding_number, &mut random);
            for case in 0..cases.div_ceil(encodings) {
                let all_masked = case % 4 != 0;
                let (mut start, mut start_memory) = state(code, &mut random, base, all_masked);
                match place {
                    Place::Mapped => {
                        place_image(code, &mut random, base, &start, &mut start_memory);
                    }
                    Place::Edge => move_to_the_edge(&mut random, base, &mut start),
                }
                if tolerance.skips(&start, &start_memory[(start.general[3] - base) as usize..]) {
                    continue;
                }
                let mut host = run_by(
                    |state| native.execute(&encoding.bytes, state),
                    &start,
                    &start_memory,
                    base,
                );
                let mut here = match engine {
                    Engine::Units => {
                        run_by_units(&encoding.instruction, &start, &start_memory, base)
                    }
                    Engine::Interpreter => run_by(
                        |state| interpreter.execute(&encoding.bytes, state),
                        &start,
                        &start_memory,
                        base,
                    ),
                };
                *counts.entry(name.clone()).or_insert(0) += 1;
                let began = Start {
                    instruction: &encoding.instruction,
                    registers: &start,
                    memory: &start_memory,
                    base,
                };
                let is_page_fault = here.fault.is_some_and(|(vector, _)| vector == 14);
                let images = (&host.registers.fxsave, &here.registers.fxsave);
                if host.fault.is_none()
                    && is_page_fault
                    && tolerance.is_given_up_before_a_page_fault(images.0, images.1)
                {
                    continue;
                }
                forgive(&tolerance, &began, &mut host, &mut here);
                let found = differences(&tolerance, &host, &here, base);
                if !found.is_empty() {
                    failed += 1;
                    if failed <= 3 {
                        failures.push(describe(&encoding, &start, &start_memory, base, &found));
                    }
                }
            }
        }
        if failed > 0 {
            failures.push(format!("{name}: {failed} of {} failed", counts[&name]));
        }
    }
    (counts, failures)
}

fn describe(
    encoding: &forms::Encoding,
    start: &Registers,
    memory: &[u8],
    base: u64,
    found: &[String],
) -> String {
    let image = &start.fxsave;
    let mut text = format!(
        "{:?} {:02x?}\n",
        encoding.instruction.code(),
        encoding.bytes
    );
    text += &format!(
        "  FCW {} FSW {} FTW {} MXCSR {} general {:x?}\n",
        hex(&image[0..2]),
        hex(&image[2..4]),
        hex(&image[4..5]),
        hex(&image[24..28]),
        start.general
    );
    for n in 0..encoding.instruction.op_count() {
        let register = encoding.instruction.op_register(n);
        if register.is_xmm() {
            let i = register.number();
            text += &format!(
                "  {register:?} {}\n",
                hex(&image[160 + 16 * i..176 + 16 * i])
            );
        }
        if register.is_st() {
            let i = register.number();
            text += &format!("  {register:?} {}\n", hex(&image[32 + 16 * i..42 + 16 * i]));
        }
    }
    text += &format!(
        "  ST0 {} ST1 {}\n",
        hex(&image[32..42]),
        hex(&image[48..58])
    );
    let operand = (start.general[3] - base) as usize;
    let end = (operand + 16).min(MEMORY_BYTES);
    text += &format!("  memory {}\n", hex(&memory[operand..end]));
    for line in found {
        text += &format!("  {line}\n");
    }
    text
}

fn check(engine: Engine, place: Place, default_cases: u64) {
    let seed = setting("UNDERSTUDY_SEED", 1);
    let cases = setting("UNDERSTUDY_ORACLE_CASES", default_cases);
    let only = std::env::var("UNDERSTUDY_ORACLE_FORM").ok();
    let (counts, failures) = run(engine, place, seed, cases, only.as_deref());
    let total: u64 = counts.values().sum();
    println!("{} forms, {total} cases", counts.len());
    let untried: Vec<_> = forms::all()
        .into_iter()
        .map(|code| format!("{code:?}"))
        .filter(|name| only.is_none() && counts.get(name).is_none_or(|&n| n == 0))
        .collect();
    assert!(untried.is_empty(), "never tried: {untried:?}");
    assert!(
        failures.is_empty(),
        "UNDERSTUDY_SEED={seed} UNDERSTUDY_ORACLE_CASES={cases}\n{}",
        failures.join("\n")
    );
}

#[test]
fn every_form_does_what_the_host_does() {
    check(Engine::Units, Place::Mapped, 300);
}

#[test]
fn a_fault_at_the_edge_of_memory_leaves_what_the_host_leaves() {
    check(Engine::Units, Place::Edge, 100);
}

#[test]
fn every_form_does_so_in_the_interpreter() {
    check(Engine::Interpreter, Place::Mapped, 60);
}

#[test]
fn a_fault_at_the_edge_of_memory_has_the_host_s_address() {
    check(Engine::Interpreter, Place::Edge, 60);
}
