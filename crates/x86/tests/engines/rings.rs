//! CPL 1 and 2: supervisors to pages, but no kernels. CLI and STI ask IOPL, SWAPGS raises #GP, CLAC and STAC raise #UD
//! (SDM volume 2).

use crate::code::{INNER, KERNEL, RESUME, RESUME_CODE, RESUME_STACK};
use crate::random::Random;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

/// Where the rounds that are left are counted: nobody else uses it.
const ROUNDS: u64 = 0x2_0040;

/// Goes to CPL 1 or 2, does there what only kernels may, often enough to be compiled, and comes back by a fault.
pub fn rounds(a: &mut CodeAssembler, random: &mut Random) -> Result<(), IcedError> {
    let [code, stack] = random.pick(&INNER).map(i32::from);
    let io_privilege = (random.below(4) << 12) as i32;
    let (mut again, mut back) = (a.create_label(), a.create_label());
    a.mov(dword_ptr(ROUNDS), 1 + random.below(30) as u32)?;
    a.mov(qword_ptr(RESUME_CODE), code)?;
    a.mov(qword_ptr(RESUME_STACK), stack)?;
    a.mov(rdx, rsp)?;
    a.push(stack)?;
    a.push(rdx)?;
    a.push(io_privilege | 2)?;
    a.push(code)?;
    a.lea(rax, ptr(again))?;
    a.push(rax)?;
    a.iretq()?;
    a.set_label(&mut again)?;
    for _ in 0..2 + random.below(5) {
        let mut next = a.create_label();
        resume_at(a, next)?;
        match random.below(6) {
            0 => a.cli()?,
            1 => a.sti()?,
            2 => a.clac()?,
            3 => a.stac()?,
            _ => a.swapgs()?,
        }
        a.add(rsi, 1)?;
        a.set_label(&mut next)?;
        a.pushfq()?;
        a.pop(rbx)?;
    }
    a.dec(dword_ptr(ROUNDS))?;
    a.jne(again)?;
    a.mov(qword_ptr(RESUME_CODE), i32::from(KERNEL[0]))?;
    a.mov(qword_ptr(RESUME_STACK), i32::from(KERNEL[1]))?;
    resume_at(a, back)?;
    a.hlt()?;
    a.set_label(&mut back)?;
    a.ret()
}

/// A fault goes on there.
fn resume_at(a: &mut CodeAssembler, label: CodeLabel) -> Result<(), IcedError> {
    a.lea(rax, ptr(label))?;
    a.mov(qword_ptr(RESUME), rax)
}
