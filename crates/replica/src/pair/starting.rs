//! The event loop of a replica that looks what it can be.

use super::host::{Host, ToldUnfit};
use super::markers::{Purpose, Sought, UnfitDisks};
use super::peers::Peers;
use crate::config::{DiskFile, ReplicaConfig};
use crate::control::{Answer, ConversationId, Request, Word};
use crate::disk::Disk;
use crate::disk::probe::FailedDisk;
use crate::end::{Ended, ReplicaError};
use crate::host_time::monotonic;
use crate::journal::{JournalDesk, ReadMeter};
use crate::machines::Machines;
use crate::peer_addresses::PeerAddresses;
use crate::snapshot_file;
use crate::status::ReplicaStatus;
use replication::message::Message;
use replication::startup::{self, JournalWorth, Startup, StartupAction, Waiting};
use replication::succession::{Entry, HostId};
use std::collections::BTreeSet;
use std::time::Duration;

/// What comes of it.
pub enum Next {
    /// The process ends.
    Exit(Result<Ended, ReplicaError>),
    /// The machine is started from its images and disks.
    Start(Box<Entry>),
    /// The primary at these addresses is joined.
    Join(PeerAddresses, Box<Entry>),
}

/// Serves until it is known what this replica is.
pub fn serve(host: &mut Host, startup: &mut Startup) -> Result<Next, ReplicaError> {
    host.arbiter.forget();
    startup.obstacle_is(obstacle(&host.config, &*host.machines));
    if let Some(journal) = &host.journal {
        startup.journal_is(monotonic(), JournalWorth::BeingRead);
        journal.inspect();
    }
    let greeting = host.pair_config.greeting.clone();
    let asked = Peers::new(greeting, host.membership.clone(), host.waker.clone());
    let mut starting = Starting {
        host,
        startup,
        places: Vec::new(),
        asked,
        said: None,
        kept_out: None,
        read_journal: monotonic() + LOOK_INTERVAL,
        look_at_worth: monotonic() + LOOK_INTERVAL,
        tell_reading: monotonic() + TELL_READING_INTERVAL,
        joins: None,
    };
    loop {
        if let Some(next) = starting.answers() {
            return Ok(next);
        }
        if let Some(next) = starting.actions() {
            return Ok(next);
        }
        if let Some(next) = starting.wait()? {
            return Ok(next);
        }
    }
}

/// Why this host could not start the machine now, if it could not: a disk or an image is missing.
pub fn obstacle(config: &ReplicaConfig, machines: &dyn Machines) -> Option<String> {
    let check = |file: &DiskFile| Disk::check(file);
    if let Some(unfinished) = snapshot_file::obstacle(&config.state_directory) {
        return Some(unfinished);
    }
    if let Some(error) = config.disks.iter().find_map(|file| check(file).err()) {
        return Some(error.to_string());
    }
    machines.check().err().map(|error| error.to_string())
}

struct Starting<'a> {
    host: &'a mut Host,
    startup: &'a mut Startup,
    /// Where peers are asked in the next round.
    places: Vec<PeerAddresses>,
    asked: Peers,
    /// A person said something, and waits for what comes of it.
    said: Option<Said>,
    /// There is a primary that this host's disk keeps it from joining, and when it is looked again
    /// whether there still is.
    kept_out: Option<KeptOut>,
    /// When a journal that no machine can go on from is read again.
    read_journal: Duration,
    /// When it is looked again what this host has: somebody may take a disk away, or put one back.
    look_at_worth: Duration,
    /// When people are told again how far reading it is.
    tell_reading: Duration,
    /// There is a primary to be joined, if the disks here may become copies of its disks: they are being looked at.
    joins: Option<Joins>,
}

/// A primary that is joined as soon as it is known that this host's disks may become copies of its disks.
struct Joins {
    addresses: PeerAddresses,
    newest: Box<Entry>,
}

/// What a person said.
struct Said {
    id: ConversationId,
    word: startup::Word,
}

/// A replica whose disk failed.
struct KeptOut {
    text: String,
    look_again: Duration,
}

/// A replica that must not join looks so often whether it is needed otherwise.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// People are told so often how far the reading of a journal is.
const TELL_READING_INTERVAL: Duration = Duration::from_secs(15);

