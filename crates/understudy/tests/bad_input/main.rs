//! Wrong, missing, truncated, hostile: whatever the program is given, it ends in one clear error
//! and a documented status, loses nothing and leaves nothing running; and what a stranger does to a
//! running pair is not noticed.

#[path = "../support/mod.rs"]
mod support;

mod configuration;
mod disk_full;
mod hostile_guest;
mod images;
mod networks;
mod no_random_numbers;
mod peers;
mod recordings;
mod rivals;
mod strangers;
mod unfit_disks;

use std::process::Output;
use support::{error_text, run};

/// Asserts that the program refuses these arguments: with `status`, one line that names every one
/// of `words`, no more than a moment's patience, and nothing on standard output.
fn assert_refused(arguments: &[&str], status: i32, words: &[&str]) {
    assert_refusal(&run(arguments), status, words, &arguments.join(" "));
}

fn assert_refusal(output: &Output, status: i32, words: &[&str], what: &str) {
    let said = error_text(output);
    assert_eq!(output.status.code(), Some(status), "{what}: {said}");
    assert_eq!(said.lines().count(), 1, "{what}: one line: {said}");
    assert!(said.starts_with("understudy: "), "{what}: {said}");
    let mut parts: Vec<&str> = said.trim().split(": ").collect();
    parts.sort_unstable();
    assert!(
        parts.windows(2).all(|pair| pair[0] != pair[1]),
        "{what}: said twice: {said}"
    );
    for word in words {
        assert!(said.contains(word), "{what}: {word:?} is not in: {said}");
    }
    assert!(output.stdout.is_empty(), "{what} printed something");
}
