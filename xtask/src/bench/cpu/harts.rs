//! What several harts cost: copies of a program that run at once, on as many harts as there are
//! copies and on one.

use super::contenders::Contender;
use super::guest::Images;
use super::measure;
use super::programs::{self, Program, Work};
use super::results::{Column, geometric_mean};
use super::target::Target;
use crate::program;
use anyhow::{Context, Result, bail};
use serde_json::json;

/// `cargo xtask bench harts`.
///
/// # Errors
/// Something does not start or gives wrong results.
pub fn bench(
    target: Target,
    repetitions: usize,
    harts: usize,
    names: &[String],
    scale: f64,
) -> Result<()> {
    let understudy = program::path()?;
    let programs = programs::select(names)?;
    let scratch = crate::bench::scratch("bench-harts")?;
    println!("load at the start: {}", program::load());
    let work = Work {
        scale,
        copies: harts,
    };
    let images = Images::build(&understudy, target, &programs, work, &scratch)?;
    let contenders = [1, harts].map(|count| Contender::Understudy {
        program: understudy.clone(),
        engine: None,
        records: false,
        counts: true,
        harts: count,
    });
    let mut errors = Vec::new();
    let columns = measure(
        repetitions,
        &contenders,
        &programs,
        &images,
        &scratch,
        &mut errors,
    )?;
    std::fs::remove_dir_all(&scratch)?;
    println!("load at the end: {}\n", program::load());
    let [one, several] = columns.as_slice() else {
        bail!("two contenders make two columns");
    };
    let rows = rows(one, several, &programs)?;
    println!(
        "{harts} copies at once: CPU seconds and millions of instructions, on one hart and on"
    );
    println!("{harts}; how much faster {harts} harts are, in all and per instruction\n");
    for row in &rows {
        row.print();
    }
    for error in &errors {
        println!("error: {error}");
    }
    let mean = |part: fn(&Row) -> f64| geometric_mean(rows.iter().map(part));
    println!(
        "{}",
        json!({
            "harts": harts,
            "several_vs_one": mean(Row::speedup),
            "per_instruction": mean(Row::speedup_per_instruction),
        })
    );
    if !errors.is_empty() {
        bail!("{} errors, listed above the last line", errors.len());
    }
    Ok(())
}

/// A program on one hart and on several.
struct Row {
    name: &'static str,
    /// CPU seconds.
    seconds: [f64; 2],
    /// Instructions, of all harts.
    instructions: [f64; 2],
}

impl Row {
    fn speedup(&self) -> f64 {
        self.seconds[0] / self.seconds[1]
    }

    /// Where several harts execute more, as each wakes others by interrupts, or less.
    fn speedup_per_instruction(&self) -> f64 {
        self.speedup() * self.instructions[1] / self.instructions[0]
    }

    fn print(&self) {
        let ([one, several], millions) = (self.seconds, self.instructions.map(|count| count / 1e6));
        println!(
            "{:<16}{one:>8.2}{several:>8.2}{:>9.0}{:>9.0}{:>8.3}{:>8.3}",
            self.name,
            millions[0],
            millions[1],
            self.speedup(),
            self.speedup_per_instruction(),
        );
    }
}

fn rows(one: &Column, several: &Column, programs: &[Program]) -> Result<Vec<Row>> {
    let row = |program: &Program| {
        let seconds = |column: &Column| column.program(program.name).map(|spent| spent.cpu);
        let instructions = |column: &Column| column.instructions(program.name);
        Some(Row {
            name: program.name,
            seconds: [seconds(one)?, seconds(several)?],
            instructions: [instructions(one)?, instructions(several)?],
        })
    };
    programs
        .iter()
        .map(|program| row(program).with_context(|| format!("{} was not measured", program.name)))
        .collect()
}
