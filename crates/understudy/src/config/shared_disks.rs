//! Disks that all hosts of a machine reach.

use super::{DiskDurability, DiskSection, ReplicationName, VmConfig};
use replica::config::DiskFormat;

/// What of a configuration does not go with shared disks: the key, and why.
pub(super) fn check(config: &VmConfig) -> Result<(), (&'static str, String)> {
    for disk in &config.disks {
        check_disk(disk)?;
    }
    let Some(shared) = config.disks.iter().find(|disk| disk.shared) else {
        return Ok(());
    };
    let path = shared.path.display();
    if config.journal.is_some() {
        let why = format!(
            "a machine with a shared disk ({path}) keeps no journal: leave one of both out"
        );
        return Err(("journal", why));
    }
    if config.disk_durability == DiskDurability::Both {
        let why = format!(
            "\"both\" says that both hosts' disks have what was flushed, and {path} is one disk for both: leave it out"
        );
        return Err(("disk_durability", why));
    }
    let pair = config.pair.as_ref();
    if pair.is_some_and(|pair| pair.replication == ReplicationName::StateTransfer) {
        let why = format!(
            "\"state-transfer\" does not go with a shared disk ({path}): what a backup makes good comes with checkpoints, and \
             what is on that disk does not"
        );
        return Err(("pair.replication", why));
    }
    Ok(())
}

fn check_disk(disk: &DiskSection) -> Result<(), (&'static str, String)> {
    let path = disk.path.display();
    let wrong = |key, why: &str| Err((key, format!("{path} {why}")));
    if !disk.shared {
        return match disk.fencing {
            Some(_) => wrong(
                "disks.fencing",
                "is not shared: each host has a copy of its own, and nothing has to be fenced",
            ),
            None => Ok(()),
        };
    }
    if disk.read_only {
        let why = "is shared, and the guest may not write to it: nothing could go wrong, and each host can have a copy";
        return wrong("disks.read_only", why);
    }
    if disk.overwrite {
        let why = "is shared: whoever joins copies nothing to it, and nothing of it is overwritten";
        return wrong("disks.overwrite", why);
    }
    if disk.file().format() == DiskFormat::Qcow2 {
        let why = "is a qcow2 image, whose tables are in its host's memory, of which another host sees nothing: a shared disk is \
                   raw (`qemu-img convert -O raw`)";
        return wrong("disks.shared", why);
    }
    Ok(())
}
