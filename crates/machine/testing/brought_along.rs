//! For the tests of architectures: a machine that executes nothing and is brought along by another's checkpoints is that
//! machine, and goes on as it would have.

use machine::Machine;
use machine::memory::{Extent, PageBatch};

/// The one that executes nothing.
pub struct BroughtAlong<M>(M);

impl<M: Machine> BroughtAlong<M> {
    /// From here on, where `follower` is a copy of `machine`.
    pub fn begin(machine: &mut M, follower: M) -> BroughtAlong<M> {
        machine.begin_checkpoints();
        BroughtAlong(follower)
    }

    /// Brings it to where `machine` is, by a checkpoint that is taken at once, or as a large one is.
    pub fn bring(&mut self, machine: &mut M, at_once: bool) -> Result<(), String> {
        let mut pages = vec![PageBatch::default()];
        let state = match at_once {
            true => machine.take_checkpoint(&mut |index, bytes| pages[0].add_any(index, bytes)),
            false => {
                let head = machine.begin_snapshot(Extent::Checkpoint);
                let mut capture = machine.capture().ok_or("its pages are gone")?;
                capture.copy(usize::MAX >> 8);
                while let Some(batch) = capture.take_batch() {
                    pages.push(batch);
                }
                capture.end();
                head.into_state()
            }
        };
        if machine.pages_since_checkpoint() != 0 {
            return Err("pages are left for the next checkpoint".into());
        }
        let applied = self.0.apply_checkpoint(&state, &pages);
        applied.map_err(|error| error.to_string())?;
        let (there, here) = (machine.instruction_count(), self.0.instruction_count());
        match there == here {
            true => Ok(()),
            false => Err(format!("it is at {here}, the machine at {there}")),
        }
    }

    /// It executes from here on.
    pub fn go_live(self) -> M {
        self.0
    }
}
