//! One machine alone, in this terminal: no pair, no output rule.

use crate::config::VmConfig;
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::line_counts::LineCounts;
use crate::setup;
use crate::terminal::{self, EscapeFilter, RawMode};
use anyhow::{Context, anyhow};
use machine::input::Console;
use machine::output::Output;
use network::PollSet;
use replica::StopSignals;
use replica::calendar;
use replica::config::DiskFile;
use replica::disk::Disk;
use replica::events::printable;
use replica::host_time::monotonic_ns;
use replica::outside::{self, Network, NetworkNews, Outside};
use replica::recording::Recorder;
use replica::vcpu::{
    CommandChannel, InputEncoding, LiveOptions, LiveReport, LiveVcpu, Parts, ReplicaGuest, Step,
    start_disks,
};
use replica::wake::Waker;
use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What `understudy run` is asked besides the machine itself.
#[derive(Clone, Debug, Default)]
pub struct SingleOptions {
    /// Record into this file.
    pub record: Option<PathBuf>,
    /// Instructions between two digests of the recording, besides one a second; 0 for none.
    pub digest_interval_instructions: u64,
    /// Write lines of the first console, and counts, into this file.
    pub line_counts: Option<PathBuf>,
    /// Say how fast it was.
    pub summary: bool,
    /// End when the guest resets the machine.
    pub no_reboot: bool,
}

const NO_LINE_COUNTS: &str = "the file of --line-counts cannot be written";
/// A guest can make mistakes as often as it likes.
const MAX_TROUBLES_TOLD: u32 = 10;
/// Time between two digests of a recording.
const DIGEST_INTERVAL_NS: u64 = 1_000_000_000;

/// Runs the machine until the guest ends it or somebody asks.
pub fn run(config: &VmConfig, options: SingleOptions) -> Result<ExitStatus, Failure> {
    let disks = Disk::open_all(&alone(config), None).map_err(Failure::usage)?;
    let mut machine = setup::power_on(config, &disks).map_err(Failure::usage)?;
    if options.no_reboot {
        machine.end_at_reset();
    }
    let recorder = match &options.record {
        Some(path) => Some(
            Recorder::create(
                path,
                &config.name,
                config.arch.semantics_version(),
                machine.as_mut(),
            )
            .map_err(Failure::usage)?,
        ),
        None => None,
    };
    let line_counts = match &options.line_counts {
        Some(path) => Some(create_line_counts(path)?),
        None => None,
    };
    let network = match &config.network {
        Some(section) => Some(Network::connect(&section.network_end()).map_err(Failure::usage)?),
        None => None,
    };
    let signals = StopSignals::catch()?;
    let waker = Waker::new()?;
    let channel = CommandChannel::new();
    let disks = if disks.is_empty() {
        None
    } else {
        Some(start_disks(Arc::new(disks), &channel)?)
    };
    let encoding = match recorder {
        Some(_) => InputEncoding::WithDiskData,
        // Nobody reads the records: what disks read would be copied for nothing.
        None => InputEncoding::WithoutDiskData,
    };
    let parts = Parts {
        guest: ReplicaGuest::new(machine, disks),
        encoding,
        evidence: None,
    };
    let live = match recorder {
        Some(_) => LiveOptions {
            digest_interval_ns: DIGEST_INTERVAL_NS,
            digest_interval_instructions: options.digest_interval_instructions,
            ..LiveOptions::default()
        },
        None => LiveOptions::default(),
    };
    let raw_mode = RawMode::enter().context("cannot put the terminal into raw mode")?;
    let began_ns = monotonic_ns();
    let vcpu = LiveVcpu::start(parts, live, channel, waker.clone())?;
    let mut single = Single {
        vcpu,
        outside: Outside {
            network,
            ..Outside::default()
        },
        recorder,
        line_counts,
        escape: EscapeFilter::default(),
        typing: true,
        troubles: 0,
    };
    single.outside.console.to_stdout = true;
    let status = single.serve(&waker, &signals);
    single.vcpu.thread_mut().stop();
    let recorded = single.finish_recording(&status);
    drop(raw_mode);
    if options.summary {
        let thread = single.vcpu.thread();
        let count = thread
            .gauges()
            .count
            .load(std::sync::atomic::Ordering::Relaxed);
        let engine = EngineName(thread.engine());
        print_summary(count, monotonic_ns() - began_ns, engine);
    }
    let status = status?;
    recorded?;
    Ok(status)
}

fn create_line_counts(path: &Path) -> Result<LineCounts<BufWriter<File>>, Failure> {
    let file = LineCounts::create(path);
    let file = file.with_context(|| format!("{} cannot be created", path.display()));
    file.map_err(Failure::usage)
}

/// The disks of a machine that shares them with no other host.
fn alone(config: &VmConfig) -> Vec<DiskFile> {
    let disks = config.disk_files().into_iter();
    let alone = disks.map(|disk| DiskFile {
        is_shared: false,
        ..disk
    });
    alone.collect()
}

fn print_summary(count: u64, elapsed_ns: u64, engine: EngineName) {
    let seconds = elapsed_ns as f64 / 1e9;
    let mips = count as f64 / 1e6 / seconds;
    eprintln!("understudy: {count} instructions in {seconds:.2} s: {mips:.0} MIPS ({engine})");
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug)]
enum Token {
    Waker,
    Signals,
    Keyboard,
    Network,
}

struct Single {
    vcpu: LiveVcpu,
    outside: Outside,
    recorder: Option<Recorder>,
    line_counts: Option<LineCounts<BufWriter<File>>>,
    escape: EscapeFilter,
    /// Standard input has not ended.
    typing: bool,
    /// The guest's, so far.
    troubles: u32,
}

