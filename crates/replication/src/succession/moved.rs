//! Where a life goes on whose arbiter is another one from some generation on. `docs/protocol.md`,
//! "Another arbiter".

use super::names::{ArrivalId, MachineName};
use super::store::Key;
use crate::line::{LineReader, LineWriter, escape, unescape};

/// Bytes that an arbiter's address may have.
pub const MAX_ADDRESS_BYTES: usize = 300;

const WORD: &str = "understudy-arrival";
const VERSION: u32 = 1;

/// Another arbiter: what people call it, and by what it is known for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// As it is written in a configuration.
    pub address: String,
    /// What its arrival key holds.
    pub arrival: ArrivalId,
}

impl Destination {
    /// Whether a text can be an address: it ends up in a key.
    pub fn is_address(text: &str) -> bool {
        (1..=MAX_ADDRESS_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
    }

    pub(super) fn text(&self) -> String {
        format!("{}:{}", self.arrival, escape(&self.address))
    }

    pub(super) fn parse(text: &str) -> Option<Destination> {
        let (arrival, address) = text.split_once(':')?;
        let destination = Destination {
            address: unescape(address)?,
            arrival: ArrivalId(crate::line::parse_identity(arrival)?),
        };
        Destination::is_address(&destination.address).then_some(destination)
    }
}

/// What the arrival key of a machine holds: created once in a store, before the machine moves there.
pub fn arrival_content(machine: &MachineName, arrival: ArrivalId) -> Vec<u8> {
    LineWriter::new(WORD, VERSION)
        .field("machine", machine)
        .field("arrival", arrival)
        .finish()
}

/// By what a store is known, if that is what its arrival key holds.
pub fn parse_arrival(key: &Key, content: &[u8]) -> Option<ArrivalId> {
    let mut line = LineReader::open(content, WORD, VERSION).ok()?;
    let machine = line.field("machine").ok()?;
    let arrival = ArrivalId(line.identity("arrival").ok()?);
    let is_whole = machine == key.machine.as_str()
        && key.is_arrival()
        && content == arrival_content(&key.machine, arrival);
    is_whole.then_some(arrival)
}
