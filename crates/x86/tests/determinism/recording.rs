//! Runs a random guest once and records its inputs; runs it again, treated otherwise.

use crate::brought_along::BroughtAlong;
use crate::guest::{COUNTERS, MEMORY_BYTES, cpus, generate};
use crate::random::Random;
use crate::running_snapshot::RunningSnapshot;
use machine::Stop;
use machine::config::{BoardConfig, MachineConfig};
use machine::engine::Engine;
use machine::input::{ClockRecord, Console, Input, InstructionCount};
use machine::output::Output;
use machine::snapshot::Snapshot;
use x86::boot::BootImages;
use x86::machine::Machine;

/// Instructions of a guest.
pub const LENGTH: InstructionCount = 150_000;

/// A guest, its inputs and what came of it.
pub struct Recording {
    seed: u64,
    /// Inputs and the counts at which they took effect.
    pub inputs: Vec<(InstructionCount, Input)>,
    /// Digests after so many inputs, at a count.
    checkpoints: Vec<(usize, InstructionCount, u128)>,
    /// Everything that was printed.
    pub printed: Vec<u8>,
    /// How often the CPU waited.
    pub idle_stops: usize,
    /// How often the timer, the serial port and CPUs interrupted, these also by what cannot be masked.
    pub interrupts: [u64; 4],
}

/// What is done to a machine while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Treatment {
    /// Nothing: it stops for its inputs only.
    Undisturbed,
    /// Stopped at random counts.
    Steps,
    /// Stopped after each few instructions.
    SmallSteps,
    /// Saved to bytes and restored at random counts.
    Snapshots,
    /// Snapshots are taken of it while it runs.
    RunningSnapshots,
    /// Another one is brought along by checkpoints, and goes on instead, compiled.
    Checkpoints,
    /// Looked at by digest at random counts.
    Digests,
    /// All that only makes it quick is forgotten at random counts.
    Forgetting,
    /// Compiled.
    Compiled,
    /// Compiled, and stopped after each few instructions.
    CompiledSteps,
    /// Compiled, and looked at by digest at random counts.
    CompiledDigests,
    /// Compiled, and disturbed by this seed's chaos.
    Chaos(u64),
    /// Compiled, and rehearsed by the interpreter.
    Paranoid,
}

impl Treatment {
    /// All of them.
    pub const ALL: [Treatment; 16] = [
        Treatment::Undisturbed,
        Treatment::Steps,
        Treatment::SmallSteps,
        Treatment::Snapshots,
        Treatment::RunningSnapshots,
        Treatment::Checkpoints,
        Treatment::Digests,
        Treatment::Forgetting,
        Treatment::Compiled,
        Treatment::CompiledSteps,
        Treatment::CompiledDigests,
        Treatment::Chaos(0),
        Treatment::Chaos(1),
        Treatment::Chaos(2),
        Treatment::Chaos(3),
        Treatment::Paranoid,
    ];

    fn prepare(self, machine: &mut Machine) {
        match self {
            Treatment::Compiled | Treatment::CompiledSteps | Treatment::CompiledDigests => {
                machine.set_engine(Engine::Jit);
            }
            Treatment::Chaos(seed) => {
                machine.set_engine(Engine::Jit);
                machine.set_chaos(Some(seed));
            }
            Treatment::Paranoid => {
                machine.set_engine(Engine::Paranoid);
            }
            _ => {}
        }
    }

    /// Instructions to the next stop.
    fn step(self, random: &mut Random) -> u64 {
        match self {
            Treatment::Undisturbed | Treatment::Compiled | Treatment::Paranoid => LENGTH,
            Treatment::Chaos(_) => 1 + random.below(20_000),
            Treatment::CompiledSteps => 1 + random.below(200),
            Treatment::CompiledDigests => 1 + random.below(8000),
            Treatment::Steps => 1 + random.below(3000),
            Treatment::SmallSteps => 1 + random.below(40),
            Treatment::Snapshots => 1 + random.below(16_000),
            Treatment::RunningSnapshots | Treatment::Checkpoints => 1 + random.below(2000),
            Treatment::Digests => 1 + random.below(8000),
            Treatment::Forgetting => 1 + random.below(500),
        }
    }
}

