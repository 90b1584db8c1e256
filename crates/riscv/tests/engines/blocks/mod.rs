//! Programs of random blocks that judge one engine by another: every instruction, any registers,
//! edge values, faults in the middle, code and translations that change under the blocks, in every
//! mode; each block runs some 40 times, so that it becomes hot.
//!
//! Included by the tests of this crate, by `cargo xtask blocks` and by the fuzzer.
#![allow(dead_code)] // each of them uses its own part

#[path = "../../instructions/assembler.rs"]
mod assembler;
mod block;
mod compressed;
mod disturbance;
#[path = "../execution.rs"]
pub mod execution;
mod harness;
mod idioms;
pub mod judge;
mod layout;
mod operands;
#[path = "../../determinism/random.rs"]
pub mod random;
mod tables;

use assembler::{Assembler, elf};
use block::{Block, Emitter, Roles, data_address};
use layout::{
    CODE, CODE_PAGES, CONTEXTS, DATA, FUNCTIONS, GIANT_PAGES, LARGE_PAGE, MEMORY_BYTES,
    OFFSET_MASK, RUNS, USER_DEVICES, USER_WINDOW, context, run,
};
use machine::config::BoardConfig;
use machine::config::BootImages;
use random::Random;
use riscv::board::bus::{CLINT_BASE, PLIC_BASE, UART_BASE};
use riscv::hart::csr::status;
use riscv::isa::{self, Extensions, Op};
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

/// Blocks of a program.
pub const BLOCKS: u64 = 12;
/// Runs of a program: some blocks run more than once, each time in another mode.
const RUN_COUNT: u64 = 20;

/// A program, and the machine that it is for.
pub struct Program {
    image: Vec<u8>,
    harts: u32,
}

/// The mode and address space of a run.
#[derive(Clone, Copy)]
struct Situation {
    /// As in `mstatus.MPP`.
    mode: u64,
    /// The mode in `satp`.
    paging: u64,
}

impl Situation {
    fn random(random: &mut Random) -> Situation {
        let mode = random.pick(&[0, 0, 1, 1, 3]);
        let paging = random.pick(&[0, 8, 8, 8, 9, 10]);
        Situation { mode, paging }
    }

    /// From the program's addresses to those that the run's code sees.
    fn seen(self, address: u64) -> u64 {
        if self.mode == 0 && self.paging != 0 {
            address & OFFSET_MASK | USER_WINDOW
        } else {
            address
        }
    }

    /// Some other address of the same RAM, or not even that.
    fn alias(self, address: u64, random: &mut Random) -> u64 {
        match random.below(8) {
            0 => address + LARGE_PAGE,
            1 => address & OFFSET_MASK | random.pick(&GIANT_PAGES),
            2 => address & OFFSET_MASK | USER_WINDOW,
            3 => RAM_BASE + MEMORY_BYTES - random.below(16),
            _ => self.seen(address),
        }
    }

    fn device(self, random: &mut Random) -> u64 {
        let address = random.pick(&[
            UART_BASE,
            UART_BASE + 4,
            CLINT_BASE,
            CLINT_BASE + 0xbff8,
            PLIC_BASE,
            0,
        ]);
        if self.mode == 0 && self.paging != 0 {
            address | USER_DEVICES
        } else {
            address
        }
    }
}

impl Program {
    /// The program of a seed.
    pub fn random(seed: u64) -> Program {
        let mut random = Random::new(seed);
        let mut asm = Assembler::new(RAM_BASE);
        harness::emit(&mut asm, RUN_COUNT);
        let mut code = Assembler::new(CODE);
        let blocks = blocks(&mut code, &mut random);
        let code = code.finish();
        contexts(&mut asm);
        for number in 0..RUN_COUNT {
            let block = &blocks[(number % BLOCKS) as usize];
            let situation = Situation::random(&mut random);
            emit_run(&mut asm, block, situation, &mut random);
        }
        asm.skip_to(CODE);
        asm.bytes(&code);
        data(&mut asm, &mut random);
        tables::emit(&mut asm, &mut random);
        Program {
            image: elf(RAM_BASE, &asm.finish()),
            harts: random.pick(&[1, 1, 1, 2]),
        }
    }

