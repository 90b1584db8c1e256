//! Asks whether the service answers, as a client of Redis does.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

/// How long an answer may take before the next attempt.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// A thread that asks until it gets an answer.
#[derive(Debug)]
pub struct Probe {
    answered: Receiver<()>,
    seen: bool,
}

impl Probe {
    /// Starts asking `address`.
    pub fn start(address: SocketAddr) -> io::Result<Probe> {
        let (sender, answered) = mpsc::sync_channel(1);
        std::thread::Builder::new()
            .name("probe".into())
            .spawn(move || {
                while ping(address).is_err() {
                    std::thread::sleep(PAUSE);
                }
                let _sent = sender.send(());
            })?;
        Ok(Probe {
            answered,
            seen: false,
        })
    }

    /// Whether the service has answered.
    pub fn has_answered(&mut self) -> bool {
        self.seen |= !matches!(self.answered.try_recv(), Err(TryRecvError::Empty));
        self.seen
    }
}

fn ping(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" {
        Ok(())
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_service_that_closes_first_and_answers_later_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut probe = Probe::start(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"+PONG\r\n").unwrap();
        while !probe.has_answered() {
            std::thread::yield_now();
        }
        assert!(probe.has_answered(), "an answer is for good");
    }
}
