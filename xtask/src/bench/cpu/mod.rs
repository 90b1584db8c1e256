//! Speed of the machine: static Linux programs in a Debian guest, side by side with this host itself,
//! QEMU and RVVM; boot to a shell and to a login; recording.

mod bare;
mod console;
mod contenders;
mod counting;
mod guest;
mod harts;
mod login;
mod programs;
mod report;
mod results;
mod target;

use crate::program::{self, exists};
use anyhow::{Context, Result, bail};
use console::{Console, Moment};
use contenders::Contender;
use guest::Images;
use login::{Login, LoginBoot};
use programs::{Program, Work};
use report::Figures;
use results::Column;
use std::path::{Path, PathBuf};

pub use bare::{bench as bare, compile as compile_bare};
pub use contenders::{Rvvm, qemu, understudy};
pub use guest::Images as GuestImages;
pub use harts::bench as harts;
pub use target::Target;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whose machine.
    pub target: Target,
    /// How often each contender runs everything; the median counts.
    pub repetitions: usize,
    /// `--engine` of our machine; each is a column, the figures are about the first. None is the
    /// program's own choice.
    pub engines: Vec<String>,
    /// None to do without.
    pub rvvm: Option<Rvvm>,
    /// A guest with a disk, for the boot to a login.
    pub login_guest: Option<PathBuf>,
    /// Names of programs; none for all.
    pub programs: Vec<String>,
    /// The amounts of work are multiplied by it.
    pub scale: f64,
}

impl Options {
    fn work(&self) -> Work {
        Work {
            scale: self.scale,
            copies: 1,
        }
    }
}

/// `cargo xtask bench cpu`.
pub fn bench(options: &Options) -> Result<()> {
    let understudy = program::path()?;
    let programs = programs::select(&options.programs)?;
    let scratch = super::scratch("bench-cpu")?;
    println!("load at the start: {}", program::load());
    let images = Images::build(
        &understudy,
        options.target,
        &programs,
        options.work(),
        &scratch,
    )?;
    let contenders = contenders(options, &understudy, &programs, &images, &scratch)?;
    let mut errors = Vec::new();
    let columns = measure(
        options.repetitions,
        &contenders,
        &programs,
        &images,
        &scratch,
        &mut errors,
    )?;
    let engine = options.engines.first().map(String::as_str);
    let ours = our_contender(&understudy, engine, false).name();
    let login = boot_to_login(options, &understudy, &ours, &scratch).unwrap_or_else(|error| {
        errors.push(format!("boot to login: {error:#}"));
        None
    });
    std::fs::remove_dir_all(&scratch)?;
    println!("load at the end: {}\n", program::load());
    let figures = Figures {
        programs: &programs,
        columns: &columns,
        ours,
        recording: our_contender(&understudy, engine, true).name(),
        login,
    };
    figures.print_table();
    figures.print_speedups();
    for error in &errors {
        println!("error: {error}");
    }
    println!("{}", figures.json());
    if !errors.is_empty() {
        bail!("{} errors, listed above the last line", errors.len());
    }
    Ok(())
}

/// Runs everything the demanded number of times, the contenders in turn. What failed, and results
/// that are not those of the first contender, are added to `errors`: the others are still measured.
fn measure(
    repetitions: usize,
    contenders: &[Contender],
    programs: &[Program],
    images: &Images,
    scratch: &Path,
    errors: &mut Vec<String>,
) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = contenders
        .iter()
        .map(|contender| Column::new(&contender.name()))
        .collect();
    for repetition in 0..repetitions {
        for index in order(contenders.len(), repetition) {
            let (contender, column) = (&contenders[index], &mut columns[index]);
            let (number, load) = (repetition + 1, program::load());
            println!("repetition {number}: {} (load {load})", column.name);
            match run(contender, column, programs, images, scratch) {
                Ok(wrong) => errors.extend(wrong),
                Err(error) => errors.push(format!("{}: {error:#}", column.name)),
            }
            contender.clean_up(scratch)?;
        }
    }
    if let [reference, others @ ..] = columns.as_slice() {
        for column in others {
            errors.extend(column.contradictions(reference));
        }
    }
    Ok(columns)
}

