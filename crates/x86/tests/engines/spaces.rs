//! Guests of two CPUs and several address spaces: programs that read, write and call their pages, while either CPU changes
//! what any of the spaces' tables say, moves tables from one space to another, and rewrites what programs execute. An
//! engine that has remembered something of a space finds it changed when the space runs again.
//!
//! What each CPU does is a list that the guest's kernel works through, so that its few instructions are compiled soon. The
//! kernel is in the upper half, by the same entry of every root.

use crate::kernel_image::kernel_image;
use crate::random::Random;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig};
use machine::engine::Engine;
use x86::boot::BootImages;
use x86::machine::Machine;

const LOAD: u64 = 0x10_0000;
const ENTRY: u64 = LOAD + 0x200;
/// What programs execute.
const PROGRAM: u64 = LOAD + 0x4000;
/// What each of the CPUs does.
const LISTS: [u64; 2] = [LOAD + 0x5000, LOAD + 0x1_8000];
const IDT: u64 = 0x1_0000;
const GDT: u64 = 0x1_1000;
const TASKS: [u64; 2] = [0x1_1100, 0x1_1200];
const POINTERS: u64 = 0x1_1300;
const STACKS: [u64; 2] = [0x8_0000, 0x7_0000];
const MAILBOX: u64 = 0xd000_8000;
/// The boot protocol's tables, which map the first 4 GiB to themselves.
const BOOT_ROOT: u64 = 0x9000;
const BOOT_TABLE: u64 = 0xa000;
/// Where the kernel finds the first 4 GiB.
const UPPER: u64 = 0xffff_8000_0000_0000;
const UPPER_ENTRY: u64 = 256 * 8;
/// Another entry of the upper half, and what it maps: the first 4 GiB, or [`UPPER_TABLE`]'s, where data is elsewhere.
const OTHER_UPPER_ENTRY: u64 = 300 * 8;
const OTHER_UPPER: u64 = 0xffff_9600_0000_0000;
const UPPER_TABLE: u64 = 0x50_0000;
/// Where programs find their pages.
const PAGES: u64 = 1 << 39;
const PROGRAM_PAGE: u64 = 8;
const STACK_PAGE: u64 = 9;
const DATA: u64 = 0x70_0000;
const CODE: u64 = 0x71_0000;
const STACK: u64 = 0x72_0000;

const END: u64 = 0;
const POKE: u64 = 1;
const VISIT: u64 = 2;
const REACH: u64 = 3;
const PAUSE: u64 = 4;
const WAKE: u64 = 5;
const READ: u64 = 6;

/// What the kernel is asked to do.
type Action = [u64; 3];

/// The tables of a space, one for each level, from the root on.
fn table(space: u64, level: u64) -> u64 {
    0x60_0000 + space * 0x4000 + level * 0x1000
}

/// `lea r8, [r8 + r8 + value]`; a RET follows.
fn function(value: u32) -> u64 {
    0x0084_8d4f | u64::from(value) << 32
}

