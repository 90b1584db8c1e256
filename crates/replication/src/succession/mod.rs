//! Who may carry a machine on, and who did: the create-only keys of a life. `docs/protocol.md`,
//! "The succession".
//!
//! Key (life, generation) is the *leaving* of that generation; what it holds says what follows.
//! One test-and-set per key therefore gives both promises at once: a generation is left at most
//! once, and at most one life of a name is open.

mod claim;
mod entry;
mod moved;
mod names;
mod search;
mod store;

pub use crate::record::RecordNumber;
pub use claim::{Claim, ClaimPacing, Verdict};
pub use entry::{
    Durability, Entry, Kind, MAX_ENTRY_BYTES, MAX_MEMBERS, Membership, Origin, Writer,
};
pub use moved::{Destination, MAX_ADDRESS_BYTES, arrival_content, parse_arrival};
pub use names::{
    ArrivalId, Generation, Host, HostId, JournalId, LifeNumber, MachineName, NameError, RunId,
};
pub use search::{Newest, Search, SearchVerdict};
pub use store::{BeaconName, Key, Outcome, Request};
