//! The disks' completions on their way to the vcpu thread.

use crate::disk::Completion;
use machine::input::DiskStatus;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

type Board = BTreeMap<(u8, u64), Completion>;

/// Completions that were not injected yet, by device and request.
///
/// A live machine takes whatever is there; a replaying one takes the one that a record names.
#[derive(Debug, Default)]
pub struct Completions {
    board: Mutex<Board>,
    any: AtomicBool,
    /// Flushes that ended well and were not looked at yet.
    flushes: Mutex<Vec<(u8, u64)>>,
}

impl Completions {
    /// Adds one.
    pub fn add(&self, completion: Completion) {
        if completion.is_flush && completion.status == DiskStatus::Ok {
            lock(&self.flushes).push((completion.device, completion.request));
        }
        lock(&self.board).insert((completion.device, completion.request), completion);
        self.any.store(true, Ordering::Release);
    }

    /// Takes all that are there, in the order of device and request. Cheap when there are none.
    pub fn take_all(&self) -> Vec<Completion> {
        if !self.any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *lock(&self.board))
            .into_values()
            .collect()
    }

    /// Whether one was added since all were taken last.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The flushes that ended well since the last call, by device and request: they are still on the
    /// board.
    pub fn ended_flushes(&self) -> Vec<(u8, u64)> {
        std::mem::take(&mut *lock(&self.flushes))
    }

    /// Takes one, if it is there.
    pub fn take(&self, device: u8, request: u64) -> Option<Completion> {
        lock(&self.board).remove(&(device, request))
    }
}

/// Every change of what is inside is one call: a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(request: u64) -> Completion {
        Completion {
            device: 0,
            request,
            status: DiskStatus::Ok,
            is_flush: false,
            data: vec![],
            host_error: None,
        }
    }

    #[test]
    fn a_replay_takes_what_its_record_names_and_a_live_machine_takes_all() {
        let completions = Completions::default();
        completions.add(completion(1));
        assert_eq!(completions.take(0, 0), None);
        completions.add(completion(0));
        assert_eq!(completions.take(0, 0), Some(completion(0)));
        assert!(completions.any());
        assert_eq!(completions.take_all(), [completion(1)]);
        assert_eq!(completions.take_all(), []);
    }
}
