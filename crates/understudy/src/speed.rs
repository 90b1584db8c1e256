//! How fast an engine is on this host, by a test program that it executes for a moment: the same loop on every
//! host, so that two hosts' figures compare.

use crate::architecture::Architecture;
use crate::engine::EngineName;
use machine::Failure;
use machine::config::{BoardConfig, BootImages, MachineConfig, Transport};
use replica::host_time::thread_cpu;
use std::collections::BTreeSet;
use std::time::Duration;

/// Of the test machine, in bytes: little of it is ever touched.
const MEMORY: u64 = 16 << 20;
/// Executed before the clock is looked at, so that what a JIT compiles is compiled.
const WARM_UP: u64 = 200_000;
/// Executed between two looks at the clock.
const SLICE: u64 = 100_000;
/// So long is measured, in a core's time: neither who else uses the core counts, nor for how long it is another's.
const MEASURED: Duration = Duration::from_millis(25);

/// For RISC-V, loaded and entered at the beginning of RAM: loads, adds, shifts, multiplies and stores, with
/// a jump taken and not taken.
const RISCV64: [u32; 13] = [
    0x4020_0513, // li   a0, 0x402
    0x0155_1513, // slli a0, a0, 21: 0x8040_0000
    0x0000_0593, // li   a1, 0
    0x0005_3603, // ld   a2, 0(a0)
    0x00b6_0633, // add  a2, a2, a1
    0x00b6_46b3, // xor  a3, a2, a1
    0x0076_9713, // slli a4, a3, 7
    0x00e5_3023, // sd   a4, 0(a0)
    0x02c7_07b3, // mul  a5, a4, a2
    0x0015_8593, // addi a1, a1, 1
    0x0ff5_f813, // andi a6, a1, 255
    0xfe08_10e3, // bnez a6, -32
    0xfddf_f06f, // j    -36
];

/// For x86-64, entered in 64-bit mode: the same.
const X86_64: [u8; 41] = [
    0x48, 0xc7, 0xc3, 0x00, 0x00, 0x80, 0x00, // mov  rbx, 0x80_0000
    0x31, 0xc9, // xor  ecx, ecx
    0x48, 0x8b, 0x03, // mov  rax, [rbx]
    0x48, 0x01, 0xc8, // add  rax, rcx
    0x48, 0x89, 0xc2, // mov  rdx, rax
    0x48, 0x31, 0xca, // xor  rdx, rcx
    0x48, 0xc1, 0xe2, 0x07, // shl  rdx, 7
    0x48, 0x89, 0x13, // mov  [rbx], rdx
    0x48, 0x0f, 0xaf, 0xd0, // imul rdx, rax
    0x48, 0xff, 0xc1, // inc  rcx
    0x84, 0xc9, // test cl, cl
    0x75, 0xe2, // jnz  -30
    0xeb, 0xe0, // jmp  -32
];

/// Where the x86-64 kernel wants to lie.
const X86_64_LOAD: u64 = 0x10_0000;

/// Around x86-64 code, what the boot loader takes for a kernel: a bzImage of Linux boot protocol 2.15
/// (`Documentation/arch/x86/boot.rst`) with one setup sector, whose 64-bit entry is 0x200 bytes behind its start.
fn bz_image(code: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 1024 + 0x200];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // setup_sects
    put(0x1fe, &[0x55, 0xaa]); // boot_flag
    put(0x200, &[0xeb, 0x66]); // jump
    put(0x202, b"HdrS"); // header
    put(0x206, &0x020f_u16.to_le_bytes()); // version
    put(0x211, &[1]); // loadflags: LOADED_HIGH
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    put(0x234, &[1]); // relocatable_kernel
    put(0x236, &1_u16.to_le_bytes()); // xloadflags: XLF_KERNEL_64
    put(0x238, &2047_u32.to_le_bytes()); // cmdline_size
    put(0x258, &X86_64_LOAD.to_le_bytes()); // pref_address
    put(0x260, &0x2_0000_u32.to_le_bytes()); // init_size
    file.extend_from_slice(code);
    file
}

fn kernel(architecture: Architecture) -> Vec<u8> {
    match architecture {
        Architecture::Riscv64 => RISCV64.iter().flat_map(|word| word.to_le_bytes()).collect(),
        Architecture::X86_64 => bz_image(&X86_64),
    }
}

fn test_machine(
    architecture: Architecture,
    engine: EngineName,
) -> Result<Box<dyn machine::Machine>, Failure> {
    let config = MachineConfig {
        board: BoardConfig {
            memory_bytes: MEMORY,
            harts: 1,
            network: Vec::new(),
            disks: Vec::new(),
            virtio_console: false,
            entropy: false,
            transport: Transport::Mmio,
        },
        features: architecture.features(&BTreeSet::new()),
        unix_base_ns: 0,
    };
    let images = BootImages {
        firmware: None,
        kernel: Some(kernel(architecture)),
        initrd: None,
        command_line: String::new(),
    };
    architecture.power_on(&config, &images, engine)
}

/// Instructions of the test program a second of a core's time; takes some 30 ms of that, an engine under watch
/// longer.
///
/// # Errors
/// The machine cannot be made.
pub fn measure(architecture: Architecture, engine: EngineName) -> Result<u64, Failure> {
    let mut machine = test_machine(architecture, engine)?;
    machine.run(WARM_UP);
    let (began, before) = (thread_cpu(), machine.instruction_count());
    loop {
        machine.run(machine.instruction_count() + SLICE);
        let took = thread_cpu().saturating_sub(began);
        if took >= MEASURED {
            let instructions = machine.instruction_count() - before;
            return Ok((instructions as f64 / took.as_secs_f64()) as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;
    use machine::Stop;
    use machine::engine::Engine;

    /// It neither waits nor ends nor traps: what is measured is what the engine does all the time.
    #[test]
    fn the_test_program_runs_as_long_as_it_is_let() {
        for &architecture in Architecture::value_variants() {
            for engine in [Engine::Interpreter, Engine::Jit] {
                let mut machine = test_machine(architecture, EngineName(engine)).unwrap();
                for until in [1_000, 300_000, 1_000_000] {
                    assert!(
                        matches!(machine.run(until), Stop::Reached),
                        "{architecture:?}"
                    );
                    assert_eq!(machine.instruction_count(), until);
                }
                let pages = machine.pages_in_use();
                assert_eq!(machine.visible_outputs(), 0);
                machine.run(1_100_000);
                assert_eq!(machine.pages_in_use(), pages);
            }
        }
    }

    #[test]
    fn every_engine_of_this_host_is_measured() {
        for &architecture in Architecture::value_variants() {
            for engine in [Engine::Interpreter, Engine::Jit] {
                let speed = measure(architecture, EngineName(engine)).unwrap();
                println!("{architecture:?}, {engine:?}: {speed} instructions a second");
                assert!(speed > 0);
            }
        }
    }
}