/// The order of a repetition. Who runs first pays for memory that the host has to clear, and everyone
/// gets the memory that the one before gave back, whose place decides about a fifth of some programs'
/// time: so each repetition begins with another one, and every second one goes backwards.
fn order(contenders: usize, repetition: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    order.rotate_left(repetition % contenders);
    if !repetition.is_multiple_of(2) {
        order.reverse();
    }
    order
}

fn boot_to_login(
    options: &Options,
    understudy: &Path,
    ours: &str,
    scratch: &Path,
) -> Result<Option<Login>> {
    let Some(directory) = &options.login_guest else {
        return Ok(None);
    };
    println!("boot to login (load {})", program::load());
    let boot = LoginBoot::new(directory, scratch)?;
    let engine = options.engines.first().map(String::as_str);
    let (mut our_runs, mut qemu_runs) = (Vec::new(), Vec::new());
    for _ in 0..options.repetitions {
        our_runs.push(boot.measure(&mut contenders::understudy(
            understudy,
            &boot.images,
            engine,
        ))?);
        if exists(boot.images.target.qemu()) {
            qemu_runs.push(boot.measure(qemu(&boot.images).args(["-nic", "none"]))?);
        }
    }
    Ok(Some(Login::new(&[(ours, our_runs), ("qemu", qemu_runs)])))
}

fn our_contender(understudy: &Path, engine: Option<&str>, records: bool) -> Contender {
    Contender::Understudy {
        program: understudy.to_owned(),
        engine: engine.map(str::to_owned),
        records,
        counts: false,
        harts: 1,
    }
}

fn contenders(
    options: &Options,
    understudy: &Path,
    programs: &[Program],
    images: &Images,
    scratch: &Path,
) -> Result<Vec<Contender>> {
    let native = scratch.join("native-programs");
    programs::build(programs::NATIVE_COMPILER, programs, options.work(), &native)?;
    let mut contenders = vec![Contender::Native { programs: native }];
    let first = options.engines.first().map(String::as_str);
    contenders.push(our_contender(understudy, first, false));
    contenders.push(our_contender(understudy, first, true));
    for engine in options.engines.iter().skip(1) {
        contenders.push(our_contender(understudy, Some(engine), false));
    }
    let target = options.target;
    if exists(target.qemu()) {
        contenders.push(Contender::Qemu { records: false });
        if target == Target::Riscv64 {
            contenders.push(Contender::Qemu { records: true });
        }
    } else {
        let (qemu, package) = (target.qemu(), target.qemu_package());
        println!("{qemu} is missing, so nothing is compared with it: apt-get install {package}");
    }
    if let Some(rvvm) = &options.rvvm {
        let (payload, command_line) = guest::rvvm_payload(images, scratch)?;
        contenders.push(Contender::Rvvm {
            rvvm: rvvm.clone(),
            payload,
            command_line,
        });
    }
    Ok(contenders)
}

/// Runs all programs once. What was wrong with their results is returned.
fn run(
    contender: &Contender,
    column: &mut Column,
    programs: &[Program],
    images: &Images,
    scratch: &Path,
) -> Result<Vec<String>> {
    let mut console = Console::start(&mut contender.command(images, scratch))?;
    let ready = console.wait_for_line(programs::READY)?;
    if !matches!(contender, Contender::Native { .. }) {
        column.boots.push(ready);
    }
    let mut wrong = Vec::new();
    for program in programs {
        let begin = console.wait_for_line(&format!("{}{}", programs::BEGIN, program.name))?;
        let (line, end) = next_line(&mut console, program)?;
        let checksum = line
            .split_once(&format!("{}{} ", programs::END, program.name))
            .map(|(_, checksum)| checksum.trim())
            .filter(|checksum| !checksum.is_empty())
            .with_context(|| format!("{} printed {line:?}", program.name))?;
        wrong.extend(column.add(program, end.since(begin), checksum));
    }
    console.wait()?;
    let line_counts = contender.line_counts(scratch)?;
    for program in programs {
        if let Some(count) = counting::instructions(&line_counts, program.name) {
            column.add_instructions(program, count);
        }
    }
    Ok(wrong)
}

fn next_line(console: &mut Console, program: &Program) -> Result<(String, Moment)> {
    console
        .line()?
        .with_context(|| format!("it ended in {}: {}", program.name, console.last_words()))
}
