//! Runs a recording or a journal again, to its end or to any moment of it.

mod headway;
pub mod history;
pub mod journal;
mod memory_dump;
pub mod moment;
mod sight;

use crate::architecture::Architecture;
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use headway::Headway;
use machine::Machine;
use machine::snapshot::Snapshot;
use moment::{Distance, Moment, Seconds};
use network::Capture;
use replica::config::JournalPlace;
use replica::host_time::monotonic_ns;
use replica::outside::ConsoleSink;
use replica::vcpu::{ReplicaGuest, times_of};
use replication::guest::{Guest, GuestStop};
use replication::log::{LogHeader, LogItem, LogReader, LogSummary};
use replication::record::{InstructionCount, Record, RecordNumber};
use replication::replay::{Progress, Replayer};
use rustix::fs::{FlockOperation, flock};
use sight::Sight;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The file that `understudy run --record` wrote.
    Recording(PathBuf),
    /// A journal, or the place that it is in.
    Journal(JournalPlace),
}

/// How a recording is replayed.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// The moment that is looked at: memory is dumped there. Without `until` the replay ends there.
    pub at: Option<Moment>,
    /// Stop at this moment. With `at`, only what happens between the two is shown.
    pub until: Option<Moment>,
    /// Print what the guest printed.
    pub dump_console: bool,
    /// Write what is in memory at `at`, or where the replay ends, to this new file.
    pub dump_memory: Option<PathBuf>,
    /// Write the frames that went in and out to this file.
    pub pcap: Option<PathBuf>,
    /// What executes the guest; the recording does not know what did.
    pub engine: EngineName,
}

/// Bytes that are read from the file in one go.
const READ_BYTES: usize = 1 << 20;
/// Instructions between two looks at the outputs.
const STEP: u64 = 50_000_000;

/// Replays it and prints a summary.
///
/// # Errors
/// It cannot be used, the moment is not in it, or the replay diverges.
pub fn replay(source: &Source, options: ReplayOptions) -> Result<ExitStatus, Failure> {
    match source {
        Source::Recording(path) => replay_recording(path, options),
        Source::Journal(place) => journal::replay(place, options),
    }
}

fn replay_recording(path: &Path, options: ReplayOptions) -> Result<ExitStatus, Failure> {
    let named = || format!("the recording {}", path.display());
    let file = File::open(path)
        .with_context(|| format!("cannot open {}", named()))
        .map_err(Failure::usage)?;
    // A recording that grows while it is replayed would never end.
    let kind = file.metadata().with_context(named)?;
    let length = if kind.is_file() { kind.len() } else { u64::MAX };
    let writer_alive = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    let mut file = file.take(length);
    let mut replay = Replay::new("recording", options)?;
    let headway = Headway::start("replaying");
    headway.goes_on("replaying", kind.len());
    let mut reader = LogReader::new();
    let mut buffer = vec![0; READ_BYTES];
    while !replay.is_over() {
        let length = file
            .read(&mut buffer)
            .with_context(named)
            .map_err(Failure::usage)?;
        if length == 0 {
            break;
        }
        headway.meter().add(length as u64);
        reader.push(&buffer[..length]);
        while !replay.is_over()
            && let Some(item) = reader
                .next_item()
                .with_context(named)
                .map_err(Failure::usage)?
        {
            replay
                .item(item)
                .map_err(|failure| Failure::new(failure.status, failure.error.context(named())))?;
        }
        replay.run(false)?;
    }
    let end = if replay.is_over() {
        None
    } else {
        Some(
            reader
                .finish()
                .with_context(named)
                .map_err(Failure::usage)?,
        )
    };
    let end = end.map(|end| end.describe(writer_alive));
    let finished = replay.finish(end);
    finished.map_err(|failure| Failure::new(failure.status, failure.error.context(named())))
}

/// Where a replay has come to.
enum Stage {
    Header,
    Snapshot(Architecture, Vec<u8>),
    Records(Box<Replayer<ReplicaGuest>>),
}

struct Replay {
    /// What it is of, for people.
    what: &'static str,
    options: ReplayOptions,
    sight: Sight,
    stage: Stage,
    architecture: Option<Architecture>,
    summary: Option<LogSummary>,
    /// Moments at which it stops, in order. Beyond the last one nothing is replayed.
    goals: VecDeque<Moment>,
    over: bool,
    first_count: u64,
    /// Number of the record before the first that is replayed.
    before: RecordNumber,
    /// Digests among those that were replayed.
    digests: u64,
    elapsed_ns: u64,
}

