//! The JIT: hot code becomes instructions of the host, exact to the instruction.
//!
//! `docs/decisions/x86-jit.md` says how and why. In one breath: most guest instructions are instructions
//! of the host, with other registers and another address; eleven guest registers live in host registers,
//! the status flags in those of the host. What is rare, and what cannot be done with a glance at the TLB,
//! is executed by the interpreter, one instruction at a time.
//!
//! Nothing that is asynchronous reaches compiled code, and it never raises an exception by itself.

#[cfg(jit)]
mod call_back;
#[cfg(jit)]
mod groups;
#[cfg(jit)]
mod jumps;
#[cfg(all(jit, test))]
mod native_forms;
#[cfg(jit)]
mod paranoid;
#[cfg(jit)]
mod piece;
#[cfg(jit)]
mod tier;
#[cfg(not(jit))]
mod unsupported;
#[cfg(jit)]
mod x86_64;

#[cfg(jit)]
pub(crate) use tier::Jit;
#[cfg(not(jit))]
pub(crate) use unsupported::Jit;
