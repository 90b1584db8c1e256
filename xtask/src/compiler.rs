//! Whether the compiler dropped something from our code.
//!
//! Some versions of rustc (seen with 1.95.0) miscompile `let x = a == 0; n += u64::from(x); if x {…}`
//! in optimised builds: the MIR pass `SimplifyComparisonIntegral` lets the `if` look at `a` and
//! removes the assignment of `x`, though the sum still needs it (rust-lang/rust#158206, repaired
//! upstream in June 2026). It took the increment of a counter in the page-table walk. So the pass is
//! watched: no assignment that it removes may be of a local that is still read.

use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;

/// How many of [`TARGETS`] every check looks at: those whose mistake is a difference between two hosts. All
/// of them take as long as a third of all tests.
const EXACT: usize = 6;
/// The crates of the product, and which of their targets; those that have to be exact come first.
const TARGETS: [(&str, &[&str]); 13] = [
    ("machine", &["--lib"]),
    ("devices", &["--lib"]),
    ("jit", &["--lib"]),
    ("riscv", &["--lib"]),
    ("x86", &["--lib"]),
    ("replication", &["--lib"]),
    ("arbiter", &["--lib"]),
    ("network", &["--lib"]),
    ("qcow2", &["--lib"]),
    ("guest-image", &["--lib"]),
    ("replica", &["--lib"]),
    ("understudy", &["--lib"]),
    ("understudy", &["--bin", "understudy"]),
];
const PASS: &str = "SimplifyComparisonIntegral";
/// Where the builds and the dumps go.
const DIRECTORY: &str = "target/compiler";

/// The passes over MIR that a release goes through, of every function, and nothing after them: to make
/// machine code of it as well takes twice as long. `-Z` is for looking only, at what a stable compiler does.
const AS_FOR_A_RELEASE: [(&str, &str); 5] = [
    ("RUSTC_BOOTSTRAP", "1"),
    ("RUSTFLAGS", "-Zalways-encode-mir"),
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "3"),
    ("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false"),
    ("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false"),
];

/// Which crates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The machines and the replication core, in every check.
    Exact,
    /// Every crate of the product, before it is released.
    All,
}

/// Compiles crates of the product as a release has them, and looks at what the pass did.
///
/// # Errors
/// The functions that it broke.
pub fn run(scope: Scope) -> Result<()> {
    println!("> what {PASS} removes");
    let dump = Path::new(DIRECTORY).join(format!("mir-{}", std::process::id()));
    std::fs::create_dir_all(&dump).with_context(|| dump.display().to_string())?;
    let outcome = dump_all(scope, &dump).and_then(|()| broken_functions(&dump));
    std::fs::remove_dir_all(&dump)?;
    let (functions, broken) = outcome?;
    if functions == 0 {
        println!(
            "this compiler does not have the pass, or does not show it: nothing was looked at"
        );
    } else {
        println!("{functions} functions");
    }
    if !broken.is_empty() {
        bail!(
            "rustc removed an assignment that is needed, in:\n  {}\nWrite the comparison \
             differently (rust-lang/rust#158206): count inside of the `if`, not with a number made \
             from the condition",
            broken.join("\n  ")
        );
    }
    Ok(())
}

fn dump_all(scope: Scope, dump: &Path) -> Result<()> {
    let targets = match scope {
        Scope::Exact => &TARGETS[..EXACT],
        Scope::All => &TARGETS[..],
    };
    let dump_pass = format!("-Zdump-mir={PASS}");
    // a path of its own for each run: cargo compiles again, though nothing has changed
    let directory = format!("-Zdump-mir-dir={}", dump.display());
    for (package, target) in targets {
        let mut arguments = vec!["rustc", "--quiet", "--profile", "check"];
        arguments.extend(["--target-dir", DIRECTORY, "--package", package]);
        arguments.extend(*target);
        arguments.extend(["--", &dump_pass, &directory]);
        crate::check::cargo(&arguments, &AS_FOR_A_RELEASE)?;
    }
    Ok(())
}

