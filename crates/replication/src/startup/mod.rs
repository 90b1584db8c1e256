//! How a replica starts: what it finds decides whether it joins, waits, powers on or starts the
//! machine again from its disk. `docs/protocol.md`, "Starting".
//!
//! The same on every host, at any time, twice: nothing here rests on who was started first.

mod decide;
mod journal;
mod rights;
mod standing;
mod waiting;

pub use journal::{FoundJournal, JournalWorth};
pub use standing::{Stance, Standing};
pub use waiting::{Basis, Reach, Waiting};

use crate::marker::Worth;
use crate::message::LifeId;
use crate::mutation::Mutations;
use crate::succession::{
    Claim, ClaimPacing, Durability, Entry, Generation, Host, HostId, JournalId, Key, Kind,
    LifeNumber, MachineName, Newest, Outcome, Request, RunId, Search, SearchVerdict, Verdict,
    Writer,
};
use decide::Decision;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

/// Names a peer: its place among those that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerId(pub u8);

/// What a start needs to know about itself.
#[derive(Clone, Debug)]
pub struct StartupConfig {
    /// The machine.
    pub machine: MachineName,
    /// This host.
    pub host: Host,
    /// This start of the process; new each time.
    pub run: RunId,
    /// 128 random bits for a life that this process may begin.
    pub new_life: LifeId,
    /// Peers that are asked, until [`Startup::peers_are`] says otherwise.
    pub peers: u8,
    /// Whether the machine has disks that it can write.
    pub has_disks: bool,
    /// This host is a spare: it begins no life by itself.
    pub is_spare: bool,
    /// When a flush is to be complete, in generations that this host begins.
    pub durability: Durability,
    /// How often the arbiter is asked.
    pub pacing: ClaimPacing,
    /// How long peers have to answer.
    pub peer_timeout: Duration,
    /// How long to wait before looking again. Whoever has only just lost its place to another looks
    /// again at once, and then ever more seldom until it waits so long.
    pub look_again: Duration,
    /// Old bugs, for the simulator.
    pub mutations: Mutations,
}

impl StartupConfig {
    /// The default times.
    pub fn new(machine: MachineName, host: Host, run: RunId, new_life: LifeId) -> StartupConfig {
        StartupConfig {
            machine,
            host,
            run,
            new_life,
            peers: 1,
            has_disks: true,
            is_spare: false,
            durability: Durability::default(),
            pacing: ClaimPacing::default(),
            peer_timeout: Duration::from_secs(1),
            look_again: Duration::from_millis(300),
            mutations: Mutations::default(),
        }
    }
}

/// How soon whoever has lost its place looks for the second time.
const FIRST_REST: Duration = Duration::from_millis(20);

/// What a person may say to a start. Each has a consequence that the person was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// These hosts are off and stay off: what only they have is given up. A host that is in fact
    /// the live primary, alone and out of reach, makes this a lie with two live machines.
    pub without: BTreeSet<HostId>,
    /// If the newest life is over, begin another; if it is open, declare it lost first.
    pub new_life: bool,
}

/// A peer that is there, and with which nothing can be spoken: it does not let this host in, or this host
/// does not let it in. It may hold the running machine, and is not off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TurnedAway {
    /// The peer's name, where it proved to have it.
    pub host: Option<String>,
    /// What happened and what to do about it, for people.
    pub why: String,
}

/// What a peer said, or that it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerAnswer {
    /// How it stands.
    Standing(Standing),
    /// It answers, and nothing comes of it.
    TurnedAway(TurnedAway),
    /// It cannot be reached, or did not answer in time, or speaks of another machine.
    Unreachable,
}

/// What the caller has to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartupAction {
    /// Ask the arbiter, answer with [`Startup::arbiter_answered`].
    Ask(Request),
    /// Ask every peer how it stands, answer with [`Startup::peer_answered`], once for each.
    AskPeers,
    /// Nothing can be done now, and why: for the status, and as an event when it changes.
    Wait(Waiting),
    /// Join that peer as a backup. When that ends without a machine, [`Startup::again`].
    Join {
        /// The peer, which says that it is live.
        peer: PeerId,
        /// The key that opened the generation in which it must be live.
        newest: Box<Entry>,
    },
    /// The key is ours: make the machine from its images and meet the world, alone. Its disk is
    /// settled (synced, markers written: the disks', then the state's) before any flush completes.
    Start {
        /// The key: [`Kind::PowerOn`], [`Kind::ColdStart`], or [`Kind::Recovered`]: then the machine
        /// goes on from the journal here, and not from its images.
        won: Box<Entry>,
    },
    /// Let nobody but this process add anything to this journal, read it again, and say what it is worth
    /// ([`Startup::journal_is`]). It is gone on from after what it then holds.
    FenceJournal(JournalId),
    /// This process has nothing to do. Always last.
    Refuse(Refusal),
}

