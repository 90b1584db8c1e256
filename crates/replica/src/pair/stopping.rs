//! A primary whose machine stands still for another host: it is asked to end, and the service is to
//! outlive it where it can, or to switch over.

use super::primary::{PrimaryEnding, PrimaryLoop};
use crate::end::Ended;
use crate::host_time::monotonic;
use machine::input::Input;
use machine::output::Finish;
use replication::primary::PrimaryPhase;
use replication::succession::{Entry, Kind};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Handing over takes a few round trips. One that takes longer, because the arbiter went away in the
/// middle say, is not waited for: the backup goes on as soon as the arbiter answers. A backup whose host could not go
/// on with the machine has so long to become able, while the machine runs on.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(10);

/// A machine is handed over when its heir is no further behind than this: it stands still for so long at
/// least…
const NEAR: Duration = Duration::from_millis(5);
/// …or after it has come nearer for so long. Then what is left is executed while the machine stands still.
const APPROACH_PATIENCE: Duration = Duration::from_secs(5);

/// An arbiter that does not answer is asked again after this time.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A guest that boots does not hear of the button yet: it is pressed again so often.
const PRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The arbiter is to say that it is there, while the machine runs on: one that is handed over stands
    /// still until it answers. When it is asked again, if it did not; and whether people were told why that is.
    Looking {
        again: Option<Duration>,
        is_told: bool,
    },
    /// The arbiter is to say whether this replica is still the primary.
    Deciding,
    /// The guest is to power off; when it is asked again.
    PoweringOff { press_again: Duration },
    /// The heir is to execute nearly all that it holds, while the machine runs on slowly.
    Approaching { until: Duration },
    /// The vcpu is to stand still.
    Halting,
    /// The backup is to take over.
    HandingOver,
}

/// What comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// The process ends.
    End,
    /// This replica follows whoever has taken over.
    SwitchOver,
}

/// A primary that is asked to end, or to switch over: it hands its machine over, or, if it is to end,
/// lets the guest power off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    step: Step,
    purpose: Purpose,
    /// On the monotonic clock.
    until: Duration,
}

impl PrimaryLoop {
    /// A signal came: hands over if a backup can take over; lets the guest power off if there is none, or none that
    /// could go on with the machine; and unplugs the machine if this is the second time, or if the arbiter stays out of reach, because a
    /// backup that holds it takes over when that is back.
    pub(super) fn asked_to_end(&mut self) {
        let until = monotonic() + HAND_OVER_PATIENCE;
        let purpose = Purpose::End;
        if let Some(stopping) = &mut self.stopping {
            if stopping.purpose == Purpose::End {
                return self.unplug("asked to end a second time");
            }
            (stopping.purpose, stopping.until) = (purpose, until);
            return;
        }
        if self.disk_failed.is_some() || self.outvoted {
            // The machine stands still already, or will at once, and a backup is asked to take over if there is one.
            let step = Step::HandingOver;
            self.stopping = Some(Stopping {
                step,
                purpose,
                until,
            });
            return;
        }
        if self.core.has_heir() || self.has_members() {
            return self.look(purpose);
        }
        self.end_without_heir();
    }

    /// Whether backups are here, though none could take over at this very moment: most likely this process did not run
    /// for a while, and they have not answered since. They do in the next, or are lost.
    fn has_members(&self) -> bool {
        let phase = self.core.status().phase;
        matches!(phase, PrimaryPhase::Paired | PrimaryPhase::Differing)
    }

    /// No backup could take over: the guest is to power off if its machine is this host's alone.
    fn end_without_heir(&mut self) {
        let until = monotonic() + HAND_OVER_PATIENCE;
        let purpose = Purpose::End;
        self.stopping = None;
        match self.core.status().phase {
            PrimaryPhase::Alone | PrimaryPhase::Joining if self.core.status().protected => {
                self.stay_in_journal();
            }
            PrimaryPhase::Alone | PrimaryPhase::Joining => self.let_it_power_off(),
            PrimaryPhase::Claiming => {
                let step = Step::Deciding;
                self.stopping = Some(Stopping {
                    step,
                    purpose,
                    until,
                });
            }
            _ => self.unplug("asked to end, and no backup could take over now"),
        }
    }

    /// The arbiter is asked whether it is there, before the machine stands still for its heir.
    fn look(&mut self, purpose: Purpose) {
        let now = monotonic();
        self.stopping = Some(Stopping {
            step: Step::Looking {
                again: None,
                is_told: false,
            },
            purpose,
            until: now + HAND_OVER_PATIENCE,
        });
        self.core.look_at_arbiter(now);
    }

