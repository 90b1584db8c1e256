//! `understudy run`.

use super::engine::EngineOption;
use crate::architecture::Architecture;
use crate::config::{
    ByteSize, DiskDurability, DiskSection, MacAddress, MemberName, Milliseconds, NetworkSection,
    VmConfig,
};
use crate::engine::EngineName;
use crate::exit::{ExitStatus, Failure};
use crate::single::{self, SingleOptions};
use anyhow::anyhow;
use clap::Args;
use guest_image::GuestImage;
use machine::config::{PanicPolicy, Transport};
use replica::config::DiskFormat;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

/// Run a machine alone, its first console in this terminal (Ctrl-A x ends it).
///
/// The machine of a pair is run by `understudy replica`: its vm.toml is refused here unless --ignore-pair
/// says that it is meant.
///
/// The exit status is the guest's own: 0 after a power-off, the finisher's code otherwise.
#[derive(Debug, Args)]
pub struct Run {
    /// Take the machine from this vm.toml; the other options change it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration is a pair's, whose replicas are off and stay off meanwhile: the machine writes their
    /// disk here, which no replica knows of, and has their MAC address
    #[arg(long, requires = "config")]
    ignore_pair: bool,
    /// Take firmware, kernel, initial RAM disk, command line and disk from an image that
    /// `understudy guest build` made; the other options change it
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    guest: Option<PathBuf>,
    /// What the machine is (default: what the guest image is for, or riscv64)
    #[arg(long, value_name = "NAME")]
    arch: Option<Architecture>,
    /// Kernel: a RISC-V boot image or an ELF file, or a bzImage for x86-64
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Firmware image. RISC-V: OpenSBI's `fw_dynamic.bin`, or `none`: the kernel is an ELF file that starts in M-mode
    /// at its entry (on QEMU: at the start of RAM). x86-64, in place of a kernel: EDK2's CLOUDHV.fd (Debian's package
    /// cloudhv-efi-x86-64), which boots a disk that has a boot loader, as cloud images have
    #[arg(long, value_name = "FILE|none")]
    firmware: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    append: Option<String>,
    /// RAM, as in 512M
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Harts (CPUs of an x86-64 machine), 1 to 8
    #[arg(long, value_name = "N")]
    harts: Option<u32>,
    /// A disk image; may be repeated. After it: `,readonly` if the guest may not write, `,format=qcow2` or
    /// `,format=raw` where the name does not say it (`.qcow2` does), `,backing=FILE` for each file that a
    /// qcow2 image lies over
    #[arg(long, value_name = "FILE[,readonly][,format=NAME][,backing=FILE]", value_parser = disk)]
    disk: Vec<DiskSection>,
    /// Connect the network device to a switch (`unix:/path`, `tcp:host:port`) or a TAP (`tap:NAME`)
    #[arg(long, value_name = "ADDRESS")]
    network: Option<String>,
    /// The host of a switch at tcp:, by the name in its certificate
    #[arg(long, value_name = "HOST")]
    switch_host: Option<MemberName>,
    /// The directory of this host's keys, for a switch at tcp:
    #[arg(long, value_name = "DIR")]
    keys: Option<PathBuf>,
    /// The guest's Ethernet address
    #[arg(long, value_name = "MAC")]
    mac: Option<MacAddress>,
    /// Add a virtio console (its output is shown too)
    #[arg(long)]
    virtio_console: bool,
    /// How the virtio devices are reached: `mmio` or `pci` (default: pci for x86-64, mmio for riscv64)
    #[arg(long, value_name = "NAME", value_parser = transport)]
    transport: Option<Transport>,
    /// Leave the entropy device out
    #[arg(long)]
    no_entropy: bool,
    /// Leave the bit-manipulation extensions Zba, Zbb and Zbs out
    #[arg(long)]
    no_bit_manipulation: bool,
    /// Leave another extension of the harts out, for example zicboz; may be given several times
    #[arg(long, value_name = "NAME")]
    without_extension: Vec<String>,
    /// When the guest's kernel panics: `report` it and go on, `reboot` the guest, or `stop`
    #[arg(long, value_name = "POLICY", value_parser = panic_policy)]
    on_panic: Option<PanicPolicy>,
    /// Record the run in FILE, to be run again with `understudy replay FILE`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// A digest in the recording every COUNT instructions or so, besides one a second: a replay that
    /// differs ends at the first that is not equal
    #[arg(long, value_name = "COUNT", requires = "record")]
    digest_interval: Option<NonZeroU64>,
    /// Write each line that the guest prints to FILE, behind the number of instructions that were executed by then
    #[arg(long, value_name = "FILE")]
    line_counts: Option<PathBuf>,
    /// Say how fast the machine ran when it ends
    #[arg(long)]
    summary: bool,
    /// End when the guest reboots, instead of starting it again
    #[arg(long)]
    no_reboot: bool,
    #[command(flatten)]
    engine: EngineOption,
}