impl Starting<'_> {
    /// Takes what threads have answered.
    fn answers(&mut self) -> Option<Next> {
        let (host, startup) = (&mut *self.host, &mut *self.startup);
        self.places = host.places();
        startup.peers_are(self.places.len() as u8);
        while let Some((purpose, result)) = host.markers.done() {
            // Of a role that is given up: what it wrote still counts.
            host.marker_written(purpose, result);
            startup.worth_is(host.markers.worth());
        }
        while let Some((request, outcome)) = host.arbiter.answer(monotonic()) {
            startup.arbiter_answered(monotonic(), &request, &outcome);
        }
        while let Some((peer, answer)) = self.asked.answer_told(&mut host.events) {
            startup.peer_answered(monotonic(), peer, answer);
        }
        if monotonic() >= self.look_at_worth {
            startup.worth_is(host.markers.worth());
            self.look_at_worth = monotonic() + LOOK_INTERVAL;
        }
        if let Waiting::Obstacle(_) = startup.waiting() {
            startup.obstacle_is(obstacle(&host.config, &*host.machines));
        }
        if let Some(worth) = host.journal.as_mut().and_then(JournalDesk::inspected) {
            startup.journal_is(monotonic(), worth);
            self.read_journal = monotonic() + LOOK_INTERVAL;
        }
        if let (Waiting::Journal { .. }, Some(journal)) = (startup.waiting(), &host.journal)
            && monotonic() >= self.read_journal
        {
            journal.inspect();
            self.read_journal = Duration::MAX;
        }
        startup.tick(monotonic());
        self.try_disk();
        let unfit = self.host.markers.looked()?;
        let joins = self.joins.take()?;
        self.disks_looked_at(joins, unfit)
    }

    /// A disk that failed is tried now and then. While it fails, this host joins nobody.
    fn try_disk(&mut self) {
        let (host, now) = (&mut *self.host, monotonic());
        if let Some(failed) = &mut host.failed_disk
            && failed.try_again(now, &host.config.disks, &host.waker)
        {
            host.failed_disk = None;
            host.markers.write_again();
            host.events
                .add("disk_well", 0, 0, "the disk takes writes again");
            if let Some(kept_out) = &mut self.kept_out {
                kept_out.look_again = now;
            }
        }
        let is_due = |kept_out: &mut KeptOut| now >= kept_out.look_again;
        if self.kept_out.take_if(is_due).is_some() {
            let worth = host.markers.worth();
            self.startup.again(now, worth);
        }
    }

    /// There is a primary at `addresses`: it is joined when it is known that the disks here may become copies of its
    /// disks. That is looked at right before each attempt, as somebody may have put something there since; and on the
    /// markers' thread, since a file on a network file system can hang.
    fn may_join(&mut self, addresses: PeerAddresses, newest: Box<Entry>) {
        if let Some(why) = self.disk_that_failed() {
            return self.keep_out(&addresses, &why);
        }
        let lengths = self.host.disk_lengths.as_ref();
        let lengths = lengths.filter(|(life, _)| *life == newest.life);
        let lengths = lengths.map(|(_, lengths)| lengths.clone());
        let sought = Sought::of(&newest, lengths.unwrap_or_default());
        self.host.markers.look_at_disks(sought);
        self.joins = Some(Joins { addresses, newest });
    }

    /// What came of that.
    fn disks_looked_at(&mut self, joins: Joins, unfit: Option<UnfitDisks>) -> Option<Next> {
        let Joins { addresses, newest } = joins;
        let generation = newest.next_generation();
        let Some(unfit) = unfit else {
            self.host.unfit_disks = None;
            self.answer(&format!("the machine is live at {addresses}"), false);
            return Some(Next::Join(addresses, newest));
        };
        let before = self.host.unfit_disks.take();
        let before = before.filter(|before| before.why == unfit);
        if before.is_none() {
            self.host.events.add(unfit.event(), 0, 0, unfit.to_string());
        }
        let told = before.and_then(|before| before.told);
        let is_to_be_told = told != Some(generation);
        let why = unfit.to_string();
        self.host.unfit_disks = Some(ToldUnfit {
            why: unfit,
            told: Some(generation),
            is_to_be_told,
        });
        if is_to_be_told {
            // It greets, says why it does not join, and looks again.
            return Some(Next::Join(addresses, newest));
        }
        self.keep_out(&addresses, &why);
        None
    }

    /// This host's disk keeps it from joining the primary at `addresses`.
    fn keep_out(&mut self, addresses: &PeerAddresses, why: &str) {
        let text = format!("the machine is live at {addresses}; {why}");
        self.answer(&text, false);
        self.kept_out = Some(KeptOut {
            text,
            look_again: monotonic() + LOOK_INTERVAL,
        });
    }

    fn disk_that_failed(&self) -> Option<String> {
        let what = self.host.failed_disk.as_ref()?.what();
        Some(format!(
            "a disk of this host failed, and is tried again: {what}"
        ))
    }

    fn wait(&mut self) -> Result<Option<Next>, ReplicaError> {
        let failed_disk = self.host.failed_disk.as_ref();
        let deadlines = [
            self.startup.next_deadline(),
            failed_disk.and_then(FailedDisk::deadline),
            self.kept_out.as_ref().map(|kept_out| kept_out.look_again),
            self.reads_journal().then_some(self.tell_reading),
        ];
        let deadline = deadlines.into_iter().flatten().min();
        let waiting = match (&self.kept_out, &self.joins) {
            (Some(kept_out), _) => kept_out.text.clone(),
            (None, Some(joins)) => format!(
                "the machine is live at {}; it is looked what is on the disks here",
                joins.addresses
            ),
            (None, None) => match (self.startup.waiting(), &self.host.left_off) {
                (Waiting::Looking, Some(why)) => format!("{why}: looking again"),
                (waiting, _) => waiting.to_string(),
            },
        };
        let reads = self.tell_reading(&waiting);
        let happened = self.host.wait(deadline, true, |host| {
            let meter = host.journal.as_ref().map(JournalDesk::meter);
            match meter.filter(|_| reads) {
                Some(meter) => status(host, &reading(&waiting, meter)),
                None => status(host, &waiting),
            }
        })?;
        if happened.stop {
            return Ok(Some(Next::Exit(Ok(Ended::Left))));
        }
        for (connection, message) in happened.messages {
            match message {
                Message::Ask { greeting, .. } | Message::Hello { greeting, .. } => {
                    let standing = self.startup.standing();
                    self.host.answer_peer(connection, &greeting, standing);
                }
                _ => self.host.close(connection),
            }
        }
        for (id, request) in happened.requests {
            match request {
                Request::Word(word) => self.word(id, &word),
                Request::WouldTake(word) => self.would_take(id, &word),
                Request::Console
                | Request::Status
                | Request::Press(_)
                | Request::Snapshot { .. }
                | Request::SwitchOver { .. }
                | Request::Fenced
                | Request::MoveArbiter { .. } => {
                    let waiting = format!("nothing is live here: {}", self.startup.waiting());
                    self.host.answer(id, &Answer::Refused(waiting));
                }
            }
        }
        Ok(None)
    }

    fn reads_journal(&self) -> bool {
        match self.startup.waiting() {
            Waiting::JournalRead | Waiting::JournalFenced => true,
            // It is looked at again.
            Waiting::Journal { .. } => self.read_journal == Duration::MAX,
            _ => false,
        }
    }

    /// Whether a journal is being read. Now and then people are told how far that is.
    fn tell_reading(&mut self, waiting: &str) -> bool {
        let reads = self.reads_journal();
        let now = monotonic();
        if now >= self.tell_reading || !reads {
            self.tell_reading = now + TELL_READING_INTERVAL;
            if let (true, Some(journal)) = (reads, &self.host.journal) {
                let text = reading(waiting, journal.meter());
                self.host.events.add("journal_read", 0, 0, text);
            }
        }
        reads
    }

    /// What this host is called: its name, and its identity.
    fn own_names(&self) -> [String; 2] {
        let host = &self.host.pair_config.greeting.host;
        [host.node().to_owned(), host.id.to_string()]
    }

    /// A person said something: it is answered by what comes of it.
    fn word(&mut self, id: ConversationId, word: &Word) {
        self.answer("somebody else said something meanwhile", false);
        match named(self.startup.waiting(), &word.without, &self.own_names()) {
            Ok(without) => {
                let new_life = word.new_life;
                let word = startup::Word { without, new_life };
                self.startup.word(monotonic(), word.clone());
                self.said = Some(Said { id, word });
            }
            Err(why) => self.host.answer(id, &Answer::Refused(why)),
        }
    }

    /// Whoever means to say something is told first whether it would be refused.
    fn would_take(&mut self, id: ConversationId, word: &Word) {
        let waiting = self.startup.waiting();
        let answer = match named(waiting, &word.without, &self.own_names()) {
            Err(why) => Answer::Refused(why),
            Ok(without) if word.new_life || waiting.would_end(&without) => {
                Answer::Done("as things stand it is taken".into())
            }
            Ok(without) => Answer::Refused(waiting.although_off(&without)),
        };
        self.host.answer(id, &answer);
    }

    fn answer(&mut self, text: &str, is_done: bool) {
        if let Some(Said { id, .. }) = self.said.take() {
            let answer = if is_done {
                Answer::Done(text.into())
            } else {
                Answer::Refused(text.into())
            };
            self.host.answer(id, &answer);
        }
    }

    fn actions(&mut self) -> Option<Next> {
        while let Some(action) = self.startup.next_action() {
            match action {
                StartupAction::Ask(request) => self.host.arbiter.ask(monotonic(), request),
                StartupAction::AskPeers => self.asked.ask(self.places.clone()),
                StartupAction::Wait(waiting) => {
                    let text = waiting.to_string();
                    if !matches!(waiting, Waiting::Claiming(_) | Waiting::JournalFenced) {
                        let why = match &self.said {
                            Some(Said { word, .. }) if !word.new_life => {
                                waiting.although_off(&word.without)
                            }
                            _ => text.clone(),
                        };
                        self.answer(&why, false);
                    }
                    self.host.events.add("waiting", 0, 0, text);
                }
                StartupAction::Join { peer, newest } => {
                    if let Some(addresses) = self.asked.addresses(peer) {
                        self.may_join(addresses, newest);
                    }
                }
                StartupAction::FenceJournal(id) => {
                    if let Some(journal) = &self.host.journal {
                        journal.fence(id);
                    }
                }
                StartupAction::Start { won } => {
                    self.answer(&format!("the machine starts here: {won}"), true);
                    return Some(Next::Start(won));
                }
                StartupAction::Refuse(refusal) if self.said.is_some() => {
                    self.answer(&refusal.to_string(), false);
                    let worth = self.host.markers.worth();
                    self.startup.again(monotonic(), worth);
                }
                StartupAction::Refuse(refusal) => {
                    return Some(Next::Exit(Err(ReplicaError::LifeIsOver(refusal))));
                }
            }
        }
        None
    }
}

