//! The arbiter: the outside test-and-set that decides who may go live alone.
//!
//! A store of create-only keys is all that it takes: one key for each generation, whose content
//! names the claimant. What the answers mean is the replication core's business; here is only the
//! asking, on a thread of its own, because a store can hang.
#![forbid(unsafe_code)]

mod desk;
mod directory;

pub use desk::{ANSWER_TIMEOUT, ArbiterDesk};
pub use directory::{DirectoryError, DirectoryStore};

use replication::generation::{ClaimKey, ClaimOutcome, ClaimRequest};

/// A store of create-only keys: a shared directory, a bucket, etcd.
pub trait Store: Send {
    /// Does what is asked, and says what came of it.
    ///
    /// - [`ClaimRequest::Create`] creates the key with its content if there is no such key, durably
    ///   and as a whole: [`ClaimOutcome::Created`]. [`ClaimOutcome::NotCreated`] when it was there
    ///   already; by whom says only its content.
    /// - [`ClaimRequest::ReadBack`] reads the key, never a stale answer from before the last create
    ///   of anybody, and only a durable one: [`ClaimOutcome::HeldBy`], [`ClaimOutcome::Absent`].
    ///
    /// [`ClaimOutcome::Unknown`] whenever nobody can say. May block for as long as it takes.
    fn answer(&mut self, request: &ClaimRequest) -> ClaimOutcome;
}

/// Bytes that the content of a key may have.
pub const CONTENT_LIMIT: usize = 4096;

/// Letters that a key's name may have.
const NAME_LIMIT: usize = 200;

/// The key as every store spells it: 1 to 200 letters, digits, `-`, `_` and `.`, not beginning with
/// a dot. `None` for a machine's name that makes another.
pub fn key_name(key: &ClaimKey) -> Option<String> {
    let name = format!("{}-{}-{}", key.vm, key.life, key.generation);
    let is_plain = !name.starts_with('.')
        && name.len() <= NAME_LIMIT
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    is_plain.then_some(name)
}
