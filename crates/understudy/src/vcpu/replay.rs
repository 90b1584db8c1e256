//! The replaying mode: the machine does what the records say, and is checked against them.

use super::guest::ReplicaGuest;
use super::live::{LiveOptions, visible_units};
use super::{Command, Ends, Report, Step, VisibleOutputs};
use crate::host_time::monotonic_ns;
use replication::replay::{Progress, Replayer};
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;

/// Instructions between two looks at the commands: a millisecond or less.
const QUANTUM: u64 = 200_000;
/// Between two reports that wake the event loop, unless it waits for them.
const REPORT_INTERVAL_NS: u64 = 5_000_000;
/// Records that are replayed between two reports.
const RECORDS_A_REPORT: u32 = 64;

/// Replays until it is told to go live or to stop. Returns the machine that is to go live.
pub(super) fn run(guest: ReplicaGuest, ends: &Ends) -> Option<(ReplicaGuest, LiveOptions)> {
    let mut replayer = Replayer::new(guest);
    let mut woken_at_ns = 0;
    let mut go_live = None;
    let mut progress = Progress::Waiting;
    loop {
        // Only a replay that has something to do looks in passing.
        let command = match progress {
            Progress::Working => ends.commands.try_recv(),
            Progress::Waiting | Progress::Blocked => {
                ends.commands.recv().map_err(|_| TryRecvError::Disconnected)
            }
        };
        match command {
            Ok(Command::Records(records)) => records.into_iter().for_each(|r| replayer.push(r)),
            Ok(Command::GoLive(options)) => go_live = Some(options),
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return None,
            // A disk's completion may be what the replay waited for; the rest is for live machines.
            Ok(
                Command::Look | Command::Input(_) | Command::Throttle(_) | Command::Snapshot { .. },
            ) => {}
            Err(TryRecvError::Empty) => {}
        }
        progress = work(&mut replayer, &mut woken_at_ns, ends)?;
        if progress == Progress::Waiting
            && let Some(options) = go_live
        {
            ends.report(Report::Live {
                count: replayer.executed(),
            });
            return Some((replayer.into_guest(), options));
        }
    }
}

/// Replays a little, and reports how far it came. `None` after a divergence.
fn work(
    replayer: &mut Replayer<ReplicaGuest>,
    woken_at_ns: &mut u64,
    ends: &Ends,
) -> Option<Progress> {
    let (count_before, replayed_before) = (replayer.executed(), replayer.replayed());
    let mut progress = Progress::Working;
    let mut steps = 0;
    let end = count_before.saturating_add(QUANTUM);
    while progress == Progress::Working && steps < RECORDS_A_REPORT && replayer.executed() < end {
        steps += 1;
        match replayer.step(QUANTUM) {
            Ok(made) => progress = made,
            Err(divergence) => {
                report(replayer, ends, true);
                let snapshot = Box::new(replayer.guest().machine.snapshot());
                ends.report(Report::Diverged {
                    report: divergence.report(),
                    snapshot,
                });
                return None;
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
    Some(progress)
}

fn report(replayer: &mut Replayer<ReplicaGuest>, ends: &Ends, at_once: bool) {
    let count = replayer.executed();
    let replayed = replayer.replayed();
    let steps = replayer
        .take_outputs()
        .into_iter()
        .filter_map(|mut batch| {
            batch.outputs.retain(|output| visible_units(output) > 0);
            (!batch.outputs.is_empty()).then_some(Step::Outputs(VisibleOutputs {
                count,
                visible: batch.visible_outputs,
                outputs: batch.outputs,
            }))
        })
        .collect();
    ends.publish(&replayer.guest().machine);
    ends.gauges
        .digests_compared
        .store(replayer.guest().digests(), Ordering::Release);
    let report = Report::Steps {
        steps,
        count,
        replayed,
    };
    if at_once {
        ends.report(report)
    } else {
        ends.report_quietly(report)
    }
}
