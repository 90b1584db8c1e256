//! Images as others make them and read them: QEMU's `qemu-img` is the judge.

mod concurrent;
mod damaged;
mod failing;
mod power_loss;
mod qemu;
mod random;
mod support;