fn kernel() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut label = || a.create_label();
    let (mut second, mut begin, mut next, mut recover) = (label(), label(), label(), label());
    let (mut poke, mut visit, mut reach, mut pause, mut wake) =
        (label(), label(), label(), label(), label());
    let mut read = label();
    let (mut fault, mut writes) = (label(), label());
    // The first CPU: the kernel's half, descriptors.
    a.mov(eax, BOOT_ROOT as u32)?;
    a.mov(rcx, BOOT_TABLE | 0x23)?;
    a.mov(qword_ptr(rax + UPPER_ENTRY), rcx)?;
    for (vector, handler, kind) in [(14, fault, 0x8e00), (0x80, recover, 0xee00u32)] {
        a.lea(rax, ptr(handler))?;
        a.mov(rdx, UPPER)?;
        a.add(rax, rdx)?;
        a.mov(edx, (IDT + vector * 16) as u32)?;
        a.mov(word_ptr(rdx), ax)?;
        a.mov(word_ptr(rdx + 2), 0x10)?;
        a.mov(word_ptr(rdx + 4), kind)?;
        a.shr(rax, 16)?;
        a.mov(word_ptr(rdx + 6), ax)?;
        a.shr(rax, 16)?;
        a.mov(dword_ptr(rdx + 8), eax)?;
    }
    let mut put = |address: u64, value: u64| {
        a.mov(edx, address as u32)?;
        a.mov(rax, value)?;
        a.mov(qword_ptr(rdx), rax)
    };
    put(GDT + 0x10, 0x00af_9b00_0000_ffff)?;
    put(GDT + 0x18, 0x00cf_9300_0000_ffff)?;
    put(GDT + 0x20, 0x00cf_f300_0000_ffff)?;
    put(GDT + 0x28, 0x00af_fb00_0000_ffff)?;
    for (cpu, task) in TASKS.into_iter().enumerate() {
        let descriptor = GDT + 0x30 + 16 * cpu as u64;
        let low = 0x67 | (task & 0xff_ffff) << 16 | 0x89 << 40;
        put(descriptor, low)?;
        put(descriptor + 8, UPPER >> 32)?;
        put(task + 4, UPPER + STACKS[cpu])?;
    }
    put(POINTERS, (IDT + UPPER) << 16 | 0xfff)?;
    put(POINTERS + 8, (IDT + UPPER) >> 48)?;
    put(POINTERS + 16, (GDT + UPPER) << 16 | 0x5f)?;
    put(POINTERS + 24, (GDT + UPPER) >> 48)?;
    a.xor(ebp, ebp)?;
    a.jmp(begin)?;
    a.set_label(&mut second)?;
    a.mov(eax, BOOT_ROOT as u32)?;
    a.mov(cr3, rax)?;
    a.mov(ebp, 1)?;
    // Either: RBP is its number.
    a.set_label(&mut begin)?;
    a.mov(edx, POINTERS as u32)?;
    a.lidt(ptr(rdx))?;
    a.lgdt(ptr(rdx + 16))?;
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.or(eax, 0x800)?; // NXE
    a.wrmsr()?;
    a.mov(rax, cr0)?;
    a.or(eax, 1 << 16)?; // WP
    a.mov(cr0, rax)?;
    a.mov(rax, cr4)?;
    a.or(eax, 1 << 21)?; // SMAP
    a.mov(cr4, rax)?;
    a.mov(eax, ebp)?;
    a.shl(eax, 4)?;
    a.add(eax, 0x30)?;
    a.ltr(ax)?;
    a.mov(r12, UPPER)?;
    a.mov(rsi, r12)?;
    a.add(rsi, LISTS[0] as i32)?;
    a.mov(r14, r12)?;
    a.add(r14, STACKS[0] as i32)?;
    a.imul_3(eax, ebp, (LISTS[1] - LISTS[0]) as i32)?;
    a.add(rsi, rax)?;
    a.imul_3(eax, ebp, (STACKS[0] - STACKS[1]) as i32)?;
    a.sub(r14, rax)?;
    a.mov(r8d, 1)?;
    a.mov(r9d, 3)?;
    a.lea(rax, ptr(recover))?;
    a.add(rax, r12)?;
    a.jmp(rax)?;

    a.set_label(&mut fault)?;
    a.pop(rax)?;
    a.mov(rcx, cr2)?;
    a.imul_3(r8, r8, 31)?;
    a.add(r8, rax)?;
    a.add(r8, rcx)?;
    a.set_label(&mut recover)?;
    a.mov(rsp, r14)?;
    a.clac()?;
    a.set_label(&mut next)?;
    a.mov(rdx, qword_ptr(rsi))?;
    a.mov(rax, qword_ptr(rsi + 8))?;
    a.mov(rbx, qword_ptr(rsi + 16))?;
    a.add(rsi, 24)?;
    for (kind, label) in [
        (POKE, poke),
        (VISIT, visit),
        (REACH, reach),
        (PAUSE, pause),
        (WAKE, wake),
        (READ, read),
    ] {
        a.cmp(edx, kind as u32)?;
        a.je(label)?;
    }
    a.hlt()?;
    a.set_label(&mut poke)?;
    a.mov(qword_ptr(r12 + rax), rbx)?;
    a.jmp(next)?;
    // A program, at its first instruction: EDI is what it does to the page at RBX.
    a.set_label(&mut visit)?;
    a.mov(cr3, rax)?;
    a.mov(edi, ebx)?;
    a.and(edi, 0xff)?;
    a.xor(rbx, rdi)?;
    a.mov(rax, PAGES)?;
    a.add(rbx, rax)?;
    a.push(0x23)?;
    a.lea(rcx, ptr(rax + STACK_PAGE * 0x1000 + 0x800))?;
    a.push(rcx)?;
    a.push(2)?;
    a.push(0x2b)?;
    a.lea(rcx, ptr(rax + PROGRAM_PAGE * 0x1000))?;
    a.push(rcx)?;
    a.iretq()?;
    // The kernel itself.
    a.set_label(&mut reach)?;
    a.mov(cr3, rax)?;
    a.mov(edi, ebx)?;
    a.and(edi, 0xff)?;
    a.xor(rbx, rdi)?;
    a.mov(rax, PAGES)?;
    a.add(rbx, rax)?;
    a.stac()?;
    a.test(edi, edi)?;
    a.jne(writes)?;
    a.add(r8, qword_ptr(rbx))?;
    a.clac()?;
    a.jmp(next)?;
    a.set_label(&mut writes)?;
    a.add(qword_ptr(rbx), r9)?;
    a.clac()?;
    a.jmp(next)?;
    // With the root that is loaded.
    a.set_label(&mut read)?;
    a.add(r8, qword_ptr(rax))?;
    a.rol(r8, 1)?;
    a.jmp(next)?;
    a.set_label(&mut pause)?;
    a.pause()?;
    a.jmp(next)?;
    a.set_label(&mut wake)?;
    a.mov(edx, MAILBOX as u32)?;
    a.add(rdx, r12)?;
    a.lea(rax, ptr(second))?;
    a.sub(rax, r12)?;
    a.mov(dword_ptr(rdx + 4), 1)?;
    a.mov(qword_ptr(rdx + 8), rax)?;
    a.mov(word_ptr(rdx), 1)?;
    a.jmp(next)?;
    a.assemble(ENTRY)
}

