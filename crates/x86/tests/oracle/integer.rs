//! Integer instructions: every opcode of the four maps with every prefix that selects another one, with
//! random registers and memory.

use crate::differences;
use crate::machine::Machine;
use crate::native::{DATA, Native, State};
use crate::random::Random;
use crate::vendor::Vendor;
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind,
    Register,
};
use std::collections::BTreeMap;

const STATUS: u64 = 0x8d5;
const OPTIONS: u32 =
    DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;

/// What this test is about: what `simd` and `x87` do not do.
fn is_integer(feature: CpuidFeature) -> bool {
    matches!(
        feature,
        CpuidFeature::INTEL8086
            | CpuidFeature::INTEL8086_ONLY
            | CpuidFeature::INTEL186
            | CpuidFeature::INTEL286
            | CpuidFeature::INTEL386
            | CpuidFeature::INTEL486
            | CpuidFeature::X64
            | CpuidFeature::CMOV
            | CpuidFeature::CX8
            | CpuidFeature::CMPXCHG16B
            | CpuidFeature::POPCNT
            | CpuidFeature::MULTIBYTENOP
            | CpuidFeature::PAUSE
            | CpuidFeature::CLFSH
    )
}

/// What the host would answer about itself, or what would not fall through.
fn is_comparable(instruction: &Instruction) -> bool {
    use Mnemonic::{
        Call, Clflush, Cpuid, Crc32, Int, Int1, Int3, Jecxz, Jmp, Jrcxz, Lar, Lfence, Lfs, Lgs,
        Loop, Loope, Loopne, Lsl, Lss, Mfence, Movnti, Pop, Push, Rsm, Sfence, Sgdt, Sidt, Sldt,
        Smsw, Str, Verr, Verw,
    };
    let mnemonic = instruction.mnemonic();
    // FS is the host's.
    if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
        return false;
    }
    // AMD and Intel differ: this opcode's register form is #UD on one, nothing on the other.
    if matches!(
        instruction.code(),
        Code::Reservednop_rm16_r16_0F0D
            | Code::Reservednop_rm32_r32_0F0D
            | Code::Reservednop_rm64_r64_0F0D
    ) {
        return false;
    }
    let uses_segment = (0..instruction.op_count()).any(|operand| {
        instruction.op_kind(operand) == OpKind::Register
            && instruction.op_register(operand).is_segment_register()
    });
    if matches!(
        mnemonic,
        Crc32 | Movnti | Lfence | Mfence | Sfence | Clflush
    ) {
        return true;
    }
    if instruction
        .cpuid_features()
        .iter()
        .any(|feature| !is_integer(*feature))
    {
        return false;
    }
    // VIP and VIF are the host's; INT takes the host's handlers.
    if matches!(
        mnemonic,
        Cpuid
            | Mnemonic::Wait
            | Int
            | Int1
            | Int3
            | Lar
            | Lsl
            | Verr
            | Verw
            | Sgdt
            | Sidt
            | Sldt
            | Smsw
            | Str
            | Lss
            | Lfs
            | Lgs
            | Rsm
    ) {
        return false;
    }
    if uses_segment && matches!(mnemonic, Push | Pop | Mnemonic::Mov) {
        return false;
    }
    match instruction.flow_control() {
        FlowControl::Next => true,
        FlowControl::ConditionalBranch => !matches!(mnemonic, Mnemonic::Xbegin),
        FlowControl::UnconditionalBranch | FlowControl::Call => {
            matches!(mnemonic, Jmp | Call) && instruction.near_branch_target() != 0
        }
        FlowControl::Exception => {
            matches!(mnemonic, Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2)
        }
        FlowControl::Return => mnemonic == Mnemonic::Ret,
        FlowControl::IndirectBranch | FlowControl::IndirectCall => {
            matches!(instruction.code(), Code::Jmp_rm64 | Code::Call_rm64)
        }
        _ => matches!(mnemonic, Jrcxz | Jecxz | Loop | Loope | Loopne),
    }
}

