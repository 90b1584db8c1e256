//! Guests that misuse their devices, one that writes to its disk, one that wants random numbers, and one of
//! several harts.

use super::assembler::*;
use super::guest_program::{COUNTER, OWN_MTIMECMP, begin, print_counter, wait};
use riscv::isa::Op;

/// Windows of devices, as the board has them: begin, end, and the distance of the places that are
/// touched. The finisher's first word is left out: it would end the machine.
const WINDOWS: [(u64, u64, i32); 9] = [
    (0x0, 0x2000, 36),                         // nothing, and the boot ROM
    (0x10_0004, 0x10_1000, 4),                 // finisher
    (0x10_1000, 0x10_2000, 4),                 // RTC
    (0x200_0000, 0x201_0000, 4),               // CLINT
    (0xc00_0000, 0xc60_0000, 0xfc),            // PLIC
    (0x1000_0000, 0x1000_0100, 1),             // UART
    (0x1000_1000, 0x1000_a000, 4),             // virtio slots, and what is behind them
    (0x3000_0000, 0x3001_0000, 508),           // nothing
    (0x80_7fff_ff00, 0x81_0000_0100, 1 << 19), // above RAM
];

const VIRTIO_BASE: u64 = 0x1000_1000;
const VIRTIO_SLOTS: u64 = 8;
/// What queues are pointed at: random bytes.
const JUNK: u64 = RAM + (1 << 20);
const JUNK_BYTES: u64 = 1 << 16;

/// Next pseudo-random number in A3 (xorshift64). Uses A4.
fn random(program: &mut Assembler) {
    for (op, shift) in [(Op::Slli, 13), (Op::Srli, 7), (Op::Slli, 17)] {
        program.immediate(op, A4, A3, shift);
        program.register(Op::Xor, A3, A3, A4);
    }
}

/// Every width of every kind of access at A0.
fn abuse(program: &mut Assembler) {
    for op in [Op::Sd, Op::Sw, Op::Sh, Op::Sb] {
        program.store(op, A3, A0, 0);
    }
    for op in [Op::Lb, Op::Lhu, Op::Lw, Op::Ld] {
        program.immediate(op, A4, A0, 0);
    }
    program.store(Op::Sw, ZERO, A0, 0);
    program.store(Op::Sd, A5, A0, 0);
    for op in [Op::AmoaddW, Op::AmoswapD, Op::ScW] {
        program.register(op, A4, A0, A3);
    }
    program.register(Op::LrD, A4, A0, ZERO);
}

fn sweep(program: &mut Assembler) {
    for (begin, end, distance) in WINDOWS {
        program.load(A0, begin);
        program.load(A1, end);
        program.load(A2, distance as u64);
        let again = program.here();
        random(program);
        abuse(program);
        program.register(Op::Add, A0, A0, A2);
        program.branch(Op::Bltu, A0, A1, again);
    }
}

fn fill_with_junk(program: &mut Assembler) {
    program.load(A0, JUNK);
    program.load(A1, JUNK + JUNK_BYTES);
    let again = program.here();
    random(program);
    program.store(Op::Sd, A3, A0, 0);
    program.immediate(Op::Addi, A0, A0, 8);
    program.branch(Op::Bltu, A0, A1, again);
}

/// Sets every queue of every slot up over junk, and notifies it. Uses A0 to A5.
fn junk_queues(program: &mut Assembler) {
    let write = |program: &mut Assembler, register: i32, value: u64| {
        program.load(A1, value);
        program.store(Op::Sw, A1, A0, register);
    };
    let somewhere = |program: &mut Assembler, register: i32| {
        random(program);
        program.load(A1, JUNK_BYTES - 8);
        program.register(Op::And, A1, A1, A3);
        program.load(A4, JUNK);
        program.register(Op::Add, A1, A1, A4);
        program.store(Op::Sw, A1, A0, register);
        program.store(Op::Sw, ZERO, A0, register + 4);
    };
    for slot in 0..VIRTIO_SLOTS {
        program.load(A0, VIRTIO_BASE + slot * 0x1000);
        write(program, 0x70, 0); // reset
        write(program, 0x70, 3);
        write(program, 0x24, 1);
        write(program, 0x20, 1); // VERSION_1
        write(program, 0x70, 11);
        for queue in 0..3 {
            write(program, 0x30, queue);
            write(program, 0x38, 64);
            for register in [0x80, 0x90, 0xa0] {
                somewhere(program, register);
            }
            write(program, 0x44, 1);
        }
        write(program, 0x70, 15);
        for queue in [0, 1, 2, 0xffff_ffff] {
            write(program, 0x50, queue);
        }
    }
}

