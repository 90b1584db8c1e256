//! The arbiter: the outside test-and-set that guards the life of a machine.
//!
//! A store of create-only keys is all that it takes, and of small objects that their owner
//! overwrites. What the answers mean is the replication core's business; here is only the asking, on
//! a thread of its own, because a store can hang.
#![deny(unsafe_code)] // allowed in `http::send_queue` only

mod address;
mod bucket;
mod desk;
mod directory;
mod etcd;
mod http;
mod s3;
mod settings;
mod trail;
mod trouble;

pub use address::{Address, AddressError, BucketAddress, EtcdAddress};
pub use bucket::{BucketError, ObjectBucket, ObjectList};
pub use desk::{ANSWER_TIMEOUT, ArbiterDesk};
pub use directory::{DirectoryError, DirectoryStore};
pub use etcd::{EtcdError, EtcdLogin, EtcdSettings, EtcdStore};
pub use http::{Attempt, ClientFiles, TlsError, TlsFiles};
pub use s3::{S3Credentials, S3Error, S3Settings, S3Store};
pub use settings::{OpenError, Settings};
pub use trail::{OpenStore, Trail};

use replication::succession::{Outcome, Request};
use std::time::{Duration, Instant};

/// A store of create-only keys: a shared directory, a bucket, etcd.
pub trait Store: Send {
    /// What people call it, for a status: `/mnt/arbiter`, `etcd://…`, `s3://…`.
    fn name(&self) -> String;

    /// Does what is asked, and says what came of it, as [`Request`] tells for each kind. What was
    /// read is durable, and never from before the last create of anybody that was answered.
    ///
    /// [`Outcome::Unknown`] whenever nobody can say. May block for as long as it takes.
    fn answer(&mut self, request: &Request) -> Outcome;
}

/// Bytes that the content of a key may have.
pub const CONTENT_LIMIT: usize = 4096;

/// How long a store across a network asks for one answer: a little less than the desk waits, so that
/// what is told is what the store says, and the next question finds it free.
const ANSWER_BUDGET: Duration = Duration::from_millis(1800);

/// What is left of the time for one answer.
#[derive(Clone, Copy, Debug)]
struct Budget {
    until: Instant,
}

impl Budget {
    fn begin() -> Budget {
        Budget {
            until: Instant::now() + ANSWER_BUDGET,
        }
    }

    /// For one of so many attempts that are still to be made; no less than a round trip may take.
    fn share(self, attempts: usize) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        (left / attempts.max(1) as u32).max(Duration::from_millis(50))
    }
}
