//! Unpacks Debian packages into a [`FileTree`]; nothing that is in them is run.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::GuestImageError;
use crate::file_tree::{FileTree, Node, NodeKind};

/// A fetched package, named by what its file name says
/// (`NAME_VERSION_ARCHITECTURE.deb`, Debian Policy 5.6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version, epoch included.
    pub version: String,
    /// `riscv64`, `amd64` or `all`.
    pub architecture: String,
    /// The file.
    pub path: PathBuf,
}

impl Package {
    /// Reads name, version and architecture off a path; `None` if it is no package's.
    pub fn from_path(path: &Path) -> Option<Self> {
        let stem = path.file_name()?.to_str()?.strip_suffix(".deb")?;
        let mut parts = stem.split('_');
        let (name, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || name.is_empty() || version.is_empty() {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            version: version.replace("%3a", ":"),
            architecture: architecture.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Puts the package's files for which `keep` says so into `tree`; `keep` sees the path relative
    /// to the root.
    ///
    /// # Errors
    /// If `dpkg-deb` is missing, or the file is no package, or has paths that lead nowhere.
    pub fn unpack(
        &self,
        tree: &mut FileTree,
        keep: impl Fn(&str) -> bool,
    ) -> Result<(), GuestImageError> {
        self.read_archive("--fsys-tarfile", |path, node| {
            if keep(path) {
                tree.insert(path, node)
            } else {
                Ok(())
            }
        })
    }

    /// The paths of all that the package brings, relative to the root, in the package's order.
    pub(crate) fn unpack_listing(
        &self,
        tree: &mut FileTree,
    ) -> Result<Vec<String>, GuestImageError> {
        let mut paths = Vec::new();
        self.read_archive("--fsys-tarfile", |path, node| {
            paths.push(path.to_owned());
            tree.insert(path, node)
        })?;
        Ok(paths)
    }

    /// The package's control files (`control`, `md5sums`, `postinst`...) by name.
    ///
    /// # Errors
    /// As [`Package::unpack`].
    pub fn control_files(&self) -> Result<BTreeMap<String, Node>, GuestImageError> {
        let mut files = BTreeMap::new();
        self.read_archive("--ctrl-tarfile", |path, node| {
            if matches!(node.kind, NodeKind::File(_)) {
                files.insert(path.to_owned(), node);
            }
            Ok(())
        })?;
        Ok(files)
    }

    fn read_archive(
        &self,
        option: &str,
        mut take: impl FnMut(&str, Node) -> Result<(), GuestImageError>,
    ) -> Result<(), GuestImageError> {
        let mut child = Command::new("dpkg-deb")
            .arg(option)
            .arg(&self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| program_error(error, "dpkg-deb", "dpkg", &self.path))?;
        let (Some(output), Some(mut errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(self.bad("dpkg-deb has no output".to_owned()));
        };
        let read = self.read_tar(output, &mut take);
        // dpkg-deb's few words fit into the pipe, so it is safe to read them last.
        let mut message = String::new();
        let _ = errors.read_to_string(&mut message);
        let status = child
            .wait()
            .map_err(|error| GuestImageError::file("waiting for dpkg-deb", &self.path, error))?;
        // What dpkg-deb says about a broken file is clearer than what its end does to the reader.
        if !status.success() && !matches!(read, Err(GuestImageError::BadGuestPath { .. })) {
            return Err(self.bad(message.trim().to_owned()));
        }
        read
    }

    fn read_tar(
        &self,
        input: impl Read,
        take: &mut impl FnMut(&str, Node) -> Result<(), GuestImageError>,
    ) -> Result<(), GuestImageError> {
        let mut archive = tar::Archive::new(input);
        let unreadable = |error: std::io::Error| self.bad(error.to_string());
        let mut contents: BTreeMap<String, Arc<[u8]>> = BTreeMap::new();
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = self.text(&entry.path_bytes())?;
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            let header = entry.header();
            let number = |field: std::io::Result<u64>| {
                field
                    .map(|value| u32::try_from(value).unwrap_or(0))
                    .map_err(unreadable)
            };
            let (uid, gid) = (number(header.uid())?, number(header.gid())?);
            let mode = header.mode().map_err(unreadable)? & 0o7777;
            let mtime = header.mtime().map_err(unreadable)?;
            let entry_type = header.entry_type();
            let link = entry
                .link_name_bytes()
                .map(|link| self.text(&link))
                .transpose()?;
            let kind = match (entry_type, link) {
                (tar::EntryType::Directory, _) => NodeKind::Directory,
                (tar::EntryType::Symlink, Some(target)) => NodeKind::SymbolicLink(target),
                (tar::EntryType::Link, Some(target)) => {
                    let target = target.trim_start_matches("./").trim_matches('/');
                    let content = contents.get(target).cloned();
                    NodeKind::File(content.ok_or_else(|| {
                        self.bad(format!(
                            "`{path}` is a hard link to `{target}`, which is not in it"
                        ))
                    })?)
                }
                (tar::EntryType::Regular | tar::EntryType::Continuous, _) => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).map_err(unreadable)?;
                    let content: Arc<[u8]> = content.into();
                    contents.insert(path.clone(), Arc::clone(&content));
                    NodeKind::File(content)
                }
                _ => continue, // devices and pipes: none in Debian's packages, /dev is the kernel's
            };
            take(
                &path,
                Node {
                    mode,
                    uid,
                    gid,
                    mtime,
                    kind,
                },
            )?;
        }
        Ok(())
    }

    fn text(&self, bytes: &[u8]) -> Result<String, GuestImageError> {
        String::from_utf8(bytes.to_vec())
            .map_err(|_| self.bad("it has a file name that is not UTF-8".to_owned()))
    }

    fn bad(&self, reason: String) -> GuestImageError {
        GuestImageError::BadPackage {
            path: self.path.clone(),
            reason,
        }
    }
}

/// What a failure to start `program` means.
pub(crate) fn program_error(
    error: std::io::Error,
    program: &'static str,
    package: &'static str,
    working_on: &Path,
) -> GuestImageError {
    if error.kind() == std::io::ErrorKind::NotFound {
        GuestImageError::ProgramMissing { program, package }
    } else {
        GuestImageError::file("starting a program for it", working_on, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_5_6_name_version_and_architecture_come_from_the_file_name() {
        let path = Path::new("/x/redis-server_5%3a8.0.2-3+deb13u2_riscv64.deb");
        let package = Package::from_path(path).unwrap();
        assert_eq!(package.name, "redis-server");
        assert_eq!(package.version, "5:8.0.2-3+deb13u2");
        assert_eq!(package.architecture, "riscv64");
    }

    #[test]
    fn other_file_names_are_no_packages() {
        for name in [
            "lock",
            "a.deb",
            "a_1.deb",
            "_1_all.deb",
            "a_1_all_x.deb",
            "a_1_all.deb.tmp",
        ] {
            assert_eq!(Package::from_path(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn a_file_that_is_no_package_is_named_in_the_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a_1_all.deb");
        std::fs::write(&path, "not a package").unwrap();
        let package = Package::from_path(&path).unwrap();
        let error = package
            .unpack(&mut FileTree::default(), |_| true)
            .unwrap_err();
        assert!(error.to_string().contains("a_1_all.deb"), "{error}");
    }
}