    /// What came of it.
    pub(super) fn looked(&mut self, trouble: Option<String>) {
        let Some(Stopping {
            step: Step::Looking { is_told, .. },
            purpose,
            until,
        }) = self.stopping
        else {
            return;
        };
        let trouble = match trouble {
            Some(why) => Some(format!("the arbiter does not answer as it should: {why}")),
            None => self.core.obstacle_to_handing_over(),
        };
        match (trouble, purpose) {
            _ if self.disk_failed.is_some() || self.outvoted => self.comes_too_late(purpose),
            (None, _) => self.approach(purpose),
            (Some(why), Purpose::SwitchOver) => {
                self.stopping = None;
                self.not_switched_over(&format!("{why}: the machine goes on here"));
            }
            (Some(why), Purpose::End) if self.core.has_heir() || self.has_members() => {
                if !is_told {
                    self.tell_why_it_waits(&why);
                }
                let (again, is_told) = (Some(monotonic() + LOOK_INTERVAL), true);
                self.stopping = Some(Stopping {
                    step: Step::Looking { again, is_told },
                    purpose,
                    until,
                });
            }
            (Some(_), Purpose::End) => self.end_without_heir(),
        }
    }

    /// It is asked to end, and cannot hand over at once: whoever asked may still mend that.
    fn tell_why_it_waits(&mut self, why: &str) {
        let seconds = HAND_OVER_PATIENCE.as_secs();
        let what = match self.core.why_no_heir_could_go_on() {
            Some(_) => format!(
                "asked to end, and {why}: mend that there within {seconds} s, and the machine is handed over. Otherwise \
                 the backups are let go, and the guest is asked to power off"
            ),
            None => format!(
                "asked to end, and {why}: it is looked again for {seconds} s. Otherwise the machine is unplugged, and a \
                 backup goes on as soon as it can"
            ),
        };
        let (generation, count) = (self.core.status().generation.0, self.count());
        self.host
            .events
            .add("cannot_hand_over", generation, count.0, what);
    }

    /// The arbiter is there. Clients wait while the machine stands still, and that lasts for as long as the
    /// heir has something left to execute: so it comes near first.
    fn approach(&mut self, purpose: Purpose) {
        let now = monotonic();
        let until = now + APPROACH_PATIENCE;
        self.stopping = Some(Stopping {
            step: Step::Approaching { until },
            purpose,
            until: now + HAND_OVER_PATIENCE,
        });
        self.core.approach_handover();
        self.halt_when_near();
    }

    /// Looks how near the heir is.
    fn halt_when_near(&mut self) {
        let Some(Stopping {
            step: Step::Approaching { until },
            purpose,
            ..
        }) = self.stopping
        else {
            return;
        };
        let lag = self.core.heir_lag();
        let is_over = lag.is_none_or(|lag| lag <= NEAR) || monotonic() >= until;
        let comes_too_late = self.disk_failed.is_some() || self.outvoted;
        if !is_over && !comes_too_late {
            return;
        }
        self.core.leave_approach();
        if comes_too_late {
            return self.comes_too_late(purpose);
        }
        self.stopping = None;
        match (lag, purpose) {
            (Some(lag), _) => {
                if let Some(switchover) = &mut self.switchover {
                    switchover.stands_still(lag);
                }
                self.halt(purpose);
            }
            (None, Purpose::End) if self.has_members() => self.look(purpose),
            (None, Purpose::End) => self.end_without_heir(),
            (None, Purpose::SwitchOver) => {
                let why = self.why_not_handed_over();
                self.not_switched_over(&format!("{why}: the machine goes on here"));
            }
        }
    }

    /// Why the machine was not handed over, though it was to be.
    fn why_not_handed_over(&self) -> String {
        let obstacle = self.core.obstacle_to_handing_over();
        obstacle.unwrap_or_else(|| "the backup left before it was handed over".into())
    }

    /// The machine is handed over already, because a disk failed, or because it is not what the majority has.
    fn comes_too_late(&mut self, purpose: Purpose) {
        match (purpose, &mut self.stopping) {
            (Purpose::End, Some(stopping)) => stopping.step = Step::HandingOver,
            _ => {
                self.stopping = None;
                self.not_switched_over(match self.outvoted {
                    true => "this host's machine is the odd one, and is handed over for that",
                    false => "a disk of this host failed, and the machine is handed over for that",
                });
            }
        }
    }

    /// The machine is to stand still, so that the backup can take over at that instruction.
    fn halt(&mut self, purpose: Purpose) {
        assert!(self.stopping.is_none(), "it stands still for one purpose");
        self.stopping = Some(Stopping {
            step: Step::Halting,
            purpose,
            until: monotonic() + HAND_OVER_PATIENCE,
        });
        self.vcpu.stand_still();
    }

