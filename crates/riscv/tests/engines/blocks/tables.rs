//! The page tables of a program: the roots of Sv39, Sv48 and Sv57, each the first entry of the next;
//! the middle level of the windows of U and S, and their leaves; then what the leaves that programs
//! change were at first.

use super::assembler::Assembler;
use super::layout::{CHANGED_ENTRIES, CHANGED_FIRST, CODE_PAGES, DATA, DATA_PAGES, TABLES};
use super::random::Random;
use riscv::memory::RAM_BASE;

/// V, R, W, X, A and D.
const ALL: u64 = 0xcf;
/// U.
const USER: u64 = 0x10;

/// Root tables by the mode in `satp`, from 8 on.
pub const ROOTS: [u64; 3] = [TABLES, TABLES + 0x1000, TABLES + 0x2000];
/// The middle levels of the windows of U and S.
pub const MIDDLES: [u64; 2] = [TABLES + 0x3000, TABLES + 0x4000];
/// Their leaves.
pub const LEAVES: [u64; 2] = [TABLES + 0x5000, TABLES + 0x6000];
/// The changed leaves of both as they were at first.
pub const ORIGINALS: u64 = TABLES + 0x7000;
/// What follows all of it.
pub const END: u64 = ORIGINALS + 16 * CHANGED_ENTRIES;
/// Entries for giant and large pages, which blocks change too, and what they were.
pub const UPPER: [(u64, u64); 4] = [
    (MIDDLES[0] + 8, entry(RAM_BASE, ALL | USER)),
    (MIDDLES[1] + 8, entry(RAM_BASE, ALL)),
    (ROOTS[0] + 32, entry(RAM_BASE, ALL | USER)),
    (ROOTS[0] + 40, entry(RAM_BASE, ALL)),
];

const fn entry(address: u64, flags: u64) -> u64 {
    (address >> 12) << 10 | flags
}

/// Emits the tables; some data pages lack a permission, some are missing.
pub fn emit(asm: &mut Assembler, random: &mut Random) {
    asm.skip_to(TABLES);
    for page in 0..5 {
        for index in 0..512 {
            let address = TABLES + page * 4096 + index * 8;
            asm.double(upper_entry(address));
        }
    }
    let leaves: Vec<u64> = [USER, 0]
        .into_iter()
        .flat_map(|user| (0..512).map(move |page| (page, user)))
        .map(|(page, user)| {
            let flags = leaf_flags(page, user, random);
            entry(RAM_BASE + page * 4096, flags) ^ swap(page, random)
        })
        .collect();
    leaves.iter().for_each(|&leaf| asm.double(leaf));
    for window in leaves.chunks(512) {
        let changed = &window[CHANGED_FIRST as usize..][..CHANGED_ENTRIES as usize];
        changed.iter().for_each(|&leaf| asm.double(leaf));
    }
}

fn upper_entry(address: u64) -> u64 {
    if let Some((_, value)) = UPPER.iter().find(|(at, _)| *at == address) {
        return *value;
    }
    let [sv39, sv48, sv57] = ROOTS;
    match address {
        a if a == sv39 => entry(0, ALL),
        a if a == sv39 + 8 => entry(MIDDLES[0], 1),
        a if a == sv39 + 16 => entry(MIDDLES[1], 1),
        a if a == sv39 + 24 => entry(0, ALL | USER),
        a if a == sv48 => entry(sv39, 1),
        a if a == sv57 => entry(sv48, 1),
        a if a == MIDDLES[0] => entry(LEAVES[0], 1),
        a if a == MIDDLES[1] => entry(LEAVES[1], 1),
        _ => 0,
    }
}

fn is_data(page: u64) -> bool {
    let first = (DATA - RAM_BASE) / 4096;
    (first..first + DATA_PAGES).contains(&page)
}

/// Some data pages are where their neighbours should be.
fn swap(page: u64, random: &mut Random) -> u64 {
    u64::from(is_data(page) && random.once_in(3)) << 10
}

fn leaf_flags(page: u64, user: u64, random: &mut Random) -> u64 {
    let is_data = is_data(page);
    let is_code = (32..32 + CODE_PAGES).contains(&page);
    let flags = ALL | user;
    match random.below(4) {
        0 if is_data => flags & !(1 << random.below(8)),
        1 if is_data && random.once_in(3) => flags ^ USER,
        0 if is_code && random.once_in(8) => flags & !4, // patches to itself fault
        _ => flags,
    }
}
