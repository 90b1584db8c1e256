//! Boots a kernel as fast as it goes, without waiting for idle time, and shows the serial
//! port: `cargo run --release -p x86 --example boot -- KERNEL INITRD COMMAND_LINE [TYPED]`. What is typed
//! follows the guest's first prompt. From the environment: `MEMORY_MIB` (512), `HARTS` (1), `LIMIT` (instructions to stop
//! at), `STEP` (the longest run), `FORGET=1` (drop all caches after each run), `JIT=0` (interpret; 2: both, compared), `WATCH_FROM` (from this count on both), `CHAOS` (a seed), `STAMPS=1`
//! (count and processor time at each `@` printed), `FIRMWARE` (a file in place of the arguments, of which only TYPED
//! counts then, behind three empty ones) and `DISK` (an image; what is written to it is forgotten), both of which bring the PCI bus: what is printed at the end
//! must be the same whatever all but the first two are.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // outside the machine: files and clocks

use machine::Stop;
use machine::config::{BoardConfig, DiskConfig, MachineConfig, Transport};
use machine::engine::Engine;
use machine::input::{ClockRecord, Console, DiskStatus, Input};
use machine::output::{DiskOperation, Output};
use std::io::Write;
use std::time::Instant;
use x86::boot::BootImages;
use x86::machine::Machine;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn images(arguments: &[String]) -> BootImages {
    let file = |index: usize| {
        let path = arguments.get(index).filter(|path| !path.is_empty())?;
        Some(std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}")))
    };
    if let Ok(path) = std::env::var("FIRMWARE") {
        let firmware = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        return BootImages {
            firmware: Some(firmware),
            ..BootImages::default()
        };
    }
    BootImages {
        firmware: None,
        kernel: file(0).expect("name a kernel"),
        initrd: file(1),
        command_line: arguments.get(2).cloned().unwrap_or_default(),
    }
}

/// The disk's image; empty if there is none.
fn disk() -> Vec<u8> {
    std::env::var("DISK").map_or(Vec::new(), |path| {
        std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    })
}

fn config(disk: &[u8]) -> MachineConfig {
    let disks = (!disk.is_empty()).then(|| DiskConfig {
        sectors: disk.len() as u64 / 512,
        read_only: false,
        serial: "disk".into(),
    });
    let has_bus = disks.is_some() || std::env::var("FIRMWARE").is_ok();
    MachineConfig {
        board: BoardConfig {
            memory_bytes: number("MEMORY_MIB", 512) << 20,
            harts: number("HARTS", 1) as u32,
            network: Vec::new(),
            disks: disks.into_iter().collect(),
            virtio_console: false,
            entropy: true,
            transport: if has_bus {
                Transport::Pci
            } else {
                Transport::Mmio
            },
        },
        features: Default::default(),
        unix_base_ns: 1_700_000_000_000_000_000,
    }
}

/// Shows what is printed, remembers it, and answers what the guest asks for.
fn serve(machine: &mut Machine, disk: &mut [u8], printed: &mut Vec<u8>, stamps: bool) {
    for output in machine.outputs() {
        match output {
            Output::ConsoleBytes { bytes, .. } => {
                std::io::stdout()
                    .write_all(&bytes)
                    .expect("standard output");
                std::io::stdout().flush().expect("standard output");
                if stamps && bytes.contains(&b'@') {
                    let count = machine.instruction_count();
                    eprintln!("[{count} {:.3}]", processor_seconds());
                }
                printed.extend(bytes);
            }
            Output::EntropyRequest { length } => {
                let seed = machine.instruction_count();
                let bytes =
                    (0..u64::from(length)).map(|i| (seed ^ i.wrapping_mul(0x9e37_79b9)) as u8);
                let bytes = bytes.collect();
                inject(machine, &Input::Entropy { bytes });
            }
            Output::Disk(request) => {
                let data = carry_out(disk, request.operation);
                let (device, request, status) = (request.device, request.request, DiskStatus::Ok);
                inject(
                    machine,
                    &Input::DiskCompletion {
                        device,
                        request,
                        status,
                        data,
                    },
                );
            }
            _ => {}
        }
    }
}

