//! The flushes that the guest asked for and was not told the end of: when it asked for them, and which
//! of them this host's disks have carried out.

use replication::record::InstructionCount;
use std::collections::BTreeMap;

/// By device and request.
type Name = (u8, u64);

#[derive(Debug)]
struct Flush {
    asked_at: InstructionCount,
    is_done: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct OpenFlushes {
    open: BTreeMap<Name, Flush>,
    /// The greatest count at which one was asked for that is done.
    done_up_to: InstructionCount,
    /// What [`OpenFlushes::newly_durable`] said last.
    told: InstructionCount,
}

impl OpenFlushes {
    /// The guest asks for one.
    pub(super) fn asked(&mut self, name: Name, asked_at: InstructionCount) {
        let is_done = false;
        self.open.insert(name, Flush { asked_at, is_done });
    }

    /// This host's disks have carried it out.
    pub(super) fn done(&mut self, name: Name) {
        if let Some(flush) = self.open.get_mut(&name) {
            flush.is_done = true;
            self.done_up_to = self.done_up_to.max(flush.asked_at);
        }
    }

    /// The guest is about to be told of the end. Gives when it asked for it.
    pub(super) fn told(&mut self, name: Name) -> InstructionCount {
        let flush = self.open.remove(&name);
        flush.map(|flush| flush.asked_at).unwrap_or_default()
    }

    /// Whether the guest waits for one.
    pub(super) fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// All flushes that were asked for at an instruction count of at most this are done; `None` if that
    /// was said before.
    pub(super) fn newly_durable(&mut self) -> Option<InstructionCount> {
        let missing = self.open.values().filter(|flush| !flush.is_done);
        let first_missing = missing.map(|flush| flush.asked_at).min();
        let before_it = first_missing.map_or(InstructionCount::LAST, InstructionCount::before);
        let durable = self.done_up_to.min(before_it);
        if durable <= self.told {
            return None;
        }
        self.told = durable;
        Some(durable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_ends_before_the_first_flush_that_is_not_done() {
        let mut flushes = OpenFlushes::default();
        for (request, count) in [(1, 100), (2, 200), (3, 200), (4, 300)] {
            flushes.asked((0, request), InstructionCount(count));
        }
        assert_eq!(flushes.newly_durable(), None);
        flushes.done((0, 2));
        assert_eq!(flushes.newly_durable(), Some(InstructionCount(99)));
        flushes.done((0, 1));
        assert_eq!(flushes.newly_durable(), Some(InstructionCount(199)));
        flushes.done((0, 3));
        assert_eq!(flushes.newly_durable(), Some(InstructionCount(200)));
        assert_eq!(flushes.newly_durable(), None);
        flushes.done((0, 4));
        assert_eq!(flushes.told((0, 4)), InstructionCount(300));
        assert_eq!(flushes.newly_durable(), Some(InstructionCount(300)));
        assert_eq!(flushes.told((0, 9)), InstructionCount(0));
    }

    #[test]
    fn a_flush_of_another_disk_is_waited_for() {
        let mut flushes = OpenFlushes::default();
        flushes.asked((1, 0), InstructionCount(50));
        flushes.asked((0, 0), InstructionCount(100));
        flushes.done((0, 0));
        assert_eq!(flushes.newly_durable(), Some(InstructionCount(49)));
    }
}