fn machine(seed: u64) -> Machine {
    let board = BoardConfig {
        memory_bytes: MEMORY_BYTES,
        harts: cpus(seed),
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let images = BootImages {
        kernel: generate(seed),
        ..BootImages::default()
    };
    let config = MachineConfig {
        board,
        features: Default::default(),
        unix_base_ns: 1 << 60,
    };
    Machine::new(config, &images).expect("the guest is a kernel")
}

/// Adds what was printed, so that it does not matter when it was collected.
fn collect(machine: &mut Machine, printed: &mut Vec<u8>) {
    for output in machine.outputs() {
        if let Output::ConsoleBytes { bytes, .. } = output {
            printed.extend(bytes);
        }
    }
}

/// Runs the guest of a seed with inputs at random counts.
pub fn record(seed: u64) -> Recording {
    let mut random = Random::new(seed);
    let mut machine = machine(seed);
    let mut recording = Recording {
        seed,
        inputs: Vec::new(),
        checkpoints: Vec::new(),
        printed: Vec::new(),
        idle_stops: 0,
        interrupts: [0; 4],
    };
    while machine.instruction_count() < LENGTH {
        let until = LENGTH.min(machine.instruction_count() + 1 + random.below(9000));
        let input = match machine.run(until) {
            Stop::Reached => random_input(&mut random, &machine),
            Stop::Idle { wake_at_ns } => {
                recording.idle_stops += 1;
                Some(wake(&machine, wake_at_ns))
            }
            stop => panic!("the guest ended: {stop:?}\n{}", machine.describe()),
        };
        collect(&mut machine, &mut recording.printed);
        let count = machine.instruction_count();
        if let Some(input) = input {
            machine.inject(&input).expect("there is such a device");
            recording.inputs.push((count, input));
        }
        let inputs = recording.inputs.len();
        let checkpoint = (inputs, count, machine.digest());
        recording.checkpoints.push(checkpoint);
    }
    recording.interrupts = [0, 8, 16, 24].map(|offset| {
        let bytes = machine.read_memory(COUNTERS + offset);
        bytes.map_or(0, u64::from_le_bytes)
    });
    recording
}

fn random_input(random: &mut Random, machine: &Machine) -> Option<Input> {
    match random.below(4) {
        0 => Some(Input::ConsoleBytes {
            console: Console::Uart,
            bytes: (0..=random.below(4)).map(|_| random.bits() as u8).collect(),
        }),
        1 => Some(Input::Clock(ClockRecord {
            time_ns: machine.guest_time_ns() + random.below(10_000),
            rate: (1 << 30) + random.below(12 << 32),
        })),
        _ => None,
    }
}

/// Time passes to the timer; without one a key is pressed.
fn wake(machine: &Machine, wake_at_ns: Option<u64>) -> Input {
    match wake_at_ns {
        Some(time_ns) => Input::Clock(ClockRecord {
            time_ns: time_ns.max(machine.guest_time_ns()),
            rate: 4 << 32,
        }),
        None => Input::ConsoleBytes {
            console: Console::Uart,
            bytes: b"x".to_vec(),
        },
    }
}

/// Runs the recorded guest again and compares with the recording.
pub fn replay(
    recording: &Recording,
    treatment: Treatment,
    random: &mut Random,
) -> Result<(), String> {
    let mut machine = machine(recording.seed);
    treatment.prepare(&mut machine);
    let mut printed = Vec::new();
    let mut injected = 0;
    let mut running: Option<RunningSnapshot> = None;
    let mut followed: Option<BroughtAlong<Machine>> = None;
    loop {
        let count = machine.instruction_count();
        let next = recording.inputs.get(injected);
        if let Some((_, input)) = next.filter(|(at, _)| *at == count) {
            machine
                .inject(input)
                .map_err(|error| format!("at {count}: {error}"))?;
            injected += 1;
            compare(recording, &mut machine, injected, treatment)?;
            continue;
        }
        if count >= LENGTH {
            break;
        }
        let end = next.map_or(LENGTH, |(at, _)| *at);
        let stop = machine.run(end.min(count + treatment.step(random)));
        collect(&mut machine, &mut printed);
        let arrived = machine.instruction_count();
        if matches!(stop, Stop::Idle { .. }) && arrived != end {
            return Err(format!("at {arrived} it waits, but not in the recording"));
        }
        match treatment {
            Treatment::Snapshots => machine = through_bytes(&machine)?,
            Treatment::Forgetting => machine.forget_caches(),
            Treatment::Digests | Treatment::CompiledDigests => {
                compare(recording, &mut machine, injected, treatment)?;
            }
            Treatment::RunningSnapshots => {
                running = Some(match running {
                    None => RunningSnapshot::begin(&mut machine, restored),
                    Some(snapshot) => {
                        let pages = random.below(60) as usize;
                        match snapshot.go_on(&mut machine, pages, restored)? {
                            Some(snapshot) => snapshot,
                            None => RunningSnapshot::begin(&mut machine, restored),
                        }
                    }
                });
            }
            Treatment::Checkpoints => {
                let mut follower = match followed.take() {
                    Some(follower) => follower,
                    None => {
                        let follower = through_bytes(&machine)?;
                        BroughtAlong::begin(&mut machine, follower)
                    }
                };
                follower.bring(&mut machine, random.below(2) == 0)?;
                if random.below(4) == 0 {
                    machine = follower.go_live();
                    machine.set_engine(Engine::Jit);
                } else {
                    followed = Some(follower);
                }
                compare(recording, &mut machine, injected, treatment)?;
            }
            _ => {}
        }
    }
    if let Some(snapshot) = running {
        snapshot.go_on(&mut machine, usize::MAX >> 8, restored)?;
    }
    if printed != recording.printed {
        return Err("something else was printed".into());
    }
    let (_, _, expected) = recording.checkpoints[recording.checkpoints.len() - 1];
    if machine.digest() != expected {
        return Err(format!("the last digest differs\n{}", machine.describe()));
    }
    Ok(())
}

/// Compares the digest if the recording has one for here; who only stops the machine does not look.
fn compare(
    recording: &Recording,
    machine: &mut Machine,
    injected: usize,
    treatment: Treatment,
) -> Result<(), String> {
    let looks = matches!(
        treatment,
        Treatment::Digests
            | Treatment::Snapshots
            | Treatment::Checkpoints
            | Treatment::CompiledDigests
    );
    if !looks {
        return Ok(());
    }
    let count = machine.instruction_count();
    let digest = machine.digest();
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
    let snapshot = Snapshot::read_from(&mut &bytes[..]).map_err(|error| error.to_string())?;
    Machine::restore(&snapshot).map_err(|error| error.to_string())
}
