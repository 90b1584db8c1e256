//! One piece of code: its head, its instructions, and behind them what is rarely reached.

use super::flags::Flags;
use super::layout::*;
use super::lending::{self, Loan};
use super::links::{Bare, BareLink, HEAD_BYTES, Neighbours, is_in_page};
use super::routines::{Assembler, Routines};
use super::sites::Site;
use crate::emitter::piece::{Kind, Piece, Step};
use crate::emitter::tier::Exit;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, VecAssembler, dynasm};
use iced_x86::Encoder;
use jit::code_cache::CodeCache;

/// What is emitted behind the piece, out of the way.
pub(super) enum Cold {
    /// The interpreter executes an instruction, and the piece goes on.
    CallBack {
        from: DynamicLabel,
        back: DynamicLabel,
        index: usize,
        /// Where the flags are before the instruction.
        flags: Flags,
        /// The flags behind the instruction are in the host's.
        loads_flags: bool,
        /// The XMM registers are in the host's.
        loads_vectors: bool,
    },
    /// Loads the XMM registers; if that is not allowed the interpreter executes the instruction, and
    /// the piece is left.
    Vectors {
        from: DynamicLabel,
        back: DynamicLabel,
        index: usize,
    },
    /// The interpreter executes a jump, and the piece is left.
    Leave {
        from: DynamicLabel,
        index: usize,
        flags: Flags,
    },
    /// A branch that is taken.
    Branch {
        from: DynamicLabel,
        index: usize,
        flags: Flags,
    },
    /// Accesses that are looked at together are not in one page, or it is not known: goes on with the code
    /// that looks at each.
    Ungroup {
        from: DynamicLabel,
        index: usize,
        flags: Flags,
    },
    /// A site does not know the page of an access of `size` bytes.
    Site {
        from: DynamicLabel,
        back: DynamicLabel,
        site: Site,
        is_write: bool,
        size: i32,
        /// Where the TLB does not, either.
        miss: DynamicLabel,
    },
    /// An address has not its first entry in the table of jumps.
    SecondLook {
        from: DynamicLabel,
        back: DynamicLabel,
        miss: DynamicLabel,
    },
    /// The next round of a loop does not fit into what is left.
    Budget { from: DynamicLabel, flags: Flags },
    /// A jump within the page that does not save flags.
    Bare(Bare),
    /// A jump within the page to what was not compiled yet.
    Link {
        from: DynamicLabel,
        number: usize,
        target: i32,
    },
}

/// An instruction that this emitter has no way to emit: which one.
#[derive(Clone, Copy, Debug)]
pub struct Unsupported(pub usize);

/// The code of a piece.
pub struct Code {
    pub bytes: Vec<u8>,
    /// Jumps without flags, by the links that lead there with flags.
    pub bare_links: Vec<(usize, BareLink)>,
}

/// What came of a piece.
pub type Emitted = Result<Code, Unsupported>;

/// Emits one piece.
pub struct Emitter<'a> {
    pub(super) asm: Assembler,
    pub(super) piece: &'a Piece,
    pub(super) cache: &'a mut CodeCache,
    pub(super) routines: &'a Routines,
    pub(super) neighbours: Neighbours<'a>,
    pub(super) bare_links: Vec<(usize, BareLink)>,
    /// Number of the first instruction, for the interpreter.
    pub(super) first_op: usize,
    /// The instructions of a loop that have a site, of each kind.
    pub(super) sited: [Vec<usize>; 4],
    pub(super) cold: Vec<(bool, Cold)>,
    /// What the rounds of a loop exchange, and whether it is exchanged where code is emitted.
    pub(super) loans: Vec<Loan>,
    pub(super) is_lent: bool,
    /// The host registers of the guest's there.
    pub(super) homes: [Option<Host>; 16],
    /// Offset of the piece in the code cache.
    pub(super) start: usize,
    pub(super) head: DynamicLabel,
    /// Behind the head.
    pub(super) body: DynamicLabel,
    /// The instruction that is emitted.
    pub(super) index: usize,
    pub(super) flags: Flags,
    pub(super) encoder: Encoder,
    /// The XMM registers are in the host's.
    pub(super) has_vectors: bool,
    /// Where the further rounds of a loop begin.
    pub(super) next_round: Option<DynamicLabel>,
    /// What comes before the first of them.
    pub(super) first_of_rounds: DynamicLabel,
    /// What is emitted are those rounds.
    pub(super) is_next_round: bool,
    /// The guest registers without a host register whose upper half is known to be zero, a bit each.
    pub(super) narrow: u16,
    /// The group whose addend is in `rax`.
    pub(super) addend_in_rax: Option<usize>,
    /// What is still to be added to RSP.
    pub(super) stack_moved: i32,
    /// What is there then.
    pub(super) loop_flags: Option<Flags>,
}

