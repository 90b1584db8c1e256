//! Handing the machine over to its backup. `docs/protocol.md`, "Handing over".

use super::difference::Outvoted;
use super::join::JoinStep;
use super::member::Member;
use super::{Primary, PrimaryAction, State};
use crate::event::Event;
use crate::lag::{FULL_SPEED, RunShare};
use crate::message::Message;
use crate::mutation::Mutation;
use crate::succession::HostId;
use crate::watch::Agreement;
use std::time::Duration;

/// What the harts may run while the heir comes near: it gains on them, and the service goes on.
const APPROACH_SHARE: RunShare = 300;

impl<O> Primary<O> {
    /// Whether a member could take over at once: it is protected, and the arbiter was there when
    /// it was last looked at.
    pub fn can_hand_over(&self) -> bool {
        self.obstacle_to_handing_over().is_none()
    }

    /// Why the machine is not handed over to a member at once, as far as is known.
    pub fn obstacle_to_handing_over(&self) -> Option<String> {
        let Some(heir) = self.next_heir() else {
            let nobody = "no backup could take over now: ask again when `understudy status` says that the \
                          machine is protected";
            return Some(nobody.into());
        };
        if let Some(why) = self.why_no_heir_could_go_on() {
            return Some(why);
        }
        let disagreement = match (self.members[heir].agreement(), self.agreement) {
            (Agreement::Differs, _) | (_, Agreement::Differs) => {
                Some("the backup sees another arbiter than this host")
            }
            (Agreement::Unreachable, _) => Some("the backup could not reach the arbiter of late"),
            (_, Agreement::Unreachable) => Some("this host could not reach the arbiter of late"),
            _ => None,
        };
        disagreement.map(str::to_owned)
    }

    /// Whether a member could take over if the arbiter is there, whatever its host is worth then.
    pub fn has_heir(&self) -> bool {
        self.next_heir().is_some()
    }

    /// Asks the arbiter whether it is there now: the last look may be seconds old, and a machine that
    /// stands still for its heir stands still until the arbiter answers. The machine runs on meanwhile.
    /// [`PrimaryAction::Looked`] says what came of it; the caller decides how long that may take.
    pub fn look_at_arbiter(&mut self, now: Duration) {
        self.enter(now);
        self.watch.look_afresh(now);
        self.maintain(now);
    }

    /// The machine is to be handed over when the heir has executed nearly all that it holds: until then it
    /// runs on, slowly. What an heir has left to execute is what clients wait for when the machine stands
    /// still for it. [`Primary::heir_lag`] says how far it is.
    pub fn approach_handover(&mut self) {
        self.cap_speed(APPROACH_SHARE);
    }

    /// Nothing comes of that, for now: the machine runs as fast as it may.
    pub fn leave_approach(&mut self) {
        self.cap_speed(FULL_SPEED);
    }

    fn cap_speed(&mut self, cap: RunShare) {
        if let Some(share) = self.throttle.cap(cap) {
            self.actions.push_back(PrimaryAction::Throttle(share));
        }
    }

    /// How far the execution of the member that would take over is behind what it holds, if there is one.
    pub fn heir_lag(&self) -> Option<Duration> {
        self.next_heir().map(|heir| self.members[heir].lag())
    }

    /// The member that takes over as soon as the arbiter lets it: of those whose hosts could go on with the machine,
    /// or of all if none could, the one at which a person asked for that, or of those that hold most, the first.
    pub(super) fn next_heir(&self) -> Option<usize> {
        let is_settled = matches!(self.state, State::Running { .. })
            && (!self.finishing || self.outvoted.is_some())
            && !self.stands_still
            && self.leaving.is_none()
            && self.lost.is_empty()
            && (!self.is_disputed() || self.outvoted.is_some());
        if !is_settled {
            return None;
        }
        let members = self.members.iter().enumerate();
        let is_right = |member: &Member| self.outvoted.is_none() || member.vote.is_some();
        let able = members.filter(|(_, member)| member.protects() && is_right(member));
        able.max_by_key(|(index, member)| {
            let could_go_on = self.could_go_on(member);
            let is_wanted = self.wanted_heir == Some(member.pairing());
            let held = member.cursor().acknowledged();
            (could_go_on, is_wanted, held, std::cmp::Reverse(*index))
        })
        .map(|(index, _)| index)
    }

    /// A person wants this member to take over next: the next handover is to it, if it still can then.
    ///
    /// # Errors
    /// It cannot now, and why.
    pub fn prefer_heir(&mut self, host: HostId) -> Result<(), String> {
        self.wanted_heir = None;
        let mut members = self.members.iter();
        let wanted = members.find(|member| member.protects() && member.host().id == host);
        let Some(member) = wanted else {
            let why = "it follows, but does not hold everything yet: ask again in a moment";
            return Err(why.into());
        };
        if let Some(trouble) = &member.trouble
            && !self.could_go_on(member)
        {
            return Err(format!("it could not go on with the machine: {trouble}"));
        }
        self.wanted_heir = Some(member.pairing());
        Ok(())
    }

