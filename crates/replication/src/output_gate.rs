//! The output rule: an output leaves when the backup holds every record up to its marker.

use std::collections::VecDeque;
use std::time::Duration;

struct Held<O> {
    /// Number of the marker whose acknowledgement releases it; `None`: only going on alone does.
    marker: Option<u64>,
    visible_outputs: u64,
    since: Duration,
    outputs: Vec<O>,
}

/// Holds outputs back, in order.
pub(crate) struct OutputGate<O> {
    held: VecDeque<Held<O>>,
    held_outputs: usize,
    released_visible: u64,
    acknowledged: u64,
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
            acknowledged: 0,
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

    /// A new pairing begins: the backup holds nothing yet that anybody waits for.
    pub fn begin(&mut self) {
        assert!(self.held.is_empty(), "whoever is alone holds nothing back");
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
        marker: Option<u64>,
        visible_outputs: u64,
        outputs: Vec<O>,
    ) {
        if let (Some(last), Some(marker)) = (self.held.back(), marker) {
            assert!(
                last.marker.is_some_and(|last| last < marker),
                "markers are in order"
            );
        }
        self.held_outputs += outputs.len();
        self.held.push_back(Held {
            marker,
            visible_outputs,
            since: now,
            outputs,
        });
    }

    /// The backup holds every record up to `sequence`.
    pub fn acknowledged(&mut self, now: Duration, sequence: u64) -> Released<O> {
        assert!(sequence >= self.acknowledged, "acknowledgements never fall");
        self.acknowledged = sequence;
        let ready = self
            .held
            .iter()
            .take_while(|held| held.marker.is_some_and(|marker| marker <= sequence))
            .count();
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
