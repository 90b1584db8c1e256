//! `cargo run --release -p sim --example seeds -- FIRST COUNT [trace]`: runs seeds and says what was
//! covered.
use sim::{Options, run_seed, run_seeds};

fn main() {
    let number = |index, default| {
        std::env::args()
            .nth(index)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    let (first, count) = (number(1, 0), number(2, 1000));
    if std::env::args().nth(3).is_some() {
        let options = Options {
            trace: true,
            trace_lines: 5000,
            ..Options::default()
        };
        match run_seed(first, &options) {
            Ok(report) => println!("{}\n{}", report.trace.join("\n"), report.coverage),
            Err(failure) => println!("{failure}"),
        }
        return;
    }
    let start = std::time::Instant::now();
    let summary = run_seeds(first..first + count, &Options::default());
    print!("{}", summary.coverage);
    for failure in &summary.failures {
        println!("seed {}: {}", failure.seed, failure.violation);
    }
    let (seconds, simulated) = (start.elapsed().as_secs_f64(), summary.duration as f64 / 1e9);
    println!(
        "{} seeds in {seconds:.1} s ({simulated:.0} s simulated)",
        summary.seeds
    );
    println!("never occurred: {:?}", summary.coverage.missing());
}
