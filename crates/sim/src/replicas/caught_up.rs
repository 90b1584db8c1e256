//! How far backups have executed what they were sent, as far as that is seen from outside.
//!
//! What befell a primary's host before the calm (a disk that failed, of which the guest was told) comes up at a slow
//! backup only when it executes that: until then it cannot be said that nothing befalls anybody any more.

use super::shared::ProcessId;
use replication::message::Message;
use replication::record::InstructionCount;
use std::collections::BTreeMap;

/// See the module. All by instruction counts.
#[derive(Debug, Default)]
pub struct Progress {
    /// The last record that has arrived at a process.
    arrived: BTreeMap<ProcessId, InstructionCount>,
    /// What a process said last that it has executed.
    executed: BTreeMap<ProcessId, InstructionCount>,
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

    /// Whether each has executed so much.
    pub fn has_reached(&self, goals: &BTreeMap<ProcessId, InstructionCount>) -> bool {
        let executed = |process| self.executed.get(process).copied().unwrap_or_default();
        goals
            .iter()
            .all(|(process, goal)| executed(process) >= *goal)
    }
}
