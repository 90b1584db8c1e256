//! The machine that the crate's instructions run on in these tests.

use iced_x86::{CpuidFeature, Instruction, OpKind, Register};
use x86::fault::Fault;
use x86::operands::Operands;
use x86::simd::{self, VectorState};
use x86::x87::{self, X87State};

use crate::state::{MEMORY_BYTES, Registers};

/// Registers and memory at the addresses that the host's instruction sees.
pub struct Machine {
    pub vector: VectorState,
    pub x87: X87State,
    pub rest: Rest,
}

/// What the units reach through [`Operands`].
pub struct Rest {
    /// The address of the instruction's memory operand.
    address: u64,
    pub general: [u64; 5],
    pub flags: u64,
    pub base: u64,
    pub memory: [u8; MEMORY_BYTES],
}

/// CF, PF, AF, ZF, SF, OF.
pub const STATUS: u64 = 0x8d5;

fn place(register: Register) -> usize {
    match register.full_register() {
        Register::RAX => 0,
        Register::RCX => 1,
        Register::RDX => 2,
        Register::RSI => 3,
        Register::RDI => 4,
        _ => panic!("{register:?} is not used here"),
    }
}

impl Machine {
    pub fn new(registers: &Registers, base: u64, memory: &[u8; MEMORY_BYTES]) -> Self {
        let image = &registers.fxsave;
        let mut x87 = X87State::default();
        x87.load_fxsave(image[..160].try_into().unwrap());
        let xmm = std::array::from_fn(|i| {
            let start = 160 + 16 * i;
            u128::from_le_bytes(image[start..start + 16].try_into().unwrap())
        });
        let mxcsr = u32::from_le_bytes(image[24..28].try_into().unwrap());
        Self {
            vector: VectorState { xmm, mxcsr },
            x87,
            rest: Rest {
                address: 0,
                general: registers.general,
                flags: registers.flags,
                base,
                memory: *memory,
            },
        }
    }

    /// Executes one instruction, or tells its fault.
    pub fn execute(&mut self, i: &Instruction) -> Option<Fault> {
        let by_rdi = i.op_kinds().any(|kind| kind == OpKind::MemorySegRDI);
        self.rest.address = self.rest.general[if by_rdi { 4 } else { 3 }];
        let x87 = [
            CpuidFeature::FPU,
            CpuidFeature::FPU287,
            CpuidFeature::FPU387,
        ];
        let is_x87 = i.cpuid_features().iter().any(|f| x87.contains(f));
        let outcome = if is_x87 {
            x87::execute(i, &mut self.x87, &mut self.rest)
        } else {
            simd::execute(i, &mut self.vector, &mut self.x87, &mut self.rest)
        };
        outcome.err()
    }

    /// The image that FXSAVE would leave.
    pub fn fxsave(&self) -> [u8; 512] {
        let mut image = [0; 512];
        let mut legacy = [0; 160];
        self.x87.store_fxsave(&mut legacy);
        image[..160].copy_from_slice(&legacy);
        image[24..28].copy_from_slice(&self.vector.mxcsr.to_le_bytes());
        for (i, xmm) in self.vector.xmm.iter().enumerate() {
            image[160 + 16 * i..176 + 16 * i].copy_from_slice(&xmm.to_le_bytes());
        }
        image
    }
}

impl Rest {
    /// Where bytes are in the memory, behind which nothing is mapped.
    fn range(&self, offset: u64, bytes: usize) -> Result<std::ops::Range<usize>, Fault> {
        let start = self.address.wrapping_add(offset).wrapping_sub(self.base) as usize;
        let end = start + bytes;
        if end <= MEMORY_BYTES {
            Ok(start..end)
        } else {
            Err(Fault::page(self.base + start.max(MEMORY_BYTES) as u64, 0))
        }
    }
}

impl Operands for Rest {
    fn address(&self) -> u64 {
        self.address
    }
    fn load(&mut self, offset: u64, size: usize) -> Result<u128, Fault> {
        assert!([1, 2, 4, 8, 10, 16].contains(&size));
        let mut bytes = [0; 16];
        bytes[..size].copy_from_slice(&self.memory[self.range(offset, size)?]);
        Ok(u128::from_le_bytes(bytes))
    }
    fn store(&mut self, offset: u64, size: usize, value: u128) -> Result<(), Fault> {
        assert!([1, 2, 4, 8, 10, 16].contains(&size));
        let range = self.range(offset, size)?;
        self.memory[range].copy_from_slice(&value.to_le_bytes()[..size]);
        Ok(())
    }
    fn check_store(&mut self, offset: u64, size: usize) -> Result<(), Fault> {
        self.range(offset, size).map(|_| ())
    }
    fn gpr(&self, register: Register) -> u64 {
        let value = self.general[place(register)];
        match register.size() {
            1 => value & 0xff,
            2 => value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        }
    }
    fn set_gpr(&mut self, register: Register, value: u64) {
        let old = &mut self.general[place(register)];
        *old = match register.size() {
            1 => *old & !0xff | value & 0xff,
            2 => *old & !0xffff | value & 0xffff,
            4 => value & 0xffff_ffff,
            _ => value,
        };
    }
    fn flags(&self) -> u64 {
        self.flags
    }
    fn set_flags(&mut self, mask: u64, value: u64) {
        self.flags = self.flags & !mask | value & mask;
    }
}
