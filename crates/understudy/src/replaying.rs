//! Runs a recording again.

use crate::architecture::Architecture;
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use anyhow::{Context, anyhow};
use clap::ValueEnum;
use machine::output::Output;
use machine::snapshot::Snapshot;
use replica::host_time::monotonic_ns;
use replica::outside::ConsoleSink;
use replica::vcpu::ReplicaGuest;
use replication::guest::{Guest, GuestStop};
use replication::log::{LogEnd, LogHeader, LogItem, LogReader, LogSummary};
use replication::record::{Record, RecordBody};
use replication::replay::{Progress, Replayer};
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How a recording is replayed.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReplayOptions {
    /// Stop at this instruction count.
    pub until: Option<u64>,
    /// Print what the guest printed.
    pub dump_console: bool,
    /// What executes the guest; the recording does not know what did.
    pub engine: EngineName,
}

/// Bytes that are read from the file in one go.
const READ_BYTES: usize = 1 << 20;
/// Instructions between two looks at the outputs.
const STEP: u64 = 50_000_000;

/// Replays the recording and prints a summary.
pub fn replay(path: &Path, options: ReplayOptions) -> Result<ExitStatus, Failure> {
    let named = || format!("the recording {}", path.display());
    let file = File::open(path)
        .with_context(|| format!("cannot open {}", named()))
        .map_err(Failure::usage)?;
    // A recording that grows while it is replayed would never end.
    let kind = file.metadata().with_context(named)?;
    let length = if kind.is_file() { kind.len() } else { u64::MAX };
    let writer_alive = flock(&file, FlockOperation::NonBlockingLockShared).is_err();
    let mut file = file.take(length);
    let mut replay = Replay::new(options);
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
        replay.run()?;
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
    let finished = replay.finish(end.as_ref(), writer_alive);
    finished.map_err(|failure| Failure::new(failure.status, failure.error.context(named())))
}

/// Where a replay has come to.
enum Stage {
    Header,
    Snapshot(Architecture, Vec<u8>),
    Records(Box<Replayer<ReplicaGuest>>),
}

struct Replay {
    options: ReplayOptions,
    console: ConsoleSink,
    stage: Stage,
    summary: Option<LogSummary>,
    over: bool,
    first_count: u64,
    records: u64,
    digests: u64,
    elapsed_ns: u64,
}

impl Replay {
    fn new(options: ReplayOptions) -> Replay {
        Replay {
            options,
            console: ConsoleSink {
                to_stdout: options.dump_console,
                file: None,
            },
            stage: Stage::Header,
            summary: None,
            over: false,
            first_count: 0,
            records: 0,
            digests: 0,
            elapsed_ns: 0,
        }
    }

    /// Whether the rest of the recording is beyond the wanted count.
    fn is_over(&self) -> bool {
        self.over
    }

    fn item(&mut self, item: LogItem) -> Result<(), Failure> {
        match (item, &mut self.stage) {
            (LogItem::Header(header), Stage::Header) => {
                let architecture = check_header(&header).map_err(Failure::usage)?;
                self.stage = Stage::Snapshot(architecture, Vec::new());
            }
            (LogItem::Snapshot(piece), Stage::Snapshot(_, bytes)) => {
                bytes.extend_from_slice(&piece);
            }
            (LogItem::SnapshotEnd { .. }, Stage::Snapshot(architecture, bytes)) => {
                let machine = Snapshot::read_from(&mut &bytes[..])
                    .and_then(|snapshot| architecture.restore(&snapshot, self.options.engine));
                let machine = machine.map_err(Failure::usage)?;
                self.first_count = machine.instruction_count();
                let guest = ReplicaGuest::new(machine, None);
                self.stage = Stage::Records(Box::new(Replayer::new(guest)));
            }
            (LogItem::Record(_, record), Stage::Records(replayer)) => {
                if self.options.until.is_some_and(|until| record.count > until) {
                    self.over = true;
                    return Ok(());
                }
                count_checked(&record, &mut self.records, &mut self.digests);
                replayer.push(record);
            }
            (LogItem::End(summary), Stage::Records(_)) => self.summary = Some(summary),
            // The reader gives items in this order only.
            (_, _) => return Err(Failure::usage(anyhow!("its parts are in a wrong order"))),
        }
        Ok(())
    }