/// Bytes of one instruction: prefix, REX, opcode, operands that address memory through a register with
/// a small displacement, immediates at random. Branches go to what follows them.
fn bytes(random: &mut Random, map: &[u8], opcode: u8, prefix: &[u8], modrm: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    if random.below(16) == 0 {
        bytes.push(0x67);
    }
    bytes.extend(prefix);
    if random.below(2) == 0 {
        bytes.push(0x40 | random.below(16) as u8);
    }
    bytes.extend(map);
    bytes.push(opcode);
    bytes.push(modrm);
    for _ in 0..12 {
        bytes.push(random.next() as u8);
    }
    // No base without a register, no SIB without a base: those would be absolute or RIP-relative.
    let decoded = decode(&bytes);
    let mut length = decoded.len();
    if decoded.is_invalid() {
        return Vec::new();
    }
    let is_branch = decoded.near_branch_target() != 0 || jumps_indirectly(&decoded);
    if is_branch && bytes[..length].contains(&0x66) {
        // AMD cuts RIP to 16 bits, Intel (and this machine) ignores the prefix.
        return Vec::new();
    }
    if decoded.near_branch_target() != 0 {
        let immediate = if decoded.op_kind(0) == OpKind::NearBranch64
            && matches!(
                decoded.code().op_code().op_kind(0),
                iced_x86::OpCodeOperandKind::br64_4
            ) {
            4
        } else {
            1
        };
        bytes[length - immediate..length].fill(0);
    }
    if decode(&bytes).len() != length {
        length = 0;
    }
    bytes.truncate(length);
    bytes
}

fn jumps_indirectly(instruction: &Instruction) -> bool {
    matches!(
        instruction.code(),
        Code::Jmp_rm64 | Code::Call_rm64 | Code::Retnq | Code::Retnq_imm16
    )
}

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::with_ip(64, bytes, crate::native::CODE, OPTIONS).decode()
}

fn has_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory)
}

/// Registers such that memory operands are in the data pages, near a page's end now and then.
fn state(random: &mut Random, instruction: &Instruction) -> State {
    let mut state = State::new();
    for register in &mut state.gpr {
        *register = random.interesting();
    }
    for chunk in state.data.chunks_exact_mut(8) {
        chunk.copy_from_slice(&random.interesting().to_le_bytes());
    }
    state.rflags = random.next() & 0xcd5 | 2;
    let target = match random.below(4) {
        0 => DATA + 4096 - random.below(32),
        _ => DATA + 4096 + random.below(4000),
    };
    let target = if random.below(2) == 0 {
        target & !15
    } else {
        target
    };
    if instruction.is_string_instruction() {
        state.gpr[1] = state.gpr[1] & !0xff | random.below(40);
        if random.below(8) != 0 {
            state.gpr[1] &= 0xff;
        }
        state.gpr[6] = DATA + 4096 + random.below(4000);
        state.gpr[7] = target;
    }
    // The stack: PUSH, POP, ENTER, CALL.
    if instruction.is_stack_instruction() {
        state.gpr[4] = DATA + 6000 + random.below(64);
        state.gpr[5] = DATA + 7000 + random.below(64);
    }
    if matches!(
        instruction.mnemonic(),
        Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc
    ) && instruction.op_kind(1) == OpKind::Register
        && random.below(8) != 0
    {
        let index = (random.below(1 << 15) as i64 - (1 << 14)) as u64;
        state.gpr[instruction.op_register(1).number()] = index;
    }
    if has_memory(instruction) {
        let base = instruction.memory_base();
        let index = instruction.memory_index();
        let displacement = instruction.memory_displacement64();
        if base != Register::None && base != index {
            if index != Register::None {
                state.gpr[index.number()] = random.below(16);
            }
            let scaled = if index == Register::None {
                0
            } else {
                state.gpr[index.number()] * u64::from(instruction.memory_index_scale())
            };
            state.gpr[base.number()] = target.wrapping_sub(displacement).wrapping_sub(scaled);
        }
    }
    if jumps_indirectly(instruction) {
        jump_behind(&mut state, instruction);
    }
    if matches!(instruction.mnemonic(), Mnemonic::Popf | Mnemonic::Popfq) {
        // Not TF, and not AC, which Linux has enabled.
        for byte in state.data.chunks_exact_mut(4) {
            byte.copy_from_slice(&(random.next() as u32 & 0x0020_4ed5).to_le_bytes());
        }
        state.gpr[4] &= !3;
    }
    if instruction.mnemonic() == Mnemonic::Xlatb {
        state.gpr[3] = target;
    }
    if matches!(instruction.mnemonic(), Mnemonic::Div | Mnemonic::Idiv) && random.below(4) != 0 {
        // Quotients that fit.
        state.gpr[2] = match instruction.mnemonic() {
            Mnemonic::Div => random.below(3),
            _ => random.below(3).wrapping_sub(1),
        };
    }
    state
}

