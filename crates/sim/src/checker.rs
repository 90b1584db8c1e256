//! Watches the world from outside the code under test, and says when a promise was broken.

use crate::arbiter::Arbiter;
use crate::guest::StubOutput;
use replication::record::RecordNumber;
use replication::succession::{
    Entry, Generation, Host, HostId, Kind, LifeNumber, MachineName, RunId,
};
use std::collections::{BTreeMap, BTreeSet};

/// The machine's name in every simulated world.
pub fn machine() -> MachineName {
    match MachineName::new("vm") {
        Ok(name) => name,
        Err(error) => panic!("{error}"),
    }
}

/// A node's host.
pub fn host(node: usize) -> Host {
    Host::new(HostId(node as u128 + 1), ["a", "b", "c", "d", "e"][node])
}

/// One start of the machine from its images or its disk, and everything until the next: named by
/// the key that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootId(LifeNumber, Generation);

/// A member, as one primary sees it: by the primary's process and the member's host.
type MemberId = (u64, HostId);

/// What a follower of one primary holds, and whether it is a member.
#[derive(Debug, Default)]
struct Member {
    /// Begin was sent, and the member was not dropped since.
    begun: bool,
    /// The process that read Begin.
    read_by: Option<u64>,
    /// Visible outputs of the newest marker that it holds.
    received_visible: u64,
}

/// As the outside and an all-seeing observer know it.
#[derive(Debug, Default)]
struct Boot {
    /// `content` of every output that left, in order.
    seen: Vec<u64>,
    members: BTreeMap<MemberId, Member>,
    /// Generations whose primary said that it goes no further.
    handed_over: BTreeSet<Generation>,
    /// The machine of the majority goes on from before this output: the one before was said by another.
    majority_from: Option<usize>,
    /// Who went live by leaving which generation, and when.
    live: BTreeMap<Generation, (u64, u64)>,
}

/// Somebody who lets outputs out.
#[derive(Clone, Debug)]
pub struct Emitter {
    /// The process.
    pub run: u64,
    /// The key by which it is live.
    pub opened: Entry,
    /// Its last sleep that was long enough to be noticed: from, to (nanoseconds).
    pub slept: Option<(u64, u64)>,
}

/// The observer.
#[derive(Debug, Default)]
pub struct Checker {
    boots: BTreeMap<BootId, Boot>,
    /// Which generation belongs to which boot.
    boot_of: BTreeMap<(LifeNumber, Generation), BootId>,
    /// Fingerprints of the primaries' guests right after each record: a primary that does not know yet
    /// that another went live makes records of the same numbers.
    truth: BTreeMap<(BootId, RecordNumber), BTreeSet<u64>>,
    /// Writes whose flush the outside knows to be complete, in each life.
    durable: BTreeMap<LifeNumber, Vec<u64>>,
}

impl Checker {
    /// A key was created.
    pub fn key_created(&mut self, entry: &Entry) {
        let (life, left) = (entry.key.life, entry.key.generation);
        if entry.next.is_none() {
            return;
        }
        let begins = matches!(entry.kind, Kind::PowerOn | Kind::ColdStart);
        let boot = if begins {
            BootId(life, left)
        } else {
            self.boot_of[&(life, left)]
        };
        let members = &mut self.boots.entry(boot).or_default().members;
        let primary = run_of(entry);
        for ((of, host), member) in members {
            // Whoever was dropped, or a member of an earlier reign of the same process, is a member again
            // only when it reads Begin again.
            if *of == primary && entry.kind != Kind::Joined {
                member.begun &= entry.membership().has_member(*host);
            }
        }
        self.boot_of.insert((life, entry.next_generation()), boot);
    }

    /// The boot to which the generation belongs that `opened` opened.
    pub fn boot(&self, opened: &Entry) -> BootId {
        self.boot_of[&(opened.key.life, opened.next_generation())]
    }

    fn of(&mut self, opened: &Entry) -> &mut Boot {
        let boot = self.boot(opened);
        self.boots.entry(boot).or_default()
    }

    /// Outputs that left so far.
    pub fn outputs_seen(&self, opened: &Entry) -> usize {
        self.boots[&self.boot(opened)].seen.len()
    }

