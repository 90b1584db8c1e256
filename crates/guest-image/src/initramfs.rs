//! The guest's first file system: all there is for the guests that live in RAM, and what finds the
//! disk for those that do not.

use std::fmt::Write as _;

use crate::accounts::Accounts;
use crate::file_tree::{FileTree, Node, NodeKind};
use crate::kernel_modules::{KernelModule, KernelModules};
use crate::maintainer_scripts;
use crate::package::Package;
use crate::progress::Progress;
use crate::shared_libraries::copy_program;
use crate::tmpfiles;
use crate::{
    Architecture, Board, BuildOptions, GuestImageError, Profile, Service, insert_added_files,
};

/// Where `busybox-static` has its program.
pub const BUSYBOX: &str = "usr/bin/busybox";
const INIT: &str = include_str!("init.sh");
const DHCP_EVENT: &str = include_str!("dhcp_event.sh");
/// What runs in the guest, for naming an image by its content.
pub const SCRIPTS: &[&str] = &[INIT, DHCP_EVENT, REDIS_CONFIGURATION, REDIS_SCRIPT, APPLETS];

/// Loaded at every boot: the board's devices. (The console's driver is built into the kernel.) The
/// entropy source comes first, so that nobody waits for random numbers.
const BOOT_MODULES: &[&str] = &["virtio_mmio", "virtio_rng", "virtio_net", "virtio_blk"];
/// What tells the board of a panic: the lamp of the RISC-V board, pvpanic on the PC. Each kernel has its own.
const PANIC_MODULES: &[&str] = &["leds_gpio", "pvpanic_mmio"];
/// The power button, which is an input device.
const BUTTON_MODULES: &[&str] = &["evdev", "virtio_input"];
/// The watchdog of the RISC-V board, loaded if it is asked for.
const WATCHDOG_MODULES: &[&str] = &["sunxi_wdt"];
/// All modules that a guest in RAM may have, for naming an image by its content.
pub const MODULES: &[&[&str]] = &[
    BOOT_MODULES,
    PANIC_MODULES,
    BUTTON_MODULES,
    WATCHDOG_MODULES,
    DISK_MODULES,
];
/// Loaded when the root file system is on a disk. ext4 asks for crc32c by an alias that nobody
/// resolves in the initial file system.
const DISK_MODULES: &[&str] = &["crc32c_generic", "ext4"];

/// The applets that get a link where no package brings the real program.
const APPLETS: &str = "[ addgroup adduser awk base64 basename blkid cat chgrp chmod chown chroot \
    clear cmp cp cttyhack cut date dd depmod df diff dirname dmesg du echo env expr false fdisk find \
    free getopt grep gunzip gzip halt head hexdump hostname id ifconfig insmod ip kill killall less \
    ln ls lsmod md5sum mkdir mkfifo mknod mktemp modprobe more mount mv nc netstat nproc nslookup od \
    ping ping6 poweroff printf ps pwd readlink realpath reboot rm rmdir rmmod route sed seq \
    setsid sh sha256sum sha512sum sleep sort stat stty su switch_root sync sysctl tail tar tee telnet \
    test time timeout top touch tr true tty udhcpc umount uname uniq uptime usleep vi watch watchdog wc wget \
    which whoami xargs xz yes zcat";

const PASSWD: &str = "root::0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n";
const HOSTS: &str = "127.0.0.1 localhost guest\n::1 localhost\n";
const PROFILE: &str = "PS1='guest:\\w# '\ncd\n";

/// Parts of packages that no program reads.
const DOCUMENTATION: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/bash-completion",
    "usr/share/zsh",
    "usr/share/fish",
];

const DEMO_PROGRAMS: &[&str] = &[
    "usr/bin/redis-server",
    "usr/bin/redis-cli",
    "usr/bin/redis-benchmark",
    "usr/bin/openssl",
    "usr/bin/gzip",
];
const REDIS_PORT: u16 = 6379;
const REDIS_CONFIGURATION: &str = "\
    # The demo's Redis answers anybody who reaches the guest: its network is the demo's own.\n\
    bind 0.0.0.0\n\
    protected-mode no\n\
    port 6379\n\
    dir /var/lib/redis\n\
    save \"\"\n";
