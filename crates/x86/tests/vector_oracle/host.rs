//! The host's processor as the oracle.

use std::collections::BTreeMap;

use crate::machine::{Machine, STATUS};
use x86::fault::PAGE_FAULT;

use crate::native::{DATA, DATA_SIZE, FxArea, Native, State};
use crate::state::{MEMORY_BYTES, Registers, place_image, state};
use crate::tolerance::Tolerance;
use crate::values::Random;
use crate::{forms, setting};

/// Where RAX, RCX, RDX, RSI and RDI are among the general registers.
const GENERAL: [usize; 5] = [0, 1, 2, 6, 7];

/// Runs an instruction natively; gives the vector of the exception that it ended in.
fn execute(
    native: &mut Native,
    instruction: &[u8],
    registers: &mut Registers,
    memory: &mut [u8; MEMORY_BYTES],
    base: u64,
) -> Option<u8> {
    let mut state = State::new();
    state.fx = FxArea(registers.fxsave);
    for (place, value) in GENERAL.into_iter().zip(registers.general) {
        state.gpr[place] = value;
    }
    state.rflags = registers.flags;
    let window = (base - DATA) as usize..(base - DATA) as usize + MEMORY_BYTES;
    state.data[window.clone()].copy_from_slice(memory);
    native.execute(instruction, &mut state);
    registers.fxsave = state.fx.0;
    registers.general = GENERAL.map(|place| state.gpr[place]);
    registers.flags = state.rflags;
    memory.copy_from_slice(&state.data[window]);
    state.raised.map(|raised| raised.vector as u8)
}

/// What differs, in words.
fn differences(
    tolerance: &Tolerance,
    host: &Registers,
    host_memory: &[u8],
    machine: &Machine,
) -> Vec<String> {
    let mut found = Vec::new();
    let image = machine.fxsave();
    let mut field = |name: &str, range: std::ops::Range<usize>| {
        let (host, ours) = (&host.fxsave[range.clone()], &image[range]);
        if host != ours {
            let hex = |bytes: &[u8]| {
                bytes
                    .iter()
                    .rev()
                    .map(|b| format!("{b:02x}"))
                    .collect::<String>()
            };
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
        if !tolerance.x87(&host.fxsave[range.clone()], &image[range.clone()]) {
            field(&format!("ST{i}"), range);
        }
    }
    for i in 0..16 {
        let range = 160 + 16 * i..176 + 16 * i;
        if !tolerance.xmm(&host.fxsave[range.clone()], &image[range.clone()]) {
            field(&format!("XMM{i}"), range);
        }
    }
    if host.general != machine.rest.general {
        found.push(format!(
            "general: host {:x?} here {:x?}",
            host.general, machine.rest.general
        ));
    }
    let (status, control) = (machine.x87.status, machine.x87.control);
    let (host_flags, flags) = (host.flags & STATUS, machine.rest.flags & STATUS);
    if !tolerance.flags(host_flags, flags, status, control) {
        found.push(format!("flags: host {:x} here {:x}", host_flags, flags));
    }
    if let Some(at) = tolerance.memory(host_memory, &machine.rest.memory, machine.operand()) {
        let end = (at + 16).min(MEMORY_BYTES);
        found.push(format!(
            "memory at {at}: host {:02x?} here {:02x?}",
            &host_memory[at..end],
            &machine.rest.memory[at..end]
        ));
    }
    found
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
    place: Place,
    seed: u64,
    cases: u64,
    only: Option<&str>,
) -> (BTreeMap<String, u64>, Vec<String>) {
    let mut native = Native::new();
    let base = match place {
        Place::Mapped => DATA,
        Place::Edge => DATA + (DATA_SIZE - MEMORY_BYTES) as u64,
    };
    let mut counts = BTreeMap::new();
    let mut failures = Vec::new();
    for code in forms::all() {
        let name = format!("{code:?}");
        if only.is_some_and(|only| !name.starts_with(only)) {
            continue;
        }
        let mut failed = 0;
        let tolerance = Tolerance::of(code);
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
                let mut host_memory = start_memory;
                let mut host = start.clone();
                let host_fault = execute(
                    &mut native,
                    &encoding.bytes,
                    &mut host,
                    &mut host_memory,
                    base,
                );
                let mut machine = Machine::new(&start, base, &start_memory);
                let fault = machine.execute(&encoding.instruction);
                *counts.entry(name.clone()).or_insert(0) += 1;
                if fault == Some(PAGE_FAULT) && tolerance.enters_mmx_before_a_fault() {
                    machine.x87.enter_mmx();
                }
                if fault == Some(PAGE_FAULT) && tolerance.stores_in_parts() {
                    host_memory = start_memory;
                }
                let mut found = differences(&tolerance, &host, &host_memory, &machine);
                if fault != host_fault {
                    found.push(format!("fault: host {host_fault:?} here {fault:?}"));
                }
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
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
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

fn check(place: Place, default_cases: u64) {
    let seed = setting("UNDERSTUDY_SEED", 1);
    let cases = setting("UNDERSTUDY_ORACLE_CASES", default_cases);
    let only = std::env::var("UNDERSTUDY_ORACLE_FORM").ok();
    let (counts, failures) = run(place, seed, cases, only.as_deref());
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
    check(Place::Mapped, 300);
}

#[test]
fn a_fault_at_the_edge_of_memory_leaves_what_the_host_leaves() {
    check(Place::Edge, 100);
}
