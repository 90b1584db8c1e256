//! The guest's network where it is simulated. (On a host it is the `network` crate's.)

use std::fmt;

/// Where a machine's frames go, and come from.
pub trait FramePort: Send + fmt::Debug {
    /// Sends a frame.
    fn send(&mut self, frame: &[u8]);

    /// The next frame that has come. Without one, the calling thread is unparked by the next.
    fn receive(&mut self) -> Option<Vec<u8>>;

    /// Whether there is one; if not, as [`FramePort::receive`].
    fn has_frame(&self) -> bool;
}
