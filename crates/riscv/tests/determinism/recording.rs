//! Runs a random guest once and records its inputs; runs it again, treated otherwise.

use crate::assembler::elf;
use crate::brought_along::BroughtAlong;
use crate::execution::Execution;
use crate::program::{MEMORY_BYTES, generate};
use crate::random::Random;
use crate::running_snapshot::RunningSnapshot;
use machine::config::BoardConfig;
use machine::config::BootImages;
use machine::input::{ClockRecord, Console, Input, InstructionCount};
use machine::output::Output;
use machine::snapshot::Snapshot;
use machine::{Machine as _, Stop};
use riscv::isa::Extensions;
use riscv::memory::RAM_BASE;
use riscv::{Config, Machine};

/// Instructions of a guest that does not end before.
pub const LENGTH: InstructionCount = 120_000;
/// Waits without a timer after which a guest counts as ended.
const MOST_DEAD_WAITS: u32 = 5;

/// A guest, its inputs and what came of it.
pub struct Recording {
    image: Vec<u8>,
    /// Harts of its machine.
    pub harts: u32,
    /// What executed it.
    pub execution: Execution,
    /// Inputs and the counts at which they took effect.
    pub inputs: Vec<(InstructionCount, Input)>,
    /// Digests after so many inputs, at a count.
    checkpoints: Vec<(usize, InstructionCount, u128)>,
    /// Everything that came out, console bytes joined.
    pub outputs: Vec<Output>,
    /// Count at which it was given up.
    pub end: InstructionCount,
    /// How often all harts waited.
    pub idle_stops: usize,
}

/// What is done to a machine while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// Nothing: it stops for its inputs only.
    Undisturbed,
    /// Stopped at random counts.
    Steps,
    /// Stopped after each few instructions for a while.
    SmallSteps,
    /// Saved to bytes and restored at random counts.
    Snapshots,
    /// Snapshots are taken of it while it runs.
    RunningSnapshots,
    /// Another one is brought along by checkpoints, and goes on instead.
    Checkpoints,
    /// Looked at by digest at random counts.
    Digests,
    /// All of it.
    Everything,
}

impl Treatment {
    /// All of them.
    pub const ALL: [Treatment; 8] = [
        Treatment::Undisturbed,
        Treatment::Steps,
        Treatment::SmallSteps,
        Treatment::Snapshots,
        Treatment::RunningSnapshots,
        Treatment::Checkpoints,
        Treatment::Digests,
        Treatment::Everything,
    ];

    /// Instructions to the next stop.
    fn step(self, random: &mut Random) -> u64 {
        match self {
            Treatment::Undisturbed => LENGTH,
            Treatment::Steps => 1 + random.below(3000),
            Treatment::SmallSteps if random.once_in(40) => 1 + random.below(20_000),
            Treatment::SmallSteps => 1 + random.below(40),
            Treatment::Snapshots => 1 + random.below(16_000),
            Treatment::RunningSnapshots | Treatment::Checkpoints => 1 + random.below(2000),
            Treatment::Digests => 1 + random.below(8000),
            Treatment::Everything => 1 + random.magnitude() % 20_000,
        }
    }

    fn takes_snapshot(self, random: &mut Random) -> bool {
        match self {
            Treatment::Snapshots => true,
            Treatment::Everything => random.once_in(3),
            _ => false,
        }
    }

    fn begins_snapshot(self, random: &mut Random) -> bool {
        match self {
            Treatment::RunningSnapshots | Treatment::Everything => random.once_in(4),
            _ => false,
        }
    }

    fn takes_digest(self, random: &mut Random) -> bool {
        match self {
            Treatment::Digests | Treatment::Checkpoints => true,
            Treatment::Everything => random.once_in(3),
            _ => false,
        }
    }
}

