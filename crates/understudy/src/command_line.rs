//! The command line.

mod arbiter;
mod button;
mod console;
mod demo;
mod engine;
mod fenced;
mod guest;
mod keys;
mod replay;
mod replica;
mod restore;
mod run;
mod snapshot;
mod status;
mod switch;
mod switchover;
mod word;

use crate::architecture::Architecture;
use crate::build::COMMIT;
use crate::exit::{ExitStatus, Failure};
use clap::{Parser, Subcommand, ValueEnum};
use replication::message::{PROTOCOL_VERSION, spoken};
use std::process::ExitCode;
use std::sync::LazyLock;

/// Keeps a Linux virtual machine running through the death of its host.
///
/// Two hosts run the same machine. The primary meets the world; the backup replays what the primary
/// did, and goes on in its place when it dies. Start with `understudy demo`.
#[derive(Debug, Parser)]
#[command(name = "understudy", version = version(), max_term_width = 100)]
struct CommandLine {
    /// The process that started this one and that it ends with
    #[arg(long, hide = true, value_name = "PID")]
    supervisor: Option<u32>,
    #[command(subcommand)]
    command: Command,
}

/// What two hosts have to have the same of, for them to pair: `--version` tells it.
fn version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let machines = Architecture::value_variants().iter();
        let machines =
            machines.map(|machine| format!("{} {}", machine.name(), machine.semantics_version()));
        let machines: Vec<String> = machines.collect();
        format!(
            "{} (semantics versions: {}; protocol version {PROTOCOL_VERSION}, speaks {}; commit {COMMIT})",
            env!("CARGO_PKG_VERSION"),
            machines.join(", "),
            spoken()
        )
    });
    &TEXT
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Replay(replay::Replay),
    Replica(replica::Replica),
    Console(console::Console),
    Start(word::Start),
    #[command(name = "new-life")]
    BeginLife(word::BeginLife),
    #[command(name = "power-button")]
    PowerButton(button::PowerButton),
    Reset(button::Reset),
    Pause(button::Pause),
    Resume(button::Resume),
    Switchover(switchover::Switchover),
    Fenced(fenced::Fenced),
    Snapshot(snapshot::Snapshot),
    Restore(restore::Restore),
    Arbiter(arbiter::Arbiter),
    Status(status::Status),
    Switch(switch::Switch),
    Keys(keys::Keys),
    Demo(demo::Demo),
    Guest(guest::Guest),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let command_line = match CommandLine::try_parse() {
        Ok(command_line) => command_line,
        Err(error) => {
            // Help and version are no errors. A closed terminal cannot be told anything.
            let _printed = error.print();
            return ExitCode::from(if error.use_stderr() {
                ExitStatus::Usage.code()
            } else {
                ExitStatus::Success.code()
            });
        }
    };
    if let Some(supervisor) = command_line.supervisor
        && let Err(error) = crate::demo::die_with_supervisor(supervisor)
    {
        report(&Failure::from(error));
        return ExitCode::from(ExitStatus::Failure.code());
    }
    let result = match command_line.command {
        Command::Run(command) => command.execute(),
        Command::Replay(command) => command.execute(),
        Command::Replica(command) => command.execute(),
        Command::Console(command) => command.execute(),
        Command::Start(command) => command.execute(),
        Command::BeginLife(command) => command.execute(),
        Command::PowerButton(command) => command.execute(),
        Command::Reset(command) => command.execute(),
        Command::Pause(command) => command.execute(),
        Command::Resume(command) => command.execute(),
        Command::Switchover(command) => command.execute(),
        Command::Fenced(command) => command.execute(),
        Command::Snapshot(command) => command.execute(),
        Command::Restore(command) => command.execute(),
        Command::Arbiter(command) => command.execute(),
        Command::Status(command) => command.execute(),
        Command::Switch(command) => command.execute(),
        Command::Keys(command) => command.execute(),
        Command::Demo(command) => command.execute(),
        Command::Guest(command) => command.execute(),
    };
    match result {
        Ok(status) => ExitCode::from(status.code()),
        Err(failure) => {
            report(&failure);
            ExitCode::from(failure.status.code())
        }
    }
}

fn report(failure: &Failure) {
    use std::io::Write;
    // Standard error may be closed.
    let _printed = writeln!(std::io::stderr(), "understudy: {failure}");
}
