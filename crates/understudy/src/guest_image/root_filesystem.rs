//! A whole Debian system on a disk: packages unpacked, dpkg's database filled in, and a script that
//! lets dpkg configure them when the guest boots for the first time. Nothing foreign runs on the
//! host.

use std::path::{Path, PathBuf};

use super::apt_sources::SUITE;
use super::dpkg_database::DpkgDatabase;
use super::file_tree::{FileTree, Node};
use super::kernel_modules::KernelModules;
use super::options::{MIN_DISK_BYTES, Profile};
use super::package::Package;
use super::progress::Progress;
use super::{Board, BuildOptions, GuestImageError, ext4, insert_added_files};

/// Put after the other words of the kernel's command line.
pub const COMMAND_LINE: &str = " root=/dev/vda rw net.ifnames=0";
const FIRST_BOOT: &str = include_str!("first_boot.sh");
/// What runs in the guest, for naming an image by its content.
pub const SCRIPTS: &[&str] = &[FIRST_BOOT];

/// Besides what is essential or of priority `required`: what makes it boot, reach the network and
/// let somebody log in.
const BASE_PACKAGES: &[&str] = &[
    "?essential",
    "?priority(required)",
    "dbus",
    "iproute2",
    "iputils-ping",
    "kmod",
    "libpam-systemd",
    "netbase",
    "systemd-sysv",
    "udev",
];

/// Modules that systemd or an administrator asks for; those that a kernel does not have are passed
/// over. The board's drivers are loaded before.
const MODULES: &[&str] = &[
    "autofs4",
    "overlay",
    "loop",
    "dm_mod",
    "tun",
    "bridge",
    "veth",
    "8021q",
    "nf_tables",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_reject",
    "squashfs",
    "erofs",
    "vfat",
    "nls_ascii",
    "nls_cp437",
    "binfmt_misc",
    "configfs",
    "efi_pstore",
];

const NETWORK: &str = "[Match]\nName=eth*\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=no\n";
const FSTAB: &str = "/dev/vda / ext4 defaults 0 0\n";
const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost ip6-localhost\n";
/// What `systemctl enable` and `mask` would link: the network is configured by networkd, nobody
/// waits for it, and nothing rewrites the disk on a timer.
const LINKS: &[(&str, &str)] = &[
    (
        "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "/usr/lib/systemd/system/systemd-networkd.service",
    ),
    (
        "etc/systemd/system/sockets.target.wants/systemd-networkd.socket",
        "/usr/lib/systemd/system/systemd-networkd.socket",
    ),
    (
        "etc/systemd/system/systemd-networkd-wait-online.service",
        "/dev/null",
    ),
    ("etc/systemd/system/apt-daily.timer", "/dev/null"),
    ("etc/systemd/system/apt-daily-upgrade.timer", "/dev/null"),
    ("etc/systemd/system/dpkg-db-backup.timer", "/dev/null"),
    ("etc/systemd/system/e2scrub_all.timer", "/dev/null"),
    ("etc/systemd/system/e2scrub_reap.service", "/dev/null"),
    ("etc/systemd/system/fstrim.timer", "/dev/null"),
];

/// The packages of the base system and `named`.
pub fn packages(named: &[String]) -> Vec<String> {
    BASE_PACKAGES
        .iter()
        .map(|name| (*name).to_owned())
        .chain(named.iter().cloned())
        .collect()
}

/// Refuses a disk that is too small, and one that is there already: the guest has written to it.
///
/// # Errors
/// [`GuestImageError::BadOptions`]
pub fn check(file: &Path, bytes: u64) -> Result<(), GuestImageError> {
    if bytes < MIN_DISK_BYTES || !bytes.is_multiple_of(1 << 20) {
        return Err(GuestImageError::BadOptions(format!(
            "a root file system of {bytes} bytes: give a whole number of MiB, at least {} MiB",
            MIN_DISK_BYTES >> 20
        )));
    }
    if file.exists() {
        return Err(GuestImageError::BadOptions(format!(
            "{}: a disk is there already, perhaps with a guest's data: choose another name, or \
             delete it first",
            file.display()
        )));
    }
    Ok(())
}

/// Makes the disk image, if the profile is one with a disk; returns its absolute path.
///
/// # Errors
/// If a package is broken, the disk too small, e2fsprogs missing, or a file cannot be written.
pub fn build(
    options: &BuildOptions,
    board: &Board,
    packages: &[Package],
    archive: &str,
    progress: &mut dyn Progress,
) -> Result<Option<PathBuf>, GuestImageError> {
    let Profile::RootFilesystem {
        file,
        bytes,
        root_password,
        ..
    } = &options.profile
    else {
        return Ok(None);
    };
    let mut tree = unpack(packages, progress)?;
    configure(&mut tree, archive, root_password.as_deref())?;
    insert_modules(&mut tree, board)?;
    insert_added_files(&options.added_files, &mut tree)?;
    ext4::create(&tree, file, *bytes, progress)?;
    let absolute = std::path::absolute(file)
        .map_err(|error| GuestImageError::file("finding the absolute path", file, error))?;
    Ok(Some(absolute))
}