fn machine(image: &[u8], harts: u32, execution: Execution) -> Machine {
    let board = BoardConfig {
        memory_bytes: MEMORY_BYTES,
        harts,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let kernel = Some(image.to_vec());
    let images = BootImages {
        kernel,
        ..BootImages::default()
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 1 << 60,
    };
    let mut machine = Machine::new(config, &images).expect("the program loads");
    execution.apply(&mut machine);
    machine
}

/// Adds outputs, so that it does not matter when they were collected.
fn append(all: &mut Vec<Output>, new: Vec<Output>) {
    for output in new {
        match (all.last_mut(), &output) {
            (
                Some(Output::ConsoleBytes { console, bytes }),
                Output::ConsoleBytes {
                    console: other,
                    bytes: more,
                },
            ) if console == other => bytes.extend(more),
            _ => all.push(output),
        }
    }
}

/// Runs the guest of a seed with inputs at random counts.
pub fn record(seed: u64, harts: u32, execution: Execution) -> Recording {
    let mut random = Random::new(seed ^ u64::from(harts) << 32);
    let image = elf(RAM_BASE, &generate(seed));
    let mut machine = machine(&image, harts, execution);
    let mut recording = Recording {
        image,
        harts,
        execution,
        inputs: Vec::new(),
        checkpoints: Vec::new(),
        outputs: Vec::new(),
        end: 0,
        idle_stops: 0,
    };
    let mut dead_waits = 0;
    while machine.instruction_count() < LENGTH && dead_waits < MOST_DEAD_WAITS {
        let until = LENGTH.min(machine.instruction_count() + 1 + random.below(12_000));
        let stop = machine.run(until);
        append(&mut recording.outputs, machine.outputs());
        let input = match stop {
            Stop::Reached => random_input(&mut random, &machine),
            Stop::Idle { wake_at_ns } => {
                recording.idle_stops += 1;
                dead_waits = if wake_at_ns.is_none() {
                    dead_waits + 1
                } else {
                    0
                };
                Some(wake(&mut random, &machine, wake_at_ns))
            }
            Stop::Output => None,
            Stop::Finished(_) => break,
        };
        let count = machine.instruction_count();
        if let Some(input) = input {
            machine.inject(&input).expect("the board has such a device");
            recording.inputs.push((count, input));
        }
        recording
            .checkpoints
            .push((recording.inputs.len(), count, machine.digest()));
    }
    append(&mut recording.outputs, machine.outputs());
    recording.end = machine.instruction_count();
    recording
        .checkpoints
        .push((recording.inputs.len(), recording.end, machine.digest()));
    recording
}

fn random_input(random: &mut Random, machine: &Machine) -> Option<Input> {
    match random.below(4) {
        0 => {
            let bytes = (0..1 + random.below(4))
                .map(|_| random.bits() as u8)
                .collect();
            Some(Input::ConsoleBytes {
                console: Console::Uart,
                bytes,
            })
        }
        1 => {
            let time_ns = machine.guest_time_ns() + random.below(10_000);
            let rate = random.below(16 << 32);
            Some(Input::Clock(ClockRecord { time_ns, rate }))
        }
        _ => None,
    }
}

/// Ends a wait: time passes to the timer, or a byte comes, or time just passes.
fn wake(random: &mut Random, machine: &Machine, wake_at_ns: Option<u64>) -> Input {
    let now_ns = machine.guest_time_ns();
    let soon = |time_ns: &u64| *time_ns < now_ns + (1 << 40);
    match wake_at_ns.filter(soon) {
        Some(time_ns) if !random.once_in(4) => Input::Clock(ClockRecord {
            time_ns: time_ns.max(now_ns),
            rate: 4 << 32,
        }),
        _ if random.once_in(2) => Input::ConsoleBytes {
            console: Console::Uart,
            bytes: vec![random.bits() as u8],
        },
        _ => Input::Clock(ClockRecord {
            time_ns: now_ns + 100_000,
            rate: 4 << 32,
        }),
    }
}

/// Runs the recorded guest again and compares with the recording.
pub fn replay(
    recording: &Recording,
    execution: Execution,
    treatment: Treatment,
    random: &mut Random,
) -> Result<(), String> {
    let mut machine = machine(&recording.image, recording.harts, execution);
    let mut outputs = Vec::new();
    let mut injected = 0;
    let mut running: Option<RunningSnapshot> = None;
    let mut followed: Option<BroughtAlong<Machine>> = None;
    loop {
        let count = machine.instruction_count();
        if let Some((at, input)) = recording.inputs.get(injected)
            && *at == count
        {
            machine
                .inject(input)
                .map_err(|error| format!("at {count}: {error}"))?;
            injected += 1;
            compare_digest(recording, treatment, random, &mut machine, injected)?;
            continue;
        }
        let end = recording
            .inputs
            .get(injected)
            .map_or(recording.end, |(at, _)| *at);
        if count >= end {
            break;
        }
        let stop = machine.run(end.min(count + treatment.step(random)));
        append(&mut outputs, machine.outputs());
        let arrived = machine.instruction_count();
        match stop {
            Stop::Idle { .. } if arrived != end => {
                return Err(format!("at {arrived} it waits, but not in the recording"));
            }
            Stop::Finished(_) if arrived != recording.end => {
                return Err(format!(
                    "at {arrived} it finishes, but not in the recording"
                ));
            }
            Stop::Finished(_) => break,
            _ => {}
        }
        if treatment.takes_snapshot(random) {
            machine = through_bytes(&machine)?;
            execution.apply(&mut machine);
            running = None;
        }
        running = match running {
            Some(snapshot) => snapshot.go_on(&mut machine, random.below(60) as usize, restored)?,
            None if treatment.begins_snapshot(random) => {
                Some(RunningSnapshot::begin(&mut machine, restored))
            }
            None => None,
        };
        if matches!(treatment, Treatment::Checkpoints) {
            let mut follower = match followed.take() {
                Some(follower) => follower,
                None => {
                    let follower = through_bytes(&machine)?;
                    BroughtAlong::begin(&mut machine, follower)
                }
            };
            follower.bring(&mut machine, random.once_in(2))?;
            if random.once_in(4) {
                machine = follower.go_live();
                execution.apply(&mut machine);
            } else {
                followed = Some(follower);
            }
        }
        compare_digest(recording, treatment, random, &mut machine, injected)?;
    }
    if let Some(snapshot) = running {
        snapshot.go_on(&mut machine, usize::MAX >> 8, restored)?;
    }
    if outputs != recording.outputs {
        return Err(format!(
            "outputs differ: {outputs:?}, recorded {:?}",
            recording.outputs
        ));
    }
    let (_, _, expected) = recording.checkpoints[recording.checkpoints.len() - 1];
    if machine.digest() != expected {
        return Err(format!("the last digest differs\n{}", machine.describe()));
    }
    Ok(())
}

/// Takes the digest if the treatment says so, and compares it if the recording has one for here.
fn compare_digest(
    recording: &Recording,
    treatment: Treatment,
    random: &mut Random,
    machine: &mut Machine,
    injected: usize,
) -> Result<(), String> {
    if !treatment.takes_digest(random) {
        return Ok(());
    }
    let digest = machine.digest();
    let count = machine.instruction_count();
    let here = |(inputs, at, _): &&(usize, u64, u128)| *inputs == injected && *at == count;
    match recording.checkpoints.iter().find(here) {
        Some((_, _, expected)) if *expected != digest => Err(format!(
            "digests differ at {count}, after {injected} inputs\n{}",
            machine.describe()
        )),
        _ => Ok(()),
    }
}

fn restored(bytes: &[u8]) -> Box<dyn machine::Machine> {
    Box::new(Machine::restore_from(bytes).expect("it is a snapshot"))
}

fn through_bytes(machine: &Machine) -> Result<Machine, String> {
    let mut bytes = Vec::new();
    let snapshot = machine.snapshot();
    snapshot
        .write_to(&mut bytes)
        .map_err(|error| error.to_string())?;
    let snapshot = Snapshot::read_from(&mut bytes.as_slice()).map_err(|error| error.to_string())?;
    Machine::restore(&snapshot).map_err(|error| error.to_string())
}
