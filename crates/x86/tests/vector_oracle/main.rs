//! Vector and x87 instructions, every form of them: against the host's processor, and against what
//! they gave when they were last looked at, which is the same on every host.
//!
//! `UNDERSTUDY_ORACLE_CASES` sets how many cases each form is tried with, `UNDERSTUDY_SEED` the
//! seed, `UNDERSTUDY_ORACLE_FORM` the first letters of the forms.

// Which cases are run is chosen outside of the machine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
// Without an oracle only half of the harness is used.
#![cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    allow(dead_code)
)]

mod compatibility;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod differences;
mod forms;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod gates;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod host;
mod machine;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[allow(dead_code)] // what the tests of other instructions use
#[path = "../oracle/native.rs"]
mod native;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../../testing/native_forms.rs"]
mod native_forms;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod opcodes;
mod references;
mod same_everywhere;
mod state;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod tolerance;
mod transcendental;
mod values;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../oracle/vendor.rs"]
mod vendor;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
#[path = "../oracle/machine.rs"]
mod whole;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
