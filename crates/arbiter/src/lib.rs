//! The arbiter: the outside test-and-set that guards the life of a machine.
//!
//! A store of create-only keys is all that it takes, and of small objects that their owner
//! overwrites. What the answers mean is the replication core's business; here is only the asking, on
//! a thread of its own, because a store can hang.
#![forbid(unsafe_code)]

mod desk;
mod directory;

pub use desk::{ANSWER_TIMEOUT, ArbiterDesk};
pub use directory::{DirectoryError, DirectoryStore};

use replication::succession::{Outcome, Request};

/// A store of create-only keys: a shared directory, a bucket, etcd.
pub trait Store: Send {
    /// Does what is asked, and says what came of it, as [`Request`] tells for each kind. What was
    /// read is durable, and never from before the last create of anybody that was answered.
    ///
    /// [`Outcome::Unknown`] whenever nobody can say. May block for as long as it takes.
    fn answer(&mut self, request: &Request) -> Outcome;
}

/// Bytes that the content of a key may have.
pub const CONTENT_LIMIT: usize = 4096;
