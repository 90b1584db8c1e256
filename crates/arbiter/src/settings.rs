//! Which store, with all that it takes to reach it.

use crate::{
    DirectoryError, DirectoryStore, EtcdError, EtcdSettings, EtcdStore, S3Error, S3Settings,
    S3Store, Store,
};
use std::path::PathBuf;
use thiserror::Error;

/// A store, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// A directory.
    Directory(PathBuf),
    /// etcd.
    Etcd(EtcdSettings),
    /// A bucket.
    S3(S3Settings),
}

/// Why a store cannot be the arbiter.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// etcd.
    #[error(transparent)]
    Etcd(#[from] EtcdError),
    /// The bucket.
    #[error("arbiter {0}")]
    S3(#[from] S3Error),
}

impl Settings {
    /// Opens the store.
    ///
    /// # Errors
    /// It says itself that it cannot be the arbiter, or something on this host is wrong. A store
    /// across a network that gives no answer is no error: it is asked again when it is needed.
    pub fn open(&self) -> Result<Box<dyn Store>, OpenError> {
        Ok(match self {
            Settings::Directory(path) => Box::new(DirectoryStore::open(path)?),
            Settings::Etcd(settings) => Box::new(EtcdStore::open(settings)?),
            Settings::S3(settings) => Box::new(S3Store::open(settings)?),
        })
    }
}
