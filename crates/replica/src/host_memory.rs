//! How much memory this process may have: what the host has left, its cgroups, and its own limits.

use rustix::process::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// Where cgroups are.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes that this process may have altogether: those that it has, and what is still to be had of the host, of each
/// cgroup above it (page cache that can go counts as free), and of its address space (`ulimit -v`). 0: not known.
///
/// Files of the kernel are read, which may take milliseconds: not for an event loop.
pub fn altogether() -> u64 {
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let has_addresses = bytes_of(&own, "VmSize:").unwrap_or(0);
    let has = bytes_of(&own, "VmRSS:").unwrap_or(0);
    let host = fs::read_to_string("/proc/meminfo").ok();
    let host = host.and_then(|text| bytes_of(&text, "MemAvailable:"));
    let addresses = getrlimit(Resource::As).current;
    let addresses = addresses.map(|limit| limit.saturating_sub(has_addresses));
    let own_cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let cgroups = cgroups_left(Path::new(CGROUPS), &own_cgroups);
    let left = [host, addresses, cgroups].into_iter().flatten().min();
    left.map_or(0, |left| left.saturating_add(has))
}

/// 0 of what is none.
fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

/// The line of this name in `/proc/meminfo` or `/proc/self/status`, in bytes.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib = line.trim().strip_suffix("kB")?;
    kib.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What each version of cgroups calls the same.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`: page cache that nobody has used lately.
    inactive_file: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    inactive_file: "total_inactive_file ",
};
const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    inactive_file: "inactive_file ",
};

/// What is left in the cgroup that has the least, of those that `/proc/self/cgroup` names and all above them.
fn cgroups_left(root: &Path, own: &str) -> Option<u64> {
    let hierarchies = own.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let has_memory = controllers.split(',').any(|name| name == "memory");
        match controllers {
            "" => Some((root.to_owned(), V2, path)),
            _ if has_memory => Some((root.join("memory"), V1, path)),
            _ => None,
        }
    });
    let left = hierarchies.flat_map(|(top, names, path)| {
        let own = top.join(path.trim_start_matches('/'));
        let above: Vec<PathBuf> = own
            .ancestors()
            .take_while(|directory| directory.starts_with(&top))
            .map(Path::to_owned)
            .collect();
        above
            .into_iter()
            .filter_map(move |directory| left_in(&directory, &names))
    });
    left.min()
}

/// `None`: it has no limit, or is not there.
fn left_in(directory: &Path, names: &Names) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(directory.join(name)).ok();
    let limit: u64 = read(names.limit)?.trim().parse().ok()?;
    let usage = number(&read(names.usage)?);
    let stat = read("memory.stat").unwrap_or_default();
    let mut lines = stat.lines();
    let inactive = lines.find_map(|line| line.strip_prefix(names.inactive_file));
    let used = usage.saturating_sub(inactive.map_or(0, number));
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(directory: &Path, names: &Names, [limit, usage, inactive]: [&str; 3]) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(names.limit), format!("{limit}\n")).unwrap();
        fs::write(directory.join(names.usage), format!("{usage}\n")).unwrap();
        let stat = format!("anon 1\n{}{inactive}\nactive_file 3\n", names.inactive_file);
        fs::write(directory.join("memory.stat"), stat).unwrap();
    }

    #[test]
    fn this_process_may_have_what_it_has_and_more() {
        let altogether = altogether();
        assert!(altogether > 1 << 20, "{altogether}");
    }

    #[test]
    fn the_host_says_what_is_available() {
        let available = |text| bytes_of(text, "MemAvailable:");
        let text =
            "MemTotal:       24576000 kB\nMemFree:         1 kB\nMemAvailable:     2048 kB\n";
        assert_eq!(available(text), Some(2048 * 1024));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn the_narrowest_cgroup_counts_and_page_cache_that_can_go_is_free() {
        let root = tempfile::tempdir().unwrap();
        let top = root.path().join("machines");
        cgroup(&top, &V2, ["5000", "3000", "500"]);
        cgroup(&top.join("shop"), &V2, ["max", "3000", "0"]);
        assert_eq!(cgroups_left(root.path(), "0::/machines/shop\n"), Some(2500));
        cgroup(&top.join("shop"), &V2, ["4000", "3900", "100"]);
        assert_eq!(cgroups_left(root.path(), "0::/machines/shop\n"), Some(200));
        assert_eq!(cgroups_left(root.path(), "0::/elsewhere\n"), None);
        assert_eq!(cgroups_left(root.path(), "no line of a kernel's"), None);
    }

    #[test]
    fn the_first_version_of_cgroups_is_understood() {
        let root = tempfile::tempdir().unwrap();
        cgroup(&root.path().join("memory/a"), &V1, ["7000", "6000", "0"]);
        let own = "12:cpu,cpuacct:/b\n5:memory:/a\n0::/\n";
        assert_eq!(cgroups_left(root.path(), own), Some(1000));
        // In a container the path is the host's, and only the top is there.
        cgroup(&root.path().join("memory"), &V1, ["800", "900", "0"]);
        assert_eq!(cgroups_left(root.path(), "5:memory:/docker/x\n"), Some(0));
    }
}
