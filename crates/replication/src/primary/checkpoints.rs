//! Members that execute nothing: the machine's thread makes checkpoints for them as long as there are any.
//! `docs/decisions/state-transfer.md`.

use super::join::Join;
use super::{Primary, PrimaryAction, State};
use crate::config::Replication;
use crate::mutation::Mutation;
use crate::record::{InstructionCount, RecordNumber};
use std::collections::VecDeque;

/// How far the members are, as the machine's thread was told.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The newest pairing with whose snapshot they began, if they did not end since.
    since: Option<u64>,
    /// Numbers and instruction counts of those that the machine's thread does not know to be held.
    unheld: VecDeque<(RecordNumber, InstructionCount)>,
    /// The instruction count of the last that it was told of.
    before: InstructionCount,
}

impl<O> Primary<O> {
    fn transfers_state(&self) -> bool {
        self.config.replication == Replication::StateTransfer
    }

    /// The machine's thread has taken a snapshot for this pairing, and makes checkpoints since.
    pub(super) fn checkpoints_began(&mut self, pairing: u64) {
        if self.transfers_state() {
            let since = self.checkpoints.since.unwrap_or_default();
            self.checkpoints.since = Some(since.max(pairing));
        }
    }

    /// `record` is a checkpoint of the machine at this instruction count.
    pub(super) fn checkpoint_made(&mut self, record: RecordNumber, count: InstructionCount) {
        self.checkpoints.unheld.push_back((record, count));
    }

    /// Tells the machine's thread what is held, and when nobody is left for whom it makes checkpoints.
    pub(super) fn see_to_checkpoints(&mut self) {
        let State::Running { join } = &self.state else {
            return;
        };
        let joins = join.as_deref().is_some_and(Join::has_snapshot);
        let is_over = self.is_alone() && !joins;
        if self.lost.is_empty() {
            self.tell_held();
        }
        if let Some(pairing) = self.checkpoints.since.take_if(|_| is_over) {
            self.log.forget_all(self.count);
            self.checkpoints.before = InstructionCount::POWER_ON;
            let end = PrimaryAction::EndCheckpoints { pairing };
            self.actions.push_back(end);
        }
    }

    /// One is told of when all members hold it and have applied the one before it: the next begins then. Whoever goes live
    /// has no more to apply than one and what has come of another, however much the guest writes.
    fn tell_held(&mut self) {
        let sent_is_held = self.config.mutations.active(Mutation::CheckpointSentIsHeld);
        let members = self.members.iter().map(|member| member.cursor());
        let held = match sent_is_held {
            true => members.map(|cursor| cursor.sent()).min(),
            false => members.map(|cursor| cursor.acknowledged()).min(),
        };
        let executed = self.members.iter().map(|member| member.executed()).min();
        let Checkpoints { unheld, before, .. } = &mut self.checkpoints;
        // Who only joins is waited for by nobody.
        let is_held = |record: RecordNumber, before: InstructionCount| {
            held.is_none_or(|held| record <= held)
                && executed.is_none_or(|executed| before <= executed)
        };
        while let Some((_, count)) = unheld.pop_front_if(|(record, _)| is_held(*record, *before)) {
            *before = count;
            self.actions.push_back(PrimaryAction::CheckpointHeld);
        }
    }

    /// The snapshot that was taken for this pairing is wanted no more.
    pub fn snapshot_is_late(&mut self, pairing: u64) {
        self.checkpoints_began(pairing);
        self.see_to_checkpoints();
    }
}
