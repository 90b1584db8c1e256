//! Why a disk cannot be opened.

use super::overlay::OverlayError;
use qcow2::OpenError;
use std::io;
use std::path::PathBuf;
use thiserror::Error;

/// An image that cannot be a disk.
#[derive(Debug, Error)]
pub enum DiskError {
    /// It is not there or not accessible.
    #[error("cannot open the disk {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "the disk {} is in use by another process, on this host or another that sees the same file: each replica \
         needs a disk file of its own, so write another `path`, or end what uses it; if it is to be one disk for all hosts, \
         `shared = true` says so on each of them",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Whoever had the machine before has it, or another machine.
    #[error(
        "the shared disk {} is locked by another process, of this host or another: whoever had the machine before still runs, or \
         stands still, and could write to it",
        path.display()
    )]
    SharedInUse {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be a disk that several hosts reach.
    #[error("the disk {} cannot be shared: {why}", path.display())]
    NotShared {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// This machine has it already.
    #[error("the disk {} is in use by this machine already, as another disk of it or under one", path.display())]
    InUseHere {
        /// The file.
        path: PathBuf,
    },
    /// The directory that it is to be made in is not there.
    #[error("the disk {} cannot be made: its directory is not there", path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Not a whole number of sectors, or nothing at all.
    #[error("the disk {} has {length} bytes, which is not a positive multiple of 512; is it truncated?", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
    },
    /// A device that cannot hold the copy of the primary's.
    #[error(
        "the disk {} has {length} bytes, and the primary's {wanted}: give this host a larger one",
        path.display()
    )]
    TooSmall {
        /// The device.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// That of the primary's.
        wanted: u64,
    },
    /// What is there is no copy of the primary's disk.
    #[error(
        "the disk {} has {length} bytes, and the machine's disk has {wanted}: what is there is another disk, and is not \
         overwritten; put the right one back, or remove it, or, if what is in it may go, write `overwrite = true` below \
         its path",
        path.display()
    )]
    OtherLength {
        /// The file.
        path: PathBuf,
        /// The length of the disk in it.
        length: u64,
        /// That of the machine's.
        wanted: u64,
    },
    /// A directory, a socket or the like.
    #[error("the disk {} is neither a file nor a block device", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// Nobody said that it is a qcow2 image.
    #[error(
        "the disk {} begins as a qcow2 image does, and the configuration does not say what it is: add \
         format = \"qcow2\" to its [[disks]] (or format = \"raw\", if that is what the guest wrote there)",
        path.display()
    )]
    Unsaid {
        /// The file.
        path: PathBuf,
    },
    /// A block device that is to be a qcow2 image.
    #[error("the disk {} is no plain file, and a qcow2 image is only used in one", path.display())]
    NoFile {
        /// The device.
        path: PathBuf,
    },
    /// A qcow2 image that cannot be used.
    #[error("the disk {} {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// What it lies over is not what the configuration says, or cannot be known.
    #[error("the disk {} {why}", path.display())]
    Backing {
        /// The image.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What lies beside the image cannot be used.
    #[error("what belongs to a disk cannot be used: {0}")]
    Overlay(#[from] OverlayError),
    /// The backup's copy cannot be made as long as the primary's disk.
    #[error("the disk {} cannot be made {length} bytes long: {source}", path.display())]
    Resize {
        /// The file.
        path: PathBuf,
        /// The length of the primary's disk.
        length: u64,
        /// Why.
        source: io::Error,
    },
}