    /// A program with one block, a loop over these bytes (the first [`MOST_BYTES`]); its registers,
    /// mode and address space follow from the seed.
    pub fn of_bytes(seed: u64, block: &[u8]) -> Program {
        let mut random = Random::new(seed);
        let mut asm = Assembler::new(RAM_BASE);
        harness::emit(&mut asm, 1);
        let roles = Roles::random(&mut random, &[]);
        // as far from the end of a page as the seed says
        let entry = CODE + random.below(2048) * 2;
        let block = &block[..block.len().min(MOST_BYTES)];
        let mut code = Assembler::new(entry);
        code.bytes(block);
        code.bytes(&vec![0; block.len() % 2]);
        let block = Emitter::new(&mut code, &mut random).end_block(entry, roles);
        contexts(&mut asm);
        let situation = Situation::random(&mut random);
        emit_run(&mut asm, &block, situation, &mut random);
        asm.skip_to(entry);
        asm.bytes(&code.finish());
        asm.skip_to(FUNCTIONS);
        data(&mut asm, &mut random);
        tables::emit(&mut asm, &mut random);
        Program {
            image: elf(RAM_BASE, &asm.finish()),
            harts: 1,
        }
    }

    /// The instructions of its blocks, with what lies between them.
    pub fn block_ops(&self) -> impl Iterator<Item = Op> {
        let start = self.image.len() - (tables::END - CODE) as usize;
        let code = &self.image[start..][..(FUNCTIONS - CODE) as usize];
        let mut at = 0;
        std::iter::from_fn(move || {
            let low = code.get(at..at + 2)?;
            let high = code.get(at + 2..at + 4).unwrap_or(&[0; 2]);
            let bits = u32::from_le_bytes([low[0], low[1], high[0], high[1]]);
            let instruction = isa::decode(bits, isa::Extensions::ALL);
            at += usize::from(instruction.length);
            Some(instruction.op)
        })
    }

    /// A machine at power-on, about to run it.
    pub fn machine(&self) -> Machine {
        let board = BoardConfig {
            memory_bytes: MEMORY_BYTES,
            harts: self.harts,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: false,
            transport: Default::default(),
        };
        let config = Config {
            board,
            extensions: Extensions::ALL,
            unix_base_ns: 1 << 60,
        };
        let images = BootImages {
            kernel: Some(self.image.clone()),
            ..BootImages::default()
        };
        Machine::new(config, &images).expect("the program loads")
    }
}

/// The blocks, at places that are near the ends of pages more often than chance would have it; then
/// the functions.
fn blocks(asm: &mut Assembler, random: &mut Random) -> Vec<Block> {
    let room = CODE_PAGES * 4096 / BLOCKS;
    let mut seed = Random::new(random.bits());
    let mut emitter = Emitter::new(asm, &mut seed);
    let mut blocks = Vec::new();
    for number in 0..BLOCKS {
        let start = CODE + number * room;
        let at = if random.once_in(2) {
            start.next_multiple_of(4096) + 4096 - random.below(128) * 2
        } else {
            start + random.below(64) * 2
        };
        emitter.asm.skip_to(at.max(emitter.asm.here()));
        let fragments = 2 + random.below(30);
        blocks.push(emitter.block(fragments));
    }
    emitter.functions();
    emitter.asm.skip_to(DATA);
    blocks
}

/// The contexts of the harts; the runs are next.
fn contexts(asm: &mut Assembler) {
    asm.skip_to(CONTEXTS);
    (CONTEXTS..RUNS).step_by(8).for_each(|_| asm.double(0));
}

