//! Which instructions become one piece of compiled code, and which of their flags matter.

use super::groups::Groups;
use super::x86_64::host_has;
use crate::interpreter::Crossing;
use crate::interpreter::decode::{Decoded, decode, needs};
use crate::interpreter::op::Op;
use crate::interpreter::vector::needs as units;
use crate::ram::{PAGE_SIZE, Ram};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpKind, Register, RflagsBits};

/// Instructions of the longest piece.
pub const LONGEST: usize = 64;

/// Accesses in loops that remember the page they saw last, at any time, of each of the four kinds.
pub const SITES_OF_KIND: usize = 4;
/// Bases of addresses: the registers, RIP, and a segment.
pub const BASES: usize = 18;
/// With those of the stack and of the bases: of each one for reads, one for writes.
pub const SITES: usize = 4 * SITES_OF_KIND + 2 + 2 * BASES;

/// The six status flags, as the decoder numbers them.
pub const STATUS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

/// An instruction of a piece.
pub struct Step {
    pub instruction: Instruction,
    /// As the interpreter knows it.
    pub op: Op,
    /// How it is compiled.
    pub kind: Kind,
    /// Status flags that it reads, and those that it writes.
    pub reads: u32,
    pub writes: u32,
    /// Status flags that matter behind it.
    pub live: u32,
}

/// How an instruction is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The interpreter executes it.
    CallBack,
    /// The interpreter executes it, and RIP may be anywhere afterwards.
    LastCallBack,
    /// It does nothing.
    Nothing,
    /// The host has the same, with other registers.
    Same,
    /// LEA.
    LoadAddress,
    /// A shift by a constant that is not zero.
    ShiftByConstant,
    /// A shift by CL.
    ShiftByCl,
    /// SHLD and SHRD, by a constant that is not zero or by CL.
    DoubleShift,
    /// IMUL with a destination, MUL and IMUL of rAX.
    Multiply,
    MultiplyWide,
    Divide,
    /// BT, BTS, BTR, BTC; the same of a bit that a register says, in memory; BSF, BSR.
    BitTest,
    BitTestInMemory,
    BitScan,
    CompareExchange,
    /// CWDE, CDQE; CDQ, CQO.
    SignExtend,
    Push,
    /// PUSH of an operand in memory.
    PushMemory,
    Pop,
    Leave,
    /// PUSHFQ.
    PushFlags,
    /// CLI, STI, SWAPGS; CLAC and STAC.
    KeepOutInterrupts,
    LetInInterrupts,
    SwapGs,
    ChangeAccess,
    /// An instruction of AH, CH, DH or BH; a store of one of them.
    HighByte,
    StoreHighByte,
    /// Jumps: conditional, and the others.
    Branch,
    Jump,
    JumpIndirect,
    Call,
    CallIndirect,
    Return,
    /// An SSE instruction that the host has in the same way.
    Vector,
}

impl Kind {
    /// The emitter tells whenever it writes `rax` for it.
    pub fn leaves_rax(self) -> bool {
        use Kind::*;
        matches!(
            self,
            Nothing | Same | LoadAddress | Push | Pop | Branch | Vector
        )
    }

    /// Behind it nothing follows.
    pub fn ends(self) -> bool {
        matches!(
            self,
            Kind::LastCallBack
                | Kind::Jump
                | Kind::JumpIndirect
                | Kind::Call
                | Kind::CallIndirect
                | Kind::Return
        )
    }
}

/// Instructions of one page in the order of their addresses: one way in, and a way out at each branch.
pub struct Piece {
    pub steps: Vec<Step>,
    /// Offset in the page of the first, and of what follows the last.
    pub start: usize,
    pub end: usize,
    /// What follows goes on in the next page: it is not found by its place in RAM alone.
    pub is_before_crossing: bool,
    /// Accesses to memory that are looked at together.
    pub groups: Groups,
    /// Its accesses have sites by the bases of their addresses.
    pub is_sited: bool,
    /// Status flags that matter before the first instruction.
    live: u32,
    /// What it goes on with overwrites all of them before anybody sees them.
    is_before_overwriting: bool,
}