    /// The backup is to take over, and this replica follows it, if the arbiter is there.
    pub(super) fn begin_to_switch_over(&mut self) {
        self.look(Purpose::SwitchOver);
    }

    /// The machine is handed over, or about to be, or ends.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Asks the guest to power off, and waits for it. Whoever is joining is let go, and nobody joins
    /// any more: the machine that is to end is this host's alone.
    fn let_it_power_off(&mut self) {
        let (wait, now) = (self.host.config.power_off_wait, monotonic());
        if wait.is_zero() {
            return self.unplug("asked to end, and no backup could take over");
        }
        for connection in self.host.open_connections() {
            self.host.close(connection);
            self.core.disconnected(now, connection);
        }
        let press_again = now + PRESS_INTERVAL;
        self.stopping = Some(Stopping {
            step: Step::PoweringOff { press_again },
            purpose: Purpose::End,
            until: now + wait,
        });
        self.host.events.add(
            "powering_off",
            self.core.status().generation.0,
            self.count().0,
            format!(
                "asked to end, and no backup could take over: the guest has {} s to power off",
                wait.as_secs()
            ),
        );
        if self.vcpu.thread().gauges().paused.load(Ordering::Relaxed) {
            // One that stands still hears of no button.
            self.vcpu.input(Input::Resume);
        }
        self.vcpu.input(Input::PowerButton);
    }

    /// The backups' machine is right, and this one is not: it is to stand still, so that one of them can
    /// take over.
    pub(super) fn outvoted(&mut self) {
        self.outvoted = true;
        if !self.is_standing_still() {
            self.vcpu.stand_still();
        }
    }

    /// The machine stands still because it is being handed over.
    pub(super) fn is_standing_still(&self) -> bool {
        let step = self.stopping.map(|stopping| stopping.step);
        matches!(step, Some(Step::Halting | Step::HandingOver))
    }

    /// Whether other hosts are answered: a machine that is about to end has no use for a backup.
    pub(super) fn takes_peers(&self) -> bool {
        let step = self.stopping.map(|stopping| stopping.step);
        !matches!(step, Some(Step::PoweringOff { .. }))
    }

    /// Whether this end of the guest is what its host wanted: then its life stays open.
    pub(super) fn ends_for_the_host(&self, finish: Finish) -> bool {
        finish == Finish::PowerOff && !self.takes_peers()
    }

    /// The vcpu stands still, and everything that it did was given to the core.
    pub(super) fn stands_still(&mut self) {
        let halts = |stopping: &&mut Stopping| stopping.step == Step::Halting;
        let Some(stopping) = self.stopping.as_mut().filter(halts) else {
            if !self.outvoted || !self.core.hand_over(monotonic()) {
                self.vcpu.resume();
            }
            return;
        };
        stopping.step = Step::HandingOver;
        let purpose = stopping.purpose;
        if self.core.hand_over(monotonic()) {
            return;
        }
        match purpose {
            // It has only just said that it could not go on, or has not answered since a pause: the machine runs on
            // meanwhile.
            Purpose::End if self.has_members() => {
                self.vcpu.resume();
                self.look(purpose);
            }
            Purpose::End => {
                self.unplug("the backup left while this primary was about to hand over")
            }
            Purpose::SwitchOver => self.goes_on_here(&self.why_not_handed_over()),
        }
    }

    /// Nothing came of switching over.
    fn goes_on_here(&mut self, why: &str) {
        self.stopping = None;
        self.vcpu.resume();
        self.not_switched_over(&format!("{why}: the machine goes on here"));
    }

    /// Nobody took over: the machine is still this replica's.
    pub(super) fn nobody_took_over(&mut self) {
        self.outvoted = false;
        if self.disk_failed.take().is_some() {
            self.disk_error_was_told();
        }
        let why = "the backup died before it had taken over";
        match self.stopping.map(|stopping| stopping.purpose) {
            None => self.vcpu.resume(),
            Some(Purpose::SwitchOver) => self.goes_on_here(why),
            Some(Purpose::End) => {
                self.vcpu.resume();
                self.unplug(why);
            }
        }
    }

    /// Somebody else has left the generation.
    pub(super) fn ending_superseded(&mut self, by: &Entry) -> PrimaryEnding {
        let is_handed_over = matches!(by.kind, Kind::HandedOver | Kind::TookOver);
        self.switched_over(by);
        match self.stopping.map(|stopping| stopping.purpose) {
            None | Some(Purpose::SwitchOver) => PrimaryEnding::Again,
            Some(Purpose::End) if is_handed_over => PrimaryEnding::Exit(Ok(Ended::HandedOver)),
            Some(Purpose::End) => PrimaryEnding::Exit(Ok(Ended::Left)),
        }
    }

