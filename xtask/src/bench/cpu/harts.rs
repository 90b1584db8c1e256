//! What several harts cost: copies of a program that run at once, on as many harts as there are
//! copies and on one.

use super::contenders::Contender;
use super::guest::Images;
use super::measure;
use super::programs::{self, Work};
use crate::program;
use anyhow::{Context, Result, bail};
use serde_json::json;

/// `cargo xtask bench harts`.
///
/// # Errors
/// Something does not start or gives wrong results.
pub fn bench(repetitions: usize, harts: usize, names: &[String], scale: f64) -> Result<()> {
    let understudy = program::path()?;
    let programs = programs::select(names)?;
    let scratch = crate::bench::scratch("bench-harts")?;
    println!("load at the start: {}", program::load());
    let work = Work {
        scale,
        copies: harts,
    };
    let images = Images::build(&understudy, &programs, work, &scratch)?;
    let contenders = [1, harts].map(|count| Contender::Understudy {
        program: understudy.clone(),
        engine: None,
        records: false,
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
    println!("{harts} copies at once, CPU seconds on one hart and on {harts}, and their ratio");
    for (program, ratio) in several.speedups(one, &programs) {
        let seconds = |column: &super::Column| column.program(program.name).map(|spent| spent.cpu);
        let (one, several) = seconds(one)
            .zip(seconds(several))
            .context("both columns have it")?;
        println!("{:<16}{one:>8.2}{several:>8.2}{ratio:>8.3}", program.name);
    }
    for error in &errors {
        println!("error: {error}");
    }
    let mean = several.mean_speedup(one, &programs, None);
    println!("{}", json!({ "harts": harts, "several_vs_one": mean }));
    if !errors.is_empty() {
        bail!("{} errors, listed above the last line", errors.len());
    }
    Ok(())
}