/// How far the reading of a journal is, and what can be done about it while nothing comes.
fn reading(waiting: &str, meter: &ReadMeter) -> String {
    let says_what_to_do = waiting.contains("understudy new-life");
    match meter.trouble() {
        Some(_) if !says_what_to_do => format!(
            "{waiting}: {meter}. To give up what was in memory, begin another life: `understudy new-life --config FILE`"
        ),
        _ if says_what_to_do => format!("{waiting}. It is being read: {meter}"),
        _ => format!("{waiting}: {meter}"),
    }
}

/// The hosts of these names, among those that it waits for.
fn named(
    waiting: &Waiting,
    names: &[String],
    own: &[String; 2],
) -> Result<BTreeSet<HostId>, String> {
    let hosts = waiting.hosts();
    let mut named = BTreeSet::new();
    for name in names {
        let of_name = |host: &&replication::succession::Host| {
            host.node() == name || host.id.to_string() == *name
        };
        let found: Vec<HostId> = hosts.iter().filter(of_name).map(|host| host.id).collect();
        match found[..] {
            [id] => named.insert(id),
            // Another one of its name, which had its state directory before, is waited for by that name.
            [] if own.contains(name) => {
                return Err(format!(
                    "{name} is this host, and it is not off: name the others only. {waiting}"
                ));
            }
            [] if hosts.is_empty() => return Err(waiting.although_off(&named)),
            [] => {
                let names: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                return Err(format!(
                    "{name:?} is none of the hosts that it waits for, which are {}: {waiting}",
                    names.join(", ")
                ));
            }
            _ => {
                let ids: Vec<String> = found.iter().map(HostId::to_string).collect();
                let ids = ids.join(", ");
                return Err(format!(
                    "several hosts are called {name:?}: give one of {ids}"
                ));
            }
        };
    }
    Ok(named)
}

