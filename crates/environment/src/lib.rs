//! What a replica's threads have of their host: clocks, random numbers, threads, channels between
//! them, sockets, signals, and frames of the guest's network.
//!
//! On a host each of these is what the standard library and the kernel have, and nothing else. A
//! thread that was started within a [`Simulation`] has that one's instead: every place where it waits
//! gives control back, so that exactly one thread of a simulated world runs at a time, and the world
//! alone says which, and what time it is. Whatever a thread starts is in the same world.
//!
//! Files are the host's in both cases: a thread that reads or writes one does not give control back.
#![forbid(unsafe_code)]

pub mod clock;
pub mod frames;
pub mod mpsc;
pub mod net;
pub mod random;
mod signals;
mod simulation;
pub mod thread;

pub use signals::StopSignals;
pub use simulation::{Dying, Ended, Parked, Simulation, ThreadId, current, enter};