    /// How often a backup went live.
    pub fn failovers(&self, opened: &Entry) -> usize {
        self.boots[&self.boot(opened)].live.len()
    }

    /// A primary sends Begin to a host.
    pub fn begin_sent(&mut self, opened: &Entry, run: u64, host: HostId) -> Result<(), String> {
        if !opened.membership().has_member(host) || run_of(opened) != run {
            return Err(format!("{run} begins without a key of joining"));
        }
        let member = self.of(opened).members.entry((run, host)).or_default();
        if std::mem::replace(&mut member.begun, true) {
            return Err(format!("{run} begins with host {host} a second time"));
        }
        member.read_by = None;
        Ok(())
    }

    /// A backup has read Begin.
    pub fn begin_read(&mut self, opened: &Entry, run: u64, host: HostId) -> Result<(), String> {
        let id = (run_of(opened), host);
        match self.of(opened).members.get_mut(&id) {
            Some(member) => {
                member.read_by = Some(run);
                Ok(())
            }
            None => Err(format!("{run} read a Begin that nobody sent")),
        }
    }

    /// Whether all members of this generation have read Begin.
    pub fn begin_was_read(&self, opened: &Entry) -> Option<bool> {
        let members = &self.boots[&self.boot(opened)].members;
        let primary = run_of(opened);
        let begun = members
            .iter()
            .filter(|((of, _), m)| *of == primary && m.begun);
        let read: Vec<bool> = begun.map(|(_, member)| member.read_by.is_some()).collect();
        (!read.is_empty()).then(|| read.iter().all(|read| *read))
    }

    /// A follower of `opened`'s primary holds everything up to a marker.
    pub fn marker_received(&mut self, opened: &Entry, host: HostId, visible_outputs: u64) {
        let id = (run_of(opened), host);
        let member = self.of(opened).members.entry(id).or_default();
        member.received_visible = member.received_visible.max(visible_outputs);
    }

    /// A primary says that it goes no further.
    pub fn handed_over(&mut self, opened: &Entry) {
        let generation = opened.next_generation();
        self.of(opened).handed_over.insert(generation);
    }

    /// The primary's guest after a record.
    pub fn recorded(&mut self, opened: &Entry, record: RecordNumber, fingerprint: u64) {
        let boot = self.boot(opened);
        let truth = self.truth.entry((boot, record)).or_default();
        truth.insert(fingerprint);
    }

    /// Replicas are equal at equal instruction counts: the backup's guest after the same record.
    pub fn replayed(
        &self,
        opened: &Entry,
        record: RecordNumber,
        fingerprint: u64,
    ) -> Result<(), String> {
        match self.truth.get(&(self.boot(opened), record)) {
            Some(truth) if truth.contains(&fingerprint) => Ok(()),
            Some(_) => Err(format!(
                "after record {record} the replicas differ, and nobody made them"
            )),
            None => Err(format!("record {record} was replayed, but never made")),
        }
    }

    /// Somebody goes live, by `opened`.
    pub fn goes_live(
        &mut self,
        now: u64,
        run: u64,
        opened: &Entry,
        arbiter: &Arbiter,
    ) -> Result<(), String> {
        if arbiter.entry(&opened.key).as_ref() != Some(opened)
            || opened.writer.run != RunId(run.into())
        {
            return Err(format!("process {run} goes live without the key: {opened}"));
        }
        let left = opened.key.generation;
        let is_takeover = matches!(opened.kind, Kind::TookOver | Kind::HandedOver);
        let before = Generation(left.0.saturating_sub(1));
        let primary = arbiter.entry(&opened.key.of(before)).map(|by| run_of(&by));
        let host = opened.writer.host.id;
        let boot = self.of(opened);
        let member = primary.and_then(|primary| boot.members.get(&(primary, host)));
        if is_takeover && member.is_none_or(|member| !member.begun || member.read_by != Some(run)) {
            return Err(format!("{opened}, but it is no member of that generation"));
        }
        if is_takeover && let Some((other, _)) = boot.live.insert(left, (run, now)) {
            return Err(format!("{other} and {run} are live after {left}"));
        }
        Ok(())
    }

