//! Guest code judged on every engine by the interpreter: the first eight bytes choose registers,
//! mode, address space, stops and chaos; the rest is the body of a loop.
#![no_main]

#[path = "../../crates/riscv/tests/engines/blocks/mod.rs"]
mod blocks;

use blocks::Program;
use blocks::execution::Execution;
use blocks::judge::judge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((seed, code)) = data.split_first_chunk::<8>() else {
        return;
    };
    let seed = u64::from_le_bytes(*seed);
    let executions: Vec<_> = Execution::others(seed >> 1).collect();
    if let Err(difference) = judge(&Program::of_bytes(seed, code), seed, &executions) {
        panic!("{difference}");
    }
});