fn data(asm: &mut Assembler, random: &mut Random) {
    asm.skip_to(DATA);
    while asm.here() < tables::ROOTS[0] {
        let value = match random.below(4) {
            0 => operands::float(random),
            1 => operands::integer(random),
            _ => 0,
        };
        asm.double(value);
    }
}

fn emit_run(asm: &mut Assembler, block: &Block, situation: Situation, random: &mut Random) {
    let start = asm.here();
    let fields = [
        situation.seen(block.entry),
        situation.seen(block.end),
        status_bits(situation, random),
        situation.paging << 60
            | random.below(3) << 44
            | situation
                .paging
                .checked_sub(8)
                .map_or(0, |mode| tables::ROOTS[mode as usize] >> 12),
        random.bits() & random.bits() & !(7 << 8),
        random.pick(&[0, 0, 0x20, 0x40, 0x60, 0x80, 0xa0, 0xff]),
        random.pick(&[7, 7, 7, 5, 0]),
        400 + random.below(800),
    ];
    fields.into_iter().for_each(|field| asm.double(field));
    for register in 0..32 {
        let roles = &block.roles;
        let value = if register == roles.counter {
            20 + random.below(40)
        } else if roles.bases.contains(&register) {
            let address = data_address(random);
            situation.alias(address, random)
        } else if register == roles.stray {
            situation.device(random)
        } else {
            operands::integer(random)
        };
        asm.double(value);
    }
    (0..32).for_each(|_| asm.double(operands::float(random)));
    assert_eq!(asm.here() - start, run::BYTES);
}

fn status_bits(situation: Situation, random: &mut Random) -> u64 {
    let mut bits = situation.mode << 11 | status::MPIE;
    bits |= random.pick(&[3, 3, 3, 2, 2, 1, 1, 0]) << 13;
    bits |= random.bits() & (status::SUM | status::MXR | status::SPIE);
    if random.once_in(8) {
        bits |= random.bits() & (status::TVM | status::TW | status::TSR);
    }
    bits
}

/// Bytes of the longest block of [`Program::of_bytes`]: a branch leads back over it.
pub const MOST_BYTES: usize = 2048;
/// No program does anything so often.
const ABSURD: u64 = 1 << 32;

/// What the runs of a program did, by the harness's own account.
#[derive(Clone, Copy, Debug, Default)]
pub struct Account {
    /// Runs that came to their end.
    pub completed: u64,
    /// Runs that the timer ended.
    pub timed_out: u64,
    /// Exceptions by cause.
    pub exceptions: [u64; 16],
    /// Interrupts by cause.
    pub interrupts: [u64; 16],
}

impl Account {
    /// Of a machine that ran a program; nothing if the program has written over it.
    pub fn of(machine: &Machine) -> Account {
        let mut account = Account::default();
        for hart in 0..machine.config().board.harts {
            let read = |field: i32, index: u64| {
                let address = CONTEXTS + u64::from(hart) * 4096 + field as u64 + index * 8;
                let bytes = machine.read_array(address).expect("it is RAM");
                u64::from_le_bytes(bytes).min(ABSURD)
            };
            account.completed += read(context::COMPLETED, 0);
            account.timed_out += read(context::TIMED_OUT, 0);
            for cause in 0..16 {
                account.exceptions[cause as usize] += read(context::EXCEPTIONS, cause);
                account.interrupts[cause as usize] += read(context::INTERRUPTS, cause);
            }
        }
        let counts = account.exceptions.iter().chain(&account.interrupts);
        if counts
            .chain([&account.completed, &account.timed_out])
            .any(|&n| n >= ABSURD)
        {
            return Account::default();
        }
        account
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Account) {
        self.completed += other.completed;
        self.timed_out += other.timed_out;
        for cause in 0..16 {
            self.exceptions[cause] += other.exceptions[cause];
            self.interrupts[cause] += other.interrupts[cause];
        }
    }
}
