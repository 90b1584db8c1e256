//! Seeds are tried until one shows a mistake that was brought back.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs seeds on all cores until `violation` sees one, and says after how many and which: the lowest of the
/// first `at_most` that shows it, however many cores there are.
pub fn seeds_until_found(
    at_most: u64,
    violation: impl Fn(u64) -> Option<String> + Sync,
) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let found: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let is_found_before = |seed: u64| {
        let found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().is_some_and(|(seeds, _)| *seeds <= seed)
    };
    let hunt = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= at_most || is_found_before(seed) {
                return;
            }
            if let Some(what) = violation(seed) {
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if found.as_ref().is_none_or(|(seeds, _)| seed < *seeds) {
                    *found = Some((seed + 1, what));
                }
                return;
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(hunt);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}
