//! Channels between threads: a drop-in for what is used of [`std::sync::mpsc`].

use crate::simulation::{Waiting, current};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Who waits at the ends of a channel, if it is a simulated one.
#[derive(Debug)]
struct Ends {
    receiver: Waiting,
    senders: Waiting,
}

type Simulated = Option<Arc<Ends>>;

fn simulated() -> Simulated {
    let simulation = current()?;
    Some(Arc::new(Ends {
        receiver: Waiting::new(simulation.clone()),
        senders: Waiting::new(simulation),
    }))
}

/// A channel without a bound.
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let ends = simulated();
    let sender = Sender {
        sender,
        end: SendingEnd(ends.clone()),
    };
    let end = ReceivingEnd(ends);
    (sender, Receiver { receiver, end })
}

/// A channel that holds at most `bound` messages.
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::sync_channel(bound);
    let ends = simulated();
    let sender = SyncSender {
        sender,
        end: SendingEnd(ends.clone()),
    };
    let end = ReceivingEnd(ends);
    (sender, Receiver { receiver, end })
}

/// Whoever receives is woken when something was sent, or a sender has gone: this is dropped after it.
#[derive(Clone, Debug)]
struct SendingEnd(Simulated);

impl SendingEnd {
    fn has_news(&self) {
        if let Some(ends) = &self.0 {
            ends.receiver.wake();
        }
    }
}

impl Drop for SendingEnd {
    fn drop(&mut self) {
        self.has_news();
    }
}

/// Whoever sends is woken when there is room, or the receiver has gone: this is dropped after it.
#[derive(Debug)]
struct ReceivingEnd(Simulated);

impl ReceivingEnd {
    fn has_room(&self) {
        if let Some(ends) = &self.0 {
            ends.senders.wake();
        }
    }
}

impl Drop for ReceivingEnd {
    fn drop(&mut self) {
        self.has_room();
    }
}

/// Sends without waiting.
#[derive(Debug)]
pub struct Sender<T> {
    sender: mpsc::Sender<T>,
    end: SendingEnd,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender {
            sender: self.sender.clone(),
            end: self.end.clone(),
        }
    }
}

impl<T> Sender<T> {
    /// Sends.
    ///
    /// # Errors
    /// The receiver has gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let sent = self.sender.send(message);
        self.end.has_news();
        sent
    }
}

/// Sends, and waits for room.
#[derive(Debug)]
pub struct SyncSender<T> {
    sender: mpsc::SyncSender<T>,
    end: SendingEnd,
}

impl<T> SyncSender<T> {
    /// Sends when there is room.
    ///
    /// # Errors
    /// The receiver has gone.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        let Some(ends) = &self.end.0 else {
            return self.sender.send(message);
        };
        let mut message = message;
        loop {
            match self.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(message)) => return Err(SendError(message)),
                Err(TrySendError::Full(unsent)) => message = unsent,
            }
            if ends.senders.wait(None).is_err() {
                return Err(SendError(message));
            }
        }
    }

    /// Sends if there is room.
    ///
    /// # Errors
    /// There is none, or the receiver has gone.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        let sent = self.sender.try_send(message);
        self.end.has_news();
        sent
    }
}

/// Receives.
#[derive(Debug)]
pub struct Receiver<T> {
    receiver: mpsc::Receiver<T>,
    end: ReceivingEnd,
}

impl<T> Receiver<T> {
    /// Waits for a message.
    ///
    /// # Errors
    /// There is none, and no sender.
    pub fn recv(&self) -> Result<T, RecvError> {
        let Some(ends) = &self.end.0 else {
            return self.receiver.recv();
        };
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvError),
                Err(TryRecvError::Empty) => {}
            }
            if ends.receiver.wait(None).is_err() {
                return Err(RecvError);
            }
        }
    }

    /// As [`Receiver::recv`], but waits for at most `timeout`.
    ///
    /// # Errors
    /// As there, and when the time is up.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        let Some(ends) = &self.end.0 else {
            return self.receiver.recv_timeout(timeout);
        };
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let until_ns = ends.receiver.now_ns().saturating_add(timeout_ns);
        loop {
            match self.try_recv() {
                Ok(message) => return Ok(message),
                Err(TryRecvError::Disconnected) => return Err(RecvTimeoutError::Disconnected),
                Err(TryRecvError::Empty) if ends.receiver.now_ns() >= until_ns => {
                    return Err(RecvTimeoutError::Timeout);
                }
                Err(TryRecvError::Empty) => {}
            }
            if ends.receiver.wait(Some(until_ns)).is_err() {
                return Err(RecvTimeoutError::Disconnected);
            }
        }
    }

    /// A message that is there.
    ///
    /// # Errors
    /// There is none, for now or for good.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        let received = self.receiver.try_recv();
        if received.is_ok() {
            self.end.has_room();
        }
        received
    }

    /// Messages as they come, until there are no senders.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.recv().ok())
    }

    /// Messages that are there.
    pub fn try_iter(&self) -> impl Iterator<Item = T> {
        std::iter::from_fn(|| self.try_recv().ok())
    }
}
