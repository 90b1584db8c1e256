use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Serialize;

use crate::{Architecture, GuestImageError};

/// The smallest disk that a Debian system and its journal fit on, bytes.
pub const MIN_DISK_BYTES: u64 = 1 << 30;

/// What to build and where.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// Where packages are kept between builds; see [`crate::default_cache_directory`].
    pub cache: PathBuf,
    /// The directory for kernel, initrd, firmware and manifest; made if missing.
    pub output: PathBuf,
    /// The Debian archive's address; `None`: the one that this machine's apt uses.
    pub mirror: Option<String>,
    /// For which machine.
    pub architecture: Architecture,
    /// What kind of guest.
    pub profile: Profile,
    /// Files of the host to put into the guest.
    pub added_files: Vec<AddedFile>,
    /// What the guest starts by itself, besides what the profile starts (initramfs guests only).
    pub services: Vec<Service>,
    /// Put at the end of the kernel's command line.
    pub extra_command_line: String,
    /// Also put Debian's U-Boot for S-mode (`u-boot.bin`) into the output directory (riscv64 only).
    pub u_boot: bool,
    /// Fetch the package lists and build again even if the same image is there already.
    pub refresh: bool,
}

impl BuildOptions {
    /// The demo guest for riscv64, and else the defaults.
    pub fn new(cache: impl Into<PathBuf>, output: impl Into<PathBuf>) -> Self {
        Self {
            cache: cache.into(),
            output: output.into(),
            mirror: None,
            architecture: Architecture::default(),
            profile: Profile::Demo { append_only: false },
            added_files: Vec::new(),
            services: Vec::new(),
            extra_command_line: String::new(),
            u_boot: false,
            refresh: false,
        }
    }
}

/// The kinds of guests.
#[derive(Debug, Clone, Serialize)]
pub enum Profile {
    /// Redis on port 6379 and its tools in an initramfs, only what they need.
    Demo {
        /// Whether Redis keeps an append-only file (in the guest's RAM).
        append_only: bool,
    },
    /// The named packages and all that they depend on, unpacked into an initramfs. Their maintainer
    /// scripts are not run.
    Packages {
        /// Debian package names.
        packages: Vec<String>,
    },
    /// A whole Debian system with systemd on a disk image, which configures itself at first boot.
    RootFilesystem {
        /// Debian package names, besides the base system.
        packages: Vec<String>,
        /// The disk image to make: a raw ext4 file system.
        file: PathBuf,
        /// Its size in bytes, at least [`MIN_DISK_BYTES`].
        bytes: u64,
        /// Root's password; `None`: root logs in without one.
        #[serde(skip)]
        root_password: Option<String>,
    },
}

/// A file of the host that is put into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedFile {
    /// The file on the host.
    pub host: PathBuf,
    /// The absolute path in the guest.
    pub guest: String,
    /// Permission bits (0..=0o7777).
    pub mode: u32,
}

impl FromStr for AddedFile {
    type Err = GuestImageError;

    /// Reads `HOST:GUEST` (mode 0755) or `HOST:GUEST:MODE`.
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let bad = |reason| GuestImageError::BadAddedFile {
            value: value.to_owned(),
            reason,
        };
        let mut parts = value.split(':');
        let (Some(host), Some(guest)) = (parts.next(), parts.next()) else {
            return Err(bad("there is no `:`"));
        };
        if host.is_empty() || !guest.starts_with('/') || guest.ends_with('/') {
            return Err(bad("the guest's path must be absolute and name a file"));
        }
        let mode = match parts.next() {
            None => 0o755,
            Some(mode) => u32::from_str_radix(mode, 8).map_err(|_| bad("the mode is not octal"))?,
        };
        if parts.next().is_some() || mode > 0o7777 {
            return Err(bad(
                "the mode is out of range, or there is something after it",
            ));
        }
        Ok(Self {
            host: Path::new(host).to_owned(),
            guest: guest.to_owned(),
            mode,
        })
    }
}

/// Something that an initramfs guest starts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name: letters, digits, `-` and `_`.
    pub name: String,
    /// A shell script that does not end while the service runs.
    pub script: String,
    /// The TCP port that it listens on when it is ready; the guest's ready line waits for it.
    pub port: Option<u16>,
}

impl Service {
    /// Checks the name, which becomes a file name and a word of the kernel's command line.
    ///
    /// # Errors
    /// [`GuestImageError::BadOptions`]
    pub(crate) fn check(&self) -> Result<(), GuestImageError> {
        let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if self.name.is_empty() || self.name == "none" || !self.name.chars().all(good) {
            return Err(GuestImageError::BadOptions(format!(
                "`{}` is not a service name: use letters, digits, `-` and `_` (and not `none`)",
                self.name
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_file_has_a_host_path_a_guest_path_and_perhaps_a_mode() {
        let file: AddedFile = "target/bench:/usr/bin/bench".parse().unwrap();
        assert_eq!((file.guest.as_str(), file.mode), ("/usr/bin/bench", 0o755));
        let file: AddedFile = "a:/etc/a:0640".parse().unwrap();
        assert_eq!(file.mode, 0o640);
    }

    #[test]
    fn wrong_added_files_are_refused() {
        for value in [
            "",
            "a",
            "a:b",
            ":/b",
            "a:/b/",
            "a:/b:rwx",
            "a:/b:17777",
            "a:/b:755:x",
        ] {
            assert!(value.parse::<AddedFile>().is_err(), "{value}");
        }
    }

    #[test]
    fn a_service_name_cannot_be_a_path_or_a_list() {
        for name in ["", "none", "a/b", "a,b", "a b", ".."] {
            let service = Service {
                name: name.into(),
                script: String::new(),
                port: None,
            };
            assert!(service.check().is_err(), "{name}");
        }
    }
}
