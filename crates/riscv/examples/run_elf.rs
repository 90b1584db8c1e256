//! Runs a bare-metal ELF and tells its speed: `cargo run --release -p riscv --example run_elf -- FILE`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measures: outside the machine
use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::engine::Engine;
use machine::{Machine as _, Stop};
use riscv::isa::Extensions;
use riscv::{Config, Machine};

fn main() {
    for path in std::env::args().skip(1) {
        let elf = std::fs::read(&path).expect("readable");
        let board = BoardConfig {
            memory_bytes: 64 << 20,
            harts: 1,
            network: vec![],
            disks: vec![],
            virtio_console: false,
            entropy: false,
            transport: Default::default(),
        };
        let images = BootImages {
            kernel: Some(elf),
            ..Default::default()
        };
        let mut machine = Machine::new(
            Config {
                board,
                extensions: Extensions::ALL,
                unix_base_ns: 0,
            },
            &images,
        )
        .expect("boots");
        let engine = match std::env::var("ENGINE").as_deref() {
            Ok("interpreter") => Engine::Interpreter,
            Ok("paranoid") => Engine::Paranoid,
            _ => Engine::Jit,
        };
        let engine = machine.set_engine(engine);
        let start = std::time::Instant::now();
        while !matches!(machine.run(u64::MAX), Stop::Finished(_)) {
            machine.outputs();
        }
        let seconds = start.elapsed().as_secs_f64();
        let count = machine.instruction_count();
        println!(
            "{path}: {engine:?} {count} in {seconds:.3} s, {:.0} MIPS",
            count as f64 / seconds / 1e6
        );
    }
}
