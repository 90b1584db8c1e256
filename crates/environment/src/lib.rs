//! What a replica's threads have of their host: clocks, random numbers, threads, channels between
//! them, sockets, files, signals, and frames of the guest's network.
//!
//! On a host each of these is what the standard library and the kernel have, and nothing else. A
//! thread that was started within a [`Simulation`] has that one's instead: every place where it waits
//! gives control back, so that exactly one thread of a simulated world runs at a time, and the world
//! alone says which, and what time it is. Whatever a thread starts is in the same world.
//!
//! Files that have to outlast a loss of power (disks, markers, the host's identity) are among them.
//! The others of a state directory (events, the console's log, evidence, the control socket) are the host's in
//! both cases: nothing is decided by them.
#![forbid(unsafe_code)]

pub mod clock;
pub mod frames;
pub mod fs;
pub mod mpsc;
pub mod net;
pub mod random;
mod signals;
mod simulation;
pub mod thread;

pub use signals::StopSignals;
pub use simulation::{Dying, Ended, Parked, Simulation, ThreadId, current, enter};
