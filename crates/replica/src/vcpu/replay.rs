//! The replaying mode: the machine does what the records say, and is checked against them.

mod snapshots;

use super::Ends;
use super::guest::{GuestError, ReplicaGuest};
use super::live::{GoingLive, visible_units};
use super::messages::{Command, ReplayCommand, ReplayReport, VisibleOutputs};
use crate::host_time::monotonic_ns;
use environment::mpsc::{self, TryRecvError};
use replication::replay::{Progress, Replayer};
use snapshots::Snapshots;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Instructions between two looks at the commands: a millisecond or less.
const QUANTUM: u64 = 200_000;
/// Between two reports that wake the event loop, unless it waits for them.
const REPORT_INTERVAL_NS: u64 = 5_000_000;
/// Records that are replayed between two reports.
const RECORDS_A_REPORT: u32 = 64;

/// What a piece of replay came to.
enum Worked {
    Made(Progress),
    /// The machine differs, and stands still until somebody says what becomes of it.
    Differs,
    /// It has not the disk to go on with.
    DiskFailed,
}

/// Replays until the machine goes live, or (`None`) its disk failed or the thread was told to stop.
pub(super) fn run(guest: &mut ReplicaGuest, ends: &Ends) -> Result<Option<GoingLive>, GuestError> {
    let mut replayer = Replayer::new(guest);
    let mut woken_at_ns = 0;
    let mut go_live: Option<GoingLive> = None;
    let mut heard_at_ns = monotonic_ns();
    let mut progress = Progress::Waiting;
    let mut differs = false;
    let mut snapshots = Snapshots::default();
    loop {
        // Only a replay that has something to do looks in passing.
        let is_busy =
            progress == Progress::Working || snapshots.while_waiting(replayer.guest_mut());
        let command = if is_busy {
            ends.commands.try_recv()
        } else {
            ends.commands.recv().map_err(|_| TryRecvError::Disconnected)
        };
        match command {
            Ok(Command::Replay(ReplayCommand::Records { after, records })) => {
                heard_at_ns = monotonic_ns();
                replayer.goes_on_after(after);
                records.into_iter().for_each(|record| replayer.push(record));
            }
            Ok(Command::Replay(ReplayCommand::StopComparing)) => {
                differs = false;
                replayer.stop_comparing();
            }
            Ok(Command::Replay(ReplayCommand::Compare)) => replayer.compare(),
            Ok(Command::Replay(ReplayCommand::GoLive(options))) => {
                go_live = Some(GoingLive {
                    options,
                    commands: Vec::new(),
                    lost_ns: 0,
                });
            }
            Ok(Command::Replay(ReplayCommand::Snapshot { number })) => {
                let last = replayer.replayed().plus(replayer.backlog() as u64);
                snapshots.ask(number, last);
            }
            Ok(Command::Live(command)) => go_live
                .as_mut()
                .expect("a machine is told to go live before it is treated as one")
                .commands
                .push(command),
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(None),
            // A disk's completion may be what the replay waited for.
            Ok(Command::Look) | Err(TryRecvError::Empty) => {}
        }
        if let Err(error) = replayer.guest_mut().look_at_follower() {
            ends.replay(ReplayReport::DiskFailed(error.to_string()));
            return Ok(None);
        }
        if let Some(count) = replayer.guest_mut().newly_durable() {
            ends.replay(ReplayReport::Durable { count });
        }
        if differs {
            continue;
        }
        let began_ns = monotonic_ns();
        match work(&mut replayer, &mut woken_at_ns, ends) {
            Worked::Made(made) => {
                progress = made;
                let ran_ns = monotonic_ns().saturating_sub(began_ns);
                snapshots.after_running(replayer.guest_mut(), ran_ns, ends);
                let replayed = replayer.replayed();
                snapshots.begin(replayer.guest_mut(), replayed, ends);
            }
            Worked::Differs => (differs, progress) = (true, Progress::Waiting),
            Worked::DiskFailed => return Ok(None),
        }
        if progress == Progress::Waiting
            && let Some(mut going_live) = go_live.take()
        {
            going_live.lost_ns = monotonic_ns().saturating_sub(heard_at_ns);
            // Whoever takes it asks the live machine again.
            snapshots.end(replayer.guest_mut());
            replayer.guest_mut().begin_executing();
            return Ok(Some(going_live));
        }
    }
}

/// Replays a little, and reports how far it came.
fn work(replayer: &mut Replayer<&mut ReplicaGuest>, woken_at_ns: &mut u64, ends: &Ends) -> Worked {
    let (count_before, replayed_before) = (replayer.executed(), replayer.replayed());
    let mut progress = Progress::Working;
    let mut steps = 0;
    let end = count_before.plus(QUANTUM);
    while progress == Progress::Working && steps < RECORDS_A_REPORT && replayer.executed() < end {
        steps += 1;
        match replayer.step(QUANTUM) {
            Ok(made) => progress = made,
            Err(divergence) => {
                report(replayer, ends, true);
                if let Some(error) = replayer.guest_mut().take_host_error() {
                    ends.replay(ReplayReport::DiskFailed(error.to_string()));
                    return Worked::DiskFailed;
                }
                let (sender, found) = mpsc::channel();
                ends.replay(ReplayReport::Diverged {
                    report: divergence.report(),
                    found,
                });
                let snapshot = Box::new(replayer.guest_mut().machine.snapshot());
                // Whoever keeps no evidence has no use for it.
                let _sent = sender.send(snapshot);
                return Worked::Differs;
            }
        }
    }
    if replayer.replayed() != replayed_before || replayer.executed() != count_before {
        // The event loop acknowledges by itself, and looks now and then how far the replay is.
        let now_ns = monotonic_ns();
        let wake = ends.is_eager() || now_ns.saturating_sub(*woken_at_ns) >= REPORT_INTERVAL_NS;
        if wake {
            *woken_at_ns = now_ns;
        }
        report(replayer, ends, wake);
    }
    Worked::Made(progress)
}

fn report(replayer: &mut Replayer<&mut ReplicaGuest>, ends: &Ends, at_once: bool) {
    let count = replayer.executed();
    let replayed = replayer.replayed();
    let outputs = replayer
        .take_outputs()
        .into_iter()
        .filter_map(|mut batch| {
            batch.outputs.retain(|output| visible_units(output) > 0);
            (!batch.outputs.is_empty()).then_some(VisibleOutputs {
                count,
                visible: batch.visible_outputs,
                outputs: batch.outputs,
                waited: Duration::ZERO,
            })
        })
        .collect();
    ends.publish(&*replayer.guest().machine);
    ends.gauges
        .digests_compared
        .store(replayer.guest().digests(), Ordering::Release);
    let report = ReplayReport::Progress {
        outputs,
        count,
        replayed,
    };
    if at_once {
        ends.replay(report)
    } else {
        ends.replay_quietly(report)
    }
}
