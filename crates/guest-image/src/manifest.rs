//! `manifest.json`: what an image was made of. It is written last and taken away first, so where it
//! is, the image is whole.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::package::Package;
use crate::{Architecture, GuestImage, GuestImageError, output};

/// The manifest's file name in the output directory.
pub const FILE_NAME: &str = "manifest.json";
/// Raised when this program makes other images from the same options.
pub const FORMAT: u32 = 1;

/// What an image was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// `FORMAT` at the time.
    pub format: u32,
    /// Names the options, added files and scripts that the image was made with.
    pub key: String,
    /// Debian's name of the architecture; images from before there was a second one do not say it.
    #[serde(default)]
    pub architecture: Architecture,
    /// The kernel's release, as `uname -r` says it.
    pub kernel_release: String,
    /// The kernel's command line.
    pub command_line: String,
    /// The image's files.
    pub files: Vec<ManifestFile>,
    /// The Debian packages that files were taken from.
    pub packages: Vec<ManifestPackage>,
    /// The disk image, for a guest with a root file system.
    pub disk: Option<PathBuf>,
}

/// A file of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// `kernel`, `initrd`, `firmware` or `u-boot.bin`.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A package of the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ManifestPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `riscv64`, `amd64` or `all`.
    pub architecture: String,
}

impl From<&Package> for ManifestPackage {
    fn from(package: &Package) -> Self {
        Self {
            name: package.name.clone(),
            version: package.version.clone(),
            architecture: package.architecture.clone(),
        }
    }
}

impl Manifest {
    /// The manifest in `directory`, if there is one that this program wrote and all files that it
    /// names are there in full.
    pub fn of_complete_image(directory: &Path) -> Option<Self> {
        let text = fs::read_to_string(directory.join(FILE_NAME)).ok()?;
        let manifest: Self = serde_json::from_str(&text).ok()?;
        let complete = manifest.files.iter().all(|file| {
            fs::metadata(directory.join(&file.name)).is_ok_and(|found| found.len() == file.bytes)
        });
        let disk_there = manifest.disk.as_ref().is_none_or(|disk| disk.is_file());
        (complete && disk_there && manifest.format == FORMAT).then_some(manifest)
    }

    /// Writes the manifest into `directory`.
    ///
    /// # Errors
    /// [`GuestImageError::File`], [`GuestImageError::NoSpace`]
    pub fn write(&self, directory: &Path) -> Result<(), GuestImageError> {
        let path = directory.join(FILE_NAME);
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| {
            GuestImageError::file("writing the manifest", &path, std::io::Error::other(error))
        })?;
        text.push(b'\n');
        output::write_atomically(&path, &text)
    }

    /// The image that the manifest in `directory` describes.
    pub fn image(&self, directory: &Path) -> GuestImage {
        let file = |name: &str| {
            let is_there = self.files.iter().any(|file| file.name == name);
            is_there.then(|| directory.join(name))
        };
        GuestImage {
            architecture: self.architecture,
            kernel: directory.join(output::KERNEL),
            initrd: directory.join(output::INITRD),
            firmware: file(output::FIRMWARE),
            u_boot: file(output::U_BOOT),
            disk: self.disk.clone(),
            command_line: self.command_line.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            format: FORMAT,
            key: "k".to_owned(),
            architecture: Architecture::Amd64,
            kernel_release: "6.12".to_owned(),
            command_line: "quiet".to_owned(),
            files: vec![ManifestFile {
                name: output::KERNEL.to_owned(),
                bytes: 3,
            }],
            packages: Vec::new(),
            disk: None,
        }
    }

    #[test]
    fn an_image_is_whole_only_with_manifest_and_all_files_in_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Manifest::of_complete_image(path), None);
        manifest().write(path).unwrap();
        assert_eq!(Manifest::of_complete_image(path), None);
        fs::write(path.join(output::KERNEL), "xx").unwrap();
        assert_eq!(Manifest::of_complete_image(path), None);
        fs::write(path.join(output::KERNEL), "xxx").unwrap();
        assert_eq!(Manifest::of_complete_image(path), Some(manifest()));
    }

    #[test]
    fn a_manifest_of_another_format_or_garbage_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join(output::KERNEL), "xxx").unwrap();
        Manifest {
            format: FORMAT + 1,
            ..manifest()
        }
        .write(path)
        .unwrap();
        assert_eq!(Manifest::of_complete_image(path), None);
        fs::write(path.join(FILE_NAME), "{").unwrap();
        assert_eq!(Manifest::of_complete_image(path), None);
    }
}