impl Piece {
    /// The piece at a physical address in RAM. None if there is no whole instruction.
    pub fn at(ram: &Ram, physical: u64, is_grouped: bool, is_sited: bool) -> Option<Piece> {
        let start = (physical % PAGE_SIZE) as usize;
        let bytes = ram.slice(physical, PAGE_SIZE - start as u64)?;
        let mut steps: Vec<Step> = Vec::new();
        let mut at = 0;
        let mut is_before_crossing = false;
        while at < bytes.len() && steps.len() < LONGEST {
            if ram.traps.may_break_at(start + at) {
                break; // none begins there, either: the interpreter looks at it each time
            }
            let Some(decoded) = decode(&bytes[at..], start + at) else {
                is_before_crossing = true;
                break;
            };
            at += usize::from(decoded.op.length);
            let step = Step::new(decoded);
            let ends = step.kind.ends() || step.leads_back();
            steps.push(step);
            if ends {
                break;
            }
        }
        if steps.is_empty() {
            return None;
        }
        let mut piece = Piece {
            steps,
            start,
            end: start + at,
            is_before_crossing,
            groups: Groups::default(),
            is_sited,
            live: STATUS,
            is_before_overwriting: false,
        };
        piece.is_before_overwriting = piece
            .next()
            .is_some_and(|next| overwrites_flags(ram, physical - start as u64 + next));
        piece.look_ahead(is_grouped);
        Some(piece)
    }

    /// The piece of one instruction that goes on in the next page. It is one of the linear address.
    pub fn crossing(crossing: Crossing, is_sited: bool) -> Piece {
        let start = (crossing.physical % PAGE_SIZE) as usize;
        let step = Step::new(crossing.decoded);
        let mut piece = Piece {
            start,
            end: start + usize::from(step.op.length),
            steps: vec![step],
            is_before_crossing: false,
            groups: Groups::default(),
            is_sited,
            live: STATUS,
            is_before_overwriting: false,
        };
        piece.look_ahead(false);
        piece
    }

    /// What has to be known of the instructions together.
    fn look_ahead(&mut self, is_grouped: bool) {
        if is_grouped {
            self.groups = Groups::of(&self.steps);
        }
        self.find_live_flags();
    }

    /// Whether the flags that an instruction writes need not be saved: what they can be computed again from
    /// stays as it is until they are overwritten, or until they have to be saved in any case.
    pub fn flags_can_wait(&self, index: usize) -> bool {
        let origin = &self.steps[index];
        if !origin.is_origin() || origin.is_shift() && !self.loses_flags_of(index) {
            return false;
        }
        let mut is_read = false;
        for step in &self.steps[index + 1..] {
            let overwrites = step.writes == STATUS && step.reads == 0;
            if overwrites || matches!(step.kind, Kind::CallBack | Kind::LastCallBack) {
                return true;
            }
            if step.disturbs(origin) {
                return step.live == 0;
            }
            is_read |= step.reads != 0;
        }
        // At the end they are saved, or not.
        is_read || self.is_before_overwriting
    }

    /// Whether an access to memory loses the flags that an instruction writes, before others are written.
    fn loses_flags_of(&self, index: usize) -> bool {
        for (index, step) in self.steps.iter().enumerate().skip(index + 1) {
            if step.may_leave(self.groups.follows(index)) {
                return step.has_memory()
                    || matches!(step.kind, Kind::Push | Kind::PushFlags | Kind::Pop);
            }
            if step.writes == STATUS {
                return false;
            }
        }
        false
    }

    /// Whether it overwrites all flags before anybody sees them.
    pub fn overwrites_flags(&self) -> bool {
        self.live == 0
    }

    /// Where in the page it goes on, if it has one way to go.
    fn next(&self) -> Option<u64> {
        let last = self.steps.last()?;
        let next = match last.kind {
            Kind::Jump | Kind::Call => last.target(),
            kind if kind.ends() => return None,
            _ => self.end as i64,
        };
        let is_in_page = (0..PAGE_SIZE as i64).contains(&next);
        (is_in_page && !self.is_before_crossing).then_some(next as u64)
    }

    /// Whether its last instruction leads back to its first.
    pub fn is_loop(&self) -> bool {
        let last = self.steps.last();
        last.is_some_and(|last| last.kind == Kind::Branch && last.target() == self.start as i64)
    }

    /// Leaves an instruction to the interpreter.
    pub fn call_back(&mut self, index: usize) {
        let step = &mut self.steps[index];
        assert_ne!(step.kind, Kind::CallBack, "a call-back can be emitted");
        step.kind = Kind::CallBack;
        let is_grouped = !self.groups.is_empty();
        self.look_ahead(is_grouped);
    }

