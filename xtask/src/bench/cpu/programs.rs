//! The programs that are measured: static Linux programs of this repository, and gzip and openssl of
//! whoever runs them (Debian, in the guest). Each ends with a checksum.

use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::Command;

/// The compiler of the programs for this host.
pub const NATIVE_COMPILER: &[&str] = &["gcc"];

/// What a program is made of; the share of native speed is asked of integer programs only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Integer instructions, mostly out of the caches.
    Integer,
    /// Double-precision floating point.
    FloatingPoint,
    /// Misses in caches and translations, or copies.
    Memory,
    /// Debian's own binaries.
    Debian,
    /// The guest's kernel.
    System,
}

/// One measured program.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub kind: Kind,
    /// How much it does, in its own unit; chosen so that plain QEMU takes 2 to 4 s.
    amount: u64,
    /// A shell command that is handed the amount as `$N`; empty for a program of our own.
    command: &'static str,
}

const fn own(name: &'static str, kind: Kind, amount: u64) -> Program {
    Program {
        name,
        kind,
        amount,
        command: "",
    }
}

const fn debian(name: &'static str, amount: u64, command: &'static str) -> Program {
    Program {
        name,
        kind: Kind::Debian,
        amount,
        command,
    }
}

/// All programs, in the order in which they run.
pub const PROGRAMS: &[Program] = &[
    own("fib", Kind::Integer, 600),
    own("crc32", Kind::Integer, 120),
    own("sieve", Kind::Integer, 200),
    own("bytecode", Kind::Integer, 8_000),
    own("mixed", Kind::Integer, 50_000),
    own("sort", Kind::Integer, 120),
    own("sha256", Kind::Integer, 80),
    own("chase", Kind::Memory, 8_000),
    own("copy", Kind::Memory, 100),
    own("nbody", Kind::FloatingPoint, 700),
    own("matmul", Kind::FloatingPoint, 120),
    debian(
        "gzip",
        4,
        "i=0; while [ $i -lt $N ]; do /usr/bin/gzip -6nc \"$D\"; i=$((i + 1)); done | md5sum",
    ),
    debian(
        "openssl-sha256",
        10,
        "i=0; while [ $i -lt $N ]; do cat \"$D\"; i=$((i + 1)); done | /usr/bin/openssl dgst -sha256 -r",
    ),
    debian(
        "openssl-aes",
        6,
        "i=0; while [ $i -lt $N ]; do cat \"$D\"; i=$((i + 1)); done | /usr/bin/openssl enc \
         -aes-128-cbc -K 000102030405060708090a0b0c0d0e0f -iv 0f0e0d0c0b0a09080706050403020100 \
         | tail -c 16 | md5sum",
    ),
    own("syscalls", Kind::System, 2_000),
    own("forkexec", Kind::System, 400),
    own("pipes", Kind::System, 20),
];

/// How much the programs do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Multiplies their amounts of work.
    pub scale: f64,
    /// How many copies of a program run at once.
    pub copies: usize,
}

/// What the programs that read data are given, in KiB of text.
const DATA_KIB: u64 = 4096;
/// Writes that text.
const TEXT: &str = "text";

/// The runner prints this once the machine is up.
pub const READY: &str = "bench: ready";
/// The runner prints this and the name before a program.
pub const BEGIN: &str = "bench: begin ";
/// The runner prints this, the name and the checksum after a program.
pub const END: &str = "bench: end ";

/// The programs of that names, or all.
pub fn select(names: &[String]) -> Result<Vec<Program>> {
    if names.is_empty() {
        return Ok(PROGRAMS.to_vec());
    }
    names
        .iter()
        .map(|name| {
            PROGRAMS
                .iter()
                .find(|program| program.name == name)
                .copied()
                .with_context(|| {
                    let all: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
                    format!("there is no program {name}: {}", all.join(", "))
                })
        })
        .collect()
}

/// Compiles the programs of this repository into `directory`, and puts the runner beside them.
pub fn build(
    compiler: &[&str],
    programs: &[Program],
    work: Work,
    directory: &Path,
) -> Result<Vec<&'static str>> {
    std::fs::create_dir_all(directory)?;
    let mut names: Vec<&str> = programs
        .iter()
        .filter(|program| program.command.is_empty())
        .map(|program| program.name)
        .collect();
    names.push(TEXT);
    for name in &names {
        compile(compiler, name, directory)?;
    }
    std::fs::write(directory.join(RUNNER), runner(programs, work))?;
    names.push(RUNNER);
    Ok(names)
}

/// The name of the shell script that runs one program after another. Its argument is its directory.
pub const RUNNER: &str = "run";

fn runner(programs: &[Program], work: Work) -> String {
    let mut script =
        format!("echo '{READY}'\nP=$1\nD=$(mktemp)\n\"$P\"/{TEXT} {DATA_KIB} > \"$D\"\n",);
    for program in programs {
        let amount = ((program.amount as f64 * work.scale).round() as u64).max(1);
        let own = format!("\"$P\"/{} $N", program.name);
        let command = match program.command {
            "" => own.as_str(),
            command => command,
        };
        let others = format!("({command}) & ").repeat(work.copies - 1);
        let command = match work.copies {
            1 => command.to_owned(),
            _ => format!("{{ {others}({command}); wait; }} | sort -u"),
        };
        script += &format!(
            "N={amount}\necho '{BEGIN}{name}'\nsum=$({command})\necho \"{END}{name} $sum\"\n",
            name = program.name,
        );
    }
    script + "rm \"$D\"\n"
}

fn compile(compiler: &[&str], name: &str, directory: &Path) -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-programs/linux");
    let [program, options @ ..] = compiler else {
        bail!("no compiler")
    };
    let status = Command::new(program)
        .args(options)
        .args(["-O2", "-static", "-o"])
        .arg(directory.join(name))
        .arg(sources.join(format!("{name}.c")))
        .arg("-lm")
        .status()
        .with_context(|| {
            format!("{program} does not start: apt-get install gcc gcc-riscv64-linux-gnu")
        })?;
    if !status.success() {
        bail!("{program} does not compile {name}.c");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_a_shell_script_that_frames_every_program() {
        for copies in 1..4 {
            let work = Work {
                scale: 0.001,
                copies,
            };
            frames_every_program(&runner(PROGRAMS, work));
        }
    }

    fn frames_every_program(script: &str) {
        let status = Command::new("sh").args(["-n", "-c", script]).status();
        assert!(status.unwrap().success(), "{script}");
        for program in PROGRAMS {
            let begin = format!("echo '{BEGIN}{}'\n", program.name);
            let end = format!("echo \"{END}{} $sum\"\n", program.name);
            assert!(script.find(&begin).unwrap() < script.find(&end).unwrap());
        }
        assert!(!script.contains("N=0"), "a program without work: {script}");
    }

    #[test]
    fn an_unknown_program_is_refused_with_the_names_of_all() {
        let error = select(&["dhrystone".into()]).unwrap_err().to_string();
        assert!(error.contains("dhrystone") && error.contains("forkexec"));
    }
}