/// `understudy.appendonly=yes|no` on the kernel's command line wins over the configuration.
const REDIS_SCRIPT: &str = "\
    read -r command_line < /proc/cmdline\n\
    for word in $command_line; do\n\
    case $word in understudy.appendonly=*) set -- --appendonly \"${word#*=}\" ;; esac\n\
    done\n\
    exec redis-server /etc/redis/redis.conf \"$@\"\n";

/// The package with the users that every Debian has.
const BASE_PASSWD: &str = "base-passwd";

/// The packages that the demo guest is taken from.
pub fn demo_packages() -> Vec<String> {
    ["redis-server", "redis-tools", "openssl", "gzip"]
        .map(str::to_owned)
        .to_vec()
}

/// Whether the demo guest takes files from this package of the closure: shared libraries are in
/// packages called `lib...` (Debian Policy 8.1; zlib's is older than the rule), the rest is for an
/// installed system.
pub fn is_demo_package(name: &str) -> bool {
    name.starts_with("lib")
        || name == "zlib1g"
        || demo_packages().iter().any(|package| package == name)
}

/// The packages, and that with the users that every Debian has.
pub fn with_base_accounts(packages: &[String]) -> Vec<String> {
    let base = std::iter::once(BASE_PASSWD.to_owned());
    packages.iter().cloned().chain(base).collect()
}

/// The file tree of a guest that lives in RAM.
///
/// # Errors
/// If a package is broken, lacks what the guest needs, or an added file cannot be read or placed.
pub fn build(
    options: &BuildOptions,
    board: &Board,
    packages: &[Package],
    progress: &mut dyn Progress,
) -> Result<FileTree, GuestImageError> {
    let step = "unpacking Debian packages";
    let total = packages.len() as u64;
    let mut unpacked = FileTree::with_merged_usr();
    for (package, done) in packages.iter().zip(0..) {
        progress.on_step(step, done, total);
        package.unpack(&mut unpacked, |path| !is_documentation(path))?;
    }
    progress.on_step(step, total, total);
    let mut services = Vec::new();
    let mut tree = match &options.profile {
        Profile::Demo { append_only } => {
            services.push(redis_service());
            demo_tree(&unpacked, options.architecture, *append_only)?
        }
        Profile::Packages { .. } => {
            insert_accounts(packages, &mut unpacked, progress)?;
            unpacked
        }
        Profile::RootFilesystem { .. } => unpacked,
    };
    services.extend(options.services.iter().cloned());
    insert_system(&mut tree, board)?;
    insert_services(&mut tree, &services)?;
    insert_board_modules(&mut tree, board)?;
    insert_added_files(&options.added_files, &mut tree)?;
    Ok(tree)
}

/// The file tree that mounts the disk and goes on there.
///
/// # Errors
/// As [`build`].
pub fn build_for_disk(board: &Board) -> Result<FileTree, GuestImageError> {
    let mut tree = FileTree::with_merged_usr();
    insert_system(&mut tree, board)?;
    insert_services(&mut tree, &[])?;
    let boot = insert_board_modules(&mut tree, board)?;
    let mut disk = modules(board, DISK_MODULES)?;
    disk.retain(|module| !boot.contains(module));
    insert_modules(&mut tree, "disk", &disk)?;
    Ok(tree)
}

fn modules(board: &Board, wanted: &[&str]) -> Result<Vec<KernelModule>, GuestImageError> {
    KernelModules::new(&board.modules).in_load_order(wanted)
}

/// Those of `wanted` that the kernel has, with what they need.
fn modules_that_there_are(
    board: &Board,
    wanted: &[&str],
) -> Result<Vec<KernelModule>, GuestImageError> {
    let all = KernelModules::new(&board.modules);
    let there = wanted.iter().copied().filter(|name| all.contains(name));
    all.in_load_order(&there.collect::<Vec<_>>())
}

