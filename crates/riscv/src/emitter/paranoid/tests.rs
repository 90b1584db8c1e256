//! Engines that are broken on purpose: each of them has to be found, and said to be.

use crate::hart::csr::status;
use crate::hart::reservation::Reservation;
use crate::interpreter::environment::Environment;
use crate::isa::Extensions;
use crate::isa::{self, Instruction, Op};
use crate::machine::{Config, Machine};
use crate::memory::RAM_BASE;
use machine::config::{BoardConfig, BootImages};
use machine::engine::Engine;
use machine::{Machine as _, Stop};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What compiled code is made to do wrong, before it is compared.
pub type Sabotage = fn(&mut Environment);

const DATA: usize = 0x1_0000;
const PROGRAM: u64 = RAM_BASE;
/// When the loop is compiled.
const WARM: u64 = 10_000;

fn instruction(op: Op, rd: u8, rs1: u8, rs2: u8, immediate: i32) -> u32 {
    let instruction = Instruction {
        op,
        rd,
        rs1,
        rs2,
        immediate,
        length: 4,
    };
    isa::encode(&instruction).expect("every field fits")
}

/// x10 counts, x11 sums, a double-word and a floating-point register follow.
fn program() -> [u32; 7] {
    [
        instruction(Op::Addi, 10, 10, 0, 1),
        instruction(Op::Add, 11, 11, 10, 0),
        instruction(Op::Sd, 0, 12, 11, 0),
        instruction(Op::Ld, 13, 12, 0, 0),
        instruction(Op::FaddD, 1, 1, 2, 7),
        instruction(Op::AmoaddD, 14, 12, 10, 0),
        instruction(Op::Jal, 0, 0, 0, -24),
    ]
}

/// A machine in the middle of the loop, which is compiled.
fn warm_machine() -> Machine {
    let config = Config {
        board: BoardConfig {
            memory_bytes: 16 << 20,
            harts: 1,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: false,
            transport: Default::default(),
        },
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    let images = BootImages {
        kernel: Some([0x13, 0, 0, 0].repeat(4)), // nop
        ..BootImages::default()
    };
    let mut machine = Machine::new(config, &images).expect("it loads");
    let bytes: Vec<u8> = program().into_iter().flat_map(u32::to_le_bytes).collect();
    machine.memory.write(PROGRAM, &bytes).expect("it is RAM");
    let hart = &mut machine.state.harts[0];
    hart.pc = PROGRAM;
    hart.x.set(12, RAM_BASE + DATA as u64);
    hart.f[2] = 1.5f64.to_bits();
    hart.csr.status |= status::FS;
    assert_eq!(machine.set_engine(Engine::Paranoid), Engine::Paranoid);
    assert_eq!(machine.run(WARM), Stop::Reached);
    machine
}

/// What the panic says if the machine goes on.
fn panic_of(mut machine: Machine) -> String {
    let result = catch_unwind(AssertUnwindSafe(|| machine.run(2 * WARM)));
    match result {
        Ok(stop) => panic!("nobody noticed: {stop:?}"),
        Err(payload) => *payload.downcast::<String>().expect("a report"),
    }
}

fn report_of(sabotage: Sabotage) -> String {
    let mut machine = warm_machine();
    let jit = machine.jit.as_mut().expect("this host has a JIT");
    let paranoid = jit.paranoid.as_mut().expect("it is on");
    paranoid.sabotage = Some(sabotage);
    panic_of(machine)
}

fn assert_says(report: &str, parts: &[&str]) {
    for part in parts {
        assert!(report.contains(part), "no {part:?} in:\n{report}");
    }
}

#[test]
fn engines_that_agree_go_on() {
    let mut machine = warm_machine();
    assert_eq!(machine.run(2 * WARM), Stop::Reached);
    assert_eq!(machine.state.harts[0].x.get(10), (2 * WARM).div_ceil(7));
}

#[test]
fn a_wrong_register_is_found_with_the_instruction_that_wrote_it() {
    let report = report_of(|environment| {
        let sum = environment.hart.x.get(11);
        environment.hart.x.set(11, sum ^ 1);
    });
    assert_says(
        &report,
        &[
            "compiled code and the interpreter differ",
            "from instruction count 100",
            "  x11: 0x",
            "(instruction 101",
            "0x80000004 (physical 0x80000004) 00a585b3 add rd 11 rs1 11 rs2 10",
            "to replay: bring the machine to instruction count 100",
        ],
    );
    assert!(!report.contains("  x10:"), "only one differs:\n{report}");
}

#[test]
fn a_wrong_floating_point_register_is_found() {
    let report = report_of(|environment| environment.hart.f[1] += 1);
    assert_says(&report, &["  f1: 0x"]);
}

#[test]
fn wrong_floating_point_flags_are_found() {
    let report = report_of(|environment| environment.hart.csr.fflags ^= 1);
    assert_says(&report, &["fflags: 0x0, fflags: 0x1"]);
}

#[test]
fn a_wrong_program_counter_is_found() {
    let report = report_of(|environment| environment.hart.pc += 4);
    assert_says(&report, &["  pc: 0x"]);
}

#[test]
fn an_instruction_counted_twice_is_found() {
    let report = report_of(|environment| environment.count += 1);
    assert_says(&report, &["  pc: 0x"]);
}

#[test]
fn running_past_the_stop_is_found() {
    let report = report_of(|environment| environment.count += 1000);
    assert_says(&report, &["had to give up after 128 instructions: Reached"]);
}

#[test]
fn wrong_memory_is_found() {
    let report = report_of(|environment| environment.memory.store_u8(DATA + 7, 0xee));
    assert_says(&report, &["  RAM 0x80010000: 0x00", ", 0xee"]);
}

/// A page that is written and stays clean is missing in the next snapshot of dirty pages.
#[test]
fn a_written_page_that_is_not_dirty_is_found() {
    let report = report_of(|environment| {
        let _looked = environment.memory.digest();
    });
    assert_says(&report, &["  RAM 0x80010000: 0x", "page clean"]);
}

#[test]
fn attention_out_of_nothing_is_found() {
    let report = report_of(|environment| environment.attention = true);
    assert_says(&report, &["asks for attention: false, true"]);
}

#[test]
fn a_lost_reservation_is_found() {
    let report = report_of(|environment| environment.hart.reservation = Reservation::at(RAM_BASE));
    assert_says(&report, &["reservation: None"]);
}

/// What a missed invalidation is like: compiled code that is no longer what is in RAM.
#[test]
fn stale_code_is_found() {
    let mut machine = warm_machine();
    let changed = instruction(Op::Addi, 10, 10, 0, 2);
    machine.memory.store_u32(0, changed); // behind everyone's back
    assert_says(&panic_of(machine), &["  x10: 0x", "immediate 0x2"]);
}

/// A TLB entry that should have been dropped: the store goes where the page was before.
#[test]
fn a_stale_translation_is_found() {
    let mut machine = warm_machine();
    let other_page = (DATA + 0x1000) & !0xfff;
    let hart = &mut machine.state.harts[0];
    let address = hart.x.get(12);
    hart.tlb.insert_load(address, other_page);
    hart.tlb.insert_store(address, other_page);
    hart.tlb.forget_copies_of_data(); // the site caches, which are right, are asked no more
    assert_says(&panic_of(machine), &["  RAM 0x80010000: 0x"]);
}
