//! Finding 21: a host without random numbers gave its guest an empty answer, and that ended the machine
//! without a reason that helped.

use super::assert_refusal;
use super::support::device_programs::asking_for_entropy;
use super::support::guest_program::counting_to;
use super::support::{PairDirectory, error_text, run, without_random};
use std::process::Output;

const FAILURE: i32 = 1;

fn run_there(arguments: &[&str]) -> Output {
    let output = without_random::understudy().args(arguments).output();
    output.unwrap()
}

fn alone(kernel: &str) -> Vec<String> {
    let options = ["run", "--firmware", "none", "--memory", "8M", "--kernel"];
    options
        .iter()
        .map(|word| (*word).to_owned())
        .chain([kernel.to_owned()])
        .collect()
}

#[test]
fn a_replica_says_what_its_sandbox_has_to_let_pass() {
    let pair = PairDirectory::new(&counting_to(20, 0));
    let files = pair.replica("a", None, "");
    let arguments = ["replica", "--config", files.config()];
    let words = [
        "no random numbers",
        "getrandom(2)",
        "Operation not permitted",
        "sandbox",
    ];
    assert_refusal(&run_there(&arguments), FAILURE, &words, "a replica");
}

/// One that asks for none does not miss them.
#[test]
fn a_guest_is_never_given_fewer_random_numbers_than_it_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = directory.path().join("guest.elf");
    let arguments = alone(kernel.to_str().unwrap());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    std::fs::write(&kernel, asking_for_entropy()).unwrap();
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
    let words = ["no random numbers", "getrandom(2)", "sandbox"];
    assert_refusal(&run_there(&arguments), FAILURE, &words, "a machine alone");
    std::fs::write(&kernel, counting_to(20, 0)).unwrap();
    let output = run_there(&arguments);
    assert_eq!(output.status.code(), Some(0), "{}", error_text(&output));
}
