//! Single files out of Debian's packages, for machines whose system is on a disk already.

use crate::apt::Apt;
use crate::apt_sources::SUITE;
use crate::file_tree::FileTree;
use crate::output;
use crate::progress::Progress;
use crate::{Architecture, GuestImageError, create_directory};
use std::path::{Path, PathBuf};

/// Where such files are kept in the cache.
const DIRECTORY: &str = "firmware";

/// A file of a package for amd64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackagedFile {
    suite: &'static str,
    package: &'static str,
    path: &'static str,
}

/// UEFI firmware for the x86-64 machine: EDK2's build for Cloud Hypervisor. Debian 13 does not have it yet.
pub const PC_FIRMWARE: PackagedFile = PackagedFile {
    suite: "forky",
    package: "cloudhv-efi-x86-64",
    path: "usr/share/cloudhv-efi-x86-64/CLOUDHV.fd",
};

impl PackagedFile {
    /// A file of one of Debian 13's packages, its path relative to the root.
    pub const fn of_guests_debian(package: &'static str, path: &'static str) -> PackagedFile {
        PackagedFile {
            suite: SUITE,
            package,
            path,
        }
    }

    /// Where it is kept in a cache.
    pub fn kept(&self, cache: &Path) -> PathBuf {
        let name = self
            .path
            .rsplit_once('/')
            .map_or(self.path, |(_, name)| name);
        cache.join(DIRECTORY).join(name)
    }

    /// Where it is in the cache, fetched if it is not there yet (`refresh`: even then). apt checks signature and checksum.
    ///
    /// # Errors
    /// As [`build`](crate::build).
    pub fn fetch(
        &self,
        cache: &Path,
        mirror: Option<&str>,
        refresh: bool,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, GuestImageError> {
        let kept = self.kept(cache);
        if kept.is_file() && !refresh {
            return Ok(kept);
        }
        create_directory(&cache.join(DIRECTORY))?;
        let amd64 = Architecture::Amd64;
        let directory = match self.suite {
            SUITE => amd64.apt_directory().to_owned(),
            suite => format!("{}-{suite}", amd64.apt_directory()),
        };
        let apt = Apt::open(&cache.join(directory), amd64, self.suite, mirror, progress)?;
        apt.update(refresh, progress)?;
        let files = match self.read(&apt, progress) {
            // Lists of yesterday may name a package that the archive has replaced since.
            Err(GuestImageError::DownloadFailed { .. }) => {
                apt.update(true, progress)?;
                self.read(&apt, progress)
            }
            files => files,
        }?;
        let content = files
            .file(self.path)
            .ok_or_else(|| GuestImageError::FileNotInPackages {
                file: self.path.to_owned(),
                hint: "Debian's package has changed; this version of Understudy does not know it",
            })?;
        output::write_atomically(&kept, content)?;
        Ok(kept)
    }

    /// The file alone, out of its package.
    fn read(&self, apt: &Apt, progress: &mut dyn Progress) -> Result<FileTree, GuestImageError> {
        let package = apt.without_dependencies(&[self.package.to_owned()])?;
        let mut tree = FileTree::with_merged_usr();
        for package in apt.fetch(&package, progress)? {
            package.unpack(&mut tree, |path| path == self.path)?;
        }
        Ok(tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;

    #[test]
    fn what_is_in_the_cache_is_used_without_apt_and_network() {
        let cache = tempfile::tempdir().unwrap();
        let kept = cache.path().join("firmware/CLOUDHV.fd");
        assert_eq!(PC_FIRMWARE.kept(cache.path()), kept);
        std::fs::create_dir(cache.path().join("firmware")).unwrap();
        std::fs::write(&kept, "firmware").unwrap();
        let nowhere = Some("http://127.0.0.1:9/debian");
        let found = PC_FIRMWARE.fetch(cache.path(), nowhere, false, &mut NoProgress);
        assert_eq!(found.unwrap(), kept);
        assert!(!cache.path().join("apt-amd64-forky").exists());
    }
}
