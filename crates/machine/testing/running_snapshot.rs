//! For the tests of architectures: a snapshot that is taken while the machine runs, and is the machine
//! as it was at its moment.

use machine::Machine;
use machine::memory::Extent;
use machine::snapshot::SnapshotWriter;

/// Makes a machine of a snapshot's bytes.
pub type Restore = fn(&[u8]) -> Box<dyn Machine>;

/// A snapshot under way: every second one in two rounds.
pub struct RunningSnapshot {
    count: u64,
    digest: u128,
    writer: SnapshotWriter<Vec<u8>>,
    extent: Extent,
}

fn digest_of_a_copy(machine: &dyn Machine, restore: Restore) -> u128 {
    let mut copy = Vec::new();
    let snapshot = machine.snapshot();
    snapshot.write_to(&mut copy).expect("memory takes it");
    restore(&copy).digest()
}

impl RunningSnapshot {
    /// Of this moment. What is expected of it is a copy's digest: the machine's own would disturb what
    /// it remembers of its pages.
    pub fn begin(machine: &mut dyn Machine, restore: Restore) -> RunningSnapshot {
        let digest = digest_of_a_copy(machine, restore);
        let count = machine.instruction_count();
        let extent = if count.is_multiple_of(2) {
            Extent::First
        } else {
            Extent::Whole
        };
        let head = machine.begin_snapshot(extent);
        RunningSnapshot {
            count,
            digest,
            writer: SnapshotWriter::begin(&head, Vec::new()).expect("memory takes it"),
            extent,
        }
    }

    /// Takes it along by the work of so many pages. When it is complete, `restore` makes a machine of its
    /// bytes, which has to be the one that it was taken of.
    pub fn go_on(
        mut self,
        machine: &mut dyn Machine,
        pages: usize,
        restore: Restore,
    ) -> Result<Option<RunningSnapshot>, String> {
        let mut capture = machine.capture().ok_or("its pages are gone")?;
        capture.copy(pages);
        while let Some(batch) = capture.take_batch() {
            self.writer.pages(&batch).expect("memory takes it");
            capture.reuse(batch);
        }
        if !capture.is_complete() {
            return Ok(Some(self));
        }
        capture.end();
        if self.extent == Extent::First {
            self.digest = digest_of_a_copy(machine, restore);
            self.count = machine.instruction_count();
            let head = machine.begin_snapshot(Extent::Changes);
            self.extent = Extent::Changes;
            let writer = &mut self.writer;
            writer.first_round_ended().expect("memory takes it");
            writer.last_round(&head).expect("memory takes it");
            return Ok(Some(self));
        }
        let bytes = self.writer.end().expect("memory takes it");
        let mut restored = restore(&bytes);
        if restored.digest() == self.digest {
            return Ok(None);
        }
        Err(format!(
            "the snapshot of {} that was complete at {} is of another machine\n{}",
            self.count,
            machine.instruction_count(),
            restored.describe()
        ))
    }
}