/// The modules that every guest loads, which are returned, and those of the watchdog.
fn insert_board_modules(
    tree: &mut FileTree,
    board: &Board,
) -> Result<Vec<KernelModule>, GuestImageError> {
    let mut boot = modules(board, BOOT_MODULES)?;
    boot.extend(modules_that_there_are(board, PANIC_MODULES)?);
    boot.extend(modules_that_there_are(board, BUTTON_MODULES)?);
    insert_modules(tree, "boot", &boot)?;
    let watchdog = modules_that_there_are(board, WATCHDOG_MODULES)?;
    insert_modules(tree, "watchdog", &watchdog)?;
    Ok(boot)
}

fn demo_tree(
    packages: &FileTree,
    architecture: Architecture,
    append_only: bool,
) -> Result<FileTree, GuestImageError> {
    let mut tree = FileTree::with_merged_usr();
    for program in DEMO_PROGRAMS {
        copy_program(packages, architecture, program, &mut tree)?;
    }
    for file in ["etc/ssl/openssl.cnf", "usr/lib/ssl/openssl.cnf"] {
        if let Some(node) = packages.get(file) {
            tree.insert(file, node.clone())?;
        }
    }
    let append_only = if append_only { "yes" } else { "no" };
    let configuration = format!("{REDIS_CONFIGURATION}appendonly {append_only}\n");
    tree.insert(
        "etc/redis/redis.conf",
        Node::file(configuration.into_bytes(), 0o644),
    )?;
    tree.insert("var/lib/redis", Node::directory())?;
    Ok(tree)
}

fn redis_service() -> Service {
    Service {
        name: "redis".to_owned(),
        script: REDIS_SCRIPT.to_owned(),
        port: Some(REDIS_PORT),
    }
}

/// The users and groups that every Debian has and that the packages make, with the directories that they
/// need.
fn insert_accounts(
    packages: &[Package],
    tree: &mut FileTree,
    progress: &mut dyn Progress,
) -> Result<(), GuestImageError> {
    let text = |tree: &FileTree, path: &str| {
        let content = tree.file(path).map(|content| content.to_vec());
        String::from_utf8_lossy(&content.unwrap_or_default()).into_owned()
    };
    let mut accounts = Accounts::from_masters(
        &text(tree, "usr/share/base-passwd/passwd.master"),
        &text(tree, "usr/share/base-passwd/group.master"),
    );
    let below = |tree: &FileTree, directory: &str| {
        let paths = tree.iter().map(|(path, _)| path.to_owned());
        let here = paths.filter(|path| path.starts_with(directory) && path.ends_with(".conf"));
        here.collect::<Vec<_>>()
    };
    for path in below(tree, "usr/lib/sysusers.d/") {
        accounts.add_sysusers(&text(tree, &path));
    }
    for package in packages {
        let control = package.control_files()?;
        for script in ["preinst", "postinst"] {
            let Some(NodeKind::File(script)) = control.get(script).map(|node| &node.kind) else {
                continue;
            };
            let script = String::from_utf8_lossy(script);
            let found = maintainer_scripts::add_accounts(&script, &mut accounts);
            for (home, uid, gid) in found.homes {
                if !tree.contains(&home) {
                    tree.make_directory(&home, 0o755, uid, gid)?;
                }
            }
            for command in found.unclear {
                progress.on_note(&format!(
                    "{}: its script makes an account in a way that is not understood: {command}",
                    package.name
                ));
            }
        }
    }
    for path in below(tree, "usr/lib/tmpfiles.d/") {
        tmpfiles::make_directories(&text(tree, &path), &accounts, tree)?;
    }
    // Root has no password, as in other guests in RAM; the others cannot log in.
    let passwd = accounts.passwd(|name| if name == "root" { "" } else { "*" });
    tree.insert("etc/passwd", Node::file(passwd.into_bytes(), 0o644))?;
    let group = accounts.group().into_bytes();
    tree.insert("etc/group", Node::file(group, 0o644))
}

