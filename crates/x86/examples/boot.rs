//! Boots a kernel and an initrd without a host clock (idle time is skipped) and prints the serial port:
//! `cargo run --release -p x86 --example boot -- KERNEL INITRD COMMAND_LINE`. `LIMIT` is a count to stop
//! at, `STEP` the longest run, `FORGET=true` drops all caches after each, `INPUT` is what is typed once the guest has printed `INPUT_AFTER`.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // measures: outside the machine
use machine::clock::Clock;
use machine::input::ClockRecord;
use machine::output::{Output, Outputs};
use std::io::Write;
use x86::board::acpi::Description;
use x86::board::{Board, BoardBus, Surroundings};
use x86::boot::{BootImages, load};
use x86::interpreter::{Exit, Interpreter};
use x86::ram::Ram;

fn variable<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// FNV-1a, by words: to compare two runs.
fn digest(ram: &Ram, state: &str) -> u64 {
    let all = ram.slice(0, ram.size()).expect("all of RAM");
    let words = all.chunks(8).chain(state.as_bytes().chunks(8));
    words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        let mut bytes = [0; 8];
        bytes[..word.len()].copy_from_slice(word);
        (hash ^ u64::from_le_bytes(bytes)).wrapping_mul(0x100_0000_01b3)
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let images = BootImages {
        kernel: std::fs::read(&arguments[0]).expect("a kernel"),
        initrd: arguments
            .get(1)
            .filter(|path| !path.is_empty())
            .map(|path| std::fs::read(path).expect("an initrd")),
        command_line: arguments.get(2).cloned().unwrap_or_default(),
    };
    let limit: u64 = variable("LIMIT", u64::MAX);
    let step: u64 = variable("STEP", 1 << 24);
    let mut ram = Ram::new(variable("MEMORY_MIB", 512u64) << 20);
    let description = Description {
        cpus: 1,
        virtio_slots: 0,
    };
    let mut cpu = load(&mut ram, &images, &description).expect("boots");
    let mut board = Board::new(1);
    let mut clock = Clock::new();
    let mut outputs = Outputs::default();
    let mut interpreter = Interpreter::new();
    let forgets = variable("FORGET", false);
    let (mut now, mut idle_ns) = (0, 0);
    let start = std::time::Instant::now();
    let input = variable("INPUT", String::new());
    let input_after = variable("INPUT_AFTER", String::from("# "));
    let mut printed = String::new();
    let mut is_typed = input.is_empty();
    let exit = loop {
        board.time_passed(clock.time_ns(now));
        let deadline = board
            .next_timer_ns()
            .map_or(u64::MAX, |time_ns| clock.count_at(time_ns));
        let until = limit.min(now + step).min(deadline.max(now + 1));
        let mut bus = BoardBus::new(
            &mut board,
            0,
            Surroundings {
                outputs: &mut outputs,
                clock: &clock,
                unix_base_ns: 1_700_000_000_000_000_000,
            },
        );
        if forgets {
            interpreter.forget(&mut ram);
        }
        let exit = interpreter.run(&mut cpu, &mut ram, &mut bus, &mut now, until);
        for output in outputs.take() {
            if let Output::ConsoleBytes { bytes, .. } = output {
                std::io::stdout().write_all(&bytes).expect("printed");
                std::io::stdout().flush().expect("printed");
                printed.push_str(&String::from_utf8_lossy(&bytes));
                if !is_typed && printed.contains(&input_after) {
                    is_typed = true;
                    board.receive_serial(input.replace("\\n", "\n").as_bytes());
                }
            }
        }
        if board.finish().is_some() || now >= limit || exit == Exit::TripleFault {
            break exit;
        }
        if exit == Exit::Halted {
            let Some(time_ns) = board.next_timer_ns() else {
                break exit;
            };
            let present = clock.time_ns(now);
            if time_ns > present {
                idle_ns += time_ns - present;
                let rate = clock.record().rate;
                let record = ClockRecord { time_ns, rate };
                clock.set(now, record).expect("time goes on");
            }
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "\n{exit:?}, {:?}: {now} instructions, guest time {:.3} s ({:.3} idle), {seconds:.2} s, {:.1} MIPS",
        board.finish(),
        clock.time_ns(now) as f64 / 1e9,
        idle_ns as f64 / 1e9,
        now as f64 / seconds / 1e6
    );
    eprintln!("{:x?}", cpu.registers);
    eprintln!(
        "digest {:016x}",
        digest(&ram, &format!("{cpu:?} {board:?}"))
    );
}
