//! The thread of a live machine, of which the test says what each instruction does and when requests to
//! the disk end.

use super::*;
use crate::config::DiskFile;
use machine::clock::Clock;
use machine::config::{BoardConfig, DiskConfig};
use machine::input::{ClockRecord, InputError};
use machine::memory::{Capture, Consumer, Extent, OutsideRam, PageBatch, Ram, Region};
use machine::output::{DiskOperation, DiskRequest, Finish, Output, Outputs};
use machine::snapshot::{Snapshot, SnapshotError, SnapshotHead};
use machine::{InjectError, Stop};
use replication::record::{InstructionCount, RecordBody};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "scripted";
const RAM: Region = Region {
    base: 0,
    length: PAGE_SIZE,
};
const SECTORS: u64 = 8;
/// Sectors are as long as a word here: what matters is which request it is.
const DATA: [u8; 512] = [7; 512];

/// What an instruction does.
enum Does {
    Nothing,
    /// It asks the disk to write.
    Writes,
    /// …to read what was written first.
    Reads,
    /// It ends the machine.
    Finishes,
}

/// A machine whose every instruction waits to be told what it does. Once nobody tells it any more it
/// idles.
struct Scripted {
    script: mpsc::Receiver<Does>,
    board: BoardConfig,
    ram: Ram,
    outputs: Outputs,
    clock: Clock,
    count: u64,
    open: Vec<DiskRequest>,
    requests: u64,
    finished: bool,
}

impl Scripted {
    fn new(script: mpsc::Receiver<Does>) -> Scripted {
        Scripted {
            script,
            board: BoardConfig {
                memory_bytes: PAGE_SIZE,
                harts: 1,
                network: Vec::new(),
                disks: vec![DiskConfig {
                    sectors: SECTORS,
                    read_only: false,
                    serial: "scripted".into(),
                }],
                virtio_console: false,
                entropy: false,
                transport: Default::default(),
            },
            ram: Ram::new(&[RAM]),
            outputs: Outputs::default(),
            clock: Clock::new(),
            count: 0,
            open: Vec::new(),
            requests: 0,
            finished: false,
        }
    }

    /// The numbers of the requests that are open, which is all that its snapshots hold.
    fn state(&self) -> Vec<u8> {
        self.open.iter().map(|open| open.request as u8).collect()
    }
}

impl Machine for Scripted {
    fn run(&mut self, _: u64) -> Stop {
        let Ok(does) = self.script.recv() else {
            return Stop::Idle { wake_at_ns: None };
        };
        self.count += 1;
        match does {
            Does::Nothing => Stop::Reached,
            Does::Writes | Does::Reads => {
                let operation = match does {
                    Does::Reads => DiskOperation::Read {
                        sector: 0,
                        length: 512,
                    },
                    _ => DiskOperation::Write {
                        sector: self.requests,
                        data: DATA.to_vec(),
                    },
                };
                let request = DiskRequest {
                    device: 0,
                    request: self.requests,
                    operation,
                };
                self.requests += 1;
                self.open.push(request.clone());
                self.outputs.other(Output::Disk(request));
                Stop::Output
            }
            Does::Finishes => {
                self.finished = true;
                Stop::Finished(Finish::PowerOff)
            }
        }
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn inject(&mut self, input: &Input) -> Result<(), InjectError> {
        match input {
            Input::Clock(record) => self.clock.set(self.count, *record)?,
            Input::DiskCompletion {
                device, request, ..
            } => {
                let (device, request) = (*device, *request);
                let is_it = |open: &DiskRequest| open.request == request;
                let Some(position) = self.open.iter().position(is_it) else {
                    return Err(InputError::UnknownDiskRequest { device, request }.into());
                };
                self.open.remove(position);
            }
            _ => {}
        }
        Ok(())
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.outputs.take()
    }

    fn visible_outputs(&self) -> u64 {
        self.outputs.visible()
    }

    fn instruction_count(&self) -> u64 {
        self.count
    }

    fn guest_time_ns(&self) -> u64 {
        self.clock.time_ns(self.count)
    }

    fn clock(&self) -> ClockRecord {
        self.clock.record()
    }

    fn board(&self) -> &BoardConfig {
        &self.board
    }

    fn unix_base_ns(&self) -> u64 {
        0
    }

    fn configuration_hash(&self) -> u64 {
        0
    }

    fn open_disk_requests(&self) -> Vec<DiskRequest> {
        self.open.clone()
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot::new(SnapshotHead::new(NAME, 1, self.state()), &self.ram)
    }

    fn begin_snapshot(&mut self, extent: Extent) -> SnapshotHead {
        self.ram.begin_capture(extent);
        SnapshotHead::new(NAME, 1, self.state())
    }

    fn pages_changed(&self) -> usize {
        self.ram.pages_changed()
    }

    fn capture(&mut self) -> Option<Capture<'_>> {
        self.ram.capture()
    }