impl<'a> Emitter<'a> {
    /// An emitter for `piece`, which will be put into `cache` next.
    pub fn new(
        piece: &'a Piece,
        cache: &'a mut CodeCache,
        routines: &'a Routines,
        first_op: usize,
        neighbours: Neighbours<'a>,
    ) -> Emitter<'a> {
        let address = cache.next_address();
        let mut asm = VecAssembler::new(address);
        let (head, body) = (asm.new_dynamic_label(), asm.new_dynamic_label());
        let first_of_rounds = asm.new_dynamic_label();
        Emitter {
            asm,
            piece,
            start: address - cache.base(),
            cache,
            routines,
            neighbours,
            bare_links: Vec::new(),
            first_op,
            sited: [const { Vec::new() }; 4],
            cold: Vec::new(),
            loans: lending::loans(piece),
            is_lent: false,
            homes: HOMES,
            head,
            body,
            index: 0,
            flags: Flags::IN_FRAME,
            encoder: Encoder::new(64),
            has_vectors: false,
            next_round: None,
            first_of_rounds,
            is_next_round: false,
            narrow: 0,
            addend_in_rax: None,
            stack_moved: 0,
            loop_flags: None,
        }
    }

    /// The code.
    pub fn emit(mut self) -> Emitted {
        let length = self.piece.steps.len() as i32;
        let budget = self.asm.new_dynamic_label();
        let (head, body) = (self.head, self.body);
        dynasm!(self.asm; .arch x64; =>head; sub r15, BYTE length as i8; jl =>budget; =>body);
        assert_eq!(
            self.asm.offset().0,
            HEAD_BYTES as usize,
            "jumps lead behind heads"
        );
        self.steps()?;
        if let (Some(next_round), Some(flags)) = (self.next_round, self.loop_flags) {
            self.further_rounds(next_round, flags)?;
        }
        let first = self.piece.start as i32;
        dynasm!(self.asm; .arch x64
            ; =>budget
            ; add r15, length
            ; mov ecx, first
            ; mov eax, Exit::Budget.number()
            ; jmp extern self.routines.exit_at
        );
        self.narrow = 0; // what is known at the end is not known there
        while !self.cold.is_empty() {
            for (is_lent, cold) in std::mem::take(&mut self.cold) {
                self.set_lent(is_lent);
                self.cold(cold);
            }
        }
        Ok(Code {
            bytes: self.asm.finalize().expect("every label is bound"),
            bare_links: self.bare_links,
        })
    }

    /// All instructions, and where they lead.
    fn steps(&mut self) -> Result<(), Unsupported> {
        self.addend_in_rax = None;
        self.narrow = 0;
        for index in 0..self.piece.steps.len() {
            self.index = index;
            if !self.stack_can_wait() {
                self.settle_stack();
            }
            self.keep_origin();
            self.step().map_err(|()| Unsupported(index))?;
            if !self.present().kind.leaves_rax() {
                self.addend_in_rax = None;
            }
            self.forget_origin();
        }
        self.settle_stack();
        if !self.step_at(self.index).kind.ends() {
            let end = self.piece.end as i64;
            if is_in_page(end) && !self.piece.is_before_crossing {
                self.go_on(end as i32, 0);
            } else {
                self.save_flags();
                self.give_back();
                self.go_on_elsewhere(end);
            }
        }
        Ok(())
    }

    /// The piece once more, for the rounds of a loop but the first: they begin with flags that are nowhere,
    /// but can be computed again.
    fn further_rounds(
        &mut self,
        next_round: DynamicLabel,
        flags: Flags,
    ) -> Result<(), Unsupported> {
        let length = self.piece.steps.len() as i8;
        let from = self.asm.new_dynamic_label();
        self.flags = flags;
        let first_of_them = self.first_of_rounds;
        dynasm!(self.asm; .arch x64; =>first_of_them);
        self.exchange();
        self.set_lent(true);
        self.align();
        dynasm!(self.asm; .arch x64; =>next_round; sub r15, BYTE length; jl =>from);
        self.later(Cold::Budget {
            from,
            flags: self.flags,
        });
        self.is_next_round = true;
        self.steps()
    }

    pub(super) fn step_at(&self, index: usize) -> &'a Step {
        &self.piece.steps[index]
    }

    /// The present instruction.
    pub(super) fn present(&self) -> &'a Step {
        self.step_at(self.index)
    }

    fn step(&mut self) -> Result<(), ()> {
        let step = self.present();
        match step.kind {
            Kind::CallBack | Kind::LastCallBack => self.call_back(),
            Kind::Nothing => {}
            Kind::Same => return self.same(),
            Kind::LoadAddress => return self.load_address(),
            Kind::ShiftByConstant => return self.shift_by_constant(),
            Kind::ShiftByCl => return self.shift_by_cl(),
            Kind::DoubleShift => return self.double_shift(),
            Kind::Multiply => return self.multiply(),
            Kind::MultiplyWide => return self.multiply_wide(),
            Kind::Divide => return self.divide(),
            Kind::BitTest => return self.bit_test(),
            Kind::BitTestInMemory => return self.bit_test_in_memory(),
            Kind::BitScan => return self.bit_scan(),
            Kind::CompareExchange => return self.compare_exchange(),
            Kind::SignExtend => self.sign_extend(),
            Kind::Push => self.push(),
            Kind::PushMemory => return self.push_memory(),
            Kind::PushFlags => self.push_flags(),
            Kind::KeepOutInterrupts => self.keep_out_interrupts(),
            Kind::LetInInterrupts => self.let_in_interrupts(),
            Kind::SwapGs => self.swap_gs(),
            Kind::ChangeAccess => self.change_access(),
            Kind::HighByte => return self.high_byte(),
            Kind::StoreHighByte => return self.store_high_byte(),
            Kind::Pop => self.pop(),
            Kind::Leave => self.leave_frame(),
            Kind::Branch => self.branch(),
            Kind::Jump => self.jump(),
            Kind::JumpIndirect => self.jump_indirect(),
            Kind::Call => self.call(),
            Kind::CallIndirect => self.call_indirect(),
            Kind::Return => self.return_(),
            Kind::Vector => return self.vector(),
        }
        Ok(())
    }

    /// Instructions of the piece from number `index` on.
    fn to_end(&self, index: usize) -> i32 {
        (self.piece.steps.len() - index) as i32
    }

    /// Calls the interpreter for instruction `index`; flags are in the frame.
    fn execute(&mut self, index: usize) {
        let number = (self.first_op + index) as i32;
        let to_end = self.to_end(index);
        dynasm!(self.asm; .arch x64
            ; mov eax, number
            ; mov ecx, to_end
            ; call extern self.routines.execute
        );
    }

    /// The interpreter executes the present instruction.
    pub(super) fn call_back(&mut self) {
        self.save_flags();
        self.execute(self.index);
        self.narrow = 0;
        self.has_vectors = false;
        self.flags = Flags::IN_FRAME;
        if self.present().kind == Kind::LastCallBack {
            self.exit_behind(self.index);
        }
    }

    /// Leaves the piece for where the interpreter has got to.
    fn exit_behind(&mut self, index: usize) {
        let rest = self.to_end(index) - 1;
        if rest != 0 {
            dynasm!(self.asm; .arch x64; add r15, rest);
        }
        dynasm!(self.asm; .arch x64
            ; mov rax, [BYTE rsp + (CORE) as i8]
            ; mov rcx, [rax + CORE_RIP]
            ; mov eax, Exit::Next.number()
            ; jmp extern self.routines.exit_to
        );
    }

    /// A label behind the piece from which the interpreter executes the present instruction; the piece
    /// goes on at `back`.
    pub(super) fn call_back_from(&mut self, from: DynamicLabel) -> DynamicLabel {
        let back = self.asm.new_dynamic_label();
        self.share_call_back(from, back);
        back
    }

    /// Another label from which the interpreter does the same.
    pub(super) fn share_call_back(&mut self, from: DynamicLabel, back: DynamicLabel) {
        self.later(Cold::CallBack {
            from,
            back,
            index: self.index,
            flags: self.flags.without_host(),
            loads_flags: true,
            loads_vectors: self.has_vectors,
        });
    }

    /// Binds the label behind the present instruction.
    pub(super) fn come_back(&mut self, back: DynamicLabel) {
        dynasm!(self.asm; .arch x64; =>back);
        self.addend_in_rax = None;
        let in_host = self.flags.host && !self.flags.frame;
        for (_, cold) in &mut self.cold {
            if let Cold::CallBack {
                back: of,
                loads_flags,
                ..
            } = cold
                && *of == back
            {
                *loads_flags = self.flags.host || in_host;
            }
        }
    }

    /// A label behind the piece from which the interpreter executes the present jump, and the piece is
    /// left.
    pub(super) fn leave_from(&mut self) -> DynamicLabel {
        let from = self.asm.new_dynamic_label();
        self.later(Cold::Leave {
            from,
            index: self.index,
            flags: self.flags.without_host(),
        });
        from
    }

    fn cold(&mut self, cold: Cold) {
        match cold {
            Cold::CallBack {
                from,
                back,
                index,
                flags,
                loads_flags,
                loads_vectors,
            } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.flags = flags;
                self.save_flags();
                if self.give_back() {
                    self.execute(index);
                    self.exchange();
                    self.set_lent(true);
                } else {
                    self.execute(index);
                }
                self.check_groups_again(index);
                if loads_vectors {
                    dynasm!(self.asm; .arch x64; call extern self.routines.load_vectors);
                }
                if loads_flags {
                    self.load_flags_from_frame();
                }
                dynasm!(self.asm; .arch x64; jmp =>back);
            }
            Cold::Site {
                from,
                back,
                site,
                is_write,
                size,
                miss,
            } => self.fill_site(from, back, site, is_write, size, miss),
            Cold::SecondLook { from, back, miss } => dynasm!(self.asm; .arch x64
                ; =>from
                ; call extern self.routines.second_look
                ; je =>back
                ; jmp =>miss
            ),
            Cold::Budget { from, flags } => {
                let length = self.piece.steps.len() as i32;
                let first = self.piece.start as i32;
                dynasm!(self.asm; .arch x64; =>from; add r15, length);
                self.flags = flags;
                self.save_flags();
                self.give_back();
                dynasm!(self.asm; .arch x64
                    ; mov ecx, first
                    ; mov eax, Exit::Budget.number()
                    ; jmp extern self.routines.exit_at
                );
            }
            Cold::Ungroup { from, index, flags } => {
                let step = self.step_at(index);
                let start = i32::from(step.op.next) - i32::from(step.op.length);
                let to_end = self.to_end(index);
                let unknown = self.asm.new_dynamic_label();
                dynasm!(self.asm; .arch x64; =>from);
                self.flags = flags;
                self.save_flags();
                self.give_back();
                dynasm!(self.asm; .arch x64; add r15, to_end; jmp =>unknown);
                let number = self.add_link();
                dynasm!(self.asm; .arch x64
                    ; =>unknown
                    ; mov ecx, start
                    ; mov eax, Exit::Ungrouped(number).number()
                    ; jmp extern self.routines.exit_at
                );
            }
            Cold::Vectors { from, back, index } => {
                dynasm!(self.asm; .arch x64
                    ; =>from
                    ; call extern self.routines.load_vectors
                    ; cmp BYTE [rsp + HAS_VECTORS], 0
                    ; jne =>back
                );
                self.give_back();
                self.execute(index);
                self.exit_behind(index);
            }
            Cold::Leave { from, index, flags } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.flags = flags;
                self.save_flags();
                self.give_back();
                self.execute(index);
                self.exit_behind(index);
            }
            Cold::Branch { from, index, flags } => {
                dynasm!(self.asm; .arch x64; =>from);
                self.index = index;
                self.flags = flags;
                let step = self.step_at(index);
                let target = step.target();
                let rest = self.to_end(index) - 1;
                if is_in_page(target) {
                    self.go_on(target as i32, rest);
                } else {
                    self.save_flags();
                    self.give_back();
                    let miss = self.leave_from();
                    self.find_code(target, miss);
                    if rest != 0 {
                        dynasm!(self.asm; .arch x64; add r15, rest);
                    }
                    self.enter_found();
                }
            }
            Cold::Bare(bare) => self.behind_bare(bare),
            Cold::Link {
                from,
                number,
                target,
            } => dynasm!(self.asm; .arch x64
                ; =>from
                ; mov ecx, target
                ; mov eax, Exit::Link(number).number()
                ; jmp extern self.routines.exit_at
            ),
        }
    }

    /// A label behind the piece from which the present instruction, and what follows, looks at each
    /// access.
    pub(super) fn ungroup_from(&mut self) -> DynamicLabel {
        let from = self.asm.new_dynamic_label();
        self.later(Cold::Ungroup {
            from,
            index: self.index,
            flags: self.flags.without_host(),
        });
        from
    }

    /// The interpreter has executed an instruction: what was known of the TLB may not be true any more.
    /// If so the piece is left behind it.
    fn check_groups_again(&mut self, index: usize) {
        let piece = self.piece;
        let mut groups = piece.groups.around(index).peekable();
        if groups.peek().is_none() {
            return;
        }
        let (stale, known) = (self.asm.new_dynamic_label(), self.asm.new_dynamic_label());
        for (number, group) in groups {
            let moved = group.moved(&piece.steps, index);
            self.check_group(number, &group, moved, stale);
        }
        dynasm!(self.asm; .arch x64; jmp =>known; =>stale);
        if self.is_lent {
            self.exchange();
        }
        self.exit_behind(index);
        dynasm!(self.asm; .arch x64; =>known);
    }
}
