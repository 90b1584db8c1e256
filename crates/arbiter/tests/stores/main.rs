//! One suite for every kind of store that can be an arbiter, and what is special about each.
//!
//! The claims are those of the replication core, by its own rules: a store is good if they come out
//! right with it. Servers are real ones; where one cannot be had, its tests say so and do nothing, but
//! fail in CI.

mod etcd;
mod etcd_partitioned;
mod moving;
#[path = "../../../../xtask/tests/cable/namespaces.rs"]
mod namespaces;
mod s3;
mod servers;
mod suite;
mod way;

use arbiter::Store;
use replication::message::LifeId;
use replication::mutation::Mutations;
use replication::succession::{
    Claim, ClaimPacing, Entry, Generation, Host, HostId, Key, Kind, LifeNumber, MachineName,
    Membership, Origin, RecordNumber, RunId, Verdict, Writer,
};
use std::time::Duration;

/// The key of leaving this generation.
pub fn key(generation: u64) -> Key {
    Key {
        machine: MachineName::new("vm").unwrap(),
        life: LifeNumber(1),
        generation: Generation(generation),
    }
}

/// What `host`, in its run of this number, would write into the key of leaving `generation`.
pub fn entry(generation: u64, host: u128, run: u128) -> Entry {
    let host = Host::new(HostId(host), "a");
    let kind = match generation {
        0 => Kind::PowerOn,
        _ => Kind::TookOver,
    };
    Entry {
        key: key(generation),
        kind,
        writer: Writer {
            host: host.clone(),
            run: RunId(run),
        },
        life: LifeId(9),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: host.clone(),
            members: Vec::new(),
            since: Generation(generation + 1),
            durability: Default::default(),
            origin: Origin {
                host,
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    }
}

/// A claim, and the time that its pauses are measured by.
pub struct Claimant {
    /// It.
    pub claim: Claim,
    now: Duration,
}

impl Claimant {
    /// Begins to claim.
    pub fn new(entry: Entry) -> Claimant {
        let pacing = ClaimPacing::default();
        let now = Duration::ZERO;
        Claimant {
            claim: Claim::new(now, entry, None, pacing, Mutations::default()),
            now,
        }
    }

    /// Asks once.
    pub fn step(&mut self, store: &mut dyn Store) -> Verdict {
        self.now += Duration::from_secs(2);
        let request = self.claim.poll(self.now);
        let request = request.expect("a claim that has no verdict asks");
        let outcome = store.answer(&request);
        self.claim.answer(self.now, &request, &outcome)
    }

    /// Asks so many times, which bring nothing, and returns what the last said.
    pub fn ask_in_vain(&mut self, store: &mut dyn Store, times: u32) -> String {
        for _ in 0..times {
            let verdict = self.step(store);
            assert_eq!(verdict, Verdict::Pending, "{:?}", self.claim.trouble());
        }
        let trouble = self.claim.trouble();
        trouble.map_or_else(String::new, |(_, text)| text.to_owned())
    }

    /// Asks until there is a verdict.
    pub fn verdict(&mut self, store: &mut dyn Store) -> Verdict {
        for _ in 0..200 {
            match self.step(store) {
                Verdict::Pending => {}
                verdict => return verdict,
            }
        }
        panic!("no verdict: {:?}", self.claim.trouble())
    }
}

/// Claims to the end.
pub fn claim(store: &mut dyn Store, entry: Entry) -> Verdict {
    Claimant::new(entry).verdict(store)
}
