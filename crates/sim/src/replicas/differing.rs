//! Worlds in which one of three machines comes to differ from the others: a bit of its memory flips.
//! `docs/decisions/majority.md`.

use super::machine::{MEMORY_BYTES, SimulatedMachine};
use super::shared::{ProcessId, State};
use super::world::{MS, SECOND, What, World};
use crate::world::Violation;
use machine::Machine;
use machine::memory::PAGE_SIZE;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// How long a set of hosts is left alone before one of its machines comes to differ: all have caught up then, and
/// know something of their own.
const SETTLED_NS: u64 = 4 * SECOND;
/// How long all may take to have the same machine again.
const PATIENCE_NS: u64 = 25 * SECOND;

/// Bits that were flipped. Each has a place in memory of its own, where the guest writes nothing: whoever has it was
/// hit, or has a copy of a machine that was.
#[derive(Debug, Default)]
pub struct Flips {
    /// In whose machine one is to be flipped as soon as it runs, and which.
    due: BTreeMap<ProcessId, u64>,
    /// So many there are.
    made: u64,
    /// When each process's machine was compared last, and which of them it had.
    seen: BTreeMap<ProcessId, (u64, BTreeSet<u64>)>,
    /// How often a machine was found to differ.
    pub found: u64,
}

impl Flips {
    /// Nothing befalls anybody any more.
    pub fn forget_due(&mut self) {
        self.due.clear();
    }

    /// Whether there are any: then machines may differ.
    pub fn any(&self) -> bool {
        self.made > 0
    }
}

/// Where a flipped bit is, in bytes.
pub fn place(flip: u64) -> u64 {
    let pages = MEMORY_BYTES / PAGE_SIZE;
    flip % pages * PAGE_SIZE + 8 * (1 + flip / pages)
}

impl SimulatedMachine {
    /// A bit flips, if one is to.
    pub(super) fn flip_when_due(&mut self) {
        let Some((shared, process)) = &self.may_differ else {
            return;
        };
        let flip = shared.lock().flips.due.remove(process);
        if let Some(flip) = flip {
            self.flip(flip);
        }
    }

    /// Its digest is taken: what it has of all that were flipped is known.
    pub(super) fn tell_flips(&self) {
        let Some((shared, process)) = &self.may_differ else {
            return;
        };
        let mut state = shared.lock();
        let now_ns = state.now_ns;
        let has = |flip: &u64| {
            let mut byte = [0];
            let place = place(*flip);
            let read = self.read_memory(place, &mut byte);
            read.is_ok() && byte != [0]
        };
        let has: BTreeSet<u64> = (0..state.flips.made).filter(has).collect();
        state.flips.seen.insert(*process, (now_ns, has));
    }
}

impl State {
    /// A machine was found to differ: whether that is because a bit was flipped.
    pub fn differs(&mut self) -> bool {
        self.flips.found += 1;
        self.flips.any()
    }
}

/// The machine of one host of a set that nothing else befalls has come to differ.
#[derive(Clone, Copy, Debug)]
pub struct Odd {
    flip: u64,
    was_primary: bool,
    found_before: u64,
    since_ns: u64,
    /// It was found: from then on it counts that the hosts are a set again.
    is_found: bool,
}

/// What is looked at once all is calm.
#[derive(Debug, Default)]
pub struct Rounds {
    /// So many are over.
    over: u64,
    /// Since when the hosts have been a set.
    paired_since_ns: Option<u64>,
    odd: Option<Odd>,
}

/// In the first the odd one is a backup, in the second the primary.
const ROUNDS: u64 = 2;

impl World {
    /// A bit of the memory of a node's machine flips, as soon as that runs.
    pub(super) fn flip(&mut self, node: usize) -> Option<u64> {
        let process = self.nodes[node].process?;
        let mut state = self.shared.lock();
        let flip = state.flips.made;
        state.flips.made += 1;
        state.flips.due.insert(process, flip);
        state.note(|text| {
            let _ = write!(
                text,
                "node {node}: bit {flip} of process {} flips",
                process.0
            );
        });
        Some(flip)
    }

    /// The next step of seeing that the odd one is given up, wherever it is. `None`: it goes on; otherwise
    /// whether all went well.
    pub(super) fn look_for_odd(
        &mut self,
        now_ns: u64,
        is_paired: bool,
    ) -> Option<Result<(), Violation>> {
        if self.rounds.over == ROUNDS {
            return Some(Ok(()));
        }
        let since_ns = match is_paired {
            true => *self.rounds.paired_since_ns.get_or_insert(now_ns),
            false => {
                self.rounds.paired_since_ns = None;
                now_ns
            }
        };
        match self.rounds.odd {
            None if is_paired && now_ns >= since_ns + SETTLED_NS => self.make_odd(now_ns),
            None => {}
            Some(odd) if !odd.is_found && self.shared.lock().flips.found > odd.found_before => {
                self.rounds.odd = Some(Odd {
                    is_found: true,
                    ..odd
                });
                self.rounds.paired_since_ns = None;
            }
            Some(odd) => {
                let is_found = odd.is_found;
                if is_found && is_paired && now_ns >= since_ns + SETTLED_NS {
                    if let Err(what) = self.judge(odd, since_ns) {
                        return Some(Err(Violation::Safety(what)));
                    }
                } else if now_ns >= odd.since_ns + PATIENCE_NS {
                    let what = format!(
                        "{} s after bit {} flipped: found: {is_found}, a set again: {is_paired}",
                        PATIENCE_NS / SECOND,
                        odd.flip
                    );
                    return Some(Err(Violation::Liveness(what)));
                }
            }
        }
        self.after(100 * MS, What::Look);
        None
    }

    fn make_odd(&mut self, now_ns: u64) {
        let was_primary = self.rounds.over % 2 == 1;
        let nodes: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.is_live_on(*node) == was_primary)
            .collect();
        let node = self.random.pick(&nodes);
        let found_before = self.shared.lock().flips.found;
        if let Some(flip) = self.flip(node) {
            self.rounds.odd = Some(Odd {
                flip,
                was_primary,
                found_before,
                since_ns: now_ns,
                is_found: false,
            });
        }
    }

    pub(super) fn is_live_on(&self, node: usize) -> bool {
        let state = self.shared.lock();
        self.nodes[node]
            .process
            .is_some_and(|process| state.observer.holders.is_live_now(process))
    }

    /// All have been a set again for a while: nobody may have the bit.
    fn judge(&mut self, odd: Odd, paired_since_ns: u64) -> Result<(), String> {
        let mut state = self.shared.lock();
        let processes = self.nodes.iter().filter_map(|node| node.process);
        let mut having = 0;
        for process in processes {
            match state.flips.seen.get(&process) {
                Some((at_ns, has)) if *at_ns > paired_since_ns => {
                    having += usize::from(has.contains(&odd.flip));
                }
                // Digests are rare: later.
                _ => return Ok(()),
            }
        }
        if having > 0 {
            let who = if odd.was_primary { "primary" } else { "backup" };
            return Err(format!(
                "{having} of {} hosts have the machine of one odd {who}: the majority had another",
                self.nodes.len()
            ));
        }
        state.observer.count(if odd.was_primary {
            "odd primary joined anew"
        } else {
            "odd backup joined anew"
        });
        drop(state);
        self.rounds.over += 1;
        self.rounds.odd = None;
        self.rounds.paired_since_ns = None;
        Ok(())
    }
}