    fn begin_checkpoints(&mut self) {
        self.ram.begin_epoch(Consumer::Checkpoint);
    }

    fn take_checkpoint(&mut self, page: &mut dyn FnMut(usize, &[u8])) -> Vec<u8> {
        self.ram.visit_written(Consumer::Checkpoint, page);
        self.state()
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        (index == 0).then(|| self.ram.page(index))
    }

    fn pages_since_checkpoint(&self) -> usize {
        self.ram.pages_unseen(Consumer::Checkpoint)
    }

    fn apply_checkpoint(&mut self, _: &[u8], _: &[PageBatch]) -> Result<(), SnapshotError> {
        Err(SnapshotError::Damaged(
            "nobody brings a scripted machine along",
        ))
    }

    fn pages_in_use(&self) -> usize {
        self.ram.pages_in_use()
    }

    fn digest(&mut self) -> u128 {
        self.count.into()
    }

    fn set_engine(&mut self, _: Engine) -> Engine {
        Engine::Interpreter
    }

    fn engine(&self) -> Engine {
        Engine::Interpreter
    }

    fn set_chaos(&mut self, _: Option<u64>) {}

    fn read_memory(&self, address: u64, buffer: &mut [u8]) -> Result<(), OutsideRam> {
        self.ram.read(address, buffer)
    }

    fn memory_regions(&self) -> Vec<Region> {
        vec![RAM]
    }

    fn describe(&self) -> String {
        format!("{} instructions", self.count)
    }
}

/// A live machine on its thread. The script ends first, so that the thread can.
struct Live {
    script: Option<mpsc::SyncSender<Does>>,
    vcpu: LiveVcpu,
    waker: Waker,
    /// What the disk has done, held back from the thread.
    ended: Receiver<crate::disk::Completion>,
    completions: Arc<Completions>,
    _directory: TempDir,
}

impl Live {
    fn start(options: LiveOptions) -> Live {
        Live::with(options, |path| {
            Disk::open(&DiskFile::new(path, false)).unwrap()
        })
    }

    /// With a disk that other hosts reach, too.
    fn sharing() -> Live {
        Live::with(LiveOptions::default(), |path| {
            let file = DiskFile {
                is_shared: true,
                ..DiskFile::new(path, false)
            };
            let disk = Disk::shared(&file).unwrap();
            disk.shared_file().unwrap().take(false).unwrap();
            disk
        })
    }

    fn with(options: LiveOptions, disk: impl FnOnce(&Path) -> Disk) -> Live {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk.img");
        std::fs::write(&path, vec![0; SECTORS as usize * 512]).unwrap();
        let disk = disk(&path);
        let (hold, ended) = mpsc::channel();
        let hold_back = move |completion| {
            // Nobody looks at what is carried out after the end of the test.
            let _sent = hold.send(completion);
        };
        let thread = DiskThread::start(Arc::new(vec![disk]), hold_back).unwrap();
        let completions = Arc::new(Completions::default());
        // Nothing is told before the machine asks: what is commanded then has effect behind what was told before.
        let (script, told) = mpsc::sync_channel(0);
        let machine = Box::new(Scripted::new(told));
        let parts = Parts {
            guest: ReplicaGuest::new(machine, Some((thread, completions.clone()))),
            encoding: InputEncoding::WithoutDiskData,
            evidence: None,
        };
        let (channel, waker) = (CommandChannel::new(), Waker::new().unwrap());
        Live {
            script: Some(script),
            vcpu: LiveVcpu::start(parts, options, channel, waker.clone()).unwrap(),
            waker,
            ended,
            completions,
            _directory: directory,
        }
    }