    /// Which flags matter: those that are read before they are written, and all where the piece may
    /// be left, because then anyone may read them.
    fn find_live_flags(&mut self) {
        let mut live = STATUS;
        for (index, step) in self.steps.iter_mut().enumerate().rev() {
            step.live = live;
            live = if step.may_leave(self.groups.follows(index)) {
                STATUS
            } else {
                live & !step.writes | step.reads
            };
        }
        self.live = live;
    }
}

/// Whether the instruction at a physical address goes on in the next page.
pub fn crosses(ram: &Ram, physical: u64) -> bool {
    const LONGEST_INSTRUCTION: u64 = 15;
    let start = physical % PAGE_SIZE;
    let bytes = ram.slice(physical, (PAGE_SIZE - start).min(LONGEST_INSTRUCTION));
    bytes.is_some_and(|bytes| {
        (bytes.len() as u64) < LONGEST_INSTRUCTION && decode(bytes, start as usize).is_none()
    })
}

/// Whether the code at a physical address overwrites all flags before anybody sees them: by its first instructions.
pub fn overwrites_flags(ram: &Ram, physical: u64) -> bool {
    const MOST: usize = 6;
    let start = (physical % PAGE_SIZE) as usize;
    let Some(bytes) = ram.slice(physical, PAGE_SIZE - start as u64) else {
        return false;
    };
    let (mut at, mut live) = (0, STATUS);
    for _ in 0..MOST {
        let Some(decoded) = decode(&bytes[at..], start + at) else {
            return false;
        };
        at += usize::from(decoded.op.length);
        let step = Step::new(decoded);
        if step.reads & live != 0 || step.may_leave(false) {
            return false;
        }
        live &= !step.writes;
        if live == 0 {
            return true;
        }
    }
    false
}

impl Step {
    fn new(decoded: Decoded) -> Step {
        let instruction = decoded.instruction;
        let kind = kind(&instruction);
        let mut writes = instruction.rflags_modified() & STATUS;
        if kind == Kind::Divide {
            writes = 0;
        } else if matches!(kind, Kind::BitTest | Kind::BitTestInMemory) {
            writes = RflagsBits::CF;
        } else if kind == Kind::BitScan {
            writes = RflagsBits::ZF;
        } else if kind == Kind::ShiftByCl
            || kind == Kind::DoubleShift && instruction.op_kind(2) == OpKind::Register
        {
            writes = 0; // perhaps none
        }
        Step {
            instruction,
            op: decoded.op,
            kind,
            reads: instruction.rflags_read() & STATUS,
            writes,
            live: STATUS,
        }
    }

    /// Whether it has an operand in memory that it accesses.
    pub fn has_memory(&self) -> bool {
        has_memory(&self.instruction) && !matches!(self.kind, Kind::LoadAddress | Kind::Nothing)
    }

    /// Whether the piece may be left before or behind it; not for its memory if that is known.
    fn may_leave(&self, is_known: bool) -> bool {
        use Kind::*;
        match self.kind {
            Nothing | LoadAddress | SignExtend | HighByte | DoubleShift => false,
            Same | ShiftByConstant | ShiftByCl | Multiply | MultiplyWide | BitTest | BitScan
            | StoreHighByte => self.has_memory() && !is_known,
            Push | PushFlags | Pop | Leave => !is_known,
            _ => true,
        }
    }

    /// Whether the flags that it writes can be computed again from what it leaves: all of them are functions of
    /// its result, or of its operands, which it leaves or which follow from its result. What a shift drops is kept for that.
    fn is_origin(&self) -> bool {
        use Mnemonic::*;
        let instruction = &self.instruction;
        if self.is_shift() {
            return self.writes == STATUS;
        }
        if self.kind != Kind::Same || self.writes != STATUS || self.has_memory() {
            return false;
        }
        match instruction.mnemonic() {
            Cmp | Test | And | Or | Xor | Neg => true,
            Add | Sub => {
                instruction.op_kind(1) != OpKind::Register
                    || instruction.op_register(0).full_register()
                        != instruction.op_register(1).full_register()
            }
            _ => false,
        }
    }

    /// Whether it is a shift of a register by a constant.
    pub fn is_shift(&self) -> bool {
        use Mnemonic::*;
        self.kind == Kind::ShiftByConstant
            && !self.has_memory()
            && matches!(self.instruction.mnemonic(), Shl | Sal | Shr | Sar)
    }