/// Why a start ends without a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The newest life is over, and a new one is a person's word.
    Ended(Box<Entry>),
    /// A new life was asked for, but somebody is live.
    StillLive(Host),
    /// A new life was asked for on a host whose disk is no machine's: begin it where one is whole,
    /// or put whole images here and remove the markers.
    NotWhole(Worth),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Ended(entry) => {
                let how = if entry.kind == Kind::Ended {
                    "the guest powered off"
                } else {
                    "it was declared lost"
                };
                write!(
                    f,
                    "life {} of {} is over ({how}, says host {}); `understudy new-life --config FILE` begins another",
                    entry.key.life, entry.key.machine, entry.writer.host
                )
            }
            Refusal::StillLive(host) => write!(
                f,
                "the machine is live on host {host}: power it off or stop it there first"
            ),
            Refusal::NotWhole(worth) => write!(
                f,
                "no life can begin here: {worth}; begin it on a host whose disk is whole, or put \
                 whole images here and remove the markers beside them and in the state directory"
            ),
        }
    }
}

/// A key is there before anybody is live by it. For so long a store may show what was before: it then is another one.
const AHEAD_PATIENCE: Duration = Duration::from_secs(10);

enum State {
    /// Looks for the newest key.
    Looking(Search),
    /// Waits for the peers' answers.
    Asking {
        newest: Newest,
        answers: BTreeMap<PeerId, PeerAnswer>,
        /// How many are asked.
        peers: u8,
        until: Duration,
    },
    /// Asks for a key.
    Claiming(Claim),
    /// Looks again when the time has come.
    Resting { until: Duration },
    /// Somebody else's turn: a backup, a primary, nobody.
    Away,
}

/// The start of a replica, as far as replication goes.
pub struct Startup {
    config: StartupConfig,
    worth: Worth,
    journal: JournalWorth,
    /// Why no machine can be started here, if none can.
    obstacle: Option<String>,
    word: Word,
    state: State,
    waiting: Waiting,
    /// How long the next rest is.
    rest: Duration,
    /// Since when a peer says that it is live in a generation that the arbiter does not know.
    peer_ahead_since: Option<Duration>,
    /// The newest life and generation seen, to be told to peers and to look from.
    seen: (LifeNumber, Generation, LifeId),
    actions: VecDeque<StartupAction>,
}

