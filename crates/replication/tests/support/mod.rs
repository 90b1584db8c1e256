//! An arbiter in memory, and the key of a machine that was just powered on.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use replication::config::PairConfig;
use replication::configuration::{Build, Configuration};
use replication::message::{Greeting, LifeId};
use replication::succession::{
    Entry, Generation, Host, HostId, Key, Kind, LifeNumber, MachineName, Membership, Origin,
    Outcome, RecordNumber, Request, RunId,
};
use std::collections::BTreeMap;

/// The configuration of a node.
pub fn config(node: &str) -> PairConfig {
    PairConfig::new(Greeting {
        build: Build::new("0.1.0, commit 0123"),
        semantics_version: 1,
        configuration: Configuration::new(2).with("memory", "8M"),
        machine: MachineName::new("vm").unwrap(),
        host: host(node),
        run: RunId(node.len() as u128),
        listen_port: 7400,
    })
}

pub fn host(node: &str) -> Host {
    Host::new(HostId(node.bytes().map(u128::from).sum()), node)
}

pub fn key(generation: u64) -> Key {
    Key {
        machine: MachineName::new("vm").unwrap(),
        life: LifeNumber(1),
        generation: Generation(generation),
    }
}

/// The key by which a host powered the machine on.
pub fn power_on(config: &PairConfig) -> Entry {
    Entry {
        key: key(0),
        kind: Kind::PowerOn,
        writer: config.writer(),
        life: LifeId(9),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: config.greeting.host.clone(),
            members: Vec::new(),
            since: Generation(1),
            durability: config.durability,
            origin: Origin {
                host: config.greeting.host.clone(),
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    }
}

/// The arbiter's store.
#[derive(Default)]
pub struct Store {
    pub keys: BTreeMap<Key, Vec<u8>>,
    beacon: Option<Vec<u8>>,
    /// Another arbiter, whatever its address.
    pub elsewhere: Option<Box<Store>>,
}

impl Store {
    pub fn with(entry: &Entry) -> Store {
        Store {
            keys: BTreeMap::from([(entry.key.clone(), entry.content())]),
            beacon: None,
            elsewhere: None,
        }
    }

    pub fn carry_out(&mut self, request: &Request) -> Outcome {
        let found = |content: Option<&Vec<u8>>| {
            content.map_or(Outcome::Absent, |content| Outcome::Holds(content.clone()))
        };
        match request {
            Request::Create {
                after: Some(after), ..
            } if !self.keys.contains_key(after) => Outcome::Unknown(after.missing()),
            Request::Create { key, content, .. } => {
                if self.keys.contains_key(key) {
                    return Outcome::NotCreated;
                }
                self.keys.insert(key.clone(), content.clone());
                Outcome::Created
            }
            Request::Read { key } => found(self.keys.get(key)),
            Request::WriteBeacon { content, .. } => {
                self.beacon = Some(content.clone());
                Outcome::Written
            }
            Request::ReadBeacon { .. } => found(self.beacon.as_ref()),
            Request::Elsewhere { request, .. } => match &mut self.elsewhere {
                Some(other) => other.carry_out(request),
                None => Outcome::Unknown("no route".into()),
            },
        }
    }
}