/// An indirect jump goes to the instruction behind it, wherever it finds its target.
fn jump_behind(state: &mut State, instruction: &Instruction) {
    let end = crate::native::CODE + instruction.len() as u64;
    for chunk in state.data.chunks_exact_mut(8) {
        chunk.copy_from_slice(&end.to_le_bytes());
    }
    state.gpr[4] &= !7;
    if has_memory(instruction) {
        let base = instruction.memory_base();
        let uses_index = instruction.memory_index() != Register::None;
        if base == Register::None || base == Register::RSP || uses_index {
            // Not known to be aligned: nothing is there.
            state.data.fill(0);
            state.gpr.fill(1 << 20);
            return;
        }
        let address = DATA + 4096;
        state.gpr[base.number()] = address.wrapping_sub(instruction.memory_displacement64());
    } else if instruction.op_count() > 0 && instruction.op_kind(0) == OpKind::Register {
        state.gpr[instruction.op_register(0).number()] = end;
    }
}

/// What is another instruction on a host with more features, or is undefined as a whole.
fn is_undefined(instruction: &Instruction, bytes: &[u8], before: &State) -> bool {
    match instruction.mnemonic() {
        // The prefix makes them TZCNT and LZCNT on a host that has these.
        Mnemonic::Bsf => is_x86_feature_detected!("bmi1") && bytes[..3].contains(&0xf3),
        Mnemonic::Bsr => is_x86_feature_detected!("lzcnt") && bytes[..3].contains(&0xf3),
        // Of 16 bits by more than 16.
        Mnemonic::Shld | Mnemonic::Shrd => {
            let count = match instruction.op_kind(2) {
                OpKind::Immediate8 => u64::from(instruction.immediate8()),
                _ => before.gpr[1],
            };
            let size = match instruction.op_kind(0) {
                OpKind::Register => instruction.op_register(0).size(),
                _ => instruction.memory_size().size(),
            };
            size == 2 && count & 31 > 16
        }
        _ => false,
    }
}

fn compare(
    vendor: Vendor,
    native: &mut Native,
    machine: &mut Machine,
    bytes: &[u8],
    before: &State,
) -> Option<String> {
    let instruction = decode(bytes);
    if is_undefined(&instruction, bytes, before) {
        return None;
    }
    let mut ours = before.clone();
    machine.execute(bytes, &mut ours);
    let mut host = before.clone();
    native.execute(bytes, &mut host);
    let mut undefined = u64::from(undefined_flags(&instruction));
    if matches!(instruction.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr) {
        undefined |= 0x800; // of counts that come to nothing, too
    }
    if host.raised.is_none() {
        host.rflags = host.rflags & !undefined | ours.rflags & undefined;
    } else {
        host.rflags = ours.rflags;
        // The host's kernel says nothing of what a #GP concerned; it counts a non-canonical stack
        // access as #SS, as we do.
        if let (Some(host), Some(ours)) = (&mut host.raised, &ours.raised) {
            if host.vector != 14 {
                host.address = ours.address;
            } else if host.address >> 63 != 0 {
                host.error_code &= !1; // Linux does not say whether its own pages are there
            }
        }
    }
    differences::accept(vendor, &instruction, bytes, before, &ours, &mut host);
    if ours == host {
        return None;
    }
    let differing = ours
        .data
        .iter()
        .zip(host.data.iter())
        .position(|(ours, host)| ours != host);
    Some(format!(
        "{:?} {instruction} {bytes:02x?}\n before {before:?}\n ours   {ours:?}\n host   {host:?}\n \
         data differs at {differing:?}\n",
        instruction.code()
    ))
}