    /// Replays what is there.
    fn run(&mut self) -> Result<(), Failure> {
        let Stage::Records(replayer) = &mut self.stage else {
            return Ok(());
        };
        let began_ns = monotonic_ns();
        let result = loop {
            let made = replayer.step(STEP);
            for batch in replayer.take_outputs() {
                print(&mut self.console, &batch.outputs);
            }
            match made {
                Ok(Progress::Working) => {}
                Ok(Progress::Waiting) => break Ok(()),
                // Only a machine with disks waits for something, and this one has none.
                Ok(Progress::Blocked) => break Err(anyhow!("the replay waits for a disk")),
                Err(divergence) => break Err(anyhow!("the replay diverges: {divergence}")),
            }
        };
        self.elapsed_ns += monotonic_ns() - began_ns;
        result.map_err(|error| Failure::new(ExitStatus::Diverged, error))
    }

    fn finish(mut self, end: Option<&LogEnd>, writer_alive: bool) -> Result<ExitStatus, Failure> {
        self.run()?;
        let Stage::Records(replayer) = &mut self.stage else {
            return Err(Failure::usage(anyhow!("it ends before its snapshot does")));
        };
        let target = match (&self.summary, self.options.until) {
            (_, Some(until)) => until,
            (Some(summary), None) => summary.final_count,
            (None, None) => replayer.executed(),
        };
        let began_ns = monotonic_ns();
        run_to(replayer.guest_mut(), target, &mut self.console)?;
        self.elapsed_ns += monotonic_ns() - began_ns;
        let guest = replayer.guest_mut();
        if let Some(summary) = self
            .summary
            .as_ref()
            .filter(|_| self.options.until.is_none())
        {
            check_end(summary, guest)?;
        }
        let instructions = guest.instruction_count() - self.first_count;
        let seconds = self.elapsed_ns as f64 / 1e9;
        eprintln!(
            "understudy: replayed {instructions} instructions in {seconds:.2} s, {:.0} MIPS ({}); \
             {} records, {} digests equal; {} visible outputs; digest {:032x} at {}; the recording is {}",
            instructions as f64 / 1e6 / seconds.max(1e-9),
            EngineName(guest.machine.engine()),
            self.records,
            self.digests,
            guest.visible_outputs(),
            guest.digest(),
            guest.instruction_count(),
            end.map_or_else(|| "longer".to_owned(), |end| end.describe(writer_alive)),
        );
        Ok(ExitStatus::Success)
    }
}

fn count_checked(record: &Record, records: &mut u64, digests: &mut u64) {
    *records += 1;
    if matches!(record.body, RecordBody::Digest(_)) {
        *digests += 1;
    }
}

/// Says whose recording it is.
fn check_header(header: &LogHeader) -> anyhow::Result<Architecture> {
    let version = header.semantics_version;
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
    if !header.has_snapshot || !header.has_disk_reads {
        anyhow::bail!("it is not self-contained: it has no snapshot or no disk reads");
    }
    Ok(architecture)
}

/// Runs on to a count at which no record is.
fn run_to(guest: &mut ReplicaGuest, target: u64, console: &mut ConsoleSink) -> Result<(), Failure> {
    while guest.instruction_count() < target {
        let stop = guest.run(target);
        print(console, &guest.take_outputs());
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

fn print(console: &mut ConsoleSink, outputs: &[Output]) {
    for output in outputs {
        if let Output::ConsoleBytes { bytes, .. } = output {
            console.print(bytes);
        }
    }
}
