//! From a configuration to a machine: images are read, disks opened, the board put together.

use crate::architecture::Architecture;
use crate::config::{ByteSize, DiskSection, VmConfig};
use crate::speed;
use machine::config::{BoardConfig, BootImages, DiskConfig, MachineConfig, NetworkConfig};
use machine::{Failure, Machine};
use replica::disk::Disk;
use replica::host_time;
use replica::machines::Machines;
use replication::configuration::Configuration;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use thiserror::Error;
use xxhash_rust::xxh3::Xxh3;

/// Why a machine cannot be made from its configuration.
#[derive(Debug, Error)]
pub enum SetupError {
    /// An image cannot be read.
    #[error("cannot read the {what} {}: {source}", path.display())]
    Image {
        /// Firmware, kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no firmware of that name.
    #[error(
        "there is no firmware {}: `understudy guest firmware` fetches one for this machine (from Debian's package \
         cloudhv-efi-x86-64)",
        path.display()
    )]
    NoPcFirmware {
        /// The file.
        path: PathBuf,
    },
    /// There is no such machine, or the images do not make one.
    #[error("cannot start the machine: {0}")]
    PowerOn(Failure),
    /// An image that cannot fit, or has no end.
    #[error(
        "the {what} {} is larger than the machine's memory of {memory}: give another file or more memory",
        path.display()
    )]
    ImageTooLarge {
        /// Firmware, kernel or initrd.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The machine's memory.
        memory: ByteSize,
    },
    /// The board has nothing by which the guest could say that it panicked.
    #[error(
        "on_panic: a guest of this architecture has no way to say that it panicked: leave it out, or write \"report\""
    )]
    PanicPolicy,
    /// The host cannot promise so much.
    #[error("memory: this host cannot provide {0}: give the machine less")]
    Memory(ByteSize),
}

/// The machine of one configuration.
#[derive(Clone, Debug)]
pub struct ConfiguredMachine(pub VmConfig);

impl Machines for ConfiguredMachine {
    fn semantics_version(&self) -> u32 {
        self.0.arch.semantics_version()
    }

    fn configuration_hash(&self) -> u64 {
        let sectors = self.0.disks.iter().map(|_| 0);
        let config = machine_config(&self.0, sectors, 0);
        let hash = self.0.arch.configuration_hash(&config);
        hash.expect("a configuration asks for features that there are")
    }

    fn configuration(&self) -> Configuration {
        let VmConfig {
            arch,
            memory,
            harts,
            virtio_console,
            entropy,
            ..
        } = &self.0;
        let all = arch.features(&BTreeSet::new());
        let features = features(&self.0);
        let without: Vec<&str> = all.difference(&features).map(String::as_str).collect();
        let mac = self
            .0
            .network
            .as_ref()
            .map(|network| network.mac.to_string());
        Configuration::new(self.configuration_hash())
            .with("arch", arch.name())
            .with("memory", memory)
            .with("harts", harts)
            .with("transport", self.0.transport_name())
            .with("virtio_console", virtio_console)
            .with("entropy", entropy)
            .with("without_extensions", listed(&without))
            .with("network.mac", mac.as_deref().unwrap_or("no network"))
            .with("disks", describe_disks(&self.0))
    }

    fn speed(&self) -> Option<u64> {
        speed::measure(self.0.arch, self.0.engine).ok()
    }

    fn boot(&self) -> Configuration {
        let images = named_images(&self.0);
        let told = images
            .into_iter()
            .fold(Configuration::new(0), |told, (what, path)| {
                told.with(what, described_image(path.as_deref(), self.0.memory))
            });
        told.with_long("command_line", &format!("{:?}", self.0.command_line))
            .with("on_panic", format!("{:?}", self.0.on_panic).to_lowercase())
    }

    fn check(&self) -> Result<(), Failure> {
        let files = named_images(&self.0);
        for (what, path) in files {
            if let Some(path) = path {
                File::open(path).map_err(|source| self.0.unreadable(what, path, source))?;
            }
        }
        Ok(())
    }

    fn power_on(&self, disks: &[Disk]) -> Result<Box<dyn Machine>, Failure> {
        Ok(power_on(&self.0, disks)?)
    }

    fn restore(&self, snapshot: &mut dyn Read) -> Result<Box<dyn Machine>, Failure> {
        Ok(self.0.arch.restore_from(snapshot, self.0.engine)?)
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [] => "none".into(),
        names => names.join(", "),
    }
}

/// How many there are, which the guest may not write, and which all hosts share: their lengths are the primary's.
fn describe_disks(config: &VmConfig) -> String {
    let named = |is: fn(&DiskSection) -> bool| {
        let disks = config.disks.iter().zip('a'..='z');
        let these = disks.filter(|(disk, _)| is(disk));
        let names: Vec<String> = these.map(|(_, letter)| format!("vd{letter}")).collect();
        names.join(" ")
    };
    let (read_only, shared) = (named(|disk| disk.read_only), named(|disk| disk.shared));
    let mut told = config.disks.len().to_string();
    for (what, disks) in [("read-only", read_only), ("shared", shared)] {
        if !disks.is_empty() {
            told = format!("{told}, {what} {disks}");
        }
    }
    told
}

