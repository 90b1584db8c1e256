//! Whether a backup's host could go on with the machine as its primary: the markers that it would have to write
//! then are tried, again and again, while it follows. `docs/operations.md`, "A host that could not go on".

use super::backup::BackupLoop;
use super::markers::Markers;
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
        self.due = now + INTERVAL;
        self.trouble = result.err().map(|error| error.to_string());
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