/// Writes nonsense to every device `rounds` times, then powers off.
pub fn hostile(rounds: u64) -> Vec<u8> {
    let mut program = Assembler::default();
    program.skip_faults();
    program.load(A3, 0x9e37_79b9_7f4a_7c15);
    program.load(A5, u64::MAX);
    program.load(S0, rounds);
    let round = program.here();
    fill_with_junk(&mut program);
    junk_queues(&mut program);
    program.load(A5, u64::MAX);
    sweep(&mut program);
    program.immediate(Op::Addi, S0, S0, -1);
    // The loop is longer than a branch reaches.
    program.branch_ahead(Op::Beq, S0, ZERO);
    program.far_jump(round);
    program.land();
    program.finish(0);
    program.elf(0, &[])
}

/// Where the disk writer's queue is, from the beginning of RAM.
const QUEUE: u64 = 0x4000;

/// Writes a sector of ones to its disk, and ends with the device's status plus one: 1 is success,
/// 2 an I/O error (virtio 1.2, 5.2.6).
pub fn disk_writer() -> Vec<u8> {
    let mut program = Assembler::default();
    find_device(&mut program, A0, 2);
    let queue = RAM + QUEUE;
    for (register, value) in disk_setup(queue, true) {
        program.load(A1, value);
        program.store(Op::Sw, A1, A0, register);
    }
    program.load(A2, queue);
    let wait = program.here();
    program.immediate(Op::Lhu, A1, A2, 0x202); // the used ring's index
    program.branch(Op::Beq, A1, ZERO, wait);
    program.immediate(Op::Lbu, A1, A2, 0x310);
    program.immediate(Op::Addi, A1, A1, 1);
    program.finish_with(A1);
    program.elf(QUEUE, &disk_write_queue(queue))
}

/// What is written to the registers of a disk whose queue is there; `notify` it of what is available.
fn disk_setup(queue: u64, notify: bool) -> Vec<(i32, u64)> {
    let mut registers = vec![
        (0x70, 0),
        (0x70, 3),
        (0x24, 0),
        (0x20, 1 << 9), // VIRTIO_BLK_F_FLUSH
        (0x24, 1),
        (0x20, 1), // VERSION_1
        (0x70, 11),
        (0x30, 0),
        (0x38, 8),
        (0x80, queue),
        (0x84, 0),
        (0x90, queue + 0x100),
        (0x94, 0),
        (0xa0, queue + 0x200),
        (0xa4, 0),
        (0x44, 1),
        (0x70, 15),
    ];
    if notify {
        registers.push((0x50, 0));
    }
    registers
}

/// Descriptors, the available ring with one request, and the request: write sector 0.
fn disk_write_queue(queue: u64) -> Vec<u8> {
    let mut bytes = vec![0; 0x600];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let descriptors: [(u64, u32, u16, u16); 3] = [
        (queue + 0x300, 16, 1, 1), // the header; next is 1
        (queue + 0x400, 512, 1, 2),
        (queue + 0x310, 1, 2, 0), // the status, which the device writes
    ];
    for (index, (address, length, flags, next)) in descriptors.into_iter().enumerate() {
        put(16 * index, &address.to_le_bytes());
        put(16 * index + 8, &length.to_le_bytes());
        put(16 * index + 12, &flags.to_le_bytes());
        put(16 * index + 14, &next.to_le_bytes());
    }
    put(0x102, &1u16.to_le_bytes()); // available: one, descriptor 0
    put(0x300, &1u32.to_le_bytes()); // VIRTIO_BLK_T_OUT
    put(0x310, &[0xff]);
    put(0x400, &[1; 512]);
    bytes
}

/// Every hart prints 0000, 0001, … in turn with the others (whoever holds a lock prints the next
/// number), and waits about 0.2 ms with `wfi` after each.
pub fn counting_on_all_harts() -> Vec<u8> {
    let mut program = Assembler::default();
    begin(&mut program);
    program.load(S0, RAM + QUEUE); // lock at 0, counter at 8
    program.immediate(Op::Csrrs, T0, ZERO, MHARTID);
    program.immediate(Op::Slli, T0, T0, 3);
    program.register(Op::Add, OWN_MTIMECMP, OWN_MTIMECMP, T0);
    let round = program.here();
    program.immediate(Op::Addi, T0, ZERO, 1);
    let lock = program.here();
    program.register(Op::AmoswapW, T1, S0, T0);
    program.branch(Op::Bne, T1, ZERO, lock);
    program.immediate(Op::Lw, COUNTER, S0, 8);
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    program.store(Op::Sw, COUNTER, S0, 8);
    program.register(Op::AmoswapW, ZERO, S0, ZERO);
    wait(&mut program);
    program.jump(round);
    program.elf(QUEUE, &[0; 16])
}

