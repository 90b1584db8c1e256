//! Outside conformance suites: bare-metal ELF programs that report through `tohost` (riscv-tests)
//! or through the finisher.

use anyhow::{Context, Result, bail};
use machine::config::{BoardConfig, BootImages};
use machine::engine::Engine;
use machine::output::Finish;
use machine::{Machine as _, Stop};
use object::{Object, ObjectSymbol};
use riscv::isa::Extensions;
use riscv::{Config, Machine};
use std::path::{Path, PathBuf};

/// Instructions after which a program that has not reported counts as hanging.
const LIMIT: u64 = 50_000_000;

/// Runs every ELF file in `directory` whose name begins with `prefix` and tells which pass.
pub fn run(directory: &Path, prefix: &str) -> Result<()> {
    let mut programs: Vec<PathBuf> = std::fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_file() && name.starts_with(prefix) && path.extension().is_none()
        })
        .collect();
    programs.sort();
    let mut failed = 0;
    for path in &programs {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match run_on_all_engines(path) {
            Ok(()) => println!("pass {name}"),
            Err(error) => {
                failed += 1;
                println!("FAIL {name}: {error:#}");
            }
        }
    }
    println!("{} passed, {failed} failed", programs.len() - failed);
    if failed > 0 || programs.is_empty() {
        bail!("{failed} of {} programs failed", programs.len());
    }
    Ok(())
}

/// The JIT runs each program twice: as always, and disturbed, with everything compiled at once.
fn run_on_all_engines(path: &Path) -> Result<()> {
    for engine in Engine::ALL {
        run_one(path, engine, None).with_context(|| format!("{engine:?}"))?;
        if engine != Engine::Interpreter {
            run_one(path, engine, Some(0)).with_context(|| format!("{engine:?}, disturbed"))?;
        }
    }
    Ok(())
}

fn run_one(path: &Path, engine: Engine, chaos_seed: Option<u64>) -> Result<()> {
    let elf = std::fs::read(path)?;
    let tohost = object::File::parse(&*elf)
        .context("not an ELF file")?
        .symbols()
        .find(|symbol| symbol.name() == Ok("tohost"))
        .map(|symbol| symbol.address());
    let mut machine = bare_machine(elf)?;
    machine.set_engine(engine);
    machine.set_chaos(chaos_seed);
    while machine.instruction_count() < LIMIT {
        let stop = machine.run(machine.instruction_count() + 10_000);
        machine.outputs();
        if let Some(address) = tohost {
            match u64::from_le_bytes(machine.read_array(address)?) {
                0 => {}
                1 => return Ok(()),
                code => bail!("test number {} failed", code >> 1),
            }
        }
        match stop {
            Stop::Finished(Finish::PowerOff) => return Ok(()),
            Stop::Finished(finish) => bail!("finished with {finish:?}"),
            Stop::Idle { wake_at_ns: None } => bail!("waits for ever"),
            _ => {}
        }
    }
    bail!(
        "no result after {LIMIT} instructions\n{}",
        machine.describe()
    )
}

/// A machine with 64 MiB and one hart that starts the ELF program in M-mode.
pub fn bare_machine(elf: Vec<u8>) -> Result<Machine> {
    let board = BoardConfig {
        memory_bytes: 64 << 20,
        harts: 1,
        network: Vec::new(),
        disks: Vec::new(),
        virtio_console: false,
        entropy: false,
        transport: Default::default(),
    };
    let config = Config {
        board,
        extensions: Extensions::ALL,
        unix_base_ns: 0,
    };
    let images = BootImages {
        kernel: Some(elf),
        ..BootImages::default()
    };
    Ok(Machine::new(config, &images)?)
}
