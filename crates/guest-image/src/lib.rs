//! Guest images from Debian's packages for riscv64 or amd64: kernel, initial file system, firmware, and a
//! disk if wanted. Needs apt and dpkg-deb, no root; nothing of what is fetched is run on the host.
//! `docs/guest-images.md` describes the images.
#![forbid(unsafe_code)]

mod accounts;
mod apt;
mod apt_sources;
mod architecture;
mod cpio;
mod dpkg_database;
mod elf;
mod error;
mod ext4;
mod file_tree;
mod initramfs;
mod kernel_modules;
mod maintainer_scripts;
mod manifest;
mod options;
mod output;
mod package;
mod packaged_file;
mod progress;
mod root_filesystem;
mod shared_libraries;
mod tmpfiles;

use std::fs;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

pub use architecture::Architecture;
pub use error::GuestImageError;
pub use manifest::{FILE_NAME as MANIFEST_FILE_NAME, Manifest, ManifestFile, ManifestPackage};
pub use options::{AddedFile, BuildOptions, MIN_DISK_BYTES, Profile, Service};
pub use packaged_file::{PC_FIRMWARE, PackagedFile};
pub use progress::{NoProgress, Progress};

use apt::{Apt, PackageFile};
use file_tree::{FileTree, Node};
use package::Package;

/// A guest that can be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestImage {
    /// For which machine.
    pub architecture: Architecture,
    /// The kernel: a raw RISC-V boot image, or a bzImage for x86-64.
    pub kernel: PathBuf,
    /// The initial file system.
    pub initrd: PathBuf,
    /// The firmware: OpenSBI's `fw_dynamic.bin` on RISC-V.
    pub firmware: Option<PathBuf>,
    /// U-Boot for S-mode, if it was asked for.
    pub u_boot: Option<PathBuf>,
    /// The disk with the root file system, for guests that have one.
    pub disk: Option<PathBuf>,
    /// The kernel's command line.
    pub command_line: String,
}

impl GuestImage {
    /// The image in a directory that [`build`] filled; `None` if there is none, or only part of one.
    pub fn open(directory: &Path) -> Option<Self> {
        Manifest::of_complete_image(directory).map(|manifest| manifest.image(directory))
    }
}

/// Where packages and the demo guest are kept unless the user says otherwise:
/// `$XDG_CACHE_HOME/understudy` or `~/.cache/understudy`. `None` without a home.
pub fn default_cache_directory() -> Option<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(base.join("understudy"))
}

/// The guest of the demo for an architecture, Redis on port 6379, built in `cache` unless it is there
/// already.
///
/// # Errors
/// As [`build`].
pub fn demo_guest(
    cache: &Path,
    architecture: Architecture,
    progress: &mut dyn Progress,
) -> Result<GuestImage, GuestImageError> {
    let guests = cache.join("guests");
    let mut options = BuildOptions::new(cache, guests.join(architecture.demo_directory()));
    options.architecture = architecture;
    build(&options, progress)
}

