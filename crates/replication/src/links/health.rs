//! One link: whether it is up, and how long the way there and back is.

use super::frames::LinkFrameReader;
use std::collections::VecDeque;
use std::time::Duration;

/// Probes that may be echoed yet. The other end of a longer way answers later than anybody waits.
const PROBES: usize = 64;
/// The round trip is the least of so many: what waits behind traffic is no longer way.
const SAMPLES: usize = 32;

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It was opened, and nothing came back yet.
    New,
    /// What is sent there comes back.
    Up,
    /// It fell silent, while another did not.
    Silent,
}

/// A link that is open.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub reader: LinkFrameReader,
    pub state: LinkState,
    /// When something last showed that what is sent on it gets there, or it was opened.
    pub fresh: Duration,
    /// It is silent, and another is not, since then.
    pub doubted_since: Option<Duration>,
    /// Beyond the last segment that was sent on it.
    pub carried: u64,
    last_probe: u64,
    /// Probes that were not echoed, and when they were sent.
    probes: VecDeque<(u64, Duration)>,
    round_trips: VecDeque<Duration>,
    /// A probe is to be sent.
    pub probe_due: bool,
    /// The newest probe of the other end, until it is echoed.
    pub to_echo: Option<u64>,
}

impl Link {
    pub fn new(now: Duration) -> Link {
        Link {
            reader: LinkFrameReader::default(),
            state: LinkState::New,
            fresh: now,
            doubted_since: None,
            carried: 0,
            last_probe: 0,
            probes: VecDeque::new(),
            round_trips: VecDeque::new(),
            probe_due: true,
            to_echo: None,
        }
    }

    /// The number of the next probe, which is sent now.
    pub fn probe(&mut self, now: Duration) -> u64 {
        self.probe_due = false;
        self.last_probe += 1;
        self.probes.push_back((self.last_probe, now));
        if self.probes.len() > PROBES {
            self.probes.pop_front();
        }
        self.last_probe
    }

    /// A probe came back. `false`: it was never sent.
    pub fn echoed(&mut self, now: Duration, probe: u64) -> bool {
        if probe > self.last_probe {
            return false;
        }
        while let Some((number, sent)) = self.probes.front().copied()
            && number <= probe
        {
            self.probes.pop_front();
            if number == probe {
                self.round_trips.push_back(now.saturating_sub(sent));
            }
        }
        if self.round_trips.len() > SAMPLES {
            self.round_trips.pop_front();
        }
        self.gets_there(now);
        true
    }

    /// Something shows that what is sent here gets there.
    pub fn gets_there(&mut self, now: Duration) {
        self.fresh = now;
        self.doubted_since = None;
    }

    /// The least of the newest; `None` before there is one.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trips.iter().min().copied()
    }
}
