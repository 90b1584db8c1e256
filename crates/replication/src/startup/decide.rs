//! The decision itself: a function of what was found.

use super::rights::{Open, Right};
use super::{
    Basis, FoundJournal, JournalWorth, PeerAnswer, PeerId, Reach, Refusal, Stance, Standing,
    StartupConfig, TurnedAway, Waiting, Word,
};
use crate::marker::{DiskState, Role, Worth};
use crate::mutation::Mutation;
use crate::record::RecordNumber;
use crate::succession::{
    Entry, Generation, Host, JournalId, Key, Kind, LifeNumber, Membership, Newest, Origin,
};
use std::collections::BTreeMap;

/// What to do next.
pub(super) enum Decision {
    /// It depends on what the peers say.
    AskPeers,
    /// This host is live in a generation that was not there when the arbiter was looked at.
    LookAgain(Host),
    /// Nothing now.
    Wait(Waiting),
    /// A peer is live.
    Join(PeerId, Box<Entry>),
    /// Ask for this key.
    Claim(Box<Entry>),
    /// Let nobody else add anything to this journal, then decide again.
    Fence(JournalId),
    /// Nothing ever.
    Refuse(Refusal),
}

type Answers = BTreeMap<PeerId, PeerAnswer>;

/// Everything that a decision rests on. `answers`: `None` while the peers were not yet asked.
struct Situation<'a> {
    config: &'a StartupConfig,
    worth: &'a Worth,
    journal: &'a JournalWorth,
    word: &'a Word,
    answers: Option<&'a Answers>,
}

pub(super) fn decide(
    config: &StartupConfig,
    worth: &Worth,
    journal: &JournalWorth,
    word: &Word,
    newest: &Newest,
    answers: Option<&Answers>,
) -> Decision {
    let situation = Situation {
        config,
        worth,
        journal,
        word,
        answers,
    };
    match newest {
        Newest::NoLife => situation.no_life(),
        Newest::Key(entry) => match &entry.next {
            None => situation.life_is_over(entry),
            Some(membership) => situation.life_is_open(entry, membership),
        },
    }
}

/// Whether somebody says that it is live in the newest generation.
pub(super) fn is_live(newest: &Newest, answers: &Answers) -> bool {
    let Newest::Key(entry) = newest else {
        return false;
    };
    let here = (entry.key.life, entry.next_generation(), entry.life);
    entry.next.is_some()
        && answers.values().any(|answer| match answer {
            PeerAnswer::Standing(standing) => {
                let there = (standing.life, standing.generation, standing.life_id);
                standing.stance == Stance::Live && there == here
            }
            PeerAnswer::Unreachable | PeerAnswer::TurnedAway(_) => false,
        })
}

