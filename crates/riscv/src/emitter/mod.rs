//! The JIT: hot code becomes instructions of the host, exact to the instruction.
//!
//! `docs/decisions/jit.md` says how and why. In one breath: the interpreter counts how often it runs
//! each block; a hot one is compiled, from its place in guest RAM on, over branches that are not
//! taken, to the end of its page at most. Ten guest registers live in host registers, and so does
//! the number of instructions left until the machine has to stop. Whatever is rare (devices, faults,
//! the last instructions before a stop) is left to the interpreter, from exactly the instruction
//! before which the compiled code gave up.
//!
//! Nothing that is asynchronous reaches compiled code, and it never raises an exception by itself.

#[cfg(jit)]
mod call_back;
#[cfg(jit)]
mod keys;
#[cfg(jit)]
mod paranoid;
#[cfg(jit)]
mod tier;
#[cfg(jit)]
mod translate;
#[cfg(not(jit))]
mod unsupported;
#[cfg(jit)]
mod x86_64;

#[cfg(jit)]
pub(crate) use tier::Jit;
#[cfg(not(jit))]
pub(crate) use unsupported::Jit;
