//! Watches the world from outside the code under test, and says when a promise was broken.

use crate::arbiter::Arbiter;
use crate::guest::StubOutput;
use replication::generation::{ClaimKey, Claimant};
use replication::message::LifeId;
use std::collections::{BTreeMap, BTreeSet};

/// The machine's name in every simulated world.
pub const VM: &str = "vm";

/// What the process `run` writes into a key that it claims.
pub fn claim_content(node: usize, run: u64) -> Vec<u8> {
    Claimant {
        node: node_name(node),
        nonce: run.into(),
    }
    .content()
}

/// A node's name.
pub fn node_name(node: usize) -> String {
    ["a", "b"][node].to_owned()
}

/// The key of a generation.
pub fn key(life: LifeId, generation: u64) -> ClaimKey {
    ClaimKey {
        vm: VM.to_owned(),
        life,
        generation,
    }
}

/// One pairing for which Begin was sent.
#[derive(Debug, Default)]
struct Pairing {
    primary: u64,
    /// The backup that read Begin.
    backup: Option<u64>,
    /// Visible outputs of the newest marker that the backup holds.
    received_visible: u64,
}

/// One life of the machine, as the outside and an all-seeing observer know it.
#[derive(Debug)]
struct Life {
    first: u64,
    /// `content` of every output that left, in order.
    seen: Vec<u64>,
    pairings: BTreeMap<u64, Pairing>,
    /// Who went live after which pairing, and when.
    live: BTreeMap<u64, (u64, u64)>,
    /// Processes that were killed by the world, or ended for a reason that the world made.
    excused: BTreeSet<u64>,
}

/// Somebody who lets outputs out.
#[derive(Clone, Copy, Debug)]
pub struct Emitter {
    /// Its node.
    pub node: usize,
    /// The process.
    pub run: u64,
    /// Its last sleep that was long enough to be noticed: from, to (nanoseconds).
    pub slept: Option<(u64, u64)>,
}

/// The observer.
#[derive(Debug, Default)]
pub struct Checker {
    lives: BTreeMap<LifeId, Life>,
    /// Fingerprint of the primary's guest right after each record.
    truth: BTreeMap<(LifeId, u64, u64), u64>,
    holders: BTreeMap<Vec<u8>, u64>,
}

impl Checker {
    /// A life begins with the process `run`.
    pub fn life_begins(&mut self, life: LifeId, run: u64) {
        let begun = Life {
            first: run,
            seen: Vec::new(),
            pairings: BTreeMap::new(),
            live: BTreeMap::new(),
            excused: BTreeSet::new(),
        };
        self.lives.insert(life, begun);
    }

    /// A process starts; its claims are known by their content.
    pub fn process_starts(&mut self, node: usize, run: u64) {
        self.holders.insert(claim_content(node, run), run);
    }

    /// The world killed the process, or it ended for a reason that the world made.
    pub fn excuse(&mut self, run: u64) {
        for life in self.lives.values_mut() {
            life.excused.insert(run);
        }
    }

    /// Outputs that left so far.
    pub fn outputs_seen(&self, life: LifeId) -> usize {
        self.lives.get(&life).map_or(0, |life| life.seen.len())
    }

    /// How often a backup went live.
    pub fn failovers(&self, life: LifeId) -> usize {
        self.lives.get(&life).map_or(0, |life| life.live.len())
    }

    /// A primary sends Begin.
    pub fn begin_sent(&mut self, life: LifeId, generation: u64, run: u64) -> Result<(), String> {
        let Some(life) = self.lives.get_mut(&life) else {
            return Ok(());
        };
        if life
            .pairings
            .last_key_value()
            .is_some_and(|(last, _)| *last >= generation)
        {
            return Err(format!("generation {generation} begins a second time"));
        }
        life.pairings.insert(
            generation,
            Pairing {
                primary: run,
                ..Pairing::default()
            },
        );
        Ok(())
    }

    /// A backup has read Begin.
    pub fn begin_read(&mut self, life: LifeId, generation: u64, run: u64) {
        if let Some(pairing) = self.pairing(life, generation) {
            pairing.backup = Some(run);
        }
    }

    /// Whether a backup has read Begin of the newest pairing.
    pub fn newest_begin_was_read(&self, life: LifeId) -> Option<bool> {
        let (_, pairing) = self.lives.get(&life)?.pairings.last_key_value()?;
        Some(pairing.backup.is_some())
    }

    /// A backup holds a marker.
    pub fn marker_received(&mut self, life: LifeId, generation: u64, visible_outputs: u64) {
        if let Some(pairing) = self.pairing(life, generation) {
            pairing.received_visible = pairing.received_visible.max(visible_outputs);
        }
    }

    fn pairing(&mut self, life: LifeId, generation: u64) -> Option<&mut Pairing> {
        self.lives.get_mut(&life)?.pairings.get_mut(&generation)
    }

    /// The primary's guest after a record.
    pub fn recorded(&mut self, life: LifeId, generation: u64, sequence: u64, fingerprint: u64) {
        self.truth.insert((life, generation, sequence), fingerprint);
    }

