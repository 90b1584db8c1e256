//! How far backups have executed what they were sent, as far as that is seen from outside.
//!
//! What befell a primary's host before the calm (a disk that failed, of which the guest was told) comes up at a slow
//! backup only when it executes that: until then it cannot be said that nothing befalls anybody any more.

use super::shared::ProcessId;
use replication::message::Message;
use replication::record::InstructionCount;
use std::collections::BTreeMap;
use std::fmt;

/// See the module. All by instruction counts.
#[derive(Debug, Default)]
pub struct Progress {
    /// The last record that has arrived at a process.
    arrived: BTreeMap<ProcessId, InstructionCount>,
    /// What a process said last that it has executed.
    executed: BTreeMap<ProcessId, InstructionCount>,
}

/// A backup that has not executed what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    process: ProcessId,
    executed: InstructionCount,
    goal: InstructionCount,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Behind {
            process,
            executed,
            goal,
        } = self;
        write!(f, "process {} says {executed} of {goal}", process.0)
    }
}

impl Progress {
    /// It says something.
    pub fn says(&mut self, process: ProcessId, message: &Message) {
        if let Message::Ack { executed, .. } = message {
            self.executed.insert(process, *executed);
        }
    }

    /// This has arrived at it.
    pub fn hears(&mut self, process: ProcessId, message: &Message) {
        match message {
            Message::Records { records, .. } => {
                let last = records
                    .last()
                    .map(|record| record.count)
                    .unwrap_or_default();
                self.arrived.insert(process, last);
            }
            // Its machine is another from here on, of another life perhaps.
            Message::SnapshotTaken { .. } => {
                self.arrived.remove(&process);
                self.executed.remove(&process);
            }
            _ => {}
        }
    }

    /// What these processes have to execute to be where records have arrived by now.
    pub fn goals(&self, processes: &[ProcessId]) -> BTreeMap<ProcessId, InstructionCount> {
        let goal = |process: &ProcessId| Some((*process, *self.arrived.get(process)?));
        processes.iter().filter_map(goal).collect()
    }

    /// Those that have not executed so much: how much they have, and what they should have.
    pub fn behind(&self, goals: &BTreeMap<ProcessId, InstructionCount>) -> Vec<Behind> {
        let executed = |process| self.executed.get(process).copied().unwrap_or_default();
        let all = goals.iter().map(|(process, goal)| Behind {
            process: *process,
            executed: executed(process),
            goal: *goal,
        });
        all.filter(|it| it.executed < it.goal).collect()
    }
}
