//! Beginning another life of a machine, where no replica runs: a person's word.

use super::identity;
use super::markers::{Markers, Purpose};
use super::peers::Peers;
use super::starting::obstacle;
use crate::config::ReplicaConfig;
use crate::end::ReplicaError;
use crate::host_time::monotonic;
use crate::machines::Machines;
use crate::peer_addresses::PeerAddresses;
use crate::random;
use crate::snapshot_file::{self, PlaceError};
use crate::state_directory::StateDirectory;
use crate::wake::Waker;
use arbiter::{ArbiterDesk, Store};
use replication::marker::{DiskState, Marker, Role};
use replication::message::LifeId;
use replication::startup::{Startup, StartupAction, StartupConfig, Waiting, Word};
use replication::succession::{Entry, LifeNumber, Newest, Search, SearchVerdict};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// However quiet everything is, it is looked again so often.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// An arbiter that gives no answer for so long is not waited for.
const ARBITER_PATIENCE: Duration = Duration::from_secs(10);

/// Why no life was begun.
#[derive(Debug, Error)]
pub enum NewLifeError {
    /// Something of this host or its configuration.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// It was not the moment, and why.
    #[error("no life was begun: {0}")]
    Refused(String),
    /// The person did not mean it.
    #[error("nothing was changed")]
    NotMeant,
    /// A life was begun, and what is in the file of a snapshot did not all come to its place.
    #[error(
        "life {life} was begun, but the snapshot is not where it should be, and nothing starts here until it is: {why}. \
         Restore it again, with --new-life"
    )]
    NotPlaced {
        /// Which.
        life: LifeNumber,
        /// What failed.
        why: PlaceError,
    },
}

impl From<io::Error> for NewLifeError {
    fn from(error: io::Error) -> NewLifeError {
        NewLifeError::Replica(error.into())
    }
}

/// What stands before a life is begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// For people.
    pub text: String,
    /// A life is open, and would have to be declared lost.
    pub is_open: bool,
}

/// Who begins a life: a process that has the state directory, and is no replica.
pub struct NewLife {
    startup: StartupConfig,
    /// Why no machine could be started here.
    obstacle: Option<String>,
    markers: Markers,
    arbiter: ArbiterDesk,
    /// Where the others listen, as the configuration says.
    places: Vec<PeerAddresses>,
    peers: Peers,
    waker: Waker,
    state_directory: PathBuf,
    /// After the markers: whoever takes the directory next finds nobody at them.
    _directory: StateDirectory,
}

impl NewLife {
    /// Takes the state directory, for a machine that starts from the disks here.
    ///
    /// # Errors
    /// A replica has it, or something of the configuration cannot be used.
    pub fn open(
        config: &ReplicaConfig,
        peers: Vec<PeerAddresses>,
        machines: &dyn Machines,
        store: Box<dyn Store>,
    ) -> Result<NewLife, NewLifeError> {
        let mut new_life = NewLife::open_for_snapshot(config, peers, machines, store)?;
        new_life.startup.has_disks = config.disks.iter().any(|disk| !disk.read_only);
        new_life.obstacle = obstacle(config, machines);
        Ok(new_life)
    }

    /// The same, for a machine that starts from a snapshot: whatever the disks of this machine here are, they will be
    /// overwritten.
    ///
    /// # Errors
    /// As there.
    pub fn open_for_snapshot(
        config: &ReplicaConfig,
        peers: Vec<PeerAddresses>,
        machines: &dyn Machines,
        store: Box<dyn Store>,
    ) -> Result<NewLife, NewLifeError> {
        let directory =
            StateDirectory::take(&config.state_directory).map_err(ReplicaError::from)?;
        let membership = identity::membership(config)?;
        let pair_config = identity::pair_config(config, &membership, machines)?;
        let greeting = pair_config.greeting.clone();
        let waker = Waker::new()?;
        let arbiter = ArbiterDesk::start(store, {
            let waker = waker.clone();
            move || waker.wake()
        })?;
        let markers = Markers::open(
            config,
            greeting.machine.clone(),
            greeting.host.node(),
            waker.clone(),
        )?;
        markers.are_of_this_machine()?;
        let startup = StartupConfig {
            peers: peers.len() as u8,
            has_disks: false,
            durability: pair_config.durability,
            ..StartupConfig::new(
                greeting.machine.clone(),
                greeting.host.clone(),
                greeting.run,
                LifeId(random::number()?),
            )
        };
        Ok(NewLife {
            startup,
            obstacle: machines.check().err().map(|error| error.to_string()),
            state_directory: config.state_directory.clone(),
            markers,
            arbiter,
            places: peers,
            peers: Peers::new(greeting, membership, waker.clone()),
            waker,
            _directory: directory,
        })
    }