impl Replay {
    fn new(what: &'static str, options: ReplayOptions) -> Result<Replay, Failure> {
        let capture = options.pcap.as_deref().map(create_capture).transpose()?;
        let console = ConsoleSink {
            to_stdout: options.dump_console,
            file: None,
        };
        let goals: VecDeque<Moment> = options.at.into_iter().chain(options.until).collect();
        Ok(Replay {
            what,
            sight: Sight::new(console, capture, goals.len() < 2),
            options,
            stage: Stage::Header,
            architecture: None,
            summary: None,
            goals,
            over: false,
            first_count: 0,
            before: RecordNumber::BEFORE_ALL,
            digests: 0,
            elapsed_ns: 0,
        })
    }

    /// Whether the rest of the recording is beyond the wanted moment.
    fn is_over(&self) -> bool {
        self.over
    }

    fn item(&mut self, item: LogItem) -> Result<(), Failure> {
        match (item, &mut self.stage) {
            (LogItem::Header(header), Stage::Header) => {
                let architecture = check_header(&header).map_err(Failure::usage)?;
                self.architecture = Some(architecture);
                self.stage = Stage::Snapshot(architecture, Vec::new());
            }
            (LogItem::Snapshot(piece), Stage::Snapshot(_, bytes)) => {
                bytes.extend_from_slice(&piece);
            }
            (LogItem::SnapshotEnd { .. }, Stage::Snapshot(architecture, bytes)) => {
                let machine = Snapshot::read_from(&mut &bytes[..])
                    .and_then(|snapshot| architecture.restore(&snapshot, self.options.engine));
                let machine = machine.map_err(Failure::usage)?;
                self.begin(machine, RecordNumber::BEFORE_ALL)?;
            }
            (LogItem::Record(number, record), _) => self.record(number, record)?,
            (LogItem::End(summary), Stage::Records(_)) => self.summary = Some(summary),
            // The reader gives items in this order only.
            (_, _) => return Err(Failure::usage(anyhow!("its parts are in a wrong order"))),
        }
        Ok(())
    }

    /// Records follow those up to number `before` on this machine.
    fn begin(&mut self, machine: Box<dyn Machine>, before: RecordNumber) -> Result<(), Failure> {
        self.first_count = machine.instruction_count();
        self.before = before;
        let is_before = match self.goals.front() {
            Some(Moment::Instruction(count)) => *count < self.first_count,
            Some(Moment::Time(time_ns)) => *time_ns < machine.guest_time_ns(),
            Some(Moment::Calendar(unix_ns)) => *unix_ns < times_of(&*machine).unix_ns,
            Some(Moment::Record(number)) => *number <= before,
            None => false,
        };
        if let (true, Some(goal)) = (is_before, self.goals.front()) {
            let error = anyhow!("it begins at {}, after {goal}", position(&*machine, before));
            return Err(Failure::usage(error));
        }
        let guest = ReplicaGuest::new(machine, None);
        self.stage = Stage::Records(Box::new(Replayer::after(guest, before)));
        Ok(())
    }

    fn record(&mut self, number: RecordNumber, record: Record) -> Result<(), Failure> {
        self.sight.expect(number, &record);
        self.replayer()?.push(record);
        Ok(())
    }

    /// Replays what is there, as far as is wanted. `is_whole`: nothing more comes.
    fn run(&mut self, is_whole: bool) -> Result<(), Failure> {
        let began_ns = monotonic_ns();
        let result = self.replay_what_is_there(is_whole);
        self.elapsed_ns += monotonic_ns() - began_ns;
        result
    }

    fn replay_what_is_there(&mut self, is_whole: bool) -> Result<(), Failure> {
        loop {
            let Stage::Records(replayer) = &mut self.stage else {
                return Ok(());
            };
            let count = replayer.executed();
            let next = replayer.next_record_count();
            let is_settled = next.map_or(is_whole, |next| next > count);
            let machine = &*replayer.guest().machine;
            let goal = self.goals.front();
            let most = match goal.map(|goal| goal.distance(machine, replayer.replayed())) {
                Some(Distance::Reached) => 0,
                Some(Distance::AtCount) if is_settled => 0,
                Some(Distance::AtCount) => 1,
                Some(Distance::Instructions(instructions)) => instructions.min(STEP),
                None => STEP,
            };
            if most == 0 {
                self.reached()?;
                if self.over {
                    return Ok(());
                }
            } else if next.is_some() {
                step(replayer, most, &mut self.sight, &mut self.digests)?;
            } else if is_whole {
                let end = self.end_count();
                return self.run_to_end(end);
            } else {
                return Ok(());
            }
        }
    }

