//! Which thread the host's scheduler prefers where there are fewer cores than threads that work.

use rustix::process::setpriority_process;

/// Four tenths of what the guest has, where both want the same core.
const NICE: i32 = 4;

/// What this thread does can wait: copying for a backup, while the guest serves people. On a host with a
/// core to spare it makes no difference.
pub fn yield_to_the_guest() {
    if environment::current().is_some() {
        return; // a simulated thread would keep it for its successors
    }
    // Without a process named it is the calling thread, on Linux. A host that does not let it has it
    // compete, which is slower and nothing else.
    let _set = setpriority_process(None, NICE);
}
