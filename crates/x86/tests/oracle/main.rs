//! The host's CPU as the oracle: one instruction with random state, executed natively and by this
//! crate, and all that is defined compared.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // tests take turns; rounds by the environment

mod differences;
#[allow(dead_code)] // what the tests of the vector and x87 units use
mod integer;
mod machine;
mod native;
mod random;
mod vendor;

use native::{CODE, DATA, Native, State};

/// The stub itself: registers arrive, leave, and faults are caught.
#[test]
fn the_host_executes_one_instruction() {
    let mut native = Native::new();
    let mut state = State::new();
    for (index, register) in state.gpr.iter_mut().enumerate() {
        *register = 0x1111_1111_1111_1111u64.wrapping_mul(index as u64 + 1);
    }
    let before = state.clone();
    native.execute(&[0x90], &mut state);
    assert_eq!(before, state);
    // add rax, [rbx]
    state.gpr[3] = DATA + 8;
    state.gpr[0] = u64::MAX;
    state.data[8] = 1;
    native.execute(&[0x48, 0x03, 0x03], &mut state);
    assert_eq!(state.gpr[0], 0);
    assert_eq!(state.rflags, 0x57);
    // A load from nowhere, a privileged instruction, a division by zero, an undefined opcode.
    state.gpr[3] = DATA - 8;
    native.execute(&[0x48, 0x03, 0x03], &mut state);
    let raised = state.raised.unwrap();
    assert_eq!(
        (raised.vector, raised.address, raised.error_code),
        (14, DATA - 8, 4)
    );
    native.execute(&[0xf4], &mut state);
    assert_eq!(state.raised.unwrap().vector, 13);
    state.gpr[1] = 0;
    native.execute(&[0xf7, 0xf1], &mut state);
    assert_eq!(state.raised.unwrap().vector, 0);
    native.execute(&[0x0f, 0x0b], &mut state);
    assert_eq!(state.raised.unwrap().vector, 6);
    // paddd xmm1, xmm2; fld1
    state.fx.set_xmm(1, 5);
    state.fx.set_xmm(2, 6);
    native.execute(&[0x66, 0x0f, 0xfe, 0xca], &mut state);
    assert_eq!((state.fx.xmm(1), state.raised), (11, None));
    native.execute(&[0xd9, 0xe8], &mut state);
    assert_eq!(state.fx.st(0), 0x3fff_8000_0000_0000_0000);
    assert_eq!(CODE % 4096, 0);
}