impl Single {
    fn serve(&mut self, waker: &Waker, signals: &StopSignals) -> Result<ExitStatus, Failure> {
        loop {
            waker.clear();
            let reported = self.reports()?;
            self.outside.flush();
            if let Some(status) = reported {
                return Ok(status);
            }
            let stdin = io::stdin();
            let mut set = PollSet::new();
            set.add(waker.fd(), Token::Waker, true, false);
            set.add(signals.fd(), Token::Signals, true, false);
            set.add(stdin.as_fd(), Token::Keyboard, self.typing, false);
            if let Some(network) = &self.outside.network {
                network.interests(&mut set, Token::Network);
            }
            for (token, _) in set.wait(self.timeout())? {
                match token {
                    Token::Signals if signals.arrived() => return Ok(ExitStatus::Success),
                    Token::Keyboard if self.typed()? => return Ok(ExitStatus::Success),
                    // Looked at in every turn.
                    Token::Waker | Token::Signals | Token::Keyboard | Token::Network => {}
                }
            }
            let vcpu = &self.vcpu;
            self.outside.serve(|input| vcpu.input(input));
            self.tend_network();
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let network = self.outside.network.as_ref()?;
        if network.has_frame() {
            return Some(Duration::ZERO);
        }
        let retry_at_ns = network.retry_at_ns()?;
        Some(Duration::from_nanos(
            retry_at_ns.saturating_sub(monotonic_ns()),
        ))
    }

    /// Passes typed bytes on. True when the user wants to end.
    fn typed(&mut self) -> Result<bool, Failure> {
        let mut buffer = [0; 1024];
        let length = rustix::io::read(io::stdin(), &mut buffer[..]).unwrap_or(0);
        if length == 0 {
            self.typing = false;
        }
        let typed = self.escape.filter(&buffer[..length]);
        if typed.help {
            self.outside.console.print(terminal::HELP.as_bytes());
        }
        if !typed.bytes.is_empty() {
            self.vcpu.input(outside::typed(typed.bytes));
        }
        Ok(typed.quit)
    }

    fn reports(&mut self) -> Result<Option<ExitStatus>, Failure> {
        while let Some(report) = self.vcpu.report() {
            match report {
                LiveReport::Steps { steps, .. } => self.steps(&steps)?,
                LiveReport::Finished(finish) => return Ok(Some(finish.into())),
                LiveReport::Failed(failure) => {
                    return Err(anyhow!("the machine failed: {}", failure.reason).into());
                }
                LiveReport::Rebooted { count } => {
                    eprint!("understudy: the guest rebooted after {count} instructions\r\n");
                }
                LiveReport::Calendar { ahead_ns, .. } => {
                    eprint!("understudy: {}\r\n", calendar::describe(ahead_ns));
                }
                LiveReport::Trouble { count, trouble } => {
                    self.troubles += 1;
                    if self.troubles <= MAX_TROUBLES_TOLD {
                        let trouble = printable(&trouble.to_string());
                        eprint!("understudy: {trouble}, after {count} instructions\r\n");
                    }
                    if self.troubles == MAX_TROUBLES_TOLD {
                        eprint!("understudy: more of the guest's mistakes are not told\r\n");
                    }
                }
                LiveReport::DiskFailed(how) => {
                    // Nobody else has the machine: the guest is told.
                    eprint!("understudy: {how}\r\n");
                    self.vcpu.resume();
                }
                // A machine alone is asked for neither.
                LiveReport::Snapshot(_)
                | LiveReport::DisksBegun(_)
                | LiveReport::CopyBegun(_)
                | LiveReport::CopyRound(..)
                | LiveReport::StandsStill => {}
            }
        }
        Ok(None)
    }

    /// Adds what the vcpu thread did last, and ends the recording.
    fn finish_recording(&mut self, status: &Result<ExitStatus, Failure>) -> Result<(), Failure> {
        while let Some(report) = self.vcpu.report() {
            if let LiveReport::Steps { steps, .. } = report {
                self.steps(&steps)?;
            }
        }
        if let Some(line_counts) = self.line_counts.take() {
            line_counts.finish().context(NO_LINE_COUNTS)?;
        }
        let Some(recorder) = self.recorder.take() else {
            return Ok(());
        };
        let reason = match status {
            Ok(status) => format!("the run ended with status {}", status.code()),
            Err(failure) => failure.to_string(),
        };
        recorder
            .finish(&reason)
            .map_err(|error| Failure::from(anyhow!(error)))
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), Failure> {
        if let Some(recorder) = &mut self.recorder {
            recorder
                .add(steps)
                .map_err(|error| Failure::from(anyhow!(error)))?;
        }
        for step in steps {
            if let Step::Outputs(batch) = step {
                for output in &batch.outputs {
                    self.count_lines(batch.count.0, output)?;
                    self.outside.emit(output);
                }
            }
        }
        Ok(())
    }

    fn count_lines(&mut self, count: u64, output: &Output) -> Result<(), Failure> {
        let Some(line_counts) = &mut self.line_counts else {
            return Ok(());
        };
        if let Output::ConsoleBytes {
            console: Console::Uart,
            bytes,
        } = output
        {
            line_counts.printed(count, bytes).context(NO_LINE_COUNTS)?;
        }
        Ok(())
    }

    /// Tries again to reach a network that has gone, and tells.
    fn tend_network(&mut self) {
        let Some(network) = &mut self.outside.network else {
            return;
        };
        if network.reconnect(monotonic_ns()) {
            network.announce();
        }
        match network.news(monotonic_ns()) {
            Some(NetworkNews::Lost(why)) => {
                eprint!("understudy: the network has gone: {why}; trying again\r\n");
            }
            Some(NetworkNews::Back) => eprint!("understudy: the network is there again\r\n"),
            None => {}
        }
    }
}