/// How many functions were looked at, and those that are broken.
fn broken_functions(dump: &Path) -> Result<(usize, Vec<String>)> {
    let (mut functions, mut broken) = (0, Vec::new());
    for entry in std::fs::read_dir(dump)? {
        let after = entry?.path();
        let name = after.to_string_lossy().into_owned();
        if !name.ends_with(".after.mir") {
            continue;
        }
        functions += 1;
        let before = std::fs::read_to_string(name.replace(".after.", ".before."))?;
        let after = std::fs::read_to_string(&after)?;
        for local in removed_but_read(&before, &after) {
            let function = after.lines().next().unwrap_or_default();
            broken.push(format!(
                "{local} {}",
                function.trim_start_matches("// MIR ")
            ));
        }
    }
    broken.sort();
    Ok((functions, broken))
}

/// Locals that fewer comparisons are assigned to in `after` than in `before`, both MIR, though
/// `after` reads them.
fn removed_but_read(before: &str, after: &str) -> Vec<String> {
    let kept = comparisons(after);
    comparisons(before)
        .into_iter()
        .filter(|(local, count)| kept.get(local).unwrap_or(&0) < count && is_read(after, local))
        .map(|(local, _)| local.to_owned())
        .collect()
}

/// How many comparisons are assigned to each local.
fn comparisons(mir: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in mir.lines() {
        if let Some((local, value)) = line.trim().split_once(" = ")
            && ["Eq(", "Ne("]
                .iter()
                .any(|operator| value.starts_with(operator))
        {
            *counts.entry(local).or_default() += 1;
        }
    }
    counts
}

/// Whether an operand is `local`; `_0` is what the function returns.
fn is_read(mir: &str, local: &str) -> bool {
    let reads = |text: &str| {
        ["copy ", "move "].iter().any(|how| {
            text.match_indices(&format!("{how}{local}"))
                .any(|(at, found)| {
                    !text[at + found.len()..].starts_with(|c: char| c.is_ascii_digit())
                })
        })
    };
    local == "_0" || mir.lines().any(reads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Says what the counter is; 1 unless it was miscompiled.
    const PROGRAM: &str = "
        struct Page { flags: u8, epoch: u64 }
        impl Page {
            fn set(&mut self, flag: u8) -> bool {
                let flags = &mut self.flags;
                let was_plain = std::mem::replace(flags, *flags | flag) == 0;
                self.epoch += u64::from(was_plain);
                was_plain
            }
        }
        fn main() {
            let mut page = Page { flags: 0, epoch: 0 };
            if std::hint::black_box(&mut page).set(1) {
                println!(\"{}\", std::hint::black_box(&page).epoch);
            }
        }";

    #[test]
    fn a_program_is_called_broken_exactly_if_it_is() {
        let directory = std::env::temp_dir().join(format!("compiler-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        std::fs::write(directory.join("page.rs"), PROGRAM).expect("a file");
        let compiled = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()))
            .args(["--edition", "2024", "-Copt-level=3", "page.rs"])
            .args([&format!("-Zdump-mir={PASS}"), "-Zdump-mir-dir=."])
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(&directory)
            .status();
        assert!(compiled.expect("rustc starts").success());
        let output = Command::new(directory.join("page")).output();
        let output = output.expect("it starts").stdout;
        let (functions, broken) = broken_functions(&directory).expect("the dumps can be read");
        std::fs::remove_dir_all(&directory).expect("it is ours");
        let is_right = output == b"1\n";
        assert_eq!(
            is_right,
            broken.is_empty(),
            "{functions} functions, {broken:?}"
        );
    }

    #[test]
    fn an_assignment_that_nothing_reads_may_go() {
        let before = "
            _3 = Eq(copy _12, const 0_u8);
            _6 = copy _31 as u64 (IntToInt);
            switchInt(move _3) -> [0: bb2, otherwise: bb1];";
        let after = "
            nop;
            _6 = copy _31 as u64 (IntToInt);
            switchInt(copy _12) -> [0: bb1, otherwise: bb2];";
        assert!(removed_but_read(before, after).is_empty());
    }
}
