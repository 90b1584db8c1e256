//! The "zero page": what the kernel is told by whoever starts it (Linux,
//! `Documentation/arch/x86/zero-page.rst`).

const BYTES: usize = 4096;
const ROOT_POINTER: usize = 0x070;
const INITRD_HIGH: usize = 0x0c0;
const INITRD_LENGTH_HIGH: usize = 0x0c4;
const COMMAND_LINE_HIGH: usize = 0x0c8;
const MEMORY_RANGES: usize = 0x1e8;
const SETUP_HEADER: usize = 0x1f1;
const LOADER: usize = 0x210;
const INITRD: usize = 0x218;
const INITRD_LENGTH: usize = 0x21c;
const COMMAND_LINE: usize = 0x228;
const MEMORY_MAP: usize = 0x2d0;
const MEMORY_MAP_ENTRY: usize = 20;

/// A boot loader without a number of its own.
const LOADER_UNKNOWN: u8 = 0xff;

/// A range of the memory map.
#[derive(Clone, Copy)]
pub struct MemoryRange {
    /// Its first address.
    pub start: u64,
    /// Its bytes.
    pub length: u64,
    /// ACPI 6.5, section 15.1: 1 is RAM, 2 is reserved.
    pub kind: u32,
}

impl MemoryRange {
    /// The addresses from `start` to before `end` are RAM.
    pub fn ram(start: u64, end: u64) -> MemoryRange {
        MemoryRange {
            start,
            length: end - start,
            kind: 1,
        }
    }

    /// They are not for the kernel to use.
    pub fn reserved(start: u64, end: u64) -> MemoryRange {
        MemoryRange {
            kind: 2,
            ..MemoryRange::ram(start, end)
        }
    }
}

/// What it says.
pub struct ZeroPage<'a> {
    /// The header that the kernel brings.
    pub setup_header: &'a [u8],
    /// Where the command line is.
    pub command_line: u64,
    /// Where the initrd is, and its length.
    pub initrd: Option<(u64, u64)>,
    /// Where ACPI's root pointer is.
    pub root_pointer: u64,
    /// What is RAM.
    pub memory: &'a [MemoryRange],
}

impl ZeroPage<'_> {
    /// Its bytes.
    pub fn build(&self) -> Vec<u8> {
        let mut page = Page(vec![0; BYTES]);
        page.put(SETUP_HEADER, self.setup_header);
        page.put(LOADER, &[LOADER_UNKNOWN]);
        page.put_halves(COMMAND_LINE, COMMAND_LINE_HIGH, self.command_line);
        if let Some((start, length)) = self.initrd {
            page.put_halves(INITRD, INITRD_HIGH, start);
            page.put_halves(INITRD_LENGTH, INITRD_LENGTH_HIGH, length);
        }
        page.put(ROOT_POINTER, &self.root_pointer.to_le_bytes());
        page.put(MEMORY_RANGES, &[self.memory.len() as u8]);
        for (index, range) in self.memory.iter().enumerate() {
            let at = MEMORY_MAP + index * MEMORY_MAP_ENTRY;
            page.put(at, &range.start.to_le_bytes());
            page.put(at + 8, &range.length.to_le_bytes());
            page.put(at + 16, &range.kind.to_le_bytes());
        }
        page.0
    }
}

struct Page(Vec<u8>);

impl Page {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A number whose upper half was given a place later.
    fn put_halves(&mut self, low: usize, high: usize, value: u64) {
        self.put(low, &(value as u32).to_le_bytes());
        self.put(high, &((value >> 32) as u32).to_le_bytes());
    }
}
