//! Machines that the world made to differ, and what their replicas may do then.

use crate::process::Role;
use crate::world::World;
use replication::event::Event;
use replication::failure_detector::Suspicion;
use replication::primary::PrimaryPhase;

impl World {
    /// A bit flips in a machine. A primary is wrong for good where it has not two backups: what it says is
    /// all that the outside ever hears.
    pub(crate) fn poison(&mut self, node: usize) {
        let others = self.others(node);
        match self.role(node) {
            Some(Role::Backup(backup)) => {
                if let Some(replayer) = &mut backup.replayer {
                    replayer.guest_mut().poison();
                    backup.poisoned = true;
                }
                return;
            }
            Some(Role::Primary(primary)) if others.len() >= 2 && !primary.poisoned => {
                primary.guest.poison();
                primary.poisoned = true;
            }
            Some(Role::Primary(_) | Role::Starting) | None => return,
        }
        for other in others {
            if let Some(Role::Backup(backup)) = self.role(other) {
                backup.has_poisoned_primary = true;
            }
        }
    }

    /// A primary was told to stand still because its backups have another machine.
    pub(crate) fn is_outvoted(&mut self, node: usize) {
        let others = self.others(node);
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        primary.outvoted = true;
        primary.stands_still = true;
        let is_wrong = primary.poisoned;
        let wrong = others.into_iter().filter(
            |other| matches!(self.role(*other), Some(Role::Backup(backup)) if backup.poisoned),
        );
        if wrong.count() < 2 && !is_wrong {
            self.violated(format!(
                "node {node} is outvoted, and nobody made it differ"
            ));
        }
        // Whoever is to take over may die at any step of it.
        if self.random.percent(self.scenario.strike_percent) {
            let heir = self.another(node);
            self.strike_heir(heir);
        }
    }

    /// A backup is told that the majority has its machine.
    pub(crate) fn has_majority(&mut self, node: usize) {
        if let Some(Role::Backup(backup)) = self.role(node) {
            backup.stop_comparing();
        }
    }

    /// Outputs are about to leave: not while it is not known whose machine is right.
    pub(crate) fn may_emit(&mut self, node: usize) {
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let is_disputed = primary.core.status().phase == PrimaryPhase::Differing;
        if primary.outvoted || is_disputed {
            self.violated(format!("node {node} emits, and its backups differ from it"));
        }
    }

    /// A primary drops a backup. Not for its own fault, if more than half of all know better.
    pub(crate) fn is_dropped_rightly(&mut self, node: usize, event: &Event) {
        let is_for_difference = matches!(
            event,
            Event::Suspected {
                why: Suspicion::Diverged,
                ..
            }
        );
        let differs_in_arbiter = self.nodes.iter().any(|node| node.wrong_arbiter);
        let others = self.others(node);
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let goes_on = primary.failed_request.is_none()
            && !primary.stands_still
            && !primary.guest.is_finished();
        if !is_for_difference || !primary.poisoned || !goes_on || differs_in_arbiter {
            return;
        }
        let followers = primary.core.status().followers;
        let members = followers.iter().filter(|f| f.is_member && f.has_caught_up);
        let hosts: Vec<_> = members.map(|member| member.host.clone()).collect();
        let mut knowing = 1;
        for other in others {
            let host = crate::checker::host(other);
            if let Some(Role::Backup(backup)) = self.role(other)
                && hosts.contains(&host)
                && backup.found_primary_wrong()
            {
                knowing += 1;
            }
        }
        if 2 * knowing > hosts.len() + 2 {
            self.violated(format!(
                "node {node} drops a backup for a difference that is its own fault, and {knowing} know it"
            ));
        }
    }
}