/// `/init`, busybox, and the directories and files that both rely on. What packages have brought
/// stays.
fn insert_system(tree: &mut FileTree, board: &Board) -> Result<(), GuestImageError> {
    for directory in [
        "dev",
        "proc",
        "sys",
        "run",
        "root",
        "newroot",
        "var/log",
        "etc/understudy/modules",
    ] {
        tree.insert(directory, Node::directory())?;
    }
    tree.insert(
        "tmp",
        Node {
            mode: 0o1777,
            ..Node::directory()
        },
    )?;
    tree.insert("dev/console", Node::character_device(5, 1))?;
    tree.insert(
        "dev/null",
        Node {
            mode: 0o666,
            ..Node::character_device(1, 3)
        },
    )?;
    tree.insert("init", Node::file(INIT.as_bytes(), 0o755))?;
    tree.insert(
        "usr/lib/understudy/dhcp-event",
        Node::file(DHCP_EVENT.as_bytes(), 0o755),
    )?;
    tree.insert(BUSYBOX, Node::file(board.busybox.clone(), 0o755))?;
    for applet in APPLETS.split_whitespace() {
        let path = format!("usr/bin/{applet}");
        if !tree.contains(&path) && !tree.contains(&format!("usr/sbin/{applet}")) {
            tree.insert(&path, Node::symbolic_link("busybox"))?;
        }
    }
    for (path, content) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/hosts", HOSTS),
        ("etc/hostname", "guest\n"),
        ("etc/profile", PROFILE),
    ] {
        if !tree.contains(path) {
            tree.insert(path, Node::file(content.as_bytes(), 0o644))?;
        }
    }
    Ok(())
}

fn insert_services(tree: &mut FileTree, services: &[Service]) -> Result<(), GuestImageError> {
    let mut names = String::new();
    for service in services {
        let path = format!("etc/understudy/services/{}", service.name);
        let script = format!("#!/bin/sh\n{}", service.script);
        tree.insert(&path, Node::file(script.into_bytes(), 0o755))?;
        if let Some(port) = service.port {
            let content = format!("{port}\n").into_bytes();
            tree.insert(&format!("{path}.port"), Node::file(content, 0o644))?;
        }
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(&service.name);
    }
    names.push('\n');
    tree.insert(
        "etc/understudy/default-services",
        Node::file(names.into_bytes(), 0o644),
    )
}

/// Puts modules where they belong and lists them under `list` in the order of loading.
fn insert_modules(
    tree: &mut FileTree,
    list: &str,
    modules: &[KernelModule],
) -> Result<(), GuestImageError> {
    let mut text = String::new();
    for module in modules {
        tree.insert(&module.path, Node::file(module.content.clone(), 0o644))?;
        let _ = writeln!(text, "/{}", module.path);
    }
    let path = format!("etc/understudy/modules/{list}");
    tree.insert(&path, Node::file(text.into_bytes(), 0o644))
}

