//! The output rule: an output leaves when those hold every record up to its marker that the policy names.

use crate::record::RecordNumber;
use std::collections::VecDeque;
use std::time::Duration;

/// Who has to hold an output's marker before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Every member.
    AllMembers,
    /// Any of them: what must never be, for the simulator.
    AnyMember,
}

impl Policy {
    /// Number of the last record that is held by whom the policy names. `held`: by each member.
    /// `None` without members.
    pub fn held(self, held: impl Iterator<Item = RecordNumber>) -> Option<RecordNumber> {
        match self {
            Policy::AllMembers => held.min(),
            Policy::AnyMember => held.max(),
        }
    }
}

struct Held<O> {
    /// Number of its marker.
    marker: RecordNumber,
    visible_outputs: u64,
    since: Duration,
    outputs: Vec<O>,
}

/// Holds outputs back, in order.
pub(crate) struct OutputGate<O> {
    held: VecDeque<Held<O>>,
    held_outputs: usize,
    released_visible: u64,
}

/// What the gate lets through at once.
pub(crate) struct Released<O> {
    pub outputs: Vec<O>,
    /// How long the oldest of each batch waited.
    pub waits: Vec<Duration>,
}

impl<O> OutputGate<O> {
    pub fn new(released_visible: u64) -> OutputGate<O> {
        OutputGate {
            held: VecDeque::new(),
            held_outputs: 0,
            released_visible,
        }
    }

    /// Visible outputs released so far, as a running count of the machine.
    pub fn released_visible(&self) -> u64 {
        self.released_visible
    }

    /// Outputs that wait.
    pub fn held_outputs(&self) -> usize {
        self.held_outputs
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Notes outputs that left at once, the machine being alone.
    pub fn passed(&mut self, visible_outputs: u64) {
        assert!(self.held.is_empty(), "outputs leave in order");
        assert!(
            visible_outputs >= self.released_visible,
            "visible outputs never fall"
        );
        self.released_visible = visible_outputs;
    }

    pub fn hold(
        &mut self,
        now: Duration,
        marker: RecordNumber,
        visible_outputs: u64,
        outputs: Vec<O>,
    ) {
        if let Some(last) = self.held.back() {
            assert!(last.marker < marker, "markers are in order");
        }
        self.held_outputs += outputs.len();
        self.held.push_back(Held {
            marker,
            visible_outputs,
            since: now,
            outputs,
        });
    }

    /// Those whom the policy names hold every record up to `record`.
    pub fn held_up_to(&mut self, now: Duration, record: RecordNumber) -> Released<O> {
        let ready = self.held.iter();
        let ready = ready.take_while(|held| held.marker <= record).count();
        self.release(now, ready)
    }

    /// The machine is alone, and the arbiter knows it: nothing has to wait any more.
    pub fn alone(&mut self, now: Duration) -> Released<O> {
        self.release(now, self.held.len())
    }

    /// Forgets everything: another replica goes on.
    pub fn discard(&mut self) {
        self.held.clear();
        self.held_outputs = 0;
    }

    fn release(&mut self, now: Duration, batches: usize) -> Released<O> {
        let mut released = Released {
            outputs: Vec::new(),
            waits: Vec::new(),
        };
        for held in self.held.drain(..batches) {
            assert!(
                held.visible_outputs >= self.released_visible,
                "visible outputs never fall"
            );
            self.released_visible = held.visible_outputs;
            self.held_outputs -= held.outputs.len();
            released.waits.push(now.saturating_sub(held.since));
            released.outputs.extend(held.outputs);
        }
        released
    }
}
