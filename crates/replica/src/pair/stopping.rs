//! A primary that is asked to end: the service is to outlive it where it can.

use super::primary::{PrimaryEnding, PrimaryLoop};
use crate::end::Ended;
use crate::host_time::monotonic;
use replication::succession::{Entry, Kind};
use std::time::Duration;

/// Handing over takes a few round trips. One that takes longer, because the arbiter went away in the
/// middle say, is not waited for: the backup goes on as soon as the arbiter answers.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The vcpu is to stand still.
    Halting,
    /// The backup is to take over.
    HandingOver,
}

/// A primary that hands its machine over because it is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    step: Step,
    /// On the monotonic clock.
    until: Duration,
}

impl PrimaryLoop {
    /// A signal came: hands over if a backup can take over, and unplugs the machine if none can, or
    /// if this is the second time.
    pub(super) fn asked_to_end(&mut self) {
        if self.stopping.is_some() {
            return self.unplug("asked to end a second time");
        }
        let until = monotonic() + HAND_OVER_PATIENCE;
        if self.disk_failed.is_some() {
            // The machine stands still already, and a backup is asked to take over if there is one.
            let step = Step::HandingOver;
            self.stopping = Some(Stopping { step, until });
            return;
        }
        if !self.core.can_hand_over() {
            return self.unplug("asked to end, and no backup could take over now");
        }
        self.stopping = Some(Stopping {
            step: Step::Halting,
            until,
        });
        self.vcpu.stand_still();
    }

    /// The vcpu stands still, and everything that it did was given to the core.
    pub(super) fn stands_still(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return self.vcpu.resume();
        };
        assert!(stopping.step == Step::Halting, "it stands still once");
        stopping.step = Step::HandingOver;
        if !self.core.hand_over(monotonic()) {
            self.unplug("the backup left while this primary was about to hand over");
        }
    }

    /// Nobody took over: the machine is still this replica's.
    pub(super) fn nobody_took_over(&mut self) {
        self.disk_failed = None;
        self.vcpu.resume();
        if self.stopping.is_some() {
            self.unplug("the backup died before it had taken over");
        }
    }

    /// Somebody else has left the generation.
    pub(super) fn ending_superseded(&self, by: &Entry) -> PrimaryEnding {
        let is_handed_over = matches!(by.kind, Kind::HandedOver | Kind::TookOver);
        match self.stopping {
            None => PrimaryEnding::Again,
            Some(_) if is_handed_over => PrimaryEnding::Exit(Ok(Ended::HandedOver)),
            Some(_) => PrimaryEnding::Exit(Ok(Ended::Left)),
        }
    }

    /// When it is not waited for any longer.
    pub(super) fn stopping_deadline(&self) -> Option<Duration> {
        self.stopping.map(|stopping| stopping.until)
    }

    pub(super) fn stop_in_time(&mut self) {
        if self
            .stopping_deadline()
            .is_some_and(|until| monotonic() >= until)
        {
            self.unplug("the backup has not taken over in time");
        }
    }

    /// Ends the machine as a loss of power would. Its life stays open: the next start on this host
    /// begins from its disks.
    fn unplug(&mut self, why: &str) {
        let (generation, count) = (self.core.status().generation.0, self.count());
        self.host.events.add("unplugged", generation, count, why);
        self.end(PrimaryEnding::Exit(Ok(Ended::Unplugged)));
    }
}