fn program() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let mut label = || a.create_label();
    let (mut read, mut write, mut rewrite, mut done) = (label(), label(), label(), label());
    a.test(edi, edi)?;
    a.je(read)?;
    a.cmp(edi, 1)?;
    a.je(write)?;
    a.cmp(edi, 3)?;
    a.je(rewrite)?;
    a.call(rbx)?;
    a.jmp(done)?;
    a.set_label(&mut read)?;
    a.mov(rax, qword_ptr(rbx))?;
    a.imul_3(r8, r8, 31)?;
    a.add(r8, rax)?;
    a.jmp(done)?;
    a.set_label(&mut write)?;
    a.add(qword_ptr(rbx), r9)?;
    a.add(r9, 0x1111)?;
    a.jmp(done)?;
    a.set_label(&mut rewrite)?;
    // What a function adds; several times, as the first store only says that the page is no code any more.
    for _ in 0..3 {
        a.add(dword_ptr(rbx + 4), r9d)?;
    }
    a.set_label(&mut done)?;
    a.int(0x80)?;
    a.assemble(PAGES + PROGRAM_PAGE * 0x1000)
}

/// What an entry of the last level may be.
fn leaf(random: &mut Random, number: u64) -> u64 {
    match number {
        0..4 => {
            let flags = random.pick(&[7, 7, 0x67, 0x67, 5, 3, 0, 7 | 1 << 63]);
            (DATA + random.below(8) * 0x1000) | flags
        }
        _ => {
            let flags = random.pick(&[7, 0x67, 0x67, 0x25, 0, 5 | 1 << 63]);
            (CODE + random.below(4) * 0x1000) | flags
        }
    }
}

/// All spaces as they are at first.
fn prepare(random: &mut Random, spaces: u64) -> Vec<Action> {
    let mut list = Vec::new();
    let mut poke = |address, value| list.push([POKE, address, value]);
    for space in 0..spaces {
        let root = table(space, 0);
        poke(root + UPPER_ENTRY, BOOT_TABLE | 0x23);
        poke(root + OTHER_UPPER_ENTRY, BOOT_TABLE | 0x23);
        poke(root + 8, table(space, 1) | 0x27);
        for level in 1..3 {
            poke(table(space, level), table(space, level + 1) | 0x27);
        }
        let leaves = table(space, 3);
        for number in 0..8 {
            poke(leaves + number * 8, leaf(random, number));
        }
        poke(leaves + PROGRAM_PAGE * 8, PROGRAM | 0x25);
        poke(leaves + STACK_PAGE * 8, STACK | 0x67);
    }
    poke(UPPER_TABLE, (UPPER_TABLE + 0x1000) | 0x23);
    poke(UPPER_TABLE + 0x1000 + (DATA >> 21) * 8, 0xe3);
    for number in 0..4 {
        poke(CODE + number * 0x1000, function(number as u32));
        poke(CODE + number * 0x1000 + 8, 0xc3);
    }
    list
}

fn visit(random: &mut Random, spaces: u64) -> Action {
    let root = table(random.below(spaces), 0);
    let (data, code) = (random.below(4) << 12, (4 + random.below(4)) << 12);
    match random.below(8) {
        0 => [VISIT, root, data],
        1 => [VISIT, root, data | 1],
        2..6 => [VISIT, root, code | 2],
        6 => [VISIT, root, code | 3],
        _ => [REACH, root, data | random.below(2)],
    }
}

