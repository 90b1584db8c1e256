//! Worlds in which a backup's host could not go on with the machine: its files take nothing more when the machine is to
//! be handed over. `docs/protocol.md`, "Handing over".

use super::files::DiskMood;
use super::world::{MS, SECOND, What, World};
use crate::world::Violation;
use replica::control::Request;
use std::fmt::Write as _;

/// How long a set of hosts is left alone before anything befalls it.
const SETTLED_NS: u64 = 2 * SECOND;
/// Within so long a host has found that its files take nothing, or take something again, and has said so.
const TOLD_NS: u64 = 5 * SECOND;
/// Within so long somebody who asks for a switchover, or for the end of a process, sees what comes of it.
const PATIENCE_NS: u64 = 30 * SECOND;

/// How the live host is asked to give the machine away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// By a person who wants a switchover.
    SwitchOver,
    /// By SIGTERM.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The files of a backup's host are full since then.
    Full,
    /// The live host was asked.
    Asked,
    /// There is room again.
    Room,
    /// The live host was asked once more.
    AskedAgain,
}

/// A backup's host that could not go on.
#[derive(Clone, Copy, Debug)]
struct Unable {
    node: usize,
    how: Asked,
    step: Step,
    since_ns: u64,
    switchovers: u64,
}

/// What is looked at once all is calm.
#[derive(Debug, Default)]
pub struct Trials {
    /// Since when the hosts have been a set.
    paired_since_ns: Option<u64>,
    unable: Option<Unable>,
    /// So many are over.
    over: u64,
}

/// In the first a person asks for a switchover, in the second the live host's process is asked to end.
const TRIALS: u64 = 2;

impl World {
    /// The next step of seeing that nobody hands the machine to a host that could not go on with it. `None`: it goes on;
    /// otherwise whether all went well.
    pub(super) fn look_for_unable(
        &mut self,
        now_ns: u64,
        is_paired: bool,
    ) -> Option<Result<(), Violation>> {
        if self.trials.over == TRIALS {
            return Some(Ok(()));
        }
        let since_ns = match is_paired {
            true => *self.trials.paired_since_ns.get_or_insert(now_ns),
            false => {
                self.trials.paired_since_ns = None;
                now_ns
            }
        };
        let went = match self.trials.unable {
            None if is_paired && now_ns >= since_ns + SETTLED_NS => {
                self.make_unable(now_ns);
                Ok(())
            }
            None => Ok(()),
            Some(unable) => self.look_at(unable, now_ns, is_paired),
        };
        if let Err(violation) = went {
            return Some(Err(violation));
        }
        self.after(100 * MS, What::Look);
        None
    }

    fn make_unable(&mut self, now_ns: u64) {
        let backups: Vec<usize> = (0..self.nodes.len())
            .filter(|node| !self.is_live_on(*node))
            .collect();
        let node = self.random.pick(&backups);
        self.disk_is(node, DiskMood::Full);
        self.trials.unable = Some(Unable {
            node,
            how: match self.trials.over {
                0 => Asked::SwitchOver,
                _ => Asked::End,
            },
            step: Step::Full,
            since_ns: now_ns,
            switchovers: self.counted("done: switchover"),
        });
    }

    fn counted(&self, what: &str) -> u64 {
        let counts = &self.shared.lock().observer.counts;
        counts.get(what).copied().unwrap_or(0)
    }

    fn look_at(&mut self, unable: Unable, now_ns: u64, is_paired: bool) -> Result<(), Violation> {
        let Unable {
            node,
            how,
            step,
            since_ns,
            switchovers,
        } = unable;
        let is_late = now_ns >= since_ns + PATIENCE_NS;
        let next = match step {
            Step::Full if now_ns >= since_ns + TOLD_NS => {
                self.ask_live(how);
                Some(Step::Asked)
            }
            Step::Asked if self.is_live_on(node) => {
                return Err(Violation::Safety(format!(
                    "the machine went to node {node}, which could not go on with it and had said so \
                     ({how:?})"
                )));
            }
            // Whoever was asked for a switchover has answered; whoever was to end has, and its host is back.
            Step::Asked if self.is_over(how, since_ns, now_ns) => {
                self.disk_is(node, DiskMood::Well);
                Some(Step::Room)
            }
            Step::Room if is_paired && now_ns >= since_ns + TOLD_NS => {
                self.ask_live(Asked::SwitchOver);
                Some(Step::AskedAgain)
            }
            Step::AskedAgain if self.counted("done: switchover") > switchovers && is_paired => {
                self.trials.over += 1;
                self.trials.unable = None;
                self.trials.paired_since_ns = None;
                let mut state = self.shared.lock();
                state.observer.count(match how {
                    Asked::SwitchOver => "not switched over to an unable host",
                    Asked::End => "not drained to an unable host",
                });
                return Ok(());
            }
            _ if is_late => {
                return Err(Violation::Liveness(format!(
                    "{} s after node {node} could not go on: {how:?}, {step:?}, a set: {is_paired}",
                    PATIENCE_NS / SECOND
                )));
            }
            _ => None,
        };
        if let Some(step) = next {
            let switchovers = match step {
                Step::AskedAgain => self.counted("done: switchover"),
                _ => switchovers,
            };
            self.trials.unable = Some(Unable {
                step,
                since_ns: now_ns,
                switchovers,
                ..unable
            });
        }
        Ok(())
    }

    fn is_over(&self, how: Asked, since_ns: u64, now_ns: u64) -> bool {
        match how {
            Asked::SwitchOver => !self.somebody_awaits_a_switchover(),
            // It waits for 10 s whether a backup becomes able.
            Asked::End => now_ns >= since_ns + 15 * SECOND,
        }
    }

    /// The live host is asked, if there is one.
    pub(super) fn ask_live(&mut self, how: Asked) {
        let live = (0..self.nodes.len()).find(|node| self.is_live_on(*node));
        let Some(live) = live else { return };
        self.note(|text| {
            let _ = write!(text, "node {live} is to give the machine away: {how:?}");
        });
        match how {
            Asked::SwitchOver => self.ask(live, Request::SwitchOver { to: None }, None),
            Asked::End => self.signal(live),
        }
    }
}
