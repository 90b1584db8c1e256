//! Boots firmware, kernel and initrd without a host clock (idle time is skipped) and prints the
//! console: `cargo run --release -p riscv --example boot -- FIRMWARE KERNEL INITRD COMMAND_LINE`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measures: outside the machine
use machine::config::BootImages;
use machine::config::{BoardConfig, NetworkConfig};
use machine::engine::Engine;
use machine::input::{ClockRecord, Input};
use machine::output::Output;
use machine::{Machine as _, Stop};
use riscv::isa::Extensions;
use riscv::{Config, Machine};
use std::io::Write;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let read = |i: usize| {
        arguments
            .get(i)
            .filter(|p| !p.is_empty())
            .map(|p| std::fs::read(p).expect("readable"))
    };
    let harts = std::env::var("HARTS").map_or(1, |h| h.parse().expect("a number"));
    let limit: u64 = std::env::var("LIMIT").map_or(u64::MAX, |h| h.parse().expect("a number"));
    let board = BoardConfig {
        memory_bytes: 512 << 20,
        harts,
        network: vec![NetworkConfig {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        }],
        disks: vec![],
        virtio_console: true,
        entropy: true,
        transport: Default::default(),
    };
    let images = BootImages {
        firmware: read(0),
        kernel: read(1),
        initrd: read(2),
        command_line: arguments.get(3).cloned().unwrap_or_default(),
    };
    let mut machine = Machine::new(
        Config {
            board,
            extensions: Extensions::ALL,
            unix_base_ns: 1_700_000_000_000_000_000,
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
    let step: u64 = std::env::var("STEP").map_or(1 << 40, |h| h.parse().expect("a number"));
    let start = std::time::Instant::now();
    let mut idle = 0u64;
    loop {
        let stop = machine.run(limit.min(machine.instruction_count() + step));
        for output in machine.outputs() {
            match output {
                Output::ConsoleBytes { bytes, .. } => {
                    std::io::stdout().write_all(&bytes).expect("stdout");
                    std::io::stdout().flush().expect("stdout");
                }
                Output::EntropyRequest { length } => {
                    machine
                        .inject(&Input::Entropy {
                            bytes: vec![7; length as usize],
                        })
                        .expect("asked");
                }
                _ => {}
            }
        }
        match stop {
            Stop::Idle {
                wake_at_ns: Some(time_ns),
            } => {
                idle += 1;
                machine
                    .inject(&Input::Clock(ClockRecord {
                        time_ns: time_ns.max(machine.guest_time_ns()),
                        rate: 4 << 32,
                    }))
                    .expect("forward");
            }
            Stop::Idle { wake_at_ns: None } | Stop::Finished(_) => break,
            Stop::Reached if machine.instruction_count() >= limit => break,
            Stop::Output | Stop::Reached => {}
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let count = machine.instruction_count();
    eprintln!(
        "\n{engine:?}: {count} instructions, {idle} idles, guest time {:.3} s, {seconds:.3} s, {:.0} MIPS, digest {:x}",
        machine.guest_time_ns() as f64 / 1e9,
        count as f64 / seconds / 1e6,
        machine.digest()
    );
    eprintln!("{}", machine.describe());
}