/// Flags that the SDM leaves undefined.
fn undefined_flags(instruction: &Instruction) -> u32 {
    // iced's bits have an order of their own.
    use iced_x86::RflagsBits;
    let bits = instruction.rflags_undefined();
    let mut mask = 0;
    for (bit, flag) in [
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 4),
        (RflagsBits::AF, 0x10),
        (RflagsBits::ZF, 0x40),
        (RflagsBits::SF, 0x80),
        (RflagsBits::OF, 0x800),
    ] {
        if bits & bit != 0 {
            mask |= flag;
        }
    }
    mask
}

const MAPS: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
const PREFIXES: [&[u8]; 6] = [&[], &[0x66], &[0xf2], &[0xf3], &[0x66, 0xf2], &[0x66, 0xf3]];

/// A register form and two memory forms; all register forms where each is another instruction.
fn modrms(random: &mut Random, map: &[u8], opcode: u8, reg: u8) -> Vec<u8> {
    let is_group = map == [0x0f] && matches!(opcode, 0x01 | 0xae);
    let registers = if is_group {
        0..8
    } else {
        let register = random.below(8) as u8;
        register..register + 1
    };
    let mut modrms: Vec<u8> = registers.map(|rm| 0xc0 | reg << 3 | rm).collect();
    for mode in [0x40, 0x80] {
        modrms.push(mode | reg << 3 | random.below(8) as u8);
    }
    modrms
}

/// The opcodes of a map: what are prefixes in the first are none.
fn opcodes(map: &[u8]) -> Vec<u8> {
    let is_prefix = |opcode| matches!(opcode, 0x0f | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67);
    (0..256u16)
        .map(|opcode| opcode as u8)
        .filter(|&opcode| !map.is_empty() || !is_prefix(opcode))
        .collect()
}

/// What was tried, and the first difference of each form.
struct Trial {
    vendor: Vendor,
    native: Native,
    machine: Machine,
    tried: BTreeMap<Code, u64>,
    failures: BTreeMap<Code, String>,
}

impl Trial {
    /// One instruction with one state, if it can be compared.
    fn one(&mut self, random: &mut Random, bytes: &[u8]) {
        let instruction = decode(bytes);
        if instruction.is_invalid() || !is_comparable(&instruction) {
            return;
        }
        let before = state(random, &instruction);
        *self.tried.entry(instruction.code()).or_insert(0) += 1;
        if self.failures.contains_key(&instruction.code()) {
            return;
        }
        let (native, machine) = (&mut self.native, &mut self.machine);
        if let Some(text) = compare(self.vendor, native, machine, bytes, &before) {
            self.failures.insert(instruction.code(), text);
        }
    }

    /// Every prefix, ModRM.reg and kind of operand of one opcode.
    fn opcode(&mut self, random: &mut Random, map: &[u8], opcode: u8) {
        for prefix in PREFIXES {
            for reg in 0..8u8 {
                for modrm in modrms(random, map, opcode, reg) {
                    let bytes = bytes(random, map, opcode, prefix, modrm);
                    if !bytes.is_empty() {
                        self.one(random, &bytes);
                    }
                }
            }
        }
    }
}