/// What is read.
fn carry_out(disk: &mut [u8], operation: DiskOperation) -> Vec<u8> {
    let at = |sector: u64, bytes: usize| {
        let from = sector as usize * 512;
        from..from + bytes
    };
    match operation {
        DiskOperation::Read { sector, length } => disk[at(sector, length as usize)].to_vec(),
        DiskOperation::Write { sector, data } => {
            disk[at(sector, data.len())].copy_from_slice(&data);
            Vec::new()
        }
        DiskOperation::Zero { sector, sectors } => {
            disk[at(sector, sectors as usize * 512)].fill(0);
            Vec::new()
        }
        DiskOperation::Flush => Vec::new(),
    }
}

fn inject(machine: &mut Machine, input: &Input) {
    machine
        .inject(input)
        .expect("the machine has such a device");
}

/// Processor time of this thread so far; zero where it is not told.
fn processor_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let first = times.split(' ').next().and_then(|text| text.parse().ok());
    first.map_or(0.0, |ns: f64| ns / 1e9)
}

/// Idle time is skipped.
fn wake(machine: &mut Machine, wake_at_ns: u64) -> u64 {
    let now_ns = machine.guest_time_ns();
    let time_ns = wake_at_ns.max(now_ns);
    let rate = machine.clock().rate;
    inject(machine, &Input::Clock(ClockRecord { time_ns, rate }));
    time_ns - now_ns
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut disk = disk();
    let mut machine =
        Machine::new(config(&disk), &images(&arguments)).unwrap_or_else(|error| panic!("{error}"));
    machine.set_engine(match number("JIT", 1) {
        0 => Engine::Interpreter,
        1 => Engine::Jit,
        _ => Engine::Paranoid,
    });
    if let Ok(seed) = std::env::var("CHAOS") {
        machine.set_chaos(seed.parse().ok());
    }
    let (limit, step) = (number("LIMIT", u64::MAX), number("STEP", 1 << 22));
    let mut watch_from = number("WATCH_FROM", u64::MAX);
    let (forgets, stamps) = (number("FORGET", 0) != 0, number("STAMPS", 0) != 0);
    let mut typed = arguments.get(3).map(|text| text.replace("\\n", "\n"));
    let (mut printed, mut idle_ns) = (Vec::new(), 0);
    let start = Instant::now();
    let last = loop {
        if machine.instruction_count() >= watch_from {
            watch_from = u64::MAX;
            machine.set_engine(Engine::Paranoid);
        }
        let end = limit.min(watch_from);
        let stop = machine.run(end.min(machine.instruction_count() + step));
        serve(&mut machine, &mut disk, &mut printed, stamps);
        if forgets {
            machine.forget_caches();
        }
        match stop {
            Stop::Idle {
                wake_at_ns: Some(time_ns),
            } => {
                // The prompt is out: the guest waits for somebody to type.
                let is_prompt = printed.windows(2).any(|end| end == b"# ");
                if let Some(text) = typed.take_if(|_| is_prompt) {
                    let (console, bytes) = (Console::Uart, text.into_bytes());
                    inject(&mut machine, &Input::ConsoleBytes { console, bytes });
                } else {
                    idle_ns += wake(&mut machine, time_ns);
                }
            }
            Stop::Reached if machine.instruction_count() < limit => {}
            Stop::Output => {}
            stop => break stop,
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let count = machine.instruction_count();
    eprintln!(
        "\n{last:?} at {count}: {:.1} M/s in {seconds:.2} s; guest time {:.3} s, idle {:.3} s\n{}digest {:032x}",
        count as f64 / seconds / 1e6,
        machine.guest_time_ns() as f64 / 1e9,
        idle_ns as f64 / 1e9,
        machine.describe(),
        machine.digest()
    );
}