impl Run {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = self.configuration()?;
        let options = SingleOptions {
            record: self.record,
            digest_interval_instructions: self.digest_interval.map_or(0, NonZeroU64::get),
            line_counts: self.line_counts,
            summary: self.summary,
            no_reboot: self.no_reboot,
        };
        single::run(&config, options)
    }

    /// A pair's machine, run here beside it, would be on its network with its MAC address, and write a disk
    /// that its markers say something else of.
    fn load(&self, path: &Path) -> Result<VmConfig, Failure> {
        let config = VmConfig::load(path).map_err(Failure::usage)?;
        if config.pair.is_some() && !self.ignore_pair {
            let path = path.display();
            return Err(Failure::usage(anyhow!(
                "{path} is the machine of a pair, which `understudy replica --config {path}` runs; run here \
                 it would write the pair's disks and have its MAC address on its network. Give --ignore-pair \
                 if all its replicas are off and this is meant"
            )));
        }
        Ok(config)
    }

    fn configuration(&self) -> Result<VmConfig, Failure> {
        let mut config = match &self.config {
            Some(path) => self.load(path)?,
            None => default_machine(),
        };
        if let Some(directory) = &self.guest {
            take_guest(&mut config, directory)?;
        }
        config.arch = self.arch.unwrap_or(config.arch);
        let take = |target: &mut Option<PathBuf>, given: &Option<PathBuf>| {
            if given.is_some() {
                target.clone_from(given);
            }
        };
        take(&mut config.kernel, &self.kernel);
        take(&mut config.firmware, &self.firmware);
        take(&mut config.initrd, &self.initrd);
        if config.firmware.as_deref() == Some(Path::new("none")) {
            config.firmware = None;
        }
        if let Some(append) = &self.append {
            config.command_line.clone_from(append);
        }
        config.memory = self.memory.unwrap_or(config.memory);
        config.harts = self.harts.unwrap_or(config.harts);
        config.on_panic = self.on_panic.unwrap_or(config.on_panic);
        if !self.disk.is_empty() {
            config.disks.clone_from(&self.disk);
        }
        if let Some(address) = &self.network {
            config.network = Some(NetworkSection {
                switch_host: self.switch_host.clone(),
                keys: self.keys.clone(),
                ..network(address)
            });
        }
        if let (Some(mac), Some(network)) = (self.mac, &mut config.network) {
            network.mac = mac;
        }
        config.engine = self.engine.or(config.engine);
        config.virtio_console |= self.virtio_console;
        config.transport = self.transport.or(config.transport);
        config.entropy &= !self.no_entropy;
        config.bit_manipulation &= !self.no_bit_manipulation;
        let without = self.without_extension.iter().cloned();
        config.without_extensions.extend(without);
        let named = self.config.as_deref().unwrap_or(Path::new("command line"));
        config.check(named).map_err(Failure::usage)?;
        Ok(config)
    }
}

fn default_machine() -> VmConfig {
    VmConfig {
        name: "run".into(),
        arch: Architecture::default(),
        memory: ByteSize(512 << 20),
        harts: 1,
        firmware: None,
        kernel: None,
        initrd: None,
        command_line: String::new(),
        virtio_console: false,
        entropy: true,
        transport: None,
        bit_manipulation: true,
        without_extensions: BTreeSet::new(),
        on_panic: PanicPolicy::default(),
        disk_durability: DiskDurability::Primary,
        power_off_wait: Milliseconds(60_000),
        state_directory: PathBuf::new(),
        engine: EngineName::default(),
        disks: Vec::new(),
        network: None,
        pair: None,
        journal: None,
        arbiter: None,
        next_arbiter: None,
    }
}

fn transport(text: &str) -> Result<Transport, String> {
    let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    Transport::deserialize(deserializer).map_err(|_| "write mmio or pci".to_owned())
}

fn panic_policy(text: &str) -> Result<PanicPolicy, String> {
    let deserializer = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    PanicPolicy::deserialize(deserializer).map_err(|_| "write report, reboot or stop".to_owned())
}

fn take_guest(config: &mut VmConfig, directory: &Path) -> Result<(), Failure> {
    let image = GuestImage::open(directory).ok_or_else(|| {
        Failure::usage(anyhow!(
            "{} holds no complete guest image: make one with `understudy guest build`",
            directory.display()
        ))
    })?;
    config.arch = image.architecture.into();
    config.firmware = image.firmware;
    config.kernel = Some(image.kernel);
    config.initrd = Some(image.initrd);
    config.command_line = image.command_line;
    config.disks.extend(image.disk.map(plain_disk));
    Ok(())
}

fn plain_disk(path: PathBuf) -> DiskSection {
    DiskSection {
        path,
        read_only: false,
        format: None,
        backing: Vec::new(),
        overwrite: false,
        shared: false,
        fencing: None,
    }
}

/// The path may have commas: what follows it is looked for from the end.
fn disk(text: &str) -> Result<DiskSection, String> {
    let mut disk = plain_disk(PathBuf::new());
    let mut path = text;
    while let Some((before, option)) = path.rsplit_once(',') {
        match option.split_once('=') {
            None if option == "readonly" => disk.read_only = true,
            Some(("format", "raw")) => disk.format = Some(DiskFormat::Raw),
            Some(("format", "qcow2")) => disk.format = Some(DiskFormat::Qcow2),
            Some(("format", _)) => return Err("write format=raw or format=qcow2".to_owned()),
            Some(("backing", file)) => disk.backing.insert(0, file.into()),
            _ => break,
        }
        path = before;
    }
    disk.path = path.into();
    Ok(disk)
}

fn network(address: &str) -> NetworkSection {
    let tap = address.strip_prefix("tap:").map(str::to_owned);
    let switch = if tap.is_none() {
        Some(address.to_owned())
    } else {
        None
    };
    NetworkSection {
        switch,
        switch_host: None,
        keys: None,
        tap,
        mac: MacAddress::default(),
    }
}
