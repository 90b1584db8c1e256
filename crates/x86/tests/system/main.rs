//! What system software sees: paging, exceptions, interrupts, counts. SDM is Intel's manual.

mod compatibility;
mod descriptors;
mod exceptions;
mod interrupts;
mod paging;
mod rig;
mod self_modifying;