impl Startup {
    /// Begins to look. `worth`: what the markers of this host say.
    pub fn new(now: Duration, config: StartupConfig, worth: Worth) -> Startup {
        let mut startup = Startup {
            rest: config.look_again,
            config,
            worth,
            journal: JournalWorth::NotConfigured,
            obstacle: None,
            word: Word::default(),
            state: State::Away,
            waiting: Waiting::Looking,
            peer_ahead_since: None,
            seen: Default::default(),
            actions: VecDeque::new(),
        };
        startup.look(now);
        startup.maintain(now);
        startup
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<StartupAction> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) is to be called, if nothing else is called before.
    pub fn next_deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Looking(search) => search.deadline(),
            State::Asking { until, .. } | State::Resting { until } => Some(*until),
            State::Claiming(claim) => claim.deadline(),
            State::Away => None,
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        self.maintain(now);
    }

    /// A person said something. It counts for one decision: the next action but questions and the
    /// asking for a key tells what came of it, the same reason to wait as before, too.
    pub fn word(&mut self, now: Duration, word: Word) {
        self.word = word;
        self.waiting = Waiting::Looking;
        if let State::Resting { .. } = self.state {
            self.look(now);
        }
        self.maintain(now);
    }

    /// Joining ended without a machine, or the machine was given up: look again. `worth`: what the
    /// markers say now.
    pub fn again(&mut self, now: Duration, worth: Worth) {
        let rest = self.next_rest();
        self.again_after(now, worth, rest);
    }

    /// As [`Startup::again`], of a replica that has just lost its place to another: that one is live in
    /// a moment, and alone until somebody joins it.
    pub fn superseded(&mut self, now: Duration, worth: Worth) {
        self.rest = FIRST_REST;
        self.again_after(now, worth, Duration::ZERO);
    }

    /// As [`Startup::again`], but not before so much time has passed.
    pub fn again_after(&mut self, now: Duration, worth: Worth, rest: Duration) {
        assert!(
            matches!(self.state, State::Away),
            "only whoever was away comes back"
        );
        self.worth = worth;
        self.state = State::Resting { until: now + rest };
        self.maintain(now);
    }

    /// So many peers are asked from the next [`StartupAction::AskPeers`] on.
    pub fn peers_are(&mut self, peers: u8) {
        self.config.peers = peers;
    }

    /// The markers of this host say this now: a write that was under way when this was last told is
    /// done.
    pub fn worth_is(&mut self, worth: Worth) {
        self.worth = worth;
    }

    /// What the journals here are worth, as far as they were read.
    pub fn journal_is(&mut self, now: Duration, journal: JournalWorth) {
        self.journal = journal;
        let is_waited_for = matches!(
            self.waiting,
            Waiting::JournalRead
                | Waiting::JournalFenced
                | Waiting::Journal { .. }
                | Waiting::RightDisk {
                    basis: Basis::Journal,
                    ..
                }
                | Waiting::Identity {
                    basis: Basis::Journal,
                    ..
                }
        );
        if is_waited_for && matches!(self.state, State::Resting { .. }) {
            self.look(now);
            self.maintain(now);
        }
    }

    /// Whether something that the machine is made of is missing here, and what: no key of starting it
    /// is asked for then. A key without a machine would keep everybody else from starting it.
    pub fn obstacle_is(&mut self, obstacle: Option<String>) {
        self.obstacle = obstacle;
    }

    /// The answer to [`StartupAction::Ask`].
    pub fn arbiter_answered(&mut self, now: Duration, request: &Request, outcome: &Outcome) {
        match &mut self.state {
            State::Looking(search) => {
                let verdict = search.answer(now, request, outcome);
                let trouble = search.trouble().map(|(_, why)| why.to_owned());
                match (verdict, trouble) {
                    (SearchVerdict::Found(newest), _) => self.found(now, newest),
                    (SearchVerdict::Pending, Some(why)) => {
                        self.word = Word::default();
                        self.wait_for(Waiting::Arbiter(why));
                    }
                    (SearchVerdict::Pending, None) => {}
                }
            }
            State::Claiming(claim) => {
                let verdict = claim.answer(now, request, outcome);
                let trouble = claim.trouble().map(|(_, why)| why.to_owned());
                match verdict {
                    Verdict::Won => self.won(now),
                    Verdict::Lost(_) => self.look(now),
                    Verdict::Pending => {
                        if let Some(why) = trouble {
                            self.wait_for(Waiting::Arbiter(why));
                        }
                    }
                }
            }
            State::Asking { .. } | State::Resting { .. } | State::Away => {}
        }
        self.maintain(now);
    }

    /// What a peer said.
    pub fn peer_answered(&mut self, now: Duration, peer: PeerId, answer: PeerAnswer) {
        let answer = match answer {
            // Somebody else's port.
            PeerAnswer::Standing(standing) if standing.machine != self.config.machine => {
                PeerAnswer::Unreachable
            }
            answer => answer,
        };
        if let State::Asking { answers, .. } = &mut self.state {
            answers.insert(peer, answer);
        }
        self.maintain(now);
    }

    /// What to answer a peer that asks how this replica stands, while it is starting.
    pub fn standing(&self) -> Standing {
        let (life, generation, life_id) = self.seen;
        let stance = match self.state {
            State::Claiming(_) => Stance::Claiming,
            _ => Stance::NoMachine,
        };
        Standing {
            machine: self.config.machine.clone(),
            host: self.config.host.clone(),
            stance,
            life,
            life_id,
            generation,
            worth: self.worth.clone(),
        }
    }

    /// Why it waits, for the status.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    fn next_rest(&mut self) -> Duration {
        let next = (self.rest * 2).min(self.config.look_again);
        std::mem::replace(&mut self.rest, next)
    }

    fn rest(&mut self, now: Duration) {
        let until = now + self.next_rest();
        self.state = State::Resting { until };
    }

    fn wait_for(&mut self, waiting: Waiting) {
        if waiting != self.waiting {
            self.waiting = waiting.clone();
            self.actions.push_back(StartupAction::Wait(waiting));
        }
    }

    fn look(&mut self, now: Duration) {
        let (life, generation, _) = self.seen;
        let guess = self.worth.place().max((life, generation));
        let machine = self.config.machine.clone();
        let search = Search::new(now, machine, guess, self.config.pacing);
        self.state = State::Looking(search);
    }

    fn found(&mut self, now: Duration, newest: Newest) {
        let found = match &newest {
            Newest::NoLife => Default::default(),
            Newest::Key(entry) => (entry.key.life, entry.key.generation, entry.life),
        };
        let (life, generation, _) = self.seen;
        if (found.0, found.1) < (life, generation) {
            // What this process itself has seen there is gone.
            self.wait_for(Waiting::ArbiterForgot {
                life,
                generation,
                worth: self.worth.clone(),
            });
            self.rest(now);
            return;
        }
        self.seen = found;
        self.state = State::Asking {
            newest,
            answers: BTreeMap::new(),
            peers: self.config.peers,
            until: now + self.config.peer_timeout,
        };
        if !self.decide(now, false) {
            self.actions.push_back(StartupAction::AskPeers);
        }
    }

    /// `after`: the last key of the life before, for one that begins a life.
    fn claim(&mut self, now: Duration, entry: Entry, after: Option<Key>) {
        assert!(
            entry.writer.run == self.config.run,
            "a claim is its claimant's own"
        );
        self.wait_for(Waiting::Claiming(entry.kind));
        let (pacing, mutations) = (self.config.pacing, self.config.mutations);
        self.state = State::Claiming(Claim::new(now, entry, after, pacing, mutations));
    }

    fn won(&mut self, now: Duration) {
        let State::Claiming(claim) = std::mem::replace(&mut self.state, State::Away) else {
            return;
        };
        let won = claim.entry().clone();
        self.seen = (won.key.life, won.key.generation, won.life);
        if won.kind.ends_life() {
            return self.look(now);
        }
        // What a person allowed was used up.
        self.word = Word::default();
        self.actions
            .push_back(StartupAction::Start { won: Box::new(won) });
    }

    fn maintain(&mut self, now: Duration) {
        match &mut self.state {
            State::Looking(search) => {
                if let Some(request) = search.poll(now) {
                    self.actions.push_back(StartupAction::Ask(request));
                }
            }
            State::Claiming(claim) => {
                if let Some(request) = claim.poll(now) {
                    self.actions.push_back(StartupAction::Ask(request));
                }
            }
            State::Asking {
                newest,
                answers,
                peers,
                until,
            } => {
                let all = answers.len() >= usize::from(*peers);
                // Whoever is live in the newest generation is who to join, whatever the others say.
                if all || now >= *until || decide::is_live(newest, answers) {
                    let decided = self.decide(now, true);
                    assert!(decided, "with all answers something is decided");
                    self.maintain(now);
                }
            }
            State::Resting { until } if now >= *until => {
                self.look(now);
                self.maintain(now);
            }
            State::Resting { .. } | State::Away => {}
        }
    }

    /// Decides what to do, if that can be known (`asked`: with what the peers answered). Says
    /// whether it was.
    fn decide(&mut self, now: Duration, asked: bool) -> bool {
        let State::Asking {
            newest, answers, ..
        } = &self.state
        else {
            return true;
        };
        let answers = asked.then_some(answers);
        let decision = decide::decide(
            &self.config,
            &self.worth,
            &self.journal,
            &self.word,
            newest,
            answers,
        );
        let decision = match (decision, &self.obstacle) {
            (Decision::Claim(_), Some(what)) => Decision::Wait(Waiting::Obstacle(what.clone())),
            (decision, _) => decision,
        };
        if !matches!(decision, Decision::AskPeers | Decision::LookAgain(_)) {
            self.peer_ahead_since = None;
        }
        match decision {
            Decision::AskPeers => return false,
            Decision::LookAgain(host) => {
                let since = *self.peer_ahead_since.get_or_insert(now);
                if now >= since + AHEAD_PATIENCE {
                    self.word = Word::default();
                    self.wait_for(Waiting::ArbiterDiffers(host));
                }
                self.rest(now);
            }
            Decision::Wait(waiting) => {
                self.word = Word::default();
                self.wait_for(waiting);
                self.rest(now);
            }
            Decision::Fence(id) => {
                // What a person allowed counts for what comes of it.
                self.wait_for(Waiting::JournalFenced);
                self.rest(now);
                self.actions.push_back(StartupAction::FenceJournal(id));
            }
            Decision::Join(peer, newest) => {
                // Somebody is live: whatever a person had allowed was for the case that nobody is.
                self.word = Word::default();
                self.state = State::Away;
                self.actions.push_back(StartupAction::Join { peer, newest });
            }
            Decision::Claim(entry) => {
                let after = match newest {
                    Newest::Key(last) if entry.key.generation == Generation(0) => {
                        Some(last.key.clone())
                    }
                    _ => None,
                };
                self.claim(now, *entry, after);
            }
            Decision::Refuse(refusal) => {
                self.word = Word::default();
                self.state = State::Away;
                self.actions.push_back(StartupAction::Refuse(refusal));
            }
        }
        true
    }
}

impl StartupConfig {
    fn writer(&self) -> Writer {
        Writer {
            host: self.host.clone(),
            run: self.run,
        }
    }
}