/// Builds an image. One that was built with the same options is used as it is, without the network.
///
/// # Errors
/// See [`GuestImageError`]; nothing is left under a final name then.
pub fn build(
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<GuestImage, GuestImageError> {
    for service in &options.services {
        service.check()?;
    }
    if options.u_boot && options.architecture.u_boot().is_none() {
        return Err(GuestImageError::BadOptions(format!(
            "there is no U-Boot for {}",
            options.architecture
        )));
    }
    let key = key(options)?;
    if let Some(manifest) = Manifest::of_complete_image(&options.output)
        && manifest.key == key
        && !options.refresh
    {
        return Ok(manifest.image(&options.output));
    }
    if let Profile::RootFilesystem { file, bytes, .. } = &options.profile {
        root_filesystem::check(file, *bytes)?;
    }
    create_directory(&options.output)?;
    let apt = Apt::open(
        &options.cache.join(options.architecture.apt_directory()),
        options.architecture,
        apt_sources::SUITE,
        options.mirror.as_deref(),
        progress,
    )?;
    output::remove_partials(&options.output);
    apt.update(options.refresh, progress)?;
    let built = match build_with(&apt, options, &key, progress) {
        // Lists of yesterday may name packages that the archive has replaced since.
        Err(GuestImageError::DownloadFailed { .. }) => {
            apt.update(true, progress)?;
            build_with(&apt, options, &key, progress)
        }
        built => built,
    };
    built.map(|manifest| manifest.image(&options.output))
}

fn build_with(
    apt: &Apt,
    options: &BuildOptions,
    key: &str,
    progress: &mut dyn Progress,
) -> Result<Manifest, GuestImageError> {
    let selection = Selection::resolve(apt, options)?;
    let fetched = apt.fetch(&selection.files(), progress)?;
    let board = Board::unpack(&fetched, options, progress)?;
    let userland: Vec<Package> = fetched
        .iter()
        .filter(|package| {
            selection
                .userland
                .iter()
                .any(|file| file.package_name() == package.name)
        })
        .cloned()
        .collect();

    let manifest_path = options.output.join(manifest::FILE_NAME);
    output::remove(&manifest_path)?;
    let mut command_line = options.architecture.command_line().to_owned();
    let initrd = match &options.profile {
        Profile::Demo { .. } | Profile::Packages { .. } => {
            initramfs::build(options, &board, &userland, progress)?
        }
        Profile::RootFilesystem { .. } => {
            command_line.push_str(root_filesystem::COMMAND_LINE);
            initramfs::build_for_disk(&board)?
        }
    };
    if !options.extra_command_line.trim().is_empty() {
        command_line.push(' ');
        command_line.push_str(options.extra_command_line.trim());
    }
    let files = write_files(options, &board, &initrd, progress)?;
    let disk = root_filesystem::build(options, &board, &userland, apt.archive(), progress)?;
    let mut packages: Vec<ManifestPackage> = fetched.iter().map(ManifestPackage::from).collect();
    packages.sort();
    let manifest = Manifest {
        format: manifest::FORMAT,
        key: key.to_owned(),
        architecture: options.architecture,
        kernel_release: board.kernel_release,
        command_line,
        files,
        packages,
        disk,
    };
    manifest.write(&options.output)?;
    Ok(manifest)
}

fn write_files(
    options: &BuildOptions,
    board: &Board,
    initrd: &FileTree,
    progress: &mut dyn Progress,
) -> Result<Vec<ManifestFile>, GuestImageError> {
    let step = "writing the image";
    progress.on_step(step, 0, 1);
    let mut archive = Vec::new();
    let initrd_path = options.output.join(output::INITRD);
    cpio::write(initrd, &mut archive)
        .map_err(|error| GuestImageError::file("packing", &initrd_path, error))?;
    let mut contents: Vec<(&str, &[u8])> =
        vec![(output::KERNEL, &board.kernel), (output::INITRD, &archive)];
    if let Some(firmware) = &board.firmware {
        contents.push((output::FIRMWARE, firmware));
    }
    if let Some(u_boot) = &board.u_boot {
        contents.push((output::U_BOOT, u_boot));
    }
    let mut files = Vec::new();
    for (name, content) in contents {
        output::write_atomically(&options.output.join(name), content)?;
        files.push(ManifestFile {
            name: name.to_owned(),
            bytes: content.len() as u64,
        });
    }
    progress.on_step(step, 1, 1);
    Ok(files)
}

/// The package files that a build needs.
struct Selection {
    /// Kernel, firmware, U-Boot: taken without what they depend on.
    board: Vec<PackageFile>,
    /// What the guest's file system is made of.
    userland: Vec<PackageFile>,
}

impl Selection {
    fn resolve(apt: &Apt, options: &BuildOptions) -> Result<Self, GuestImageError> {
        let architecture = options.architecture;
        let mut board = vec![
            apt.behind_meta_package(architecture.kernel_meta_package(), "linux-image-")?,
            "busybox-static".to_owned(),
        ];
        let u_boot = architecture.u_boot().filter(|_| options.u_boot);
        board.extend(
            architecture
                .firmware()
                .into_iter()
                .chain(u_boot)
                .map(|(package, _)| package.to_owned()),
        );
        let board = apt.without_dependencies(&board)?;
        let mut userland = match &options.profile {
            Profile::Demo { .. } => {
                let mut closure = apt.closure(&initramfs::demo_packages())?;
                closure.retain(|file| initramfs::is_demo_package(file.package_name()));
                closure
            }
            Profile::Packages { packages } if packages.is_empty() => Vec::new(),
            Profile::Packages { packages } => {
                apt.closure(&initramfs::with_base_accounts(packages))?
            }
            Profile::RootFilesystem { packages, .. } => {
                apt.closure(&root_filesystem::packages(packages))?
            }
        };
        userland.retain(|file| !board.contains(file));
        Ok(Self { board, userland })
    }

    fn files(&self) -> Vec<PackageFile> {
        self.board.iter().chain(&self.userland).cloned().collect()
    }
}

/// What a guest needs below its file system.
struct Board {
    kernel: Vec<u8>,
    /// As `uname -r` says it.
    kernel_release: String,
    firmware: Option<Vec<u8>>,
    u_boot: Option<Vec<u8>>,
    busybox: std::sync::Arc<[u8]>,
    /// `usr/lib/modules` of the kernel's package.
    modules: FileTree,
}

impl Board {
    fn unpack(
        packages: &[Package],
        options: &BuildOptions,
        progress: &mut dyn Progress,
    ) -> Result<Self, GuestImageError> {
        let step = "unpacking kernel and firmware";
        progress.on_step(step, 0, 1);
        let firmware = options.architecture.firmware();
        let u_boot = options.architecture.u_boot().filter(|_| options.u_boot);
        let parts = [
            Some(("busybox-static", initramfs::BUSYBOX)),
            firmware,
            u_boot,
        ];
        let mut tree = FileTree::with_merged_usr();
        for package in packages {
            if package.name.starts_with("linux-image-") {
                package.unpack(&mut tree, |path| {
                    path.starts_with("boot/vmlinu") || path.contains("lib/modules")
                })?;
            } else if let Some((_, file)) = parts
                .iter()
                .flatten()
                .find(|(name, _)| *name == package.name)
            {
                package.unpack(&mut tree, |path| path == *file)?;
            }
        }
        let need = |path: &str| {
            tree.file(path).cloned().ok_or_else(|| GuestImageError::FileNotInPackages {
                file: path.to_owned(),
                hint: "Debian's package has changed; this version of Understudy does not know it",
            })
        };
        let kernel_path = tree
            .iter()
            .map(|(path, _)| path)
            .find(|path| path.starts_with("boot/vmlinu"));
        let kernel_path = kernel_path.unwrap_or("boot/vmlinux").to_owned();
        let kernel_release = kernel_path
            .split_once('-')
            .map_or("", |(_, release)| release);
        let board = Self {
            kernel: need(&kernel_path)?.to_vec(),
            kernel_release: kernel_release.to_owned(),
            firmware: firmware
                .map(|(_, file)| Ok(need(file)?.to_vec()))
                .transpose()?,
            u_boot: u_boot
                .map(|(_, file)| Ok(need(file)?.to_vec()))
                .transpose()?,
            busybox: need(initramfs::BUSYBOX)?,
            modules: {
                tree.remove_where(|path| path.starts_with("boot/"));
                tree
            },
        };
        progress.on_step(step, 1, 1);
        Ok(board)
    }
}

/// Puts the files of the host that the user named into the guest.
fn insert_added_files(files: &[AddedFile], tree: &mut FileTree) -> Result<(), GuestImageError> {
    for file in files {
        let content = fs::read(&file.host)
            .map_err(|error| GuestImageError::file("reading a file to add", &file.host, error))?;
        tree.insert(&file.guest, Node::file(content, file.mode))?;
    }
    Ok(())
}

fn create_directory(path: &Path) -> Result<(), GuestImageError> {
    fs::create_dir_all(path)
        .map_err(|error| GuestImageError::file("creating the output directory", path, error))
}

/// Names everything that decides what an image holds, except the packages' versions.
fn key(options: &BuildOptions) -> Result<String, GuestImageError> {
    let mut hash = Xxh3::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(&manifest::FORMAT.to_le_bytes());
    for text in [
        options.architecture.command_line(),
        &options.extra_command_line,
        root_filesystem::COMMAND_LINE,
    ] {
        add(text.as_bytes());
    }
    for script in initramfs::SCRIPTS.iter().chain(root_filesystem::SCRIPTS) {
        add(script.as_bytes());
    }
    for module in initramfs::MODULES.iter().copied().flatten() {
        add(module.as_bytes());
    }
    for module in root_filesystem::MODULES {
        add(module.as_bytes());
    }
    let described = serde_json::to_vec(&(
        options.architecture,
        &options.profile,
        &options.services,
        options.u_boot,
    ));
    add(&described.map_err(|error| GuestImageError::BadOptions(error.to_string()))?);
    for file in &options.added_files {
        add(file.guest.as_bytes());
        add(&file.mode.to_le_bytes());
        let content = fs::read(&file.host)
            .map_err(|error| GuestImageError::file("reading a file to add", &file.host, error))?;
        add(&content);
    }
    Ok(format!("{:032x}", hash.digest128()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_changes_with_whatever_changes_the_image() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("program");
        fs::write(&host, "one").unwrap();
        let plain = BuildOptions::new("/c", "/o");
        let with_file = BuildOptions {
            added_files: vec![AddedFile {
                host: host.clone(),
                guest: "/p".into(),
                mode: 0o755,
            }],
            ..plain.clone()
        };
        let mut keys = vec![
            key(&plain).unwrap(),
            key(&BuildOptions {
                u_boot: true,
                ..plain.clone()
            })
            .unwrap(),
            key(&BuildOptions {
                extra_command_line: "x".into(),
                ..plain.clone()
            })
            .unwrap(),
            key(&BuildOptions {
                profile: Profile::Demo { append_only: true },
                ..plain.clone()
            })
            .unwrap(),
            key(&BuildOptions {
                architecture: Architecture::Amd64,
                ..plain.clone()
            })
            .unwrap(),
            key(&with_file).unwrap(),
        ];
        fs::write(&host, "two").unwrap();
        keys.push(key(&with_file).unwrap());
        let elsewhere = BuildOptions {
            output: "/p".into(),
            refresh: true,
            ..plain.clone()
        };
        assert_eq!(key(&elsewhere).unwrap(), keys[0]);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 7);
    }
}