    /// The next instruction does this, and begins. What was commanded before takes effect after it, and nothing that is
    /// commanded from here on does before.
    fn instruction(&self, does: Does) {
        self.script.as_ref().unwrap().send(does).unwrap();
    }

    /// The next request that the disk has carried out.
    fn carried_out(&self) -> crate::disk::Completion {
        self.ended.recv_timeout(PATIENCE).unwrap()
    }

    /// The reports up to the first that is the one, which is the last.
    fn reports_until(&self, is_it: impl Fn(&LiveReport) -> bool) -> Vec<LiveReport> {
        let (mut reports, until) = (Vec::new(), Instant::now() + PATIENCE);
        loop {
            match self.vcpu.report() {
                Some(report) => {
                    if let LiveReport::Failed(failure) = &report {
                        panic!("the machine cannot go on: {}", failure.reason);
                    }
                    reports.push(report);
                    if reports.last().is_some_and(&is_it) {
                        return reports;
                    }
                }
                None => {
                    assert!(Instant::now() < until, "it is never reported");
                    self.waker.wait(Duration::from_secs(1)).unwrap();
                }
            }
        }
    }
}

fn steps(reports: &[LiveReport]) -> impl Iterator<Item = &Step> {
    let steps = reports.iter().map(|report| match report {
        LiveReport::Steps { steps, .. } => &steps[..],
        _ => &[],
    });
    steps.flatten()
}

fn is_pressed(report: &LiveReport) -> bool {
    let is_it = |step: &Step| matches!(step, Step::Pressed { .. });
    steps(std::slice::from_ref(report)).any(is_it)
}

fn is_snapshot(report: &LiveReport) -> bool {
    matches!(report, LiveReport::Snapshot(_))
}

/// Whether it is the record of the end of this request.
fn ends_request(step: &Step, number: u64) -> bool {
    let Step::Record(Record {
        body: RecordBody::Input(input),
        ..
    }) = step
    else {
        return false;
    };
    let input = decode_input(input).unwrap();
    matches!(input, Input::DiskCompletion { request, .. } if request == number)
}

/// Finding 13: a snapshot was taken while the disk had carried out what the machine did not know to be
/// done. A read and a write after it would be done anew by the backup, and the read find what was written.
#[test]
fn a_snapshot_waits_for_the_requests_under_way_and_holds_the_new_ones_back() {
    let live = Live::start(LiveOptions::default());
    live.instruction(Does::Writes);
    let first = live.carried_out();
    live.vcpu
        .snapshot(1, Extent::Whole, SnapshotDisks::Untouched);
    live.instruction(Does::Nothing);
    live.instruction(Does::Writes);
    live.vcpu.press(None, 1);
    live.instruction(Does::Nothing);
    let before = live.reports_until(is_pressed);
    assert!(
        !before.iter().any(is_snapshot),
        "it was taken while a request was under way"
    );
    assert!(
        matches!(live.ended.try_recv(), Err(mpsc::TryRecvError::Empty)),
        "a request came to the disk though a snapshot waits for those under way"
    );
    live.completions.add(first);
    live.instruction(Does::Nothing);
    let reports = live.reports_until(is_snapshot);
    assert!(
        steps(&reports).any(|step| ends_request(step, 0)),
        "what the machine was told before its snapshot is reported before it"
    );
    let Some(LiveReport::Snapshot(begun)) = reports.last() else {
        unreachable!("the last one is the snapshot")
    };
    assert_eq!(
        begun.head.state(NAME, 1).unwrap(),
        [1],
        "the requests open in the snapshot are those that no disk has seen"
    );
    assert_eq!(live.carried_out().request, 1);
}

fn is_waiting(report: &LiveReport) -> bool {
    let is_it = |step: &Step| matches!(step, Step::Outputs(_));
    steps(std::slice::from_ref(report)).any(is_it)
}

