//! `understudy guest build` and `understudy guest firmware`.

use crate::config::ByteSize;
use crate::demo::StepPrinter;
use crate::exit::{ExitStatus, Failure};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use guest_image::{AddedFile, Architecture, BuildOptions, GuestImage, Profile, Service};
use std::io::Write;
use std::path::PathBuf;

/// Make guest images.
#[derive(Debug, Args)]
pub struct Guest {
    #[command(subcommand)]
    command: GuestCommand,
}

#[derive(Debug, Subcommand)]
enum GuestCommand {
    Build(Box<Build>),
    Firmware(Firmware),
}

/// Fetch UEFI firmware for the x86-64 machine, and say where it is.
///
/// With it (`--firmware` of run, `firmware` in vm.toml) that machine boots a disk that has a boot loader of its own, as
/// cloud images have. It is EDK2's build for Cloud Hypervisor, from Debian's package cloudhv-efi-x86-64.
#[derive(Debug, Args)]
struct Firmware {
    /// Fetch it again even if it is there already
    #[arg(long)]
    refresh: bool,
    /// The Debian archive to fetch from (default: the one of this host's apt)
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where it is kept (default: ~/.cache/understudy)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

fn cache_directory(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    named
        .or_else(guest_image::default_cache_directory)
        .ok_or_else(|| {
            Failure::usage(anyhow!(
                "there is no home directory: name a cache directory with --cache"
            ))
        })
}

/// Build a Debian guest from the packages that this host's apt can fetch.
///
/// Without --package and --root-filesystem: the demonstration's guest, Redis in an initramfs. With
/// --package: these packages and what they depend on in an initramfs. With --root-filesystem: a
/// whole Debian system with systemd on a disk image. Needs no root; packages are cached.
#[derive(Debug, Args)]
struct Build {
    /// The directory for kernel, initrd and firmware
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// The architecture: riscv64 or amd64
    #[arg(long, value_name = "NAME", default_value = "riscv64")]
    arch: Architecture,
    /// A Debian package to put into the guest; may be repeated or name several, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    package: Vec<String>,
    /// Make a whole system on this disk image
    #[arg(long, value_name = "FILE")]
    root_filesystem: Option<PathBuf>,
    /// The size of that image
    #[arg(
        long,
        value_name = "SIZE",
        default_value = "2G",
        requires = "root_filesystem"
    )]
    size: ByteSize,
    /// Root's password there (default: root logs in at the console without one)
    #[arg(long, value_name = "TEXT", requires = "root_filesystem")]
    root_password: Option<String>,
    /// Put a file of this host into the guest, with mode 755 unless given; may be repeated
    #[arg(long, value_name = "HOST:GUEST[:MODE]")]
    add_file: Vec<AddedFile>,
    /// A command that an initramfs guest runs as a service, with the TCP port that it listens on when
    /// it is ready; may be repeated
    #[arg(long, value_name = "NAME[:PORT]=COMMAND", value_parser = service)]
    service: Vec<Service>,
    /// Append to the kernel's command line
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true
    )]
    append: String,
    /// Redis keeps an append-only file (demonstration's guest)
    #[arg(long)]
    append_only: bool,
    /// Also put Debian's U-Boot into the output directory
    #[arg(long)]
    u_boot: bool,
    /// Fetch the package lists and build again even if the image is there already
    #[arg(long)]
    refresh: bool,
    /// The Debian archive to fetch from (default: the one of this host's apt)
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Where packages are cached (default: ~/.cache/understudy)
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = || "write NAME=COMMAND or NAME:PORT=COMMAND".to_owned();
    let (name, script) = text.split_once('=').ok_or_else(wrong)?;
    let (name, port) = match name.split_once(':') {
        Some((name, port)) => {
            let port: std::num::NonZeroU16 = port.parse().map_err(|_| wrong())?;
            (name, Some(port.get()))
        }
        None => (name, None),
    };
    Ok(Service {
        name: name.into(),
        script: script.into(),
        port,
    })
}

impl Guest {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        match self.command {
            GuestCommand::Build(build) => build.execute(),
            GuestCommand::Firmware(firmware) => firmware.execute(),
        }
    }
}

impl Firmware {
    fn execute(self) -> Result<ExitStatus, Failure> {
        let cache = cache_directory(self.cache)?;
        let (mirror, progress) = (self.mirror.as_deref(), &mut StepPrinter::default());
        let path = guest_image::PC_FIRMWARE
            .fetch(&cache, mirror, self.refresh, progress)
            .map_err(Failure::usage)?;
        writeln!(std::io::stdout(), "{}", path.display())?;
        Ok(ExitStatus::Success)
    }
}

impl Build {
    fn execute(self) -> Result<ExitStatus, Failure> {
        let cache = cache_directory(self.cache.clone())?;
        let mut options = BuildOptions::new(cache, &self.output);
        options.architecture = self.arch;
        options.profile = self.profile();
        options.mirror = self.mirror;
        options.added_files = self.add_file;
        options.services = self.service;
        options.extra_command_line = self.append;
        options.u_boot = self.u_boot;
        options.refresh = self.refresh;
        let image =
            guest_image::build(&options, &mut StepPrinter::default()).map_err(Failure::usage)?;
        std::io::stdout().write_all(describe(&image).as_bytes())?;
        Ok(ExitStatus::Success)
    }

    fn profile(&self) -> Profile {
        match &self.root_filesystem {
            Some(file) => Profile::RootFilesystem {
                packages: self.package.clone(),
                file: file.clone(),
                bytes: self.size.0,
                root_password: self.root_password.clone(),
            },
            None if self.package.is_empty() => Profile::Demo {
                append_only: self.append_only,
            },
            None => Profile::Packages {
                packages: self.package.clone(),
            },
        }
    }
}

/// How to start it.
fn describe(image: &GuestImage) -> String {
    let firmware = image.firmware.as_deref().map_or(String::new(), |path| {
        format!("--firmware {} ", path.display())
    });
    let mut command = format!(
        "understudy run --arch {} {firmware}--kernel {} --initrd {} --append '{}'",
        image.architecture,
        image.kernel.display(),
        image.initrd.display(),
        image.command_line
    );
    if let Some(disk) = &image.disk {
        command.push_str(&format!(" --disk {}", disk.display()));
    }
    command.push('\n');
    command
}
