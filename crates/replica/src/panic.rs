//! What a panic does to the program. There is one mechanism, and it has two outcomes.
//!
//! A panic is a broken invariant of this program. In any thread it **ends the process**: a replica
//! without one of its threads would look alive and be of no use, and its peer would wait for it. Only
//! the machine's thread is given the time to keep what it knows first ([`guard`]); its panics are
//! also those that a difference under the paranoid engine makes.

use std::any::Any;
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

thread_local! {
    /// Somebody up the stack of this thread waits for its panic.
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
    /// What the hook saw of a guarded panic.
    static SEEN: RefCell<Option<Panic>> = const { RefCell::new(None) };
}

/// A panic, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panic {
    /// What it said.
    pub message: String,
    /// File, line and column, when known.
    pub place: String,
    /// The stack at that moment, when known.
    pub backtrace: String,
}

/// From now on every panic of this process is printed and ends the process, but for guarded ones,
/// which are printed and end in [`guard`]. To be called once, first of all.
pub fn end_process_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        if !IS_GUARDED.get() {
            std::process::abort();
        }
        let seen = Panic {
            message: text(info.payload()),
            place: info
                .location()
                .map_or_else(String::new, ToString::to_string),
            backtrace: Backtrace::force_capture().to_string(),
        };
        SEEN.set(Some(seen));
    }));
}

/// Runs `run`, and returns its panic if it has one. Whatever `run` worked with may be broken then:
/// it can be looked at, but nothing may go on with it.
///
/// # Errors
/// The panic.
pub fn guard<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    let outer = IS_GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    IS_GUARDED.set(outer);
    result.map_err(|payload| {
        if payload.is::<environment::Ended>() {
            // This is no panic: the simulated process was killed.
            resume_unwind(payload);
        }
        // Without the hook, in a test, only the payload is known.
        SEEN.take().unwrap_or_else(|| Panic {
            message: text(&*payload),
            place: String::new(),
            backtrace: String::new(),
        })
    })
}

fn text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_panic_is_returned_with_what_it_said() {
        assert_eq!(guard(|| 7), Ok(7));
        let panic = guard(|| panic!("block at {:#x}", 0x8000_0000_u32)).unwrap_err();
        assert_eq!(panic.message, "block at 0x80000000");
        let panic = guard(|| panic!("a word")).unwrap_err();
        assert_eq!(panic.message, "a word");
        assert!(!IS_GUARDED.get());
    }
}