impl Situation<'_> {
    fn standings(&self) -> impl Iterator<Item = (PeerId, &Standing)> {
        let answers = self.answers.into_iter().flatten();
        answers.filter_map(|(peer, answer)| match answer {
            PeerAnswer::Standing(standing) => Some((*peer, standing)),
            PeerAnswer::TurnedAway(_) | PeerAnswer::Unreachable => None,
        })
    }

    /// The peer that is `host`, if it answers and cannot be asked. One that did not prove its name, or
    /// has one that the generation does not know or that is this host's own, may be any of those that do
    /// not say how they stand.
    fn turned_away(&self, membership: &Membership, host: &Host) -> Option<&TurnedAway> {
        if self
            .standings()
            .any(|(_, standing)| standing.host.id == host.id)
        {
            return None;
        }
        let turned_away = || {
            let answers = self.answers.into_iter().flatten();
            answers.filter_map(|(_, answer)| match answer {
                PeerAnswer::TurnedAway(turned_away) => Some(turned_away),
                PeerAnswer::Standing(_) | PeerAnswer::Unreachable => None,
            })
        };
        let me = self.config.host.id;
        let is_known = |name: &str| {
            let mut others = everybody(membership).filter(|host| host.id != me);
            others.any(|host| host.node() == name)
        };
        let is_it = |found: &&TurnedAway| found.host.as_deref() == Some(host.node());
        let may_be = |found: &&TurnedAway| !found.host.as_deref().is_some_and(is_known);
        turned_away()
            .find(is_it)
            .or_else(|| turned_away().find(may_be))
    }

    /// Hosts of the generation of whom nobody knows how they stand, if one of them is there.
    fn unasked(&self, membership: &Membership, hosts: Vec<Host>) -> Option<Waiting> {
        let mut reasons: Vec<&str> = Vec::new();
        for host in &hosts {
            if let Some(turned_away) = self.turned_away(membership, host)
                && !reasons.contains(&&*turned_away.why)
            {
                reasons.push(&turned_away.why);
            }
        }
        let why = reasons.join("; ");
        (!reasons.is_empty()).then_some(Waiting::Unasked { hosts, why })
    }

    fn forgot(&self) -> Waiting {
        let (life, generation) = self.worth.place();
        Waiting::ArbiterForgot {
            life,
            generation,
            worth: self.worth.clone(),
        }
    }

    fn no_life(&self) -> Decision {
        if self.worth.place().0 > LifeNumber(0) {
            return Decision::Wait(self.forgot());
        }
        if let Worth::Nothing(_) = self.worth {
            return Decision::Wait(Waiting::OwnDisk(self.worth.clone(), self.basis(None)));
        }
        if self.answers.is_none() {
            return Decision::AskPeers;
        }
        // Whoever knows of a life does not see this arbiter, or saw another before.
        let knows = |standing: &Standing| standing.life.max(standing.worth.place().0);
        if let Some((_, knowing)) = self.standings().find(|(_, s)| knows(s) > LifeNumber(0)) {
            return Decision::Wait(Waiting::ArbiterDiffers(knowing.host.clone()));
        }
        if self.config.is_spare && !self.config.mutations.active(Mutation::SparePowersOn) {
            return Decision::Wait(Waiting::Spare);
        }
        Decision::Claim(Box::new(self.power_on(LifeNumber(1))))
    }

    fn life_is_over(&self, last: &Entry) -> Decision {
        if self.worth.place().0 > last.key.life {
            return Decision::Wait(self.forgot());
        }
        if !self.word.new_life {
            return Decision::Refuse(Refusal::Ended(Box::new(last.clone())));
        }
        if !self.may_be_forced() {
            return Decision::Refuse(Refusal::NotWhole(self.worth.clone()));
        }
        Decision::Claim(Box::new(self.power_on(last.key.life.next())))
    }

    /// Not even a person's word starts a disk that is not whole.
    fn may_be_forced(&self) -> bool {
        match self.worth {
            Worth::Fresh => true,
            Worth::Known(marker) => marker.disk == DiskState::Whole || !self.config.has_disks,
            Worth::Nothing(_) => !self.config.has_disks,
        }
    }

    fn life_is_open(&self, newest: &Entry, membership: &Membership) -> Decision {
        let open = Open {
            life: newest.key.life,
            life_id: newest.life,
            generation: newest.next_generation(),
            membership,
        };
        let is_other_life = self
            .worth
            .marker()
            .is_some_and(|marker| marker.life == open.life && marker.life_id != open.life_id);
        if self.worth.place() > (open.life, open.generation) || is_other_life {
            return Decision::Wait(self.forgot());
        }
        let me = self.config.host.id;
        let mut worth = self.worth.clone();
        if let Worth::Known(marker) = &mut worth
            && self.config.mutations.active(Mutation::HalfCopiedDiskStarts)
        {
            marker.disk = DiskState::Whole;
            marker.role = Role::Member;
        }
        let right = open.right(me, &worth, self.config.has_disks);
        let kept = membership.journal.map(|id| self.kept(newest, id));
        let is_alone = membership.primary.id == me && membership.members.is_empty();
        let is_alone = is_alone
            || (self.config.mutations.active(Mutation::MembersNotAsked)
                && membership.primary.id == me);
        // This host's former process is gone, or this one would not have the state directory, and
        // nobody else could leave the generation: there is nobody to ask.
        if is_alone && right == Right::Reign && !self.word.new_life {
            match kept {
                None => {
                    return Decision::Claim(Box::new(self.cold_start(newest, membership, right)));
                }
                Some(Ok(kept)) => return self.go_on(newest, membership, kept),
                // A peer may be live all the same, if a person said so.
                Some(Err(_)) => {}
            }
        }
        if self.answers.is_none() {
            return Decision::AskPeers;
        }
        match self.somebody_has_it(newest, &open) {
            Some(decision) => decision,
            None if self.word.new_life => self.new_life(newest, membership),
            None => self.nobody_has_it(newest, &open, right, kept),
        }
    }

    /// A person gives the open life up, of which nobody is known who holds it.
    fn new_life(&self, newest: &Entry, membership: &Membership) -> Decision {
        let others = membership.others(self.config.host.id).cloned().collect();
        match self.unasked(membership, others) {
            Some(waiting) => Decision::Wait(waiting),
            None if !self.may_be_forced() => {
                Decision::Refuse(Refusal::NotWhole(self.worth.clone()))
            }
            None => Decision::Claim(Box::new(self.lost(newest))),
        }
    }

    /// A peer that is live, or may be soon.
    fn somebody_has_it(&self, newest: &Entry, open: &Open<'_>) -> Option<Decision> {
        let here = (open.life, open.generation);
        // Of several, who is live comes first: the others follow it, or join as this one does.
        let is_live = |standing: &Standing| standing.stance == Stance::Live;
        let live = self.standings().filter(|(_, standing)| is_live(standing));
        let others = self.standings().filter(|(_, standing)| !is_live(standing));
        for (peer, standing) in live.chain(others) {
            let host = standing.host.clone();
            let there = (standing.life, standing.generation);
            let same = standing.life_id == open.life_id;
            let busy = Waiting::Peer(host.clone(), standing.stance);
            match standing.stance {
                Stance::NoMachine => {}
                Stance::Live if self.word.new_life => {
                    return Some(Decision::Refuse(Refusal::StillLive(host)));
                }
                Stance::Live if there == here && same => {
                    return Some(Decision::Join(peer, Box::new(newest.clone())));
                }
                Stance::Live if there > here && same => return Some(Decision::LookAgain(host)),
                Stance::Live if there < here && same => return Some(Decision::Wait(busy)),
                Stance::Live => return Some(Decision::Wait(Waiting::ArbiterDiffers(host))),
                Stance::Joining
                | Stance::Following
                | Stance::Claiming
                | Stance::Recovering { .. } => {
                    return Some(Decision::Wait(busy));
                }
            }
        }
        None
    }

    /// Whether a person says that `host` is off, and it does not answer.
    fn is_off(&self, membership: &Membership, host: &Host) -> bool {
        self.word.without.contains(&host.id) && self.turned_away(membership, host).is_none()
    }

    /// Whether `host` says that it has no machine.
    fn says_that_it_has_none(&self, host: &Host) -> bool {
        let says_so = |(_, standing): (PeerId, &Standing)| {
            standing.host.id == host.id && standing.stance == Stance::NoMachine
        };
        self.standings().any(says_so)
    }

    /// The journal that outputs waited for, if it is here and whole; or why it
    /// cannot be gone on from.
    fn kept(&self, newest: &Entry, id: JournalId) -> Result<Kept, Box<Waiting>> {
        let why = match self.journal {
            JournalWorth::BeingRead => return Err(Box::new(Waiting::JournalRead)),
            JournalWorth::NotConfigured => "the configuration has no section [journal]".to_owned(),
            JournalWorth::Unusable(why) => why.clone(),
            JournalWorth::Read { place, found } => match found.get(&id) {
                Some(Ok(found))
                    if (found.life, found.life_id) == (newest.key.life, newest.life) =>
                {
                    let FoundJournal {
                        last, is_fenced, ..
                    } = *found;
                    return Ok(Kept {
                        id,
                        last,
                        is_fenced,
                    });
                }
                Some(Ok(_)) => "it is of another life".to_owned(),
                Some(Err(why)) => why.clone(),
                None => format!("it is not in {place} (is that mounted?)"),
            },
        };
        Err(Box::new(Waiting::Journal { id, why }))
    }

    /// What was read of this journal here, if it is here.
    fn found(&self, id: JournalId) -> Option<&Result<FoundJournal, String>> {
        match self.journal {
            JournalWorth::Read { found, .. } => found.get(&id),
            _ => None,
        }
    }

    /// Whether this journal may be here, though nothing can be gone on from it now.
    fn may_be_here(&self, id: JournalId) -> bool {
        match self.journal {
            JournalWorth::NotConfigured => false,
            JournalWorth::BeingRead | JournalWorth::Unusable(_) => true,
            JournalWorth::Read { .. } => self.found(id).is_some(),
        }
    }

    fn nobody_has_it(
        &self,
        newest: &Entry,
        open: &Open<'_>,
        right: Right,
        kept: Option<Result<Kept, Box<Waiting>>>,
    ) -> Decision {
        let me = self.config.host.id;
        let membership = open.membership;
        let ignore = self.config.mutations.active(Mutation::SilentPeersAreGone);
        let silent: Vec<Host> = membership
            .others(me)
            .filter(|host| !self.says_that_it_has_none(host) && !ignore)
            .cloned()
            .collect();
        // Of these a person may say that they are off.
        let is_named = |host: &Host| self.is_off(membership, host);
        let nobody_else_has_it = silent.iter().all(is_named);
        let primary = &membership.primary;
        let primary_never_settled = self.standings().any(|(_, standing)| {
            standing.host.id == primary.id && open.never_settled(&standing.worth)
        });
        let mine = match right {
            Right::Reign | Right::Member => true,
            Right::Before => {
                primary_never_settled
                    || self.config.mutations.active(Mutation::NeverSettledNotAsked)
            }
            Right::None => self.config.mutations.active(Mutation::AnyDiskStarts),
        };
        match kept {
            Some(Err(why)) if mine => return Decision::Wait(*why),
            _ if mine && !nobody_else_has_it => {
                let unasked = self.unasked(membership, silent.clone());
                let basis = match self.basis(Some(membership)) {
                    Basis::SharedJournal => Basis::Journal,
                    basis => basis,
                };
                let silent = Waiting::Silent {
                    hosts: silent,
                    basis,
                };
                return Decision::Wait(unasked.unwrap_or(silent));
            }
            Some(Ok(kept)) if mine => return self.go_on(newest, membership, kept),
            None if mine => {
                return Decision::Claim(Box::new(self.cold_start(newest, membership, right)));
            }
            _ => {}
        }
        let kept = kept.filter(|_| membership.journal.is_some_and(|id| self.may_be_here(id)));
        let is_given_up = |holder: &Host| holder.id == me || self.is_off(membership, holder);
        let is_word = !self.word.without.is_empty() && nobody_else_has_it && self.may_be_forced();
        // What the outside saw is not gone with the host that had it: it is where this one reaches it.
        if let (Some(kept), true) = (kept, is_word && is_given_up(primary)) {
            return match kept {
                Ok(kept) => self.go_on(newest, membership, kept),
                Err(why) => Decision::Wait(*why),
            };
        }
        // The right disk is elsewhere; if a person says that it is gone, this one has to do.
        if is_word && is_given_up(primary) && is_given_up(&membership.origin.host) {
            let forced = self.cold_start(newest, membership, Right::None);
            return Decision::Claim(Box::new(forced));
        }
        // Nobody knows yet whether the machine goes on from it here: no word can be asked for.
        if membership.journal.is_some() && matches!(self.journal, JournalWorth::BeingRead) {
            return Decision::Wait(Waiting::JournalRead);
        }
        Decision::Wait(self.whose_disk(open, primary_never_settled, silent))
    }

    /// What the machine would be started from.
    fn basis(&self, membership: Option<&Membership>) -> Basis {
        match membership.and_then(|membership| membership.journal) {
            _ if self.config.has_disks => Basis::Disk,
            Some(id) if self.found(id).is_some_and(Result::is_ok) => Basis::SharedJournal,
            Some(_) => Basis::Journal,
            None => Basis::Images,
        }
    }

    /// Where the right disk is, for people. `silent`: who may hold the running machine.
    fn whose_disk(
        &self,
        open: &Open<'_>,
        primary_never_settled: bool,
        silent: Vec<Host>,
    ) -> Waiting {
        let me = self.config.host.id;
        let Membership {
            primary, origin, ..
        } = open.membership;
        let of_origin = primary.id == me || primary_never_settled;
        let wanted = if of_origin { &origin.host } else { primary };
        let basis = self.basis(Some(open.membership));
        if wanted.id == me {
            return Waiting::OwnDisk(self.worth.clone(), basis);
        }
        let mut to_name: Vec<Host> = Vec::new();
        // Nothing of what the host has is needed where the journal is here, from which the machine has begun.
        let owner = Some(&origin.host).filter(|_| basis != Basis::SharedJournal);
        for host in std::iter::once(primary).chain(owner).chain(&silent) {
            let is_there = to_name.iter().any(|named| named.id == host.id);
            if self.may_be_forced() && host.id != me && !is_there {
                to_name.push(host.clone());
            }
        }
        let answers = self.standings().any(|(_, s)| s.host.id == wanted.id);
        let reach = match self.turned_away(open.membership, wanted) {
            _ if answers => Reach::Answers,
            Some(turned_away) => Reach::TurnedAway(turned_away.why.clone()),
            None => Reach::Silent,
        };
        // One that is there, and has this one's name, has its keys: its identity is no lost one.
        let own_name = self.config.host.node();
        let is_own_name = wanted.node() == own_name && !own_name.is_empty();
        let is_lost = is_own_name && reach == Reach::Silent;
        if is_lost && to_name.iter().all(|host| host.id == wanted.id) {
            let host = wanted.clone();
            return Waiting::Identity { host, basis };
        }
        Waiting::RightDisk {
            host: wanted.clone(),
            basis,
            reach,
            own: self.worth.clone(),
            to_name,
        }
    }

    fn origin_here(&self) -> Origin {
        let (life, generation) = self.worth.place();
        Origin {
            host: self.config.host.clone(),
            life,
            generation,
        }
    }

    fn power_on(&self, life: LifeNumber) -> Entry {
        Entry {
            key: Key::power_on(&self.config.machine, life),
            kind: Kind::PowerOn,
            writer: self.config.writer(),
            life: self.config.new_life,
            record: RecordNumber(1),
            next: Some(Membership {
                primary: self.config.host.clone(),
                members: Vec::new(),
                since: Generation(1),
                durability: self.config.durability,
                origin: self.origin_here(),
                journal: None,
            }),
            moved_to: None,
        }
    }

    fn lost(&self, newest: &Entry) -> Entry {
        newest.left(self.config.writer(), Kind::Lost, newest.record, None)
    }

    /// The key of starting from the disk here.
    fn cold_start(&self, newest: &Entry, left: &Membership, right: Right) -> Entry {
        let (since, origin) = match right {
            Right::Reign => (left.since, left.origin.clone()),
            Right::Before => (left.origin.generation, left.origin.clone()),
            Right::Member | Right::None => (newest.next_generation().next(), self.origin_here()),
        };
        let known = self.worth.marker().map_or(RecordNumber(0), |m| m.record);
        let record = newest.record.max(known).after_cold_start();
        let next = Membership {
            primary: self.config.host.clone(),
            members: Vec::new(),
            since,
            durability: self.config.durability,
            origin,
            journal: None,
        };
        newest.left(self.config.writer(), Kind::ColdStart, record, Some(next))
    }

    /// Goes on from the journal here, to which nobody else may add anything before its last record is told.
    fn go_on(&self, newest: &Entry, left: &Membership, kept: Kept) -> Decision {
        match kept.is_fenced {
            true => Decision::Claim(Box::new(self.recovered(newest, left, kept.last))),
            false => Decision::Fence(kept.id),
        }
    }

    /// The key of going on from the journal here, after its last record.
    fn recovered(&self, newest: &Entry, left: &Membership, last: RecordNumber) -> Entry {
        let next = Membership {
            primary: self.config.host.clone(),
            members: Vec::new(),
            durability: self.config.durability,
            ..left.clone()
        };
        newest.left(
            self.config.writer(),
            Kind::Recovered,
            last.next(),
            Some(next),
        )
    }
}

/// A journal that can be gone on from.
#[derive(Clone, Copy, Debug)]
struct Kept {
    id: JournalId,
    /// Its last record.
    last: RecordNumber,
    is_fenced: bool,
}

/// All hosts of a generation, and whose disk it began from.
fn everybody(membership: &Membership) -> impl Iterator<Item = &Host> {
    let members = membership.members.iter();
    members.chain([&membership.primary, &membership.origin.host])
}
