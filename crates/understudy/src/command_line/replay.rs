//! `understudy replay`.

use super::engine::EngineOption;
use crate::debugging::{self, GdbAddress};
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::replaying::moment::Moment;
use crate::replaying::{self, ReplayOptions};
use clap::Args;
use std::path::PathBuf;

/// Run a recording again, and check that the machine does exactly what it did.
///
/// Every digest and the number of outputs are compared. Status 0: all equal (also for a recording
/// whose writer died: what was written is checked); 2: not a recording, or damaged, or the moment is
/// beyond its end; 4: the replay does something else.
///
/// A MOMENT is guest time since power-on with its unit (12.5s, 800ms, 2m), record:1234 (when that record
/// has taken effect), or instruction:5000000000 (after so many instructions since power-on).
#[derive(Debug, Args)]
pub struct Replay {
    /// The recording
    file: PathBuf,
    /// Stop exactly at this moment
    #[arg(long, value_name = "MOMENT")]
    at: Option<Moment>,
    /// Stop at this moment (a number alone counts instructions). With `--at` before it, memory is
    /// dumped there, and console and capture hold what happens between the two
    #[arg(long, value_name = "MOMENT", value_parser = Moment::or_instruction)]
    until: Option<Moment>,
    /// Print what the guest printed
    #[arg(long)]
    dump_console: bool,
    /// Write the machine's memory to this new file: an ELF core file, a segment for each region of RAM
    #[arg(long, value_name = "FILE")]
    dump_memory: Option<PathBuf>,
    /// Write the frames that the machine sent and received to this file, in guest time, for Wireshark
    /// and tcpdump
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Let gdb look into the machine, at `--at` first, forward and back: at `unix:PATH` for this user only, or
    /// at `127.0.0.1:PORT` for every user of this host
    #[arg(
        long,
        value_name = "ADDRESS",
        conflicts_with_all = ["until", "dump_console", "dump_memory", "pcap"]
    )]
    gdb: Option<GdbAddress>,
    #[command(flatten)]
    engine: EngineOption,
}

impl Replay {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let engine = self.engine.or(EngineName::default());
        if let Some(address) = &self.gdb {
            return debugging::serve(&self.file, self.at, address, engine);
        }
        replaying::replay(
            &self.file,
            ReplayOptions {
                at: self.at,
                until: self.until,
                dump_console: self.dump_console,
                dump_memory: self.dump_memory,
                pcap: self.pcap,
                engine,
            },
        )
    }
}