/// A machine at power-on.
pub fn power_on(config: &VmConfig, disks: &[Disk]) -> Result<Box<dyn Machine>, SetupError> {
    check_memory(ByteSize(config.arch.host_memory(config.memory.0)))
        .map_err(|_| SetupError::Memory(config.memory))?;
    let images = images(config)?;
    let sectors = disks.iter().map(Disk::sectors);
    let machine_config = machine_config(config, sectors, host_time::unix_ns());
    let machine = config
        .arch
        .power_on(&machine_config, &images, config.engine);
    let mut machine = machine.map_err(SetupError::PowerOn)?;
    if !machine.set_panic_policy(config.on_panic) {
        return Err(SetupError::PanicPolicy);
    }
    Ok(machine)
}

/// Asks the host for so much memory and gives it back: where this fails, the machine's own request
/// would end the program.
pub fn check_memory(memory: ByteSize) -> Result<(), SetupError> {
    let length = usize::try_from(memory.0).map_err(|_| SetupError::Memory(memory))?;
    Vec::<u8>::new()
        .try_reserve_exact(length)
        .map_err(|_| SetupError::Memory(memory))
}

fn machine_config(
    config: &VmConfig,
    sectors: impl Iterator<Item = u64>,
    unix_base_ns: u64,
) -> MachineConfig {
    MachineConfig {
        board: board(config, sectors),
        features: features(config),
        unix_base_ns,
    }
}

fn features(config: &VmConfig) -> BTreeSet<String> {
    let mut without = config.without_extensions.clone();
    if !config.bit_manipulation {
        without.insert("bit-manipulation".into());
    }
    config.arch.features(&without)
}

fn board(config: &VmConfig, sectors: impl Iterator<Item = u64>) -> BoardConfig {
    let disks = config
        .disks
        .iter()
        .zip(sectors)
        .enumerate()
        .map(|(index, (disk, sectors))| DiskConfig {
            sectors,
            read_only: disk.read_only,
            serial: format!("understudy-{index}"),
        })
        .collect();
    BoardConfig {
        memory_bytes: config.memory.0,
        harts: config.harts,
        network: config
            .network
            .iter()
            .map(|network| NetworkConfig { mac: network.mac.0 })
            .collect(),
        disks,
        virtio_console: config.virtio_console,
        entropy: config.entropy,
        transport: config.transport(),
    }
}

