//! Why an image cannot be opened.

use std::io;
use thiserror::Error;

/// Why an image cannot be opened, in words that go on after its name: "the disk x.qcow2 …".
#[derive(Debug, Error)]
pub enum OpenError {
    /// The file fails.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It has no qcow2 header.
    #[error("is no qcow2 image: it does not begin as one")]
    NotQcow2,
    /// It is of a version that nobody had yet, or that nobody has any more.
    #[error("has qcow2 version {0}, and this build reads versions 2 and 3")]
    Version(u32),
    /// It uses what this build does not know.
    #[error(
        "uses what this build cannot do: {0}; `qemu-img convert -O qcow2` makes an image without it"
    )]
    Unsupported(String),
    /// It contradicts itself.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// Tables speak of what is behind the end of its file.
    #[error(
        "was cut off: byte {at} of the disk is said to be at byte {first} of the file, which has {end} bytes; copy it \
         anew from where it came from"
    )]
    CutOff {
        /// The first byte of the disk that is missing.
        at: u64,
        /// Where it is said to be.
        first: u64,
        /// Bytes of the file.
        end: u64,
    },
    /// QEMU marked it as damaged.
    #[error("was marked as corrupt; `qemu-img check -r all` may mend it")]
    MarkedCorrupt,
    /// Its refcounts were left behind by a program that keeps them lazily.
    #[error(
        "was not closed by the program that had it last, which kept its refcounts for later; \
         `qemu-img check -r all` makes them right"
    )]
    NotClosed,
}

impl OpenError {
    pub(crate) fn damaged(why: impl Into<String>) -> OpenError {
        OpenError::Damaged(why.into())
    }
}

/// Found while the image is in use.
pub(crate) fn damaged(why: String) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the qcow2 image is damaged: {why}"),
    )
}
