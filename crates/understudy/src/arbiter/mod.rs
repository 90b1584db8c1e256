//! The arbiter: the outside test-and-set that decides who may go live alone.
//!
//! A store of create-only keys is all that it takes: one key for each generation, whose content
//! names the claimant. What the answers mean is the replication core's business; here is only the
//! asking, on a thread of its own, because a store can hang.

mod directory;
mod worker;

pub use directory::DirectoryStore;
pub use worker::{Answer, ArbiterThread, Question};

use std::fmt;

/// What came of an attempt to create a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// This attempt created it, durably.
    Now,
    /// It was there already; by whom says only its content.
    Exists,
    /// Nobody can say whether it was created.
    Unknown(StoreTrouble),
}

/// What came of an attempt to read a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its content.
    Content(Vec<u8>),
    /// There is none.
    Absent,
    /// Nobody can say.
    Unknown(StoreTrouble),
}

/// Why a store gave no answer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreTrouble(pub String);

impl fmt::Display for StoreTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A store of create-only keys: a shared directory, a bucket, etcd.
///
/// Keys are 1 to 200 letters, digits, `-`, `_` and `.`; contents at most [`CONTENT_LIMIT`] bytes.
pub trait Store: Send {
    /// Creates `key` with `content` if there is no such key, durably and as a whole.
    fn create(&mut self, key: &str, content: &[u8]) -> Created;
    /// Reads `key`, never a stale answer from before the last `create` of anybody.
    fn read(&mut self, key: &str) -> Found;
}

/// Bytes that the content of a key may have.
pub const CONTENT_LIMIT: usize = 4096;