/// What the configuration names besides disks.
fn named_images(config: &VmConfig) -> [(&'static str, &Option<PathBuf>); 3] {
    [
        ("firmware", &config.firmware),
        ("kernel", &config.kernel),
        ("initrd", &config.initrd),
    ]
}

/// An image, as far as it matters whether two hosts have the same.
fn described_image(path: Option<&Path>, memory: ByteSize) -> String {
    let Some(path) = path else {
        return "none".into();
    };
    match digest_of(path, memory.0) {
        Ok((bytes, digest)) => format!("#{digest:016x} ({bytes} bytes)"),
        Err(error) => format!("cannot be read ({error})"),
    }
}

/// The length of a file, and a digest of it. One that is longer than any image of the machine, or has no end, is an error.
fn digest_of(path: &Path, most_bytes: u64) -> io::Result<(u64, u64)> {
    let mut file = File::open(path)?.take(most_bytes.saturating_add(1));
    let (mut digest, mut piece, mut bytes) = (Xxh3::new(), vec![0; 1 << 20], 0);
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => return Ok((bytes, digest.digest())),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        digest.update(&piece[..length]);
        bytes += length as u64;
        if bytes > most_bytes {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

fn images(config: &VmConfig) -> Result<BootImages, SetupError> {
    let read = |(what, path): (&'static str, &Option<PathBuf>)| match path {
        Some(path) => read_image(config, what, path).map(Some),
        None => Ok(None),
    };
    let [firmware, kernel, initrd] = named_images(config);
    Ok(BootImages {
        firmware: read(firmware)?,
        kernel: read(kernel)?,
        initrd: read(initrd)?,
        command_line: config.command_line.clone(),
    })
}

impl VmConfig {
    /// An image cannot be read: firmware of a PC is something that a host may not have at all.
    fn unreadable(&self, what: &'static str, path: &Path, source: io::Error) -> SetupError {
        let path = path.into();
        let is_missing = source.kind() == io::ErrorKind::NotFound;
        if what == "firmware" && is_missing && self.arch == Architecture::X86_64 {
            return SetupError::NoPcFirmware { path };
        }
        SetupError::Image { what, path, source }
    }
}

fn read_image(config: &VmConfig, what: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    let memory = config.memory;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| {
            file.take(memory.0.saturating_add(1))
                .read_to_end(&mut bytes)
        })
        .map_err(|source| config.unreadable(what, path, source))?;
    if bytes.len() as u64 > memory.0 {
        return Err(SetupError::ImageTooLarge {
            what,
            path: path.into(),
            memory,
        });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::Architecture;
    use replication::configuration::boot_differences;

    fn configured(text: &str) -> Configuration {
        let text = format!("kernel = \"k\"\nname = \"m\"\nstate_directory = \"s\"\n{text}");
        let config: VmConfig = toml::from_str(&text).unwrap();
        ConfiguredMachine(config).configuration()
    }

    /// Whatever makes another machine of it has a name of its own: none is left to the hash.
    #[test]
    fn what_two_hosts_must_agree_on_is_named_by_its_key() {
        let ours = configured("memory = \"512M\"");
        for (changed, told) in [
            ("memory = \"1G\"", "memory: 512M here, 1G at hosta"),
            ("memory = \"512M\"\nharts = 2", "harts: 1 here, 2 at hosta"),
            (
                "memory = \"512M\"\ntransport = \"pci\"",
                "transport: mmio here, pci at hosta",
            ),
            (
                "memory = \"512M\"\nvirtio_console = true",
                "virtio_console: false here, true at hosta",
            ),
            (
                "memory = \"512M\"\nentropy = false",
                "entropy: true here, false at hosta",
            ),
            (
                "memory = \"512M\"\nwithout_extensions = [\"zbc\"]\nbit_manipulation = false",
                "without_extensions: none here, bit-manipulation, zbc at hosta",
            ),
            (
                "memory = \"512M\"\n[network]\ntap = \"t\"",
                "network.mac: no network here, 52:54:00:12:34:56 at hosta",
            ),
            (
                "memory = \"512M\"\n[[disks]]\npath = \"a\"\n[[disks]]\npath = \"b\"\nread_only = true",
                "disks: 0 here, 2, read-only vdb at hosta",
            ),
            (
                "memory = \"512M\"\n[[disks]]\npath = \"a\"\nread_only = true\n[[disks]]\npath = \"b\"\nshared = true",
                "disks: 0 here, 2, read-only vda, shared vdb at hosta",
            ),
        ] {
            let theirs = configured(changed);
            assert_ne!(ours.rest(), theirs.rest(), "{changed}: the same machine");
            let differences = ours.differences(&theirs);
            let [difference] = &differences[..] else {
                panic!("{changed}: {differences:?}");
            };
            assert_eq!(difference.describe("hosta"), told);
        }
        let arch = configured("memory = \"512M\"\narch = \"x86-64\"").differences(&ours);
        let told: Vec<String> = arch.iter().map(|d| d.describe("hosta")).collect();
        assert_eq!(told[0], "arch: x86-64 here, riscv64 at hosta");
        let same = configured("memory = \"512M\"\nengine = \"interpreter\"");
        assert_eq!(ours.differences(&same), []);
    }

    /// Finding: a backup whose kernel was another one was taken without a word.
    #[test]
    fn what_a_machine_would_be_booted_from_is_named_by_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let booted = |kernel: &[u8], initrd: Option<&[u8]>, more: &str| {
            let write = |name: &str, content: &[u8]| {
                let path = directory.path().join(name);
                std::fs::write(&path, content).unwrap();
                format!("{name} = {path:?}\n")
            };
            let files =
                write("kernel", kernel) + &initrd.map_or(String::new(), |it| write("initrd", it));
            let text =
                format!("name = \"m\"\nstate_directory = \"s\"\nmemory = \"1M\"\n{files}{more}");
            let config: VmConfig = toml::from_str(&text).unwrap();
            ConfiguredMachine(config).boot()
        };
        let ours = booted(b"one", None, "");
        for (theirs, key, words) in [
            (booted(b"two", None, ""), "kernel", "(3 bytes) here"),
            (booted(b"one", Some(b"files"), ""), "initrd", "none here"),
            (
                booted(b"one", None, "command_line = \"quiet\""),
                "command_line",
                "\"\" here, \"quiet\" at hosta",
            ),
            (
                booted(b"one", None, "on_panic = \"reboot\""),
                "on_panic",
                "report here, reboot at hosta",
            ),
            (
                booted(&[0; (1 << 20) + 1], None, ""),
                "kernel",
                "cannot be read",
            ),
        ] {
            let differences = boot_differences(&ours, &theirs);
            let [difference] = &differences[..] else {
                panic!("{key}: {differences:?}");
            };
            assert_eq!(difference.key, key);
            let told = difference.describe("hosta");
            assert!(told.contains(words), "{told}");
        }
        assert_eq!(boot_differences(&ours, &booted(b"one", None, "")), []);
        assert_eq!(boot_differences(&ours, &Configuration::default()), []);
    }

    /// Names of settings that a program of this version does not have yet find room.
    #[test]
    fn there_is_room_for_more_keys() {
        for arch in [Architecture::Riscv64, Architecture::X86_64] {
            let configuration = configured(&format!("memory = \"8M\"\narch = \"{}\"", arch.name()));
            assert!(configuration.values().len() < replication::configuration::MAX_KEYS);
        }
    }
}