/// What [`counting_to_disk`] writes the sectors of in turn.
pub const COUNTED_SECTORS: u64 = 64;

/// Where the slot of the disk is, the queue, and how many requests were made.
const DISK: u8 = 18;
const REQUESTS: u8 = 19;
const MADE: u8 = 20;

/// Makes the request whose first descriptor is `head`, waits for its end, and ends the machine with
/// the status plus one (at `status` in the queue's memory) when that is not zero.
fn disk_request(program: &mut Assembler, head: i32, status: i32) {
    program.immediate(Op::Andi, A1, MADE, 7);
    program.immediate(Op::Slli, A1, A1, 1);
    program.register(Op::Add, A1, A1, REQUESTS);
    program.immediate(Op::Addi, A2, ZERO, head);
    program.store(Op::Sh, A2, A1, 0x104);
    program.immediate(Op::Addi, MADE, MADE, 1);
    program.store(Op::Sh, MADE, REQUESTS, 0x102);
    program.store(Op::Sw, ZERO, DISK, 0x50);
    program.immediate(Op::Slli, A2, MADE, 48);
    program.immediate(Op::Srli, A2, A2, 48);
    let wait = program.here();
    program.immediate(Op::Lhu, A1, REQUESTS, 0x202);
    program.branch(Op::Bne, A1, A2, wait);
    program.immediate(Op::Lbu, A1, REQUESTS, status);
    program.branch_ahead(Op::Beq, A1, ZERO);
    program.immediate(Op::Addi, A1, A1, 1);
    program.finish_with(A1);
    program.land();
}

/// For 0, 1, … `lines` - 1: writes the number to the sector that is its remainder by
/// [`COUNTED_SECTORS`], flushes the disk, and prints it. Then powers off; ends with the device's
/// status plus one when that is an error.
pub fn counting_to_disk(lines: u16) -> Vec<u8> {
    let mut program = Assembler::default();
    let queue = RAM + QUEUE;
    find_device(&mut program, DISK, 2);
    for (register, value) in disk_setup(queue, false) {
        program.load(A1, value);
        program.store(Op::Sw, A1, DISK, register);
    }
    program.load(REQUESTS, queue);
    program.load(MADE, 0);
    begin(&mut program);
    program.load(S0, lines.into());
    let line = program.here();
    program.immediate(Op::Andi, A1, COUNTER, COUNTED_SECTORS as i32 - 1);
    program.store(Op::Sd, A1, REQUESTS, 0x308);
    program.store(Op::Sd, COUNTER, REQUESTS, 0x400);
    disk_request(&mut program, 0, 0x310);
    disk_request(&mut program, 3, 0x330);
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    program.branch_ahead(Op::Beq, COUNTER, S0);
    program.far_jump(line);
    program.land();
    program.finish(0);
    program.elf(QUEUE, &counting_queue(queue))
}

/// As [`counting_to_disk`], and does not flush but reads the sector again: what it prints is what it read.
pub fn counting_through_disk(lines: u16) -> Vec<u8> {
    let mut program = Assembler::default();
    let queue = RAM + QUEUE;
    find_device(&mut program, DISK, 2);
    for (register, value) in disk_setup(queue, false) {
        program.load(A1, value);
        program.store(Op::Sw, A1, DISK, register);
    }
    program.load(REQUESTS, queue);
    program.load(MADE, 0);
    begin(&mut program);
    program.load(S0, lines.into());
    let line = program.here();
    program.immediate(Op::Andi, A1, COUNTER, COUNTED_SECTORS as i32 - 1);
    program.store(Op::Sd, A1, REQUESTS, 0x308);
    program.store(Op::Sd, A1, REQUESTS, 0x348);
    program.store(Op::Sd, COUNTER, REQUESTS, 0x400);
    disk_request(&mut program, 0, 0x310);
    disk_request(&mut program, 5, 0x350);
    program.immediate(Op::Ld, COUNTER, REQUESTS, 0x700);
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    program.branch_ahead(Op::Beq, COUNTER, S0);
    program.far_jump(line);
    program.land();
    program.finish(0);
    program.elf(QUEUE, &reading_queue(queue))
}

/// Where the slot of the power button is, and its queue.
const BUTTON: u8 = 21;
const EVENTS: u8 = 22;
const BUTTON_QUEUE: u64 = QUEUE + 0x1000;