    /// Lets the backup take over. The vcpu was stopped, and everything that it made was given to
    /// this core. From here on nothing is emitted; in the end comes
    /// [`PrimaryStop::Superseded`](super::PrimaryStop::Superseded), or [`PrimaryAction::Resume`] if
    /// nobody took over. False: it cannot be done now, let the vcpu run on. Never after
    /// [`PrimaryAction::StandStill`], until that is known.
    pub fn hand_over(&mut self, now: Duration) -> bool {
        self.enter(now);
        if self.outvoted.is_some() {
            self.outvoted = Some(Outvoted::StandsStill);
            self.maintain(now);
            return true;
        }
        // Somebody was told that the vcpu may run on.
        let is_resumed = |action: &PrimaryAction<O>| matches!(action, PrimaryAction::Resume);
        if self.actions.iter().any(is_resumed) {
            return false;
        }
        let heir = self.next_heir().filter(|_| self.can_hand_over());
        if let Some(heir) = heir {
            self.begin_handover(now, heir);
        }
        self.maintain(now);
        heir.is_some()
    }

    /// A disk of this host failed a request of the guest. Its outcome was *not* given to the guest
    /// and is in no record; the vcpu was stopped, and everything that it made was given to this
    /// core.
    ///
    /// A backup, whose disk may be good, is asked to take over, as by [`hand_over`](Self::hand_over).
    /// When it is certain that there is none, [`PrimaryAction::Resume`] comes: the guest has to be
    /// told.
    pub fn disk_failed(&mut self, now: Duration, what: String) {
        self.enter(now);
        assert!(!self.disk_failed, "a vcpu stands still once");
        assert!(!self.finishing, "a guest that has ended waits for no disk");
        self.report(Event::DiskFailed { what });
        self.disk_failed = true;
        self.maintain(now);
    }

    /// Decides who goes on when this host's disk failed, as soon as that can be known. While the
    /// arbiter is out of reach the machine stands still: the backup takes over when it is back.
    pub(super) fn see_to_failed_disk(&mut self, now: Duration) {
        if !self.disk_failed || self.stands_still {
            return;
        }
        if self.config.mutations.active(Mutation::DiskErrorTold) {
            return self.resume();
        }
        if !matches!(self.state, State::Running { .. }) || !self.lost.is_empty() {
            // It is about to be known who goes on.
            return;
        }
        if self.members.is_empty() {
            if !self.somebody_is_about_to_begin() {
                self.tell_disk_error();
            }
        } else if self.agreement == Agreement::Differs {
            // Whose disk is the right one is for the member's arbiter to say, and it has another.
            self.tell_disk_error();
        } else if let Some(heir) = self.next_heir() {
            self.begin_handover(now, heir);
        }
    }

    /// Whether it is decided within a few round trips whether somebody becomes a member.
    pub(super) fn somebody_is_about_to_begin(&self) -> bool {
        matches!(&self.state, State::Running { join: Some(join) } if join.is_about_to_begin())
    }

    fn tell_disk_error(&mut self) {
        self.report(Event::DiskErrorTold);
        self.resume();
    }

    pub(super) fn begin_handover(&mut self, now: Duration, heir: usize) {
        self.flush(now, true);
        let member = &self.members[heir];
        let (connection, pairing) = (member.connection(), member.pairing());
        let record = self.log.last();
        assert!(member.cursor().has_sent_all(record), "everything was sent");
        self.stands_still = true;
        self.heir = Some(pairing);
        self.wanted_heir = None;
        // What left since the last records is known to nobody else yet, and nothing leaves any more.
        let handover = Message::Handover {
            pairing,
            record,
            released: self.gate.released_visible(),
        };
        self.send(connection, handover);
        self.report(Event::HandingOver { pairing });
    }

    /// The member that should have taken over was dropped, and others are left. A machine whose disk
    /// failed is handed over to the next; another goes on here.
    pub(super) fn heir_is_gone(&mut self) {
        assert!(self.stands_still, "only whoever hands over has an heir");
        self.stands_still = false;
        self.heir = None;
        if self.may_move() {
            self.actions.push_back(PrimaryAction::Resume);
        }
    }

    /// The machine goes on here.
    pub(super) fn resume(&mut self) {
        self.heir = None;
        let mut stood_still = std::mem::take(&mut self.stands_still);
        stood_still |= self.outvoted.take().is_some();
        if std::mem::take(&mut self.disk_failed) || stood_still {
            self.actions.push_back(PrimaryAction::Resume);
        }
    }
}

impl super::Join {
    /// Whether it is decided within a few round trips whether this backup is a member.
    pub(super) fn is_about_to_begin(&self) -> bool {
        matches!(self.step(), JoinStep::Claiming | JoinStep::AwaitConfirmed)
    }
}