    /// The last instruction count that the recording tells of.
    fn end_count(&self) -> InstructionCount {
        match (&self.summary, &self.stage) {
            (Some(summary), _) => summary.final_count,
            (None, Stage::Records(replayer)) => replayer.executed(),
            (None, _) => InstructionCount::POWER_ON,
        }
    }

    /// There are no more records: on to `end`, or to a moment before it.
    fn run_to_end(&mut self, end: InstructionCount) -> Result<(), Failure> {
        loop {
            let Stage::Records(replayer) = &mut self.stage else {
                return Ok(());
            };
            let goal = self.goals.front();
            let machine = &*replayer.guest().machine;
            let distance = goal.map(|goal| goal.distance(machine, replayer.replayed()));
            let count = replayer.executed();
            match distance {
                Some(Distance::Reached | Distance::AtCount) => {
                    self.reached()?;
                    if self.over {
                        return Ok(());
                    }
                }
                _ if count >= end => return Ok(()),
                Some(Distance::Instructions(instructions)) => {
                    let target = end.min(count.plus(instructions));
                    run_to(replayer.guest_mut(), target, &mut self.sight)?;
                }
                None => run_to(replayer.guest_mut(), end, &mut self.sight)?,
            }
        }
    }

    /// The machine is at the next goal.
    fn reached(&mut self) -> Result<(), Failure> {
        let Some(goal) = self.goals.pop_front() else {
            return Ok(());
        };
        let Some(until) = self.goals.front().copied() else {
            self.over = true;
            return Ok(());
        };
        let replayer = self.replayer()?;
        let (machine, replayed) = (&*replayer.guest().machine, replayer.replayed());
        eprintln!("understudy: {goal}: {}", position(machine, replayed));
        if !matches!(until.distance(machine, replayed), Distance::Instructions(_)) {
            let error = anyhow!("--until {until} is not after --at {goal}");
            return Err(Failure::usage(error));
        }
        self.dump_memory()?;
        self.sight.open();
        Ok(())
    }

    fn replayer(&mut self) -> Result<&mut Replayer<ReplicaGuest>, Failure> {
        match &mut self.stage {
            Stage::Records(replayer) => Ok(replayer),
            _ => Err(Failure::usage(anyhow!("it ends before its snapshot does"))),
        }
    }

    /// Dumps memory, if that is asked for and was not done yet.
    fn dump_memory(&mut self) -> Result<(), Failure> {
        let (Some(path), Some(architecture)) = (self.options.dump_memory.take(), self.architecture)
        else {
            return Ok(());
        };
        let machine = &*self.replayer()?.guest().machine;
        memory_dump::write(&path, machine, architecture.elf_machine())
            .with_context(|| format!("cannot write the new file {}", path.display()))
            .map_err(Failure::usage)
    }

    /// There is no more; `end` says how it ends, if that was come to.
    fn finish(mut self, end: Option<String>) -> Result<ExitStatus, Failure> {
        if !self.over {
            self.run(true)?;
        }
        let replayer = self.replayer()?;
        let replayed = replayer.replayed();
        if let Some(goal) = self.goals.front().copied() {
            let what = self.what;
            let machine = &*self.replayer()?.guest().machine;
            let error = anyhow!(
                "{goal} lies beyond the end of the {what}: it ends at {}",
                position(machine, replayed)
            );
            return Err(Failure::usage(error));
        }
        if !self.over
            && let Some(summary) = self.summary.take()
        {
            check_end(&summary, self.replayer()?.guest_mut())?;
        }
        self.dump_memory()?;
        self.sight
            .finish()
            .context("cannot write the capture")
            .map_err(Failure::from)?;
        let seconds = self.elapsed_ns as f64 / 1e9;
        let (first_count, digests, over) = (self.first_count, self.digests, self.over);
        let what = self.what;
        // A journal begins where a snapshot was taken: the number of a record is not how many were replayed.
        let records = replayed.since(self.before);
        let guest = self.replayer()?.guest_mut();
        let instructions = guest.instruction_count().0 - first_count;
        if over {
            eprintln!(
                "understudy: stopped at {}",
                position(&*guest.machine, replayed)
            );
        }
        eprintln!(
            "understudy: replayed {instructions} instructions in {seconds:.2} s, {:.0} MIPS ({}); \
             {records} records, {digests} digests equal; {} visible outputs; digest {:032x} at {}; the {what} is {}",
            instructions as f64 / 1e6 / seconds.max(1e-9),
            EngineName(guest.machine.engine()),
            guest.visible_outputs(),
            guest.digest(),
            guest.instruction_count(),
            end.as_deref().unwrap_or("longer"),
        );
        Ok(ExitStatus::Success)
    }
}

