//! Since when the arbiter is of no use, for the status.

use crate::host_time::{rfc3339, unix_ns};
use crate::status::ArbiterTrouble;

/// An outage of the arbiter, or none.
#[derive(Clone, Copy, Debug, Default)]
pub struct ArbiterOutage {
    /// When it was noticed, in nanoseconds since 1970 UTC.
    since_ns: Option<u64>,
}

impl ArbiterOutage {
    /// Whether the core says now that there is one.
    pub fn note(&mut self, is_on: bool) {
        self.since_ns = is_on.then(|| self.since_ns.unwrap_or_else(unix_ns));
    }

    /// For the status.
    pub fn told(self, why: Option<String>) -> Option<ArbiterTrouble> {
        let since = rfc3339(self.since_ns.unwrap_or_else(unix_ns));
        why.map(|why| ArbiterTrouble { since, why })
    }
}