    /// Members of a primary that differed go on with what they have, the next output being this one. What it
    /// contradicts was said by the other.
    pub fn majority_goes_on(&mut self, opened: &Entry, next: u64) {
        let boot = self.of(opened);
        let position = next as usize - 1;
        boot.seen.truncate(position);
        boot.majority_from = Some(position);
    }

    /// Outputs leave. Checks the output rule, that the emitter may emit, and that the outside sees
    /// one history without a gap. Says whether something was seen twice. `disk`: what the emitter's
    /// guest has written.
    pub fn emitted(
        &mut self,
        who: &Emitter,
        outputs: &[StubOutput],
        disk: &[u64],
        arbiter: &Arbiter,
    ) -> Result<bool, String> {
        let (run, opened) = (who.run, &who.opened);
        if arbiter.entry(&opened.key).as_ref() != Some(opened) {
            return Err(format!("process {run} emits without the key: {opened}"));
        }
        let left_by = arbiter
            .entry(&opened.next_key())
            .filter(|left| left.writer.run != RunId(run.into()));
        let boot = self.of(opened);
        if boot.handed_over.contains(&opened.next_generation()) {
            return Err(format!("process {run} emits after it has handed over"));
        }
        let begun = opened.membership().members.iter().filter_map(|host| {
            let member = boot.members.get(&(run, host.id))?;
            member.begun.then_some(member.received_visible)
        });
        let limit = match (begun.min(), left_by) {
            (Some(received), _) => received,
            // A person's word stops it when it next looks, not at once: the person was told so.
            (None, Some(left)) if left.kind == Kind::Lost => u64::MAX,
            (None, Some(left)) => {
                return Err(format!("two live machines: {run} emits, though {left}"));
            }
            (None, None) => u64::MAX,
        };
        for (generation, (other, at)) in &boot.live {
            let slept_over = who.slept.is_some_and(|(from, to)| from <= *at && *at <= to);
            // By a later key it may well be live again.
            let is_older = opened.next_generation() <= *generation;
            if *other != run && slept_over && is_older {
                return Err(format!(
                    "process {run} slept while {other} went live after generation {generation}, \
                     woke, and emits"
                ));
            }
        }
        let mut twice = false;
        let mut durable = 0;
        for output in outputs {
            if output.index > limit {
                return Err(format!(
                    "output {} leaves; a member holds markers up to {limit} only",
                    output.index
                ));
            }
            let again = boot.see(output)?;
            // Whoever hands over says how far the outside has seen.
            if again && opened.kind == Kind::HandedOver {
                return Err(format!(
                    "output {} leaves again after a handover",
                    output.index
                ));
            }
            twice |= again;
            durable = durable.max(output.durable as usize);
        }
        let known = self.durable.entry(opened.key.life).or_default();
        if durable > known.len() {
            *known = disk[..durable].to_vec();
        }
        Ok(twice)
    }

    /// A person said that a host is off: what only its disk had is lost, and the person was told so.
    pub fn may_have_lost(&mut self, life: LifeNumber) {
        self.durable.remove(&life);
    }

    /// A machine goes on from this disk: everything that the outside knows to be durable is there.
    pub fn goes_on_from(&self, life: LifeNumber, disk: &[u64]) -> Result<(), String> {
        match self.durable.get(&life) {
            Some(durable) if !disk.starts_with(durable) => Err(format!(
                "the machine goes on from a disk with {} writes, though other {} are durable",
                disk.len(),
                durable.len()
            )),
            _ => Ok(()),
        }
    }
}

/// The process that wrote the key.
fn run_of(entry: &Entry) -> u64 {
    entry.writer.run.0 as u64
}

impl Boot {
    fn see(&mut self, output: &StubOutput) -> Result<bool, String> {
        let position = output.index as usize - 1;
        if position > self.seen.len() {
            return Err(format!(
                "a gap: output {} follows output {}",
                output.index,
                self.seen.len()
            ));
        }
        let is_first = self.majority_from == Some(position);
        if position > 0 && !is_first && self.seen[position - 1] != output.previous {
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