/// A store of the kernel, most of them to some table.
fn change(random: &mut Random, spaces: u64) -> Action {
    let (space, other) = (random.below(spaces), random.below(spaces));
    let (address, value) = match random.below(16) {
        0..7 => {
            let number = random.below(8);
            (table(space, 3) + number * 8, leaf(random, number))
        }
        7..12 => {
            // Another space's table, or its own, or none.
            let level = random.below(3);
            let at = table(space, level) + if level == 0 { 8 } else { 0 };
            let flags = random.pick(&[0x27, 0x27, 0x27, 7, 0]);
            (at, table(other, level + 1) | flags)
        }
        // Spaces with different kernels share nothing: not too often.
        13 if random.once_in(4) => {
            // What follows reads it, and puts it back.
            (table(space, 0) + OTHER_UPPER_ENTRY, UPPER_TABLE | 0x23)
        }
        12 => {
            let value = function(random.bits() as u32);
            (CODE + random.below(4) * 0x1000, value)
        }
        _ => (DATA + random.below(8) * 0x1000, random.bits()),
    };
    [POKE, address, value]
}

fn actions(random: &mut Random, spaces: u64) -> Vec<Action> {
    let mut list = Vec::new();
    for _ in 0..ACTIONS {
        let read = [READ, OTHER_UPPER + DATA + random.below(8) * 0x1000, 0];
        let action = match random.below(14) {
            0..2 => [PAUSE, 0, 0],
            2..6 => change(random, spaces),
            6 => read,
            _ => visit(random, spaces),
        };
        list.push(action);
        if action[2] == UPPER_TABLE | 0x23 {
            let back = [POKE, action[1], BOOT_TABLE | 0x23];
            list.extend([read, visit(random, spaces), read, back]);
        }
    }
    list.push([END; 3]);
    list
}

/// Of each CPU.
const ACTIONS: usize = 300;

fn generate(seed: u64) -> Vec<u8> {
    let random = &mut Random::new(seed);
    let spaces = random.pick(&[2, 3, 3, 20]);
    let mut first = prepare(random, spaces);
    first.push([WAKE, 0, 0]);
    first.extend(actions(random, spaces));
    let lists = [first, actions(random, spaces)];
    let mut image = kernel().expect("the kernel assembles");
    let mut place = |address: u64, bytes: &[u8]| {
        let at = (address - ENTRY) as usize;
        assert!(image.len() <= at, "there is room");
        image.resize(at, 0xcc);
        image.extend_from_slice(bytes);
    };
    place(PROGRAM, &program().expect("the program assembles"));
    for (address, list) in LISTS.into_iter().zip(lists) {
        let bytes: Vec<u8> = list
            .concat()
            .into_iter()
            .flat_map(u64::to_le_bytes)
            .collect();
        place(address, &bytes);
    }
    kernel_image(LOAD, &image)
}

/// How a guest is run.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Interpreted, and nothing is remembered from one instruction to the next.
    Forgetful,
    Interpreted,
    Compiled,
    Chaos(u64),
    Paranoid,
}

/// Runs a guest until nobody has anything to do; gives count and digest there.
fn run(image: &[u8], way: Way) -> (u64, u128) {
    let board = BoardConfig {
        memory_bytes: 8 << 20,
        harts: 2,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let images = BootImages {
        kernel: image.to_vec(),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board,
        features: Default::default(),
        unix_base_ns: 0,
    };
    let mut machine = Machine::new(config, &images).expect("the guest is a kernel");
    machine.set_engine(match way {
        Way::Forgetful | Way::Interpreted => Engine::Interpreter,
        Way::Compiled | Way::Chaos(_) => Engine::Jit,
        Way::Paranoid => Engine::Paranoid,
    });
    if let Way::Chaos(seed) = way {
        machine.set_chaos(Some(seed));
    }
    let step = match way {
        Way::Forgetful => 1,
        _ => 1 << 20,
    };
    loop {
        let stop = machine.run(machine.instruction_count() + step);
        match stop {
            Stop::Idle { wake_at_ns: None } => {
                return (machine.instruction_count(), machine.digest());
            }
            Stop::Reached if matches!(way, Way::Forgetful) => machine.forget_caches(),
            other => panic!("{way:?}: {other:?}\n{}", machine.describe()),
        }
    }
}

/// Runs a seed's guest in all ways.
pub fn check(seed: u64) {
    let image = generate(seed);
    let expected = run(&image, Way::Forgetful);
    assert!(expected.0 > 10_000, "it did something");
    for way in [
        Way::Interpreted,
        Way::Compiled,
        Way::Chaos(2 * seed),
        Way::Chaos(2 * seed + 1),
        Way::Paranoid,
    ] {
        let found = run(&image, way);
        assert_eq!(
            found, expected,
            "seed {seed}, {way:?}; to see it again: UNDERSTUDY_SEED={seed} cargo test -p x86 --test engines \
             one_seed_of_spaces"
        );
    }
}
