//! Virtual disks in the qcow2 format, versions 2 and 3, read and written.
//!
//! The format is QEMU's, as its `docs/interop/qcow2.txt` says it. An [`Image`] is a disk over one
//! [`Storage`], whatever that is; over another disk as its [`Backing`], if it has one. This crate opens no
//! file: whoever opens an image says what lies under it.
//!
//! Whatever ends in the middle, the process or the host's power, the image is sound: no table on the disk
//! speaks of a cluster whose refcount is not there, and none of content that is not there. At worst,
//! clusters are counted that nobody uses, which `qemu-img check` calls leaks. What was written before a
//! [`Image::flush`] that succeeded is there afterwards.
//!
//! Why no library: `docs/decisions/disk-images.md`.
#![forbid(unsafe_code)]

mod allocation;
mod cache;
mod commit;
mod compression;
mod create;
mod cut_off;
mod error;
mod header;
mod image;
mod mapping;
mod refcounts;
mod state;
mod storage;
mod write;

pub use create::create;
pub use error::OpenError;
pub use header::{BackingName, Header, MAGIC};
pub use image::{Backing, Image};
pub use storage::{Storage, read_or_zeros};
