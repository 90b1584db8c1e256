//! The demonstration: a switch, a primary and a backup as processes of this host, with a Debian
//! guest that serves Redis.

mod child;
mod ending;
mod keyboard;
mod layout;
mod probe;
mod screen;
mod supervisor;

pub use child::{Supervised, die_with_supervisor};

use crate::config::{Milliseconds, ReplicationName};
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::terminal::RawMode;
use anyhow::{Context, anyhow};
use guest_image::{Architecture, GuestImage, Progress};
use layout::Layout;
use network::PollSet;
use replica::StopSignals;
use replica::host_time::monotonic_ns;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use supervisor::Supervisor;

/// What `understudy demo` is asked.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    /// No terminal: one line when the service answers, then quiet until SIGTERM.
    pub headless: bool,
    /// Where state is kept; a temporary directory without it.
    pub directory: Option<PathBuf>,
    /// Where the guest image is cached.
    pub cache: PathBuf,
    /// The host port that leads to Redis; 0 for any free one.
    pub port: u16,
    /// RAM of the guest in bytes.
    pub memory: u64,
    /// For which machine the demonstration's own guest is.
    pub architecture: Architecture,
    /// A built guest image instead of the demonstration's own.
    pub guest: Option<PathBuf>,
    /// What executes the guest in every replica.
    pub engine: EngineName,
    /// How the backup is kept alike.
    pub replication: ReplicationName,
    /// Time between two checkpoints, if there are some.
    pub checkpoint_interval: Milliseconds,
}

/// How often children are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How often the screen is drawn, in nanoseconds.
const SCREEN_INTERVAL_NS: u64 = 200_000_000;

/// Runs the demonstration until it is told to stop.
pub fn run(options: &DemoOptions) -> Result<ExitStatus, Failure> {
    // Before signals are caught: Ctrl-C ends a build at once, and nothing else is there yet.
    let image = guest(options)?;
    let signals = StopSignals::catch()?;
    let layout = Layout::open(options.directory.as_deref()).map_err(Failure::usage)?;
    options.engine.say_if_missing();
    let mut supervisor = Supervisor::start(layout, image, options)?;
    let outcome = serve(&mut supervisor, &signals, options.headless);
    supervisor.stop();
    outcome
}

fn guest(options: &DemoOptions) -> Result<GuestImage, Failure> {
    match &options.guest {
        Some(directory) => GuestImage::open(directory).ok_or_else(|| {
            Failure::usage(anyhow!(
                "{} holds no complete guest image",
                directory.display()
            ))
        }),
        None => {
            let image = guest_image::demo_guest(
                &options.cache,
                options.architecture,
                &mut StepPrinter::default(),
            );
            image
                .context("cannot make the guest image")
                .map_err(Failure::from)
        }
    }
}

/// Prints the image's steps: on a terminal as they advance, otherwise one line each.
#[derive(Default)]
pub struct StepPrinter {
    step: String,
    drawn_at_ns: u64,
}

/// Between two updates of a step on a terminal, in nanoseconds.
const STEP_INTERVAL_NS: u64 = 100_000_000;

impl Progress for StepPrinter {
    fn on_step(&mut self, name: &str, done: u64, total: u64) {
        let mut stderr = io::stderr().lock();
        let is_new = self.step != name;
        self.step.replace_range(.., name);
        let now_ns = monotonic_ns();
        let finished = done == total && total > 0;
        // Standard error may be closed: the build does not depend on it.
        let _printed = if !stderr.is_terminal() {
            if is_new {
                writeln!(stderr, "  {name}")
            } else {
                Ok(())
            }
        } else if is_new || finished || now_ns - self.drawn_at_ns >= STEP_INTERVAL_NS {
            self.drawn_at_ns = now_ns;
            let percent = done.saturating_mul(100).checked_div(total).unwrap_or(0);
            let end = if finished { "\n" } else { "" };
            write!(stderr, "\r  {name}: {percent}%\x1b[K{end}").and_then(|()| stderr.flush())
        } else {
            Ok(())
        };
    }

    fn on_note(&mut self, note: &str) {
        let _printed = writeln!(io::stderr().lock(), "  note: {note}");
    }
}

/// What the loop waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Signals,
    Keyboard,
}

fn serve(
    supervisor: &mut Supervisor,
    signals: &StopSignals,
    headless: bool,
) -> Result<ExitStatus, Failure> {
    let raw_mode = if headless { None } else { RawMode::enter()? };
    let interactive = raw_mode.is_some();
    let mut drawn_at_ns = 0;
    let mut announced = false;
    loop {
        supervisor.look_after()?;
        if let Some(line) = supervisor.ready_line().filter(|_| !announced) {
            announced = true;
            if !interactive {
                let mut stdout = io::stdout().lock();
                // Whoever closed it does not want the line.
                let _printed = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
            }
        }
        if interactive && monotonic_ns() - drawn_at_ns >= SCREEN_INTERVAL_NS {
            drawn_at_ns = monotonic_ns();
            screen::draw(&supervisor.view());
        }
        let stdin = io::stdin();
        let mut set = PollSet::new();
        set.add(signals.fd(), Token::Signals, true, false);
        set.add(stdin.as_fd(), Token::Keyboard, interactive, false);
        let ready: Vec<Token> = set.wait(Some(TICK))?.iter().map(|ready| ready.0).collect();
        if ready.contains(&Token::Signals) && signals.arrived() {
            return Ok(ExitStatus::Success);
        }
        if ready.contains(&Token::Keyboard) {
            let mut buffer = [0; 16];
            let length = rustix::io::read(&stdin, &mut buffer[..]).map_err(io::Error::from)?;
            if length == 0 {
                return Err(anyhow!("the terminal has gone").into());
            }
            for key in &buffer[..length] {
                if supervisor.pressed(*key).is_break() {
                    return Ok(ExitStatus::Success);
                }
                drawn_at_ns = 0;
            }
        }
    }
}