/// The slot of the virtio device of this kind in a register, by looking at one after the other. Uses A1 and A2.
fn find_device(program: &mut Assembler, slot: u8, kind: i32) {
    program.load(slot, VIRTIO_BASE);
    program.load(A2, 0x1000);
    let probe = program.here();
    program.immediate(Op::Lw, A1, slot, 8);
    program.immediate(Op::Addi, A1, A1, -kind);
    program.branch_ahead(Op::Beq, A1, ZERO);
    program.register(Op::Add, slot, slot, A2);
    program.jump(probe);
    program.land();
}

/// Gives the device in this slot, one without features, the queue that [`one_buffer`] makes.
fn give_one_buffer(program: &mut Assembler, slot: u8, queue: u64) {
    let no_features = |(register, value)| {
        let is_flush = register == 0x20 && value == 1 << 9;
        (register, if is_flush { 0 } else { value })
    };
    for (register, value) in disk_setup(queue, true).into_iter().map(no_features) {
        program.load(A1, value);
        program.store(Op::Sw, A1, slot, register);
    }
}

/// A queue with one buffer of eight bytes for the device to write.
fn one_buffer(queue: u64) -> Vec<u8> {
    let mut bytes = vec![0; 0x600];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &(queue + 0x300).to_le_bytes());
    put(8, &8u32.to_le_bytes());
    put(12, &2u16.to_le_bytes());
    put(0x102, &1u16.to_le_bytes());
    bytes
}

/// Counts aloud as `counting_slowly` does, and powers off when the power button is pressed.
pub fn counting_until_the_button() -> Vec<u8> {
    let mut program = Assembler::default();
    let queue = RAM + BUTTON_QUEUE;
    find_device(&mut program, BUTTON, 18);
    give_one_buffer(&mut program, BUTTON, queue);
    program.load(EVENTS, queue);
    begin(&mut program);
    let line = program.here();
    print_counter(&mut program);
    program.immediate(Op::Addi, COUNTER, COUNTER, 1);
    wait(&mut program);
    program.immediate(Op::Lhu, A1, EVENTS, 0x202); // the used ring's index
    program.branch(Op::Beq, A1, ZERO, line);
    program.finish(0);
    program.elf(BUTTON_QUEUE, &one_buffer(queue))
}

/// Asks the entropy device for eight bytes, and ends with 0 when it has all of them, with 3 when the device
/// says that they are there and they are not.
pub fn asking_for_entropy() -> Vec<u8> {
    let mut program = Assembler::default();
    let queue = RAM + QUEUE;
    find_device(&mut program, A0, 4);
    give_one_buffer(&mut program, A0, queue);
    program.load(A2, queue);
    let wait = program.here();
    program.immediate(Op::Lhu, A1, A2, 0x202); // the used ring's index
    program.branch(Op::Beq, A1, ZERO, wait);
    program.immediate(Op::Lw, A1, A2, 0x208); // how much of the buffer was written
    program.immediate(Op::Addi, A1, A1, -8);
    program.branch_ahead(Op::Beq, A1, ZERO);
    program.finish(3);
    program.land();
    program.finish(0);
    program.elf(QUEUE, &one_buffer(queue))
}

/// As [`disk_write_queue`], with nothing available yet, and a flush from descriptor 3.
fn counting_queue(queue: u64) -> Vec<u8> {
    let mut bytes = disk_write_queue(queue);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0x102, &0u16.to_le_bytes());
    for (index, address, length, flags, next) in [
        (3usize, queue + 0x320, 16u32, 1u16, 4u16),
        (4, queue + 0x330, 1, 2, 0),
    ] {
        put(16 * index, &address.to_le_bytes());
        put(16 * index + 8, &length.to_le_bytes());
        put(16 * index + 12, &flags.to_le_bytes());
        put(16 * index + 14, &next.to_le_bytes());
    }
    put(0x320, &4u32.to_le_bytes()); // VIRTIO_BLK_T_FLUSH
    put(0x330, &[0xff]);
    bytes
}

/// The queue of [`counting_queue`], and a request that reads a sector.
fn reading_queue(queue: u64) -> Vec<u8> {
    let mut bytes = counting_queue(queue);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    for (index, address, length, flags, next) in [
        (5usize, queue + 0x340, 16u32, 1u16, 6u16),
        (6, queue + 0x700, 512, 3, 7),
        (7, queue + 0x350, 1, 2, 0),
    ] {
        put(16 * index, &address.to_le_bytes());
        put(16 * index + 8, &length.to_le_bytes());
        put(16 * index + 12, &flags.to_le_bytes());
        put(16 * index + 14, &next.to_le_bytes());
    }
    put(0x350, &[0xff]);
    bytes
}
