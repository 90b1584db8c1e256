//! When a peer is suspected. Suspicion never makes anyone go live: it makes it ask the arbiter.

use std::fmt;
use std::time::Duration;

/// Times of the failure detector. Both sides should have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorConfig {
    /// Something is sent at least this often.
    pub heartbeat_interval: Duration,
    /// A peer that was not heard for so long is suspected.
    pub silence_timeout: Duration,
    /// A backup that is heard but does not acknowledge a record for so long is suspected.
    pub ack_timeout: Duration,
    /// A backup whose machine stands still for so long, with records to replay, is suspected.
    pub stall_timeout: Duration,
    /// A primary that is heard but sends no record for so long beyond three times the interval that
    /// it told in Begin is suspected. `None`: never.
    pub record_timeout: Option<Duration>,
    /// How long joining may be silent. It may last as long as it takes: whoever copies or restores
    /// says so.
    pub join_timeout: Duration,
}

impl Default for DetectorConfig {
    fn default() -> DetectorConfig {
        DetectorConfig {
            heartbeat_interval: Duration::from_millis(60),
            silence_timeout: Duration::from_millis(220),
            ack_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_secs(3),
            record_timeout: Some(Duration::from_secs(2)),
            join_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a peer is suspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// The connection ended.
    ConnectionEnded,
    /// Nothing was heard for the silence timeout.
    Silent,
    /// The backup is heard, but acknowledges nothing.
    NotAcknowledging,
    /// The backup's machine stands still.
    Stalled,
    /// The primary is heard, but sends no records.
    NoRecords,
    /// The peer said something that the protocol does not allow.
    Protocol(String),
    /// The backup's machine differs.
    Diverged,
    /// The peer said that it leaves.
    Left,
    /// The backup said that its own disk failed.
    DiskFailed,
    /// The backup said why its host cannot follow as it is.
    CannotFollow(String),
    /// The primary said that it suspects this backup.
    SuspectsUs,
    /// The primary said that it let this backup go, because it lagged.
    LetGo,
    /// The primary said that it let this backup go, and why.
    LetGoFor(String),
    /// The copy for it is given up for another backup that needs none.
    GivesWay,
    /// It says that it has taken over what was handed over.
    HandedOver,
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Suspicion::ConnectionEnded => write!(f, "the connection ended"),
            Suspicion::Silent => write!(f, "its heartbeats stopped"),
            Suspicion::NotAcknowledging => write!(f, "it stopped to acknowledge records"),
            Suspicion::Stalled => write!(f, "its machine stands still"),
            Suspicion::NoRecords => write!(f, "it stopped to send records"),
            Suspicion::Protocol(what) => write!(f, "it broke the protocol: {what}"),
            Suspicion::Diverged => write!(f, "its machine differs"),
            Suspicion::Left => write!(f, "it said that it leaves"),
            Suspicion::DiskFailed => write!(f, "its disk failed"),
            Suspicion::CannotFollow(why) => write!(f, "its host cannot follow: {why}"),
            Suspicion::SuspectsUs => write!(f, "it said that it suspects this replica"),
            Suspicion::LetGo => write!(
                f,
                "it let this replica go, which had lagged for longer than `pair.lag_limit`"
            ),
            Suspicion::LetGoFor(why) => write!(f, "it let this replica go: {why}"),
            Suspicion::GivesWay => write!(
                f,
                "another that needs no copy can protect the machine at once; the copy begins anew"
            ),
            Suspicion::HandedOver => write!(f, "it says that it has taken over"),
        }
    }
}

/// Notices that a peer fell silent, and does not blame the peer for this process's own pauses.
#[derive(Clone, Debug)]
pub(crate) struct SilenceDetector {
    deadline: Duration,
    timeout: Duration,
}

impl SilenceDetector {
    pub fn new(now: Duration, timeout: Duration) -> SilenceDetector {
        SilenceDetector {
            deadline: now + timeout,
            timeout,
        }
    }

    pub fn heard(&mut self, now: Duration) {
        self.deadline = now + self.timeout;
    }

    /// This process did not run for `pause`: what the peer sent meanwhile is yet to be read.
    pub fn forgive(&mut self, pause: Duration) {
        self.deadline += pause;
    }

    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    pub fn is_silent(&self, now: Duration) -> bool {
        now >= self.deadline
    }
}

/// Notices that this process itself did not run for a while.
#[derive(Clone, Debug)]
pub(crate) struct PauseDetector {
    last: Duration,
    threshold: Duration,
    interval: Duration,
}

impl PauseDetector {
    pub fn new(now: Duration, config: &DetectorConfig) -> PauseDetector {
        // Whatever the heartbeat interval is, calls come often enough to see a pause.
        let (threshold, interval) = (config.silence_timeout / 2, config.silence_timeout / 4);
        PauseDetector {
            last: now,
            threshold,
            interval,
        }
    }

    /// When the next call is due at the latest: a longer silence is taken for a pause.
    pub fn due(&self) -> Duration {
        self.last + self.interval
    }

    /// To be told the time at every call, and while somebody is waited for also when a call is
    /// [`due`](Self::due). Gives the pause if it was one: half the silence timeout, so that a peer
    /// that suspected us meanwhile is never overlooked.
    pub fn observe(&mut self, now: Duration) -> Option<Duration> {
        let pause = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        (pause >= self.threshold).then_some(pause)
    }
}