/// Cases of every combination of map, opcode, prefix, ModRM.reg and kind of operand.
fn run(seed: u64, rounds: u64) -> BTreeMap<Code, u64> {
    let mut trial = Trial {
        vendor: Vendor::of_host(),
        native: Native::new(),
        machine: Machine::new(),
        tried: BTreeMap::new(),
        failures: BTreeMap::new(),
    };
    for round in 0..rounds {
        let mut random = Random(seed.wrapping_add(round.wrapping_mul(0x1234_5678_9abc)));
        for map in MAPS {
            for opcode in opcodes(map) {
                trial.opcode(&mut random, map, opcode);
            }
        }
    }
    let Trial {
        tried, failures, ..
    } = trial;
    for text in failures.values().take(12) {
        println!("{text}");
    }
    assert!(
        failures.is_empty(),
        "{} forms differ from the host (seed {seed}): {:?}",
        failures.len(),
        failures.keys()
    );
    tried
}

/// The integer forms that this machine announces.
fn announced() -> impl Iterator<Item = Code> {
    Code::values().filter(|code| {
        let opcode = code.op_code();
        let is_ours = code
            .cpuid_features()
            .iter()
            .all(|feature| is_integer(*feature))
            || matches!(
                code.mnemonic(),
                Mnemonic::Crc32
                    | Mnemonic::Movnti
                    | Mnemonic::Lfence
                    | Mnemonic::Mfence
                    | Mnemonic::Sfence
            );
        opcode.is_instruction()
            && opcode.intel_decoder64()
            && opcode.encoding() == iced_x86::EncodingKind::Legacy
            && is_ours
    })
}

/// Forms whose outcome is the host's system's, not its CPU's: `tests/system` tries them, by hand.
fn is_tried_elsewhere(code: Code) -> bool {
    use Mnemonic::{
        Call, Int, Int1, Int3, Iret, Iretd, Iretq, Jmp, Lar, Lfs, Lgs, Lsl, Lss, Mov, Pop, Push,
        Reservednop, Retf, Sgdt, Sidt, Sldt, Smsw, Str, Verr, Verw, Wait,
    };
    let opcode = code.op_code();
    let has_segment = opcode.op_kinds().iter().any(|kind| {
        use iced_x86::OpCodeOperandKind::{fs, gs, seg_reg};
        matches!(kind, seg_reg) || *kind == fs || *kind == gs
    });
    match code.mnemonic() {
        Mov | Push | Pop => has_segment,
        Call | Jmp => matches!(
            code,
            Code::Call_m1616
                | Code::Call_m1632
                | Code::Call_m1664
                | Code::Jmp_m1616
                | Code::Jmp_m1632
                | Code::Jmp_m1664
        ),
        Reservednop => matches!(
            code,
            Code::Reservednop_rm16_r16_0F0D
                | Code::Reservednop_rm32_r32_0F0D
                | Code::Reservednop_rm64_r64_0F0D
        ),
        mnemonic => matches!(
            mnemonic,
            Int | Int1
                | Int3
                | Iret
                | Iretd
                | Iretq
                | Lar
                | Lfs
                | Lgs
                | Lsl
                | Lss
                | Retf
                | Sgdt
                | Sidt
                | Sldt
                | Smsw
                | Str
                | Verr
                | Verw
                | Wait
        ),
    }
}

/// All that is defined is what the host does.
#[test]
fn integer_instructions_equal_the_host() {
    let rounds = std::env::var("UNDERSTUDY_ORACLE_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(4);
    let tried = run(1, rounds);
    let cases: u64 = tried.values().sum();
    println!("{cases} cases of {} forms", tried.len());
    let untried: Vec<Code> = announced()
        .filter(|code| !tried.contains_key(code) && !is_tried_elsewhere(*code))
        .collect();
    assert_eq!(
        untried,
        [],
        "forms that this machine announces were never tried"
    );
}
