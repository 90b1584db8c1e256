//! `pair.compression`.

use replica::packing::Compression;
use serde::{Deserialize, Serialize};

/// When a host packs what it sends to the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionName {
    /// Where the network is what is waited for.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl CompressionName {
    pub(super) fn in_replica(self) -> Compression {
        match self {
            CompressionName::Auto => Compression::Auto,
            CompressionName::Always => Compression::Always,
            CompressionName::Never => Compression::Never,
        }
    }
}