/// The requests that wait to leave, and what is written before their marker.
fn waiting(reports: &[LiveReport]) -> (Vec<DiskRequest>, Vec<u128>) {
    let (mut requests, mut written) = (Vec::new(), Vec::new());
    for step in steps(reports) {
        match step {
            Step::Outputs(batch) => {
                for output in &batch.outputs {
                    let Output::Disk(request) = output else {
                        panic!("{output:?}")
                    };
                    requests.push(request.clone());
                }
            }
            Step::Record(Record {
                body: RecordBody::Written(digest),
                ..
            }) => written.push(*digest),
            _ => {}
        }
    }
    (requests, written)
}

/// A write to a shared disk is an output: it was carried out before a backup held what led to it, and another history
/// went on.
#[test]
fn a_write_to_a_shared_disk_waits_to_leave_and_so_does_what_follows_it() {
    let live = Live::sharing();
    live.instruction(Does::Reads);
    assert_eq!(live.carried_out().request, 0, "a read changes nothing");
    live.instruction(Does::Writes);
    live.instruction(Does::Reads);
    live.instruction(Does::Nothing);
    live.vcpu.press(None, 1);
    live.instruction(Does::Nothing);
    let mut reports = live.reports_until(is_waiting);
    while waiting(&reports).0.len() < 2 {
        reports.extend(live.reports_until(is_waiting));
    }
    let (requests, written) = waiting(&reports);
    let names: Vec<u64> = requests.iter().map(|request| request.request).collect();
    assert_eq!(names, [1, 2]);
    assert!(!written.is_empty() && written.iter().all(|digest| *digest != 0));
    assert!(
        matches!(live.ended.try_recv(), Err(mpsc::TryRecvError::Empty)),
        "nobody has said that it may leave"
    );
    for request in requests {
        live.vcpu.thread().disk_thread().unwrap().submit(request);
    }
    let ended: Vec<_> = [0; 2].map(|_| live.carried_out()).into();
    assert!(
        ended
            .iter()
            .all(|it| it.status == machine::input::DiskStatus::Ok)
    );
    // The guest is told, and what follows does not wait any more.
    ended.into_iter().for_each(|it| live.completions.add(it));
    live.instruction(Does::Nothing);
    live.instruction(Does::Reads);
    assert_eq!(live.carried_out().request, 3);
}

/// What a shared disk reads is in the records, and its backup asks its disk for nothing.
#[test]
fn what_a_shared_disk_reads_stands_in_the_records() {
    let live = Live::sharing();
    live.instruction(Does::Reads);
    live.completions.add(live.carried_out());
    // The machine may have begun to wait for this one before.
    live.instruction(Does::Nothing);
    live.instruction(Does::Nothing);
    live.vcpu.press(None, 1);
    live.instruction(Does::Nothing);
    let reports = live.reports_until(is_pressed);
    let read = steps(&reports).find_map(|step| match step {
        Step::Record(Record {
            body: RecordBody::Input(input),
            ..
        }) => match decode_input(input).unwrap() {
            Input::DiskCompletion { data, .. } => Some(data),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(read, Some(vec![0; 512]));
}

/// Finding 21: a report of a digest followed the end of the machine.
#[test]
fn the_last_digest_comes_before_the_end_and_nothing_after_it() {
    let mut live = Live::start(LiveOptions {
        digest_interval_instructions: u64::MAX,
        ..LiveOptions::default()
    });
    live.instruction(Does::Finishes);
    let is_end = |report: &LiveReport| matches!(report, LiveReport::Finished(Finish::PowerOff));
    let reports = live.reports_until(is_end);
    let last = steps(&reports).last();
    let of_the_end = Record {
        count: InstructionCount(1),
        body: RecordBody::Digest(1),
    };
    assert_eq!(last, Some(&Step::Record(of_the_end)));
    // The thread ends by itself, and what it reported is all there then.
    live.script = None;
    live.vcpu.thread_mut().stop();
    assert!(live.vcpu.report().is_none(), "something follows the end");
}