    /// Whether it changes what the flags of `origin` can be computed again from.
    pub fn disturbs(&self, origin: &Step) -> bool {
        let instruction = &origin.instruction;
        // The flags of a logical instruction are those of its result, those of a shift of what was kept.
        let operands = match instruction.mnemonic() {
            _ if origin.is_shift() => 0,
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => 1,
            _ => instruction.op_count(),
        };
        (0..operands)
            .filter(|&operand| instruction.op_kind(operand) == OpKind::Register)
            .map(|operand| instruction.op_register(operand).full_register().number() as u8)
            .any(|register| self.moves(register) != Some(0))
    }

    /// By how much it shifts, if that is a constant.
    pub fn shift_count(&self) -> u8 {
        shift_count(&self.instruction)
    }

    /// Where a relative jump leads, from the begin of the page.
    pub fn target(&self) -> i64 {
        i64::from(self.op.next) + self.op.immediate as i64
    }

    /// A branch that leads backwards: what follows a loop is rarely reached.
    fn leads_back(&self) -> bool {
        self.kind == Kind::Branch && self.op.immediate as i64 <= 0
    }
}

fn has_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| instruction.op_kind(operand) == OpKind::Memory)
}

/// The size of the first operand in bytes.
fn operand_size(instruction: &Instruction) -> usize {
    match instruction.op_kind(0) {
        OpKind::Register => instruction.op_register(0).size(),
        _ => instruction.memory_size().size(),
    }
}

fn shift_count(instruction: &Instruction) -> u8 {
    instruction.immediate8() & count_mask(instruction)
}

/// What a count of a shift is cut to.
fn count_mask(instruction: &Instruction) -> u8 {
    if operand_size(instruction) == 8 {
        63
    } else {
        31
    }
}

/// AH, CH, DH, BH.
fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::CH | Register::DH | Register::BH
    )
}

/// Whether an instruction of high bytes is one of registers and constants, with one high byte, and such that
/// it does the same if rAX stands for the register of that, and rCX for another.
fn is_simple_high_byte(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let highs = (0..instruction.op_count())
        .filter(|&operand| is_high_byte(instruction.op_register(operand)))
        .count();
    let is_known = matches!(
        instruction.mnemonic(),
        Mov | Movzx | Movsx | Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test | Inc | Dec
    );
    // MOVZX to 64 bits has a prefix that no high byte goes with.
    let is_narrow =
        (0..instruction.op_count()).all(|operand| instruction.op_register(operand).size() <= 4);
    is_known && highs == 1 && is_narrow && !has_memory(instruction)
}

pub(super) fn kind(instruction: &Instruction) -> Kind {
    let kind = if instruction.is_invalid() {
        None
    } else {
        native(instruction)
    };
    match kind {
        Some(kind) => kind,
        None if instruction.flow_control() != FlowControl::Next => Kind::LastCallBack,
        None => Kind::CallBack,
    }
}

