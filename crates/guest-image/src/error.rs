use std::io;
use std::path::{Path, PathBuf};

/// Why a guest image could not be built; the text says what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum GuestImageError {
    /// A program of the host that the build needs is not installed.
    #[error("`{program}` was not found: install the Debian package `{package}` and try again")]
    ProgramMissing {
        /// The program's name, as searched for in PATH.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
    },
    /// This machine's apt names no Debian archive.
    #[error(
        "no Debian archive among this machine's apt sources (looked in {searched}): name one with \
         --mirror URL"
    )]
    NoArchive {
        /// Where sources were looked for.
        searched: String,
    },
    /// The keys that sign Debian's archive are not installed.
    #[error(
        "Debian's archive keys were not found (looked for {searched}): install the package \
         `debian-archive-keyring`"
    )]
    NoKeyring {
        /// The files that were looked for.
        searched: String,
    },
    /// The package lists could not be fetched, and none from before are at hand.
    #[error(
        "the list of Debian packages could not be fetched from {archive}: check the network, the \
         proxy of apt, and that this mirror carries Debian 13 (another one: --mirror URL). apt \
         says: {message}"
    )]
    ListsUnavailable {
        /// The archive's address.
        archive: String,
        /// apt's own words.
        message: String,
    },
    /// apt does not know a package, or cannot satisfy its dependencies.
    #[error(
        "the packages `{packages}` cannot be installed together on Debian 13 for {architecture}. apt says: {message}"
    )]
    Unresolvable {
        /// The packages that were asked for.
        packages: String,
        /// For which architecture.
        architecture: crate::Architecture,
        /// apt's own words.
        message: String,
    },
    /// Packages could not be fetched.
    #[error(
        "packages could not be fetched: check the network and try again (what was fetched is kept). apt says: {message}"
    )]
    DownloadFailed {
        /// apt's own words.
        message: String,
    },
    /// A package's content is not what a Debian package holds.
    #[error("{}: not a usable Debian package: {reason}. Delete this file and try again", .path.display())]
    BadPackage {
        /// The package file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something that the guest needs is in none of the packages.
    #[error("`{file}` is in none of the packages that were unpacked: {hint}")]
    FileNotInPackages {
        /// The file that was looked for.
        file: String,
        /// What to do.
        hint: &'static str,
    },
    /// A path in a package or in `--add-file` cannot be put into the guest's file tree.
    #[error("`{path}` cannot be placed in the guest: {reason}")]
    BadGuestPath {
        /// The path inside the guest.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An `--add-file` value is not `HOST:GUEST[:MODE]`.
    #[error(
        "`{value}` is not HOST:GUEST or HOST:GUEST:MODE (mode in octal, such as 0755): {reason}"
    )]
    BadAddedFile {
        /// The value that was given.
        value: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The options contradict each other or are out of range.
    #[error("{0}")]
    BadOptions(String),
    /// A program that the build runs failed.
    #[error("`{program}` failed: {message}")]
    ProgramFailed {
        /// The program's name.
        program: &'static str,
        /// Its own words.
        message: String,
    },
    /// The file system of the host is full.
    #[error("no space left on the file system of {}: free some (an initramfs guest needs about 500 MB, a root file system its size and 2 GB) and try again", .path.display())]
    NoSpace {
        /// The file or directory that was written.
        path: PathBuf,
    },
    /// Any other trouble with a file of the host.
    #[error("{}: {action}: {source}", .path.display())]
    File {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl GuestImageError {
    /// Wraps an I/O error with what was being done and where; a full disk becomes
    /// [`GuestImageError::NoSpace`].
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                path: path.to_owned(),
            },
            _ => Self::File {
                action,
                path: path.to_owned(),
                source,
            },
        }
    }
}
