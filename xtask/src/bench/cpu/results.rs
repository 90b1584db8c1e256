//! What was measured, and what follows from it.

use super::console::Moment;
use super::programs::{Kind, Program};
use crate::program::median;
use std::collections::BTreeMap;

/// All measurements of one contender.
#[derive(Clone, Debug, Default)]
pub struct Column {
    pub name: String,
    /// From the start of the process to the runner's first line.
    pub boots: Vec<Moment>,
    programs: BTreeMap<&'static str, Vec<Moment>>,
    instructions: BTreeMap<&'static str, Vec<f64>>,
    checksums: BTreeMap<&'static str, String>,
}

impl Column {
    /// A column without measurements.
    pub fn new(name: &str) -> Column {
        Column {
            name: name.into(),
            ..Column::default()
        }
    }

    /// Adds one run of a program. An answer that is not the one before is an error's text.
    pub fn add(&mut self, program: &Program, spent: Moment, checksum: &str) -> Option<String> {
        self.programs.entry(program.name).or_default().push(spent);
        let first = self
            .checksums
            .entry(program.name)
            .or_insert_with(|| checksum.to_owned());
        (first != checksum).then(|| {
            format!(
                "{}: {} gave {checksum} after {first}",
                self.name, program.name
            )
        })
    }

    /// Adds how many instructions a run of a program took.
    pub fn add_instructions(&mut self, program: &Program, count: u64) {
        let counts = self.instructions.entry(program.name).or_default();
        counts.push(count as f64);
    }

    /// Median of a program's instructions, where they were counted.
    pub fn instructions(&self, name: &str) -> Option<f64> {
        self.instructions.get(name).map(|counts| median(counts))
    }

    /// Median CPU and wall seconds of a program.
    pub fn program(&self, name: &str) -> Option<Moment> {
        self.programs.get(name).map(|runs| middle(runs))
    }

    /// Median CPU and wall seconds of the boot.
    pub fn boot(&self) -> Option<Moment> {
        (!self.boots.is_empty()).then(|| middle(&self.boots))
    }

    /// Programs whose checksum is not that of `other`.
    pub fn contradictions(&self, other: &Column) -> Vec<String> {
        let differs = |(program, sum): (&&'static str, &String)| {
            let theirs = other.checksums.get(*program)?;
            (theirs != sum).then(|| {
                format!(
                    "{program}: {} gave {sum}, {} gave {theirs}",
                    self.name, other.name
                )
            })
        };
        self.checksums.iter().filter_map(differs).collect()
    }

    /// How many times as fast as `other` this one is, for each program that both ran.
    pub fn speedups<'a>(
        &'a self,
        other: &'a Column,
        programs: &'a [Program],
    ) -> impl Iterator<Item = (&'a Program, f64)> {
        programs.iter().filter_map(|program| {
            let ours = self.program(program.name)?.cpu;
            let theirs = other.program(program.name)?.cpu;
            (ours > 0.0 && theirs > 0.0).then_some((program, theirs / ours))
        })
    }

    /// The geometric mean of these, over the programs of one kind or over all.
    pub fn mean_speedup(
        &self,
        other: &Column,
        programs: &[Program],
        kind: Option<Kind>,
    ) -> Option<f64> {
        geometric_mean(
            self.speedups(other, programs)
                .filter(|(program, _)| kind.is_none_or(|kind| program.kind == kind))
                .map(|(_, speedup)| speedup),
        )
    }
}

/// CPU and wall time each have their own median.
pub fn middle(runs: &[Moment]) -> Moment {
    let of = |part: fn(&Moment) -> f64| median(&runs.iter().map(part).collect::<Vec<f64>>());
    Moment {
        cpu: of(|run| run.cpu),
        wall: of(|run| run.wall),
    }
}

/// Of nothing there is none.
pub fn geometric_mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let logarithms: Vec<f64> = values.map(f64::ln).collect();
    let count = logarithms.len() as f64;
    (!logarithms.is_empty()).then(|| (logarithms.iter().sum::<f64>() / count).exp())
}

#[cfg(test)]
mod tests {
    use super::super::programs::PROGRAMS;
    use super::*;

    fn column(name: &str, seconds: &[f64], checksum: &str) -> Column {
        let mut column = Column::new(name);
        for (program, cpu) in PROGRAMS.iter().zip(seconds) {
            let spent = Moment {
                cpu: *cpu,
                wall: *cpu,
            };
            assert_eq!(column.add(program, spent, checksum), None);
        }
        column
    }

    #[test]
    fn twice_as_fast_and_eight_times_as_fast_is_four_times_as_fast() {
        let ours = column("ours", &[1.0, 1.0], "0");
        let theirs = column("theirs", &[2.0, 8.0], "0");
        let mean = ours.mean_speedup(&theirs, PROGRAMS, None).unwrap();
        assert!((mean - 4.0).abs() < 1e-9, "{mean}");
        assert_eq!(
            ours.mean_speedup(&theirs, PROGRAMS, Some(Kind::System)),
            None
        );
    }

    #[test]
    fn a_wrong_result_is_named() {
        let ours = column("ours", &[1.0], "1");
        let theirs = column("theirs", &[1.0], "2");
        assert_eq!(ours.contradictions(&theirs).len(), 1);
        let mut ours = ours;
        assert!(ours.add(&PROGRAMS[0], Moment::default(), "3").is_some());
    }
}