/// How an instruction can be compiled; none if it cannot.
fn native(instruction: &Instruction) -> Option<Kind> {
    use Mnemonic::*;
    let operands = 0..instruction.op_count();
    let registers = || {
        operands
            .clone()
            .filter(|&operand| instruction.op_kind(operand) == OpKind::Register)
            .map(|operand| instruction.op_register(operand))
    };
    if registers().any(is_high_byte) {
        let is_store = instruction.code() == Code::Mov_rm8_r8 && has_memory(instruction);
        return match is_store {
            true => Some(Kind::StoreHighByte),
            false => is_simple_high_byte(instruction).then_some(Kind::HighByte),
        };
    }
    let all_general = registers().all(Register::is_gpr);
    let memory = has_memory(instruction);
    let size = operand_size(instruction);
    let is_wide = size >= 4;
    Some(match instruction.mnemonic() {
        Nop | Reservednop | Endbr64 | Endbr32 | Lfence | Mfence | Sfence | Prefetchnta
        | Prefetcht0 | Prefetcht1 | Prefetcht2 | Prefetchw => Kind::Nothing,
        Mov if all_general => {
            if has_long_address(instruction.code()) {
                return None;
            }
            Kind::Same
        }
        Movzx | Movsx | Movnti | Xchg | Xadd | Add | Or | Adc | Sbb | And | Sub | Xor | Cmp
        | Test | Inc | Dec | Neg | Not => Kind::Same,
        Movsxd if is_wide => Kind::Same,
        Bswap if is_wide => Kind::Same,
        Popcnt => Kind::Same,
        Lea => Kind::LoadAddress,
        Shl | Sal | Shr | Sar | Rol | Ror => {
            if instruction.op_kind(1) == OpKind::Register {
                return (is_wide && !memory).then_some(Kind::ShiftByCl);
            }
            let count = shift_count(instruction);
            if count == 0 || usize::from(count) >= 8 * size {
                return None;
            }
            Kind::ShiftByConstant
        }
        Shld | Shrd if is_wide && !memory => {
            let is_by_cl = instruction.op_kind(2) == OpKind::Register;
            if !is_by_cl && shift_count(instruction) == 0 {
                return None;
            }
            Kind::DoubleShift
        }
        Imul if instruction.op_count() > 1 && is_wide => Kind::Multiply,
        Mul | Imul if instruction.op_count() == 1 && is_wide => Kind::MultiplyWide,
        Div | Idiv if is_wide => Kind::Divide,
        Bt | Bts | Btr | Btc => {
            if !is_wide {
                return None;
            }
            match memory && instruction.op_kind(1) == OpKind::Register {
                true => Kind::BitTestInMemory,
                false => Kind::BitTest,
            }
        }
        Bsf | Bsr if is_wide => Kind::BitScan,
        Cmpxchg if memory && is_wide => Kind::CompareExchange,
        Cwde | Cdqe | Cdq | Cqo => Kind::SignExtend,
        Push | Pop => {
            let is_8_bytes = instruction.stack_pointer_increment().abs() == 8;
            if instruction.code() == Code::Push_rm64 && memory {
                return Some(Kind::PushMemory);
            }
            if !is_8_bytes || memory || !all_general {
                return None;
            }
            if instruction.mnemonic() == Push {
                Kind::Push
            } else {
                Kind::Pop
            }
        }
        Pushfq => Kind::PushFlags,
        Cli => Kind::KeepOutInterrupts,
        Sti => Kind::LetInInterrupts,
        Clac | Stac => Kind::ChangeAccess,
        Swapgs => Kind::SwapGs,
        Leave if instruction.code() == Code::Leaveq => Kind::Leave,
        Jmp | Call => {
            let is_call = instruction.mnemonic() == Call;
            match instruction.flow_control() {
                FlowControl::UnconditionalBranch if instruction.is_jmp_short_or_near() => {
                    Kind::Jump
                }
                FlowControl::Call if instruction.is_call_near() => Kind::Call,
                FlowControl::IndirectBranch if instruction.is_jmp_near_indirect() => {
                    Kind::JumpIndirect
                }
                FlowControl::IndirectCall if instruction.is_call_near_indirect() => {
                    Kind::CallIndirect
                }
                _ => {
                    debug_assert!(!is_call || memory);
                    return None;
                }
            }
        }
        Ret => Kind::Return,
        _ if instruction.is_jcc_short_or_near() => Kind::Branch,
        _ if instruction.condition_code() != iced_x86::ConditionCode::None
            && all_general
            && !instruction.is_jcc_short_or_near()
            && !instruction.is_loop()
            && !instruction.is_loopcc() =>
        {
            Kind::Same // SETcc, CMOVcc
        }
        _ if is_same_vector(instruction) => Kind::Vector,
        _ => return None,
    })
}

/// Whether an instruction is one of SSE that every processor executes in the same way, and as it says.
fn is_same_vector(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    let mut registers = (0..instruction.op_count())
        .filter(|&operand| instruction.op_kind(operand) == OpKind::Register)
        .map(|operand| instruction.op_register(operand));
    let is_other = matches!(
        instruction.mnemonic(),
        Rcpps
            | Rcpss
            | Rsqrtps
            | Rsqrtss
            | Dpps
            | Dppd
            | Cvtpi2ps // may end the host's own use of x87
            | Cvtpi2pd
            | Maskmovdqu
            | Pcmpestri
            | Pcmpestri64
            | Pcmpestrm
            | Pcmpestrm64
            | Pcmpistri
            | Pcmpistrm
            | Ldmxcsr
            | Stmxcsr
    );
    needs(instruction) == Some(units::SSE)
        && !is_other
        && registers.all(|register| register.is_xmm() || register.is_gpr())
        && host_has(instruction)
}

/// MOV between rAX and an address of 64 bits that is part of the instruction.
fn has_long_address(code: Code) -> bool {
    matches!(
        code,
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    )
}
