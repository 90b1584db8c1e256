//! The table and the last line.

use super::console::Moment;
use super::login::Login;
use super::programs::{Kind, Program};
use super::results::{Column, geometric_mean};

/// Which columns the figures are about.
pub struct Figures<'a> {
    pub programs: &'a [Program],
    pub columns: &'a [Column],
    /// The name of our column.
    pub ours: String,
    /// The name of our column with a recording.
    pub recording: String,
    pub login: Option<Login>,
}

impl Figures<'_> {
    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// One row for each program: median CPU seconds, and wall seconds after the slash.
    pub fn print_table(&self) {
        println!("median CPU seconds / wall seconds");
        print!("{:<16}", "");
        for column in self.columns {
            print!("{:>19}", column.name);
        }
        println!();
        for program in self.programs {
            self.print_row(program.name, |column| column.program(program.name));
        }
        self.print_row("boot to shell", Column::boot);
        if let Some(login) = &self.login {
            self.print_row("boot to login", |column| login.of(&column.name));
        }
        println!();
    }

    fn print_row(&self, name: &str, of: impl Fn(&Column) -> Option<Moment>) {
        print!("{name:<16}");
        for column in self.columns {
            print!("{:>19}", cell(of(column)));
        }
        println!();
    }

    /// How many times as fast we are, program by program.
    pub fn print_speedups(&self) {
        let Some(ours) = self.column(&self.ours) else {
            return;
        };
        println!("{} is so many times as fast (CPU seconds)", self.ours);
        for other in self.columns.iter().filter(|other| other.name != self.ours) {
            let Some(mean) = ours.mean_speedup(other, self.programs, None) else {
                continue;
            };
            print!("as {:<19} mean {mean:.2}:", other.name);
            for (program, speedup) in ours.speedups(other, self.programs) {
                print!(" {} {speedup:.2}", program.name);
            }
            println!();
        }
        println!();
    }

    /// The line of JSON; null is what was not measured.
    pub fn json(&self) -> String {
        let mean = |other: &str, kind| {
            self.column(&self.ours)?
                .mean_speedup(self.column(other)?, self.programs, kind)
        };
        // The other way round: how fast recording is, where 1 is as fast as without.
        let record_vs_run = || {
            self.column(&self.recording)?.mean_speedup(
                self.column(&self.ours)?,
                self.programs,
                None,
            )
        };
        let fields = [
            ("vs_qemu_rr", mean("qemu-rr", None)),
            ("vs_qemu", mean("qemu", None)),
            ("vs_rvvm", mean("rvvm", None)),
            ("vs_native_integer", mean("native", Some(Kind::Integer))),
            ("vs_native_float", mean("native", Some(Kind::FloatingPoint))),
            ("vs_native_all", mean("native", None)),
            ("boot_vs_qemu", self.boot_vs_qemu()),
            ("record_vs_run", record_vs_run()),
        ];
        let fields = fields.map(|(name, value)| match value {
            Some(value) => format!("\"{name}\":{value:.3}"),
            None => format!("\"{name}\":null"),
        });
        format!("{{{}}}", fields.join(","))
    }

    /// Our CPU time over QEMU's: the geometric mean of the boots that were measured.
    fn boot_vs_qemu(&self) -> Option<f64> {
        let shell = || {
            let ours = self.column(&self.ours)?.boot()?;
            Some(ours.cpu / self.column("qemu")?.boot()?.cpu)
        };
        let login = || {
            let login = self.login.as_ref()?;
            Some(login.of(&self.ours)?.cpu / login.of("qemu")?.cpu)
        };
        geometric_mean([shell(), login()].into_iter().flatten())
    }
}

fn cell(moment: Option<Moment>) -> String {
    match moment {
        Some(Moment { cpu, wall }) => format!("{cpu:.2}/{wall:.2}"),
        None => "-".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::programs::PROGRAMS;
    use super::*;

    fn column(name: &str, cpu: f64) -> Column {
        let mut column = Column::new(name);
        let moment = Moment { cpu, wall: cpu };
        column.add(&PROGRAMS[0], moment, "1");
        column.boots.push(moment);
        column
    }

    #[test]
    fn more_than_one_is_faster_and_what_was_not_measured_is_null() {
        let columns = [
            column("native", 0.5),
            column("ours", 1.0),
            column("ours+record", 1.25),
            column("qemu", 3.0),
        ];
        let figures = Figures {
            programs: PROGRAMS,
            columns: &columns,
            ours: "ours".into(),
            recording: "ours+record".into(),
            login: None,
        };
        assert_eq!(
            figures.json(),
            "{\"vs_qemu_rr\":null,\"vs_qemu\":3.000,\"vs_rvvm\":null,\
             \"vs_native_integer\":0.500,\"vs_native_float\":null,\"vs_native_all\":0.500,\"boot_vs_qemu\":0.333,\"record_vs_run\":0.800}"
        );
    }
}