fn unpack(packages: &[Package], progress: &mut dyn Progress) -> Result<FileTree, GuestImageError> {
    let step = "unpacking Debian packages";
    let total = packages.len() as u64;
    let mut tree = FileTree::with_merged_usr();
    let mut database = DpkgDatabase::default();
    for (package, done) in packages.iter().zip(0..) {
        progress.on_step(step, done, total);
        let paths = package.unpack_listing(&mut tree)?;
        database.add(&mut tree, &package.control_files()?, &paths)?;
    }
    database.finish(&mut tree)?;
    progress.on_step(step, total, total);
    Ok(tree)
}

/// What an installer would write, and what maintainer scripts that run before unpacking would do.
fn configure(
    tree: &mut FileTree,
    archive: &str,
    root_password: Option<&str>,
) -> Result<(), GuestImageError> {
    for (master, path) in [
        ("usr/share/base-passwd/passwd.master", "etc/passwd"),
        ("usr/share/base-passwd/group.master", "etc/group"),
    ] {
        if let (Some(content), false) = (tree.file(master).cloned(), tree.contains(path)) {
            tree.insert(path, Node::file(content, 0o644))?;
        }
    }
    let mut file = |path: &str, content: String, mode: u32| {
        tree.insert(path, Node::file(content.into_bytes(), mode))
    };
    file("etc/hostname", "guest\n".to_owned(), 0o644)?;
    file("etc/hosts", HOSTS.to_owned(), 0o644)?;
    file("etc/fstab", FSTAB.to_owned(), 0o644)?;
    file("etc/resolv.conf", "nameserver 10.0.2.3\n".to_owned(), 0o644)?;
    file(
        "etc/systemd/network/80-ethernet.network",
        NETWORK.to_owned(),
        0o644,
    )?;
    if archive.starts_with("http") {
        file(
            "etc/apt/sources.list",
            format!("deb {archive} {SUITE} main\n"),
            0o644,
        )?;
    }
    file(
        "usr/lib/understudy/first-boot",
        FIRST_BOOT.to_owned(),
        0o755,
    )?;
    if let Some(password) = root_password {
        if password.is_empty() || password.contains(['\n', '\0']) {
            return Err(GuestImageError::BadOptions(
                "root's password is empty or has a line end".to_owned(),
            ));
        }
        file(
            "usr/lib/understudy/root-password",
            format!("root:{password}\n"),
            0o600,
        )?;
    }
    for (path, target) in LINKS {
        tree.insert(path, Node::symbolic_link(*target))?;
    }
    for directory in ["dev", "proc", "sys", "run"] {
        tree.insert(directory, Node::directory())?;
    }
    Ok(())
}

/// The modules lie in the root file system as the kernel's package would put them; `depmod` makes
/// its index at first boot.
fn insert_modules(tree: &mut FileTree, board: &Board) -> Result<(), GuestImageError> {
    let modules = KernelModules::new(&board.modules);
    let wanted: Vec<&str> = MODULES
        .iter()
        .copied()
        .filter(|name| modules.contains(name))
        .collect();
    for module in modules.in_load_order(&wanted)? {
        tree.insert(&module.path, Node::file(module.content, 0o644))?;
    }
    let lists = board.modules.iter().filter(|(path, _)| {
        path.rsplit('/')
            .next()
            .is_some_and(|name| name.starts_with("modules."))
    });
    for (path, node) in lists {
        tree.insert(path, node.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_with_a_guests_data_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        assert!(check(&path, MIN_DISK_BYTES).is_ok());
        std::fs::write(&path, "data").unwrap();
        assert!(
            check(&path, MIN_DISK_BYTES)
                .unwrap_err()
                .to_string()
                .contains("already")
        );
    }

    #[test]
    fn a_disk_size_is_whole_mebibytes_and_large_enough() {
        let path = Path::new("/nonexistent/disk");
        assert!(check(path, MIN_DISK_BYTES - (1 << 20)).is_err());
        assert!(check(path, MIN_DISK_BYTES + 1).is_err());
    }

    #[test]
    fn a_root_password_is_readable_by_root_alone() {
        let mut tree = FileTree::default();
        configure(&mut tree, "http://h/debian", Some("secret")).unwrap();
        assert_eq!(
            tree.get("usr/lib/understudy/root-password").unwrap().mode,
            0o600
        );
        assert!(configure(&mut tree, "http://h/debian", Some("a\nb:c")).is_err());
    }
}