    /// What stands now, for the person who is to decide: the newest key, and what is on this host.
    ///
    /// # Errors
    /// The arbiter does not answer.
    pub fn situation(&mut self) -> Result<Situation, NewLifeError> {
        let worth = self.markers.worth();
        let here = format!("on this host is {worth}");
        let StartupConfig { machine, .. } = &self.startup;
        let guess = worth.place();
        let mut search = Search::new(monotonic(), machine.clone(), guess, self.startup.pacing);
        let until = monotonic() + ARBITER_PATIENCE;
        loop {
            if let Some(request) = search.poll(monotonic()) {
                self.arbiter.ask(monotonic(), request);
            }
            while let Some((request, outcome)) = self.arbiter.answer(monotonic()) {
                let found = search.answer(monotonic(), &request, &outcome);
                if let SearchVerdict::Found(newest) = found {
                    return Ok(Situation {
                        text: format!("{}; {here}", describe(&newest)),
                        is_open: matches!(&newest, Newest::Key(entry) if entry.next.is_some()),
                    });
                }
            }
            if monotonic() >= until {
                let why = search.trouble().map_or("", |(_, why)| why);
                return Err(NewLifeError::Refused(format!(
                    "the arbiter gives no answer: {why}"
                )));
            }
            self.wait(search.deadline())?;
        }
    }

    /// Declares an open life lost, and begins another one, whose machine starts from this host's
    /// disks when its replica is started.
    ///
    /// # Errors
    /// Somebody is live, the disk here is not whole, or the arbiter does not answer.
    pub fn begin(&mut self) -> Result<Entry, NewLifeError> {
        let worth = self.markers.worth();
        let mut startup = Startup::new(monotonic(), self.startup.clone(), worth);
        startup.obstacle_is(self.obstacle.clone());
        let word = Word {
            new_life: true,
            ..Word::default()
        };
        startup.word(monotonic(), word);
        loop {
            while let Some((request, outcome)) = self.arbiter.answer(monotonic()) {
                startup.arbiter_answered(monotonic(), &request, &outcome);
            }
            while let Some((peer, answer)) = self.peers.answer() {
                startup.peer_answered(monotonic(), peer, answer);
            }
            startup.tick(monotonic());
            if let Some(outcome) = self.actions(&mut startup) {
                return outcome;
            }
            self.wait(startup.next_deadline())?;
        }
    }

    /// Begins a life as [`NewLife::begin`] does, whose machine goes on from the snapshot in `file`, and puts that where
    /// the configuration says: what is on the disks is overwritten, once the life has begun. `progress` is told how many
    /// bytes of how many of the file were read.
    ///
    /// # Errors
    /// As there; or what is in the file cannot be put there.
    pub fn restore(
        &mut self,
        config: &ReplicaConfig,
        file: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<Entry, NewLifeError> {
        // Whatever dies from here on, nothing starts from disks that are half of something.
        let was_unfinished = snapshot_file::obstacle(&self.state_directory).is_some();
        snapshot_file::begin_restoring(&self.state_directory, file)?;
        let begun = self.begin();
        if begun.is_err() && !was_unfinished {
            snapshot_file::end_restoring(&self.state_directory)?;
        }
        let begun = begun?;
        let life = begun.key.life;
        let placed = snapshot_file::place(file, config, &begun, progress);
        placed.map_err(|why| NewLifeError::NotPlaced { life, why })?;
        self.mark(&begun)?;
        snapshot_file::end_restoring(&self.state_directory)?;
        Ok(begun)
    }

    /// Marks the disks here as this life's.
    fn mark(&mut self, begun: &Entry) -> Result<(), NewLifeError> {
        let marker = Marker {
            machine: begun.key.machine.clone(),
            life: begun.key.life,
            life_id: begun.life,
            generation: begun.next_generation(),
            role: Role::Primary,
            record: begun.record,
            disk: DiskState::Whole,
        };
        self.markers.write(Purpose::Primary, marker);
        loop {
            if let Some((_, written)) = self.markers.done() {
                return Ok(written?);
            }
            self.wait(None)?;
        }
    }

    fn actions(&mut self, startup: &mut Startup) -> Option<Result<Entry, NewLifeError>> {
        while let Some(action) = startup.next_action() {
            let refused = match action {
                StartupAction::Ask(request) => {
                    self.arbiter.ask(monotonic(), request);
                    continue;
                }
                StartupAction::AskPeers => {
                    self.peers.ask(self.places.clone());
                    continue;
                }
                StartupAction::Wait(Waiting::Claiming(_) | Waiting::JournalFenced) => continue,
                StartupAction::Start { won } => return Some(Ok(*won)),
                StartupAction::Wait(waiting) => waiting.to_string(),
                StartupAction::Join { .. } => "the machine is live on another host".to_owned(),
                StartupAction::Refuse(refusal) => refusal.to_string(),
                StartupAction::FenceJournal(id) => {
                    format!("the machine goes on from journal {id}: start its replica")
                }
            };
            return Some(Err(NewLifeError::Refused(refused)));
        }
        None
    }

    fn wait(&self, deadline: Option<Duration>) -> io::Result<()> {
        let left = deadline.map_or(LONGEST_WAIT, |at| at.saturating_sub(monotonic()));
        self.waker.wait(left.min(LONGEST_WAIT))
    }
}

fn describe(newest: &Newest) -> String {
    let entry = match newest {
        Newest::NoLife => return "the arbiter knows of no life of this machine".to_owned(),
        Newest::Key(entry) => entry,
    };
    let Some(membership) = &entry.next else {
        return format!("life {} is over ({})", entry.key.life, entry.kind);
    };
    let primary = &membership.primary;
    let members: Vec<String> = membership.members.iter().map(ToString::to_string).collect();
    let members = if members.is_empty() {
        "no member".to_owned()
    } else {
        format!("members {}", members.join(", "))
    };
    format!(
        "life {} is open: in generation {}, host {primary} is its primary, with {members}",
        entry.key.life,
        entry.next_generation()
    )
}
