//! The machine's own instruction test-suite: guest programs written from the specification, run
//! bare-metal on whole machines by every engine.

mod assembler;
mod csr_forms;
#[path = "../engines/execution.rs"]
mod execution;
mod guest;
mod operands;

mod atomic;
mod atomic_loops;
mod base;
mod bit_manipulation;
mod cache_blocks;
mod carry_less;
mod compressed;
mod control_flow;
mod counters;
mod csr;
mod float;
mod float_additional;
mod float_csr;
mod harts;
mod interrupts;
mod memory_access;
mod multiply;
mod protection;
mod random_translation;
mod self_modifying;
mod supervisor_csr;
mod traps;
mod virtual_memory;

use riscv::isa;

/// Every row of the instruction table is tested by a guest program.
#[test]
fn every_instruction_has_a_guest_program() {
    let guests = [
        atomic::GUESTS,
        atomic_loops::GUESTS,
        base::GUESTS,
        bit_manipulation::GUESTS,
        cache_blocks::GUESTS,
        carry_less::GUESTS,
        compressed::GUESTS,
        control_flow::GUESTS,
        counters::GUESTS,
        csr::GUESTS,
        float::GUESTS,
        float_additional::GUESTS,
        float_csr::GUESTS,
        harts::GUESTS,
        interrupts::GUESTS,
        memory_access::GUESTS,
        multiply::GUESTS,
        protection::GUESTS,
        self_modifying::GUESTS,
        supervisor_csr::GUESTS,
        traps::GUESTS,
        virtual_memory::GUESTS,
    ];
    let mut tested = [false; 256];
    for build in guests.into_iter().flatten() {
        build()
            .subjects()
            .iter()
            .for_each(|&op| tested[op as usize] = true);
    }
    let missing: Vec<_> = isa::encodings()
        .filter(|row| !tested[row.op as usize])
        .map(|row| row.name)
        .collect();
    assert!(missing.is_empty(), "no guest program tests {missing:?}");
}
