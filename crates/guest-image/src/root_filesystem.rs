//! A whole Debian system on a disk: packages unpacked, dpkg's database filled in, and a script that
//! lets dpkg configure them when the guest boots for the first time. Nothing foreign runs on the
//! host.

use std::path::{Path, PathBuf};

use crate::accounts::Accounts;
use crate::apt_sources::SUITE;
use crate::dpkg_database::DpkgDatabase;
use crate::file_tree::{FileTree, Node};
use crate::kernel_modules::KernelModules;
use crate::options::{MIN_DISK_BYTES, Profile};
use crate::package::Package;
use crate::progress::Progress;
use crate::{Board, BuildOptions, GuestImageError, ext4, insert_added_files};

/// Put after the other words of the kernel's command line.
pub const COMMAND_LINE: &str = " root=/dev/vda rw net.ifnames=0";
const FIRST_BOOT: &str = include_str!("first_boot.sh");
const NAME_SERVERS: &str = include_str!("name_servers.sh");
/// What runs in the guest, for naming an image by its content.
pub const SCRIPTS: &[&str] = &[FIRST_BOOT, NAME_SERVERS, NAME_SERVERS_SERVICE];

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
pub const MODULES: &[&str] = &[
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
    "evdev",
    "virtio_input",
    "leds_gpio",
    "pvpanic_mmio",
    "sunxi_wdt",
];

const NETWORK: &str = "[Match]\nName=eth*\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n";
/// systemd-networkd tells nobody but systemd-resolved, which is a package of its own, of name servers.
const NAME_SERVERS_SERVICE: &str = "[Unit]\nDescription=Name servers that DHCP tells, into \
    /etc/resolv.conf\n\n[Service]\nExecStart=/usr/lib/understudy/name-servers\nRestart=always\n\n\
    [Install]\nWantedBy=multi-user.target\n";
/// Group `shadow`, fixed by base-passwd.
const SHADOW_GROUP: u32 = 42;
const FSTAB: &str = "/dev/vda / ext4 defaults 0 0\n";
const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1 guest\n::1 localhost ip6-localhost\n";
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
    insert_accounts(tree)?;
    let mut file = |path: &str, content: String, mode: u32| {
        tree.insert(path, Node::file(content.into_bytes(), mode))
    };
    file("etc/hostname", "guest\n".to_owned(), 0o644)?;
    file("etc/hosts", HOSTS.to_owned(), 0o644)?;
    file("etc/fstab", FSTAB.to_owned(), 0o644)?;
    // Until DHCP tells another one: that of the switch's gateway.
    file("etc/resolv.conf", "nameserver 10.0.2.3\n".to_owned(), 0o644)?;
    file(
        "usr/lib/understudy/name-servers",
        NAME_SERVERS.to_owned(),
        0o755,
    )?;
    file(
        "etc/systemd/system/understudy-name-servers.service",
        NAME_SERVERS_SERVICE.to_owned(),
        0o644,
    )?;
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
    for directory in ["dev", "proc", "sys", "run"] {
        tree.insert(directory, Node::directory())?;
    }
    Ok(())
}

/// The accounts that base-passwd's script would make before it is unpacked, with their passwords in
/// `/etc/shadow` as passwd's script wants them.
fn insert_accounts(tree: &mut FileTree) -> Result<(), GuestImageError> {
    let master = |name: &str| {
        let master = tree.file(&format!("usr/share/base-passwd/{name}.master"));
        master.map(|content| String::from_utf8_lossy(content).into_owned())
    };
    let (Some(passwd), Some(group)) = (master("passwd"), master("group")) else {
        return Ok(());
    };
    let accounts = Accounts::from_masters(&passwd, &group);
    let (shadow, gshadow) = accounts.shadow();
    for (path, content, mode, gid) in [
        ("etc/passwd", accounts.passwd(|_| "x"), 0o644, 0),
        ("etc/group", accounts.group(), 0o644, 0),
        ("etc/shadow", shadow, 0o640, SHADOW_GROUP),
        ("etc/gshadow", gshadow, 0o640, SHADOW_GROUP),
    ] {
        let node = Node::file(content.into_bytes(), mode);
        tree.insert(path, Node { gid, ..node })?;
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
    use std::os::unix::process::CommandExt;

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

    /// Finding: a whole Debian did not take its name server from DHCP: what came while the last word
    /// was still being written was missed.
    #[test]
    fn every_word_of_dhcp_about_name_servers_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("script"), NAME_SERVERS).unwrap();
        let mut script = std::process::Command::new("sh")
            .args([path("script"), path("state"), path("resolv.conf")])
            .process_group(0)
            .spawn()
            .unwrap();
        let configured = || std::fs::read_to_string(path("resolv.conf")).unwrap_or_default();
        // As systemd-networkd writes it: each time a new file, and at first without name servers.
        for word in 0..100 {
            let servers = match word {
                0 => String::new(),
                _ => format!("DNS=10.9.0.{word} 10.9.1.{word}\n"),
            };
            std::fs::write(path("new"), format!("OPER_STATE=routable\n{servers}")).unwrap();
            std::fs::rename(path("new"), path("state")).unwrap();
        }
        let last = "nameserver 10.9.0.99\nnameserver 10.9.1.99\n";
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while configured() != last && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // What it started, too.
        let group = format!("-{}", script.id());
        let kill = ["-9", "--", &group];
        assert!(
            std::process::Command::new("kill")
                .args(kill)
                .status()
                .unwrap()
                .success()
        );
        script.wait().unwrap();
        assert_eq!(configured(), last);
    }

    #[test]
    fn accounts_have_their_passwords_in_the_shadow_files_only() {
        let mut tree = FileTree::default();
        let master = Node::file(*b"root:*:0:0:root:/root:/bin/bash\n", 0o644);
        tree.insert("usr/share/base-passwd/passwd.master", master)
            .unwrap();
        let master = Node::file(*b"root:*:0:\n", 0o644);
        tree.insert("usr/share/base-passwd/group.master", master)
            .unwrap();
        insert_accounts(&mut tree).unwrap();
        let text = |path| String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap();
        assert_eq!(text("etc/passwd"), "root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(text("etc/shadow"), "root:*::0:99999:7:::\n");
        assert_eq!(text("etc/group"), "root:x:0:\n");
        assert_eq!(text("etc/gshadow"), "root:*::\n");
        let shadow = tree.get("etc/shadow").unwrap();
        assert_eq!((shadow.mode, shadow.gid), (0o640, 42));
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