fn is_documentation(path: &str) -> bool {
    DOCUMENTATION.iter().any(|directory| {
        path.strip_prefix(directory)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elf::tests::object_with_modinfo;

    fn board() -> Board {
        let mut modules = FileTree::default();
        for (name, depends) in [
            ("virtio_mmio", ""),
            ("virtio-rng", ""),
            ("virtio_net", "net_failover"),
            ("net_failover", ""),
            ("virtio_blk", ""),
            ("crc32c_generic", ""),
            ("ext4", "jbd2"),
            ("jbd2", ""),
        ] {
            let modinfo = format!("depends={depends}\0");
            let path = format!("usr/lib/modules/6.12/kernel/{name}.ko");
            let content = object_with_modinfo(modinfo.as_bytes());
            modules.insert(&path, Node::file(content, 0o644)).unwrap();
        }
        Board {
            kernel: Vec::new(),
            kernel_release: "6.12".to_owned(),
            firmware: None,
            u_boot: None,
            busybox: (*b"busybox").into(),
            modules,
        }
    }

    fn text(tree: &FileTree, path: &str) -> String {
        String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_disk_guest_loads_ext4_after_what_it_needs_and_nothing_twice() {
        let tree = build_for_disk(&board()).unwrap();
        let disk = text(&tree, "etc/understudy/modules/disk");
        let names: Vec<&str> = disk
            .lines()
            .map(|line| line.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(names, ["crc32c_generic.ko", "jbd2.ko", "ext4.ko"]);
        let boot = text(&tree, "etc/understudy/modules/boot");
        for line in boot.lines().chain(disk.lines()) {
            assert!(tree.contains(line), "{line}");
        }
    }

    #[test]
    fn every_applet_that_init_calls_has_a_link() {
        let tree = build_for_disk(&board()).unwrap();
        for applet in [
            "sh",
            "mount",
            "insmod",
            "ip",
            "udhcpc",
            "grep",
            "usleep",
            "switch_root",
            "hostname",
            "setsid",
            "cttyhack",
            "poweroff",
            "tail",
            "mkdir",
            "chroot",
            "umount",
            "dd",
            "kill",
            "sync",
        ] {
            assert!(tree.contains(&format!("usr/bin/{applet}")), "{applet}");
        }
    }

    #[test]
    fn a_packages_own_program_is_not_replaced_by_an_applet() {
        let mut tree = FileTree::with_merged_usr();
        tree.insert("usr/bin/grep", Node::file(*b"gnu", 0o755))
            .unwrap();
        tree.insert("usr/sbin/ip", Node::file(*b"iproute2", 0o755))
            .unwrap();
        insert_system(&mut tree, &board()).unwrap();
        assert_eq!(text(&tree, "usr/bin/grep"), "gnu");
        assert!(!tree.contains("usr/bin/ip"));
    }

    #[test]
    fn services_are_listed_in_order_with_their_ports() {
        let mut tree = FileTree::default();
        let other = Service {
            name: "b".into(),
            script: "sleep 9".into(),
            port: None,
        };
        insert_services(&mut tree, &[redis_service(), other]).unwrap();
        assert_eq!(text(&tree, "etc/understudy/default-services"), "redis,b\n");
        assert_eq!(text(&tree, "etc/understudy/services/redis.port"), "6379\n");
        assert!(!tree.contains("etc/understudy/services/b.port"));
    }

    /// What `/init` makes of a word on the kernel's command line, asked of the host's own shell.
    fn parameter(command_line: &str, name: &str) -> String {
        let start = INIT.find("parameter() {").unwrap();
        let function = &INIT[start..start + INIT[start..].find("\n}\n").unwrap() + 3];
        let script = format!("{function}\ncommand_line=$1\nparameter \"$2\"");
        let output = std::process::Command::new("sh")
            .args(["-c", &script, "sh", command_line, name])
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    #[test]
    fn init_reads_plain_and_quoted_parameters_and_no_part_of_another() {
        let line = "console=ttyS0 understudy.run=\"echo a=b; date\" root=/dev/vda x.root=no";
        assert_eq!(parameter(line, "console"), "ttyS0");
        assert_eq!(parameter(line, "understudy.run"), "echo a=b; date");
        assert_eq!(parameter(line, "root"), "/dev/vda");
        assert_eq!(parameter(line, "understudy.network"), "");
        assert_eq!(parameter("x.root=no quiet", "root"), "");
        assert_eq!(parameter("x.root=no root=/dev/vdb", "root"), "/dev/vdb");
        assert_eq!(parameter("xroot=1 root=", "root"), "");
    }

    #[test]
    fn the_guests_scripts_are_valid_shell() {
        for script in [INIT, DHCP_EVENT, REDIS_SCRIPT] {
            let status = std::process::Command::new("sh")
                .args(["-n", "-c", script])
                .status();
            assert!(status.unwrap().success(), "{script}");
        }
    }

    #[test]
    fn documentation_is_known_by_whole_directory_names() {
        assert!(is_documentation("usr/share/doc") && is_documentation("usr/share/man/man1/x"));
        assert!(!is_documentation("usr/share/docbook/x"));
    }
}