/// Where a replay is, for people.
pub fn position(machine: &dyn Machine, replayed: RecordNumber) -> String {
    format!(
        "instruction {}, record {replayed}, {} of guest time",
        machine.instruction_count(),
        Seconds(machine.guest_time_ns())
    )
}

fn at(replayer: &Replayer<ReplicaGuest>) -> String {
    position(&*replayer.guest().machine, replayer.replayed())
}

/// What the machine's real-time clock shows.
fn since_1970(machine: &dyn Machine) -> Duration {
    Duration::from_nanos(machine.unix_base_ns()) + Duration::from_nanos(machine.guest_time_ns())
}

fn create_capture(path: &Path) -> Result<Capture, Failure> {
    Capture::create(path)
        .with_context(|| format!("cannot write the capture {}", path.display()))
        .map_err(Failure::usage)
}

fn cannot_capture(error: io::Error) -> Failure {
    Failure::from(anyhow!(error).context("cannot write the capture"))
}

/// Replays a record, or at most `most` instructions before the next one.
fn step(
    replayer: &mut Replayer<ReplicaGuest>,
    most: u64,
    sight: &mut Sight,
    digests: &mut u64,
) -> Result<(), Failure> {
    let checked_before = replayer.guest().digests();
    let made = replayer.step(most);
    let outputs = replayer.take_outputs();
    let now = since_1970(&*replayer.guest().machine);
    sight
        .records(replayer.replayed(), now)
        .map_err(cannot_capture)?;
    for batch in outputs {
        sight.outputs(&batch.outputs, now).map_err(cannot_capture)?;
    }
    *digests += replayer.guest().digests() - checked_before;
    let error = match made {
        Ok(Progress::Working | Progress::Waiting) => return Ok(()),
        // Only a machine with disks waits for something, and this one has none.
        Ok(Progress::Blocked) => anyhow!("the replay waits for a disk"),
        Err(divergence) => match replayer.guest_mut().take_host_error() {
            Some(missing) => return Err(Failure::usage(anyhow!("{}: {missing}", at(replayer)))),
            None => anyhow!("the replay diverges: {divergence}"),
        },
    };
    Err(Failure::new(ExitStatus::Diverged, error))
}

/// Says whose recording it is.
fn check_header(header: &LogHeader) -> anyhow::Result<Architecture> {
    let architecture = check_semantics(header.semantics_version)?;
    if !header.has_snapshot || !header.has_disk_reads {
        anyhow::bail!("it is not self-contained: it has no snapshot or no disk reads");
    }
    Ok(architecture)
}

/// The architecture whose machines compute this version.
fn check_semantics(version: u32) -> anyhow::Result<Architecture> {
    let Some(architecture) = Architecture::of_semantics(version) else {
        let computed: Vec<String> = Architecture::value_variants()
            .iter()
            .map(|architecture| architecture.semantics_version().to_string())
            .collect();
        anyhow::bail!(
            "it was made under semantics version {version}, this program computes version {}: \
             use the program that made it",
            computed.join(" and ")
        );
    };
    Ok(architecture)
}

/// Runs on to a count at which no record is.
fn run_to(
    guest: &mut ReplicaGuest,
    target: InstructionCount,
    sight: &mut Sight,
) -> Result<(), Failure> {
    while guest.instruction_count() < target {
        let stop = guest.run(target);
        let outputs = guest.take_outputs();
        sight
            .outputs(&outputs, since_1970(&*guest.machine))
            .map_err(cannot_capture)?;
        if matches!(stop, GuestStop::Idle | GuestStop::Finished)
            && guest.instruction_count() < target
        {
            let error = anyhow!(
                "the guest {} at {}, before {target}",
                if stop == GuestStop::Idle {
                    "waits"
                } else {
                    "ended"
                },
                guest.instruction_count()
            );
            return Err(Failure::new(ExitStatus::Diverged, error));
        }
    }
    Ok(())
}

fn check_end(summary: &LogSummary, guest: &mut ReplicaGuest) -> Result<(), Failure> {
    let (digest, visible) = (guest.digest(), guest.visible_outputs());
    if digest == summary.digest && visible == summary.visible_outputs {
        return Ok(());
    }
    let error = anyhow!(
        "at the end, {}, the replay has digest {digest:032x} and {visible} outputs, the recording \
         {:032x} and {}",
        summary.final_count,
        summary.digest,
        summary.visible_outputs
    );
    Err(Failure::new(ExitStatus::Diverged, error))
}