    /// When it is not waited for any longer.
    pub(super) fn stopping_deadline(&self) -> Option<Duration> {
        self.stopping.map(|stopping| match stopping.step {
            Step::PoweringOff { press_again } => stopping.until.min(press_again),
            Step::Looking {
                again: Some(again), ..
            } => stopping.until.min(again),
            Step::Approaching { until } => until,
            _ => stopping.until,
        })
    }

    pub(super) fn stop_in_time(&mut self) {
        let Some(Stopping {
            step,
            purpose,
            until,
        }) = self.stopping
        else {
            return;
        };
        let now = monotonic();
        match step {
            Step::Looking { .. } if now >= until => self.not_looked_in_time(purpose),
            Step::Looking {
                again: Some(again),
                is_told,
            } if now >= again => {
                let again = None;
                let step = Step::Looking { again, is_told };
                self.stopping = Some(Stopping {
                    step,
                    purpose,
                    until,
                });
                self.core.look_at_arbiter(now);
            }
            Step::Approaching { .. } => self.halt_when_near(),
            Step::Deciding if self.is_alone() => {
                if self.core.status().protected {
                    return self.stay_in_journal();
                }
                self.let_it_power_off();
            }
            Step::Deciding if now >= until => self.unplug("the arbiter does not answer"),
            Step::PoweringOff { .. } if now >= until => {
                self.unplug("the guest has not powered off in time");
            }
            Step::PoweringOff { press_again } if now >= press_again => {
                let press_again = now + PRESS_INTERVAL;
                let step = Step::PoweringOff { press_again };
                self.stopping = Some(Stopping {
                    step,
                    purpose,
                    until,
                });
                self.vcpu.input(Input::PowerButton);
            }
            Step::Halting | Step::HandingOver if now >= until && purpose == Purpose::SwitchOver => {
                // Whose the machine is, only the arbiter can say now.
                self.stopping = Some(Stopping {
                    step,
                    purpose,
                    until: Duration::MAX,
                });
                self.not_switched_over(
                    "the backup has not taken over in time, and may still do so as soon as the arbiter \
                     answers it; the machine stands still until it is known whose it is",
                );
            }
            Step::Halting | Step::HandingOver if now >= until => {
                self.unplug("the backup has not taken over in time");
            }
            _ => {}
        }
    }

    /// Ends with everything in the journal that the outside has seen: the guest need not know.
    fn stay_in_journal(&mut self) {
        let (generation, count) = (self.core.status().generation.0, self.count());
        let detail = "asked to end: the machine goes on from its journal at the next start";
        self.host
            .events
            .add("in_journal", generation, count.0, detail);
        self.end(PrimaryEnding::Exit(Ok(Ended::InJournal)));
    }

    /// Whether no member is left.
    fn is_alone(&self) -> bool {
        let phase = self.core.status().phase;
        matches!(phase, PrimaryPhase::Alone | PrimaryPhase::Joining)
    }

    /// None of the backups could go on with the machine: it becomes this host's alone, by a key, before the guest is
    /// asked to power off. A backup that were still a member would go on with it when this process ends.
    fn let_backups_go(&mut self, why: &str) {
        let (generation, count) = (self.core.status().generation.0, self.count());
        let why = format!("its host is asked to end, and {why}");
        let what = format!("{why}: the backups are let go");
        self.host.events.add("lets_go", generation, count.0, what);
        let now = monotonic();
        self.stopping = Some(Stopping {
            step: Step::Deciding,
            purpose: Purpose::End,
            until: now + HAND_OVER_PATIENCE,
        });
        self.core.let_members_go(now, why);
    }

    /// The arbiter has not said in time that it is there, or no backup that it could go on with the machine.
    fn not_looked_in_time(&mut self, purpose: Purpose) {
        let unable = self.core.why_no_heir_could_go_on();
        let obstacle = self.core.obstacle_to_handing_over();
        let why = obstacle.unwrap_or_else(|| "the arbiter does not answer".into());
        match purpose {
            Purpose::End if unable.is_some() => self.let_backups_go(&why),
            Purpose::End => self.unplug(&why),
            Purpose::SwitchOver => {
                self.stopping = None;
                self.not_switched_over(&format!("{why}: the machine goes on here"));
            }
        }
    }

    /// Ends the machine as a loss of power would. Its life stays open: the next start on this host
    /// begins from its disks.
    fn unplug(&mut self, why: &str) {
        let (generation, count) = (self.core.status().generation.0, self.count());
        self.host.events.add("unplugged", generation, count.0, why);
        self.end(PrimaryEnding::Exit(Ok(Ended::Unplugged)));
    }
}