    /// Replicas are equal at equal instruction counts: the backup's guest after the same record.
    pub fn replayed(
        &self,
        life: LifeId,
        generation: u64,
        sequence: u64,
        fingerprint: u64,
    ) -> Result<(), String> {
        match self.truth.get(&(life, generation, sequence)) {
            Some(truth) if *truth == fingerprint => Ok(()),
            Some(_) => Err(format!(
                "after record {sequence} of generation {generation} the replicas differ, \
                 and nobody made them"
            )),
            None => Err(format!(
                "record {sequence} of generation {generation} was replayed, but never made"
            )),
        }
    }

    /// A backup goes live.
    pub fn goes_live(
        &mut self,
        now: u64,
        life: LifeId,
        generation: u64,
        who: Emitter,
        arbiter: &Arbiter,
    ) -> Result<(), String> {
        if arbiter.holder(&key(life, generation)) != Some(&claim_content(who.node, who.run)) {
            return Err(format!(
                "process {} goes live without generation {generation}",
                who.run
            ));
        }
        if let Some(life) = self.lives.get_mut(&life) {
            if let Some((other, _)) = life.live.insert(generation, (who.run, now)) {
                return Err(format!(
                    "{other} and {} are live after {generation}",
                    who.run
                ));
            }
            if !life.pairings.contains_key(&generation) {
                return Err(format!(
                    "live after generation {generation}, which never began"
                ));
            }
        }
        Ok(())
    }

    /// Outputs leave. Checks the output rule, that the emitter may emit, and that the outside sees
    /// one history without a gap. Says whether something was seen twice.
    pub fn emitted(
        &mut self,
        life_id: LifeId,
        who: Emitter,
        outputs: &[StubOutput],
        arbiter: &Arbiter,
    ) -> Result<bool, String> {
        let Some(life) = self.lives.get_mut(&life_id) else {
            return Err("output of an unknown life".to_owned());
        };
        let held = |generation| {
            arbiter.holder(&key(life_id, generation)) == Some(&claim_content(who.node, who.run))
        };
        // The newest pairing in which it was the primary rules; before any, how it came to be live.
        let pairing = life
            .pairings
            .iter()
            .rev()
            .find(|(_, pairing)| pairing.primary == who.run);
        let limit = match pairing {
            Some((generation, pairing)) if !held(*generation) => pairing.received_visible,
            Some(_) => u64::MAX,
            None => {
                let went_live = life
                    .live
                    .iter()
                    .any(|(g, (run, _))| *run == who.run && held(*g));
                if !went_live && life.first != who.run {
                    return Err(format!("process {} emits and was never live", who.run));
                }
                u64::MAX
            }
        };
        for (generation, (run, at)) in &life.live {
            let slept_over = who.slept.is_some_and(|(from, to)| from <= *at && *at <= to);
            if *run != who.run && slept_over {
                return Err(format!(
                    "process {} slept while {run} went live after generation {generation}, woke, \
                     and emits",
                    who.run
                ));
            }
        }
        let mut twice = false;
        for output in outputs {
            if output.index > limit {
                return Err(format!(
                    "output {} leaves; the backup holds markers up to {limit} only",
                    output.index
                ));
            }
            twice |= life.see(output)?;
        }
        Ok(twice)
    }

    /// Nobody carries the machine on. That must be the world's fault: whoever had the right to go
    /// on was killed.
    pub fn lost(&self, life_id: LifeId, arbiter: &Arbiter) -> Result<(), String> {
        let Some(life) = self.lives.get(&life_id) else {
            return Ok(());
        };
        let excused = |run: u64| life.excused.contains(&run);
        let Some((generation, pairing)) = life.pairings.last_key_value() else {
            return if excused(life.first) {
                Ok(())
            } else {
                Err(format!(
                    "process {} ran alone and ended by itself",
                    life.first
                ))
            };
        };
        match arbiter.holder(&key(life_id, *generation)) {
            Some(content) => match self.holders.get(content) {
                Some(run) if excused(*run) => Ok(()),
                _ => Err(format!(
                    "nobody goes on, though the holder of generation {generation} was not killed"
                )),
            },
            None if excused(pairing.primary) && pairing.backup.is_none_or(excused) => Ok(()),
            None => Err(format!(
                "nobody goes on and nobody holds generation {generation}, though not both replicas \
                 were killed"
            )),
        }
    }
}

impl Life {
    fn see(&mut self, output: &StubOutput) -> Result<bool, String> {
        let position = output.index as usize - 1;
        if position > self.seen.len() {
            return Err(format!(
                "a gap: output {} follows output {}",
                output.index,
                self.seen.len()
            ));
        }
        if position > 0 && self.seen[position - 1] != output.previous {
            return Err(format!("output {} follows another history", output.index));
        }
        match self.seen.get(position) {
            Some(content) if *content != output.content => Err(format!(
                "output {} contradicts what was seen before",
                output.index
            )),
            Some(_) => Ok(true),
            None => {
                self.seen.push(output.content);
                Ok(false)
            }
        }
    }
}
