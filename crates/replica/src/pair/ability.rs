//! Whether a host could go on with the machine as its primary, or follow it again after a switchover: the markers that it
//! would have to write then are tried, again and again. `docs/operations.md`, "A host that could not go on".

use super::backup::BackupLoop;
use super::markers::Markers;
use super::primary::PrimaryLoop;
use crate::host_time::monotonic;
use replication::backup::BackupPhase;
use std::io;
use std::time::Duration;

/// Between two trials.
const INTERVAL: Duration = Duration::from_secs(3);
/// Every so manieth is synced as well: a network file system may say only then that it is full. Others cost no more
/// than a page in memory, however many replicas a host has.
const SYNCED_EVERY: u64 = 10;
/// A trial that has not come back by then hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Ability {
    /// When it is tried next, while none is under way; at once at first.
    due: Duration,
    /// When the one was begun that is under way.
    asked: Option<Duration>,
    trials: u64,
    /// Why it could not go on.
    trouble: Option<String>,
    /// The one that is under way was begun before a marker was written: what comes of it says nothing any more.
    is_stale: bool,
    /// Of a primary: people were told so.
    is_told: bool,
}

impl Ability {
    /// Why this host could not go on, for people.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Begins a trial when one is due.
    fn try_when_due(&mut self, now: Duration, markers: &Markers) {
        if self.asked.is_some() || now < self.due {
            return;
        }
        let is_synced = self.trials.is_multiple_of(SYNCED_EVERY) || self.trouble.is_some();
        self.trials += 1;
        self.asked = Some(now);
        markers.try_places(is_synced);
    }

    /// What came of a trial.
    fn tried(&mut self, now: Duration, result: io::Result<()>) {
        self.asked = None;
        if std::mem::take(&mut self.is_stale) {
            self.due = now;
            return;
        }
        self.due = now + INTERVAL;
        self.trouble = result.err().map(|error| error.to_string());
    }

    /// A marker was written in earnest, in all places.
    pub(super) fn written(&mut self) {
        self.trouble = None;
        self.is_stale = self.asked.is_some();
    }

    /// Whether one hangs: what is written before it may take its time.
    fn look_for_hang(&mut self, now: Duration, markers: &Markers) {
        let is_late = self.asked.is_some_and(|asked| now >= asked + PATIENCE);
        if is_late && !markers.is_writing() && self.trouble.is_none() {
            let place = markers.state_marker().display().to_string();
            let seconds = PATIENCE.as_secs();
            self.trouble = Some(format!(
                "a write beside {place}, or beside a disk, has not come back for {seconds} s"
            ));
        }
    }
}

impl PrimaryLoop {
    /// Tries what its own host has to write, be it to go on as the primary of another generation or to follow whoever
    /// takes over, and tells when that changes.
    pub(super) fn look_at_own_ability(&mut self) {
        let now = monotonic();
        while let Some(result) = self.host.markers.tried() {
            self.ability.tried(now, result);
        }
        self.ability.try_when_due(now, &self.host.markers);
        self.ability.look_for_hang(now, &self.host.markers);
        let (event, what) = match (self.ability.is_told, self.ability.trouble()) {
            (false, Some(why)) => ("cannot_write_markers", own_trouble(why)),
            (true, None) => ("can_write_markers", String::new()),
            _ => return,
        };
        self.ability.is_told = !self.ability.is_told;
        let generation = self.core.status().generation.0;
        self.host
            .events
            .add(event, generation, self.count().0, what);
    }

    /// Why this host could not follow if another one had the machine, for people.
    pub(super) fn own_ability_trouble(&self) -> Option<String> {
        self.ability.trouble().map(own_trouble)
    }
}

fn own_trouble(why: &str) -> String {
    format!(
        "this host cannot write its markers, or has lost a disk: after a switchover it could not follow, and nobody would \
         protect the machine: {why}"
    )
}

impl BackupLoop {
    /// Tries what it would have to write as the primary, and tells what came of it.
    pub(super) fn look_at_ability(&mut self) {
        let now = monotonic();
        let follows = self.core.status().phase == BackupPhase::Following;
        let before = self.ability.trouble.clone();
        while let Some(result) = self.host.markers.tried() {
            self.ability.tried(now, result);
        }
        if follows {
            // The loop turns more often than this is due.
            self.ability.try_when_due(now, &self.host.markers);
        }
        self.ability.look_for_hang(now, &self.host.markers);
        if self.ability.trouble != before {
            let trouble = self.ability.trouble.clone();
            self.core.host_could_go_on(now, trouble);
        }
    }

    /// Why the machine is not handed over to this host, for people.
    pub(super) fn trouble(&self) -> Option<String> {
        let why = self.ability.trouble()?;
        Some(format!("this host could not go on with the machine: {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::markers::tests::markers;

    /// A network file system that is full says so when a file is synced: the next trial that is not synced must not
    /// say that all is well.
    #[test]
    fn trials_are_synced_now_and_then_and_always_after_one_that_failed() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let (mut ability, mut now) = (Ability::default(), Duration::ZERO);
        let mut synced = Vec::new();
        for trial in 0..12 {
            ability.try_when_due(now, &markers);
            let came = loop {
                if let Some(came) = markers.tried_how() {
                    break came;
                }
                std::thread::yield_now();
            };
            synced.push(came.0);
            assert!(came.1.is_ok(), "{came:?}");
            let result = match trial {
                3 => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            };
            ability.tried(now, result);
            assert_eq!(ability.trouble().is_some(), trial == 3);
            // Not before its time.
            ability.try_when_due(now, &markers);
            assert_eq!(ability.asked, None);
            now = ability.due;
        }
        let expected = (0..12).map(|trial| trial % 10 == 0 || trial == 4);
        assert_eq!(synced, expected.collect::<Vec<bool>>());
    }

    #[test]
    fn a_marker_that_was_written_says_more_than_a_trial_before_it() {
        let directory = tempfile::tempdir().unwrap();
        let markers = markers(directory.path());
        let mut ability = Ability::default();
        let full = || Err(io::ErrorKind::StorageFull.into());
        ability.try_when_due(Duration::ZERO, &markers);
        ability.tried(Duration::ZERO, full());
        ability.try_when_due(INTERVAL, &markers);
        ability.written();
        ability.tried(INTERVAL, full());
        assert_eq!(ability.trouble(), None);
        ability.try_when_due(INTERVAL, &markers);
        ability.tried(INTERVAL, full());
        assert!(ability.trouble().is_some());
    }

    #[test]
    fn a_trial_that_does_not_come_back_is_trouble_until_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let mut markers = markers(directory.path());
        let mut ability = Ability::default();
        ability.try_when_due(Duration::ZERO, &markers);
        ability.look_for_hang(PATIENCE / 2, &markers);
        assert_eq!(ability.trouble(), None);
        ability.look_for_hang(PATIENCE, &markers);
        let why = ability.trouble().unwrap();
        assert!(why.contains("has not come back for 10 s"), "{why}");
        ability.tried(PATIENCE * 2, Ok(()));
        assert_eq!(ability.trouble(), None);
        drop(markers.tried());
    }
}