fn status(host: &Host, waiting: &str) -> ReplicaStatus {
    ReplicaStatus {
        role: "waiting".into(),
        state: waiting.into(),
        listen: host.listen_address(),
        ..host.base_status(None)
    }
}

impl Host {
    /// Tells what came of a marker that nobody waits for any more, or that failed.
    pub fn marker_written(&mut self, purpose: Purpose, result: std::io::Result<()>) {
        if let Err(error) = result {
            let waits = purpose.waits();
            let what = format!(
                "the marker cannot be written that says that {purpose}: {error}. Until it is, {waits}; it is tried again"
            );
            self.events.add("marker_failed", 0, 0, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use replication::startup::Basis;
    use replication::succession::Host;

    fn host(id: u128, name: &str) -> Host {
        Host::new(HostId(id), name)
    }

    /// Finding: `--without hostb,hosta` on hosta was told that hosta is none of those that are waited for.
    #[test]
    fn who_says_that_this_host_is_off_is_told_that_it_is_not() {
        let waiting = Waiting::Silent {
            hosts: vec![host(2, "hostb")],
            basis: Basis::Images,
        };
        let own = ["hosta".to_owned(), format!("{:032x}", 1)];
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            super::named(&waiting, &names, &own)
        };
        assert_eq!(named(&["hostb"]).unwrap().len(), 1);
        for name in &own {
            let why = named(&["hostb", name]).unwrap_err();
            assert!(why.contains("is this host, and it is not off"), "{why}");
        }
        let why = named(&["hostc"]).unwrap_err();
        assert!(why.contains("none of the hosts that it waits for"), "{why}");
    }
}
