//! What the board has room for.

use super::bus::VIRTIO_SLOTS;
use crate::memory::RAM_BASE;
use machine::config::BoardLimits;

/// What the board has room for: harts in the layout of CLINT and PLIC, RAM below 2^40.
pub const LIMITS: BoardLimits = BoardLimits {
    memory_bytes: (1 << 40) - RAM_BASE,
    harts: 512,
    virtio_devices: VIRTIO_SLOTS,
};
