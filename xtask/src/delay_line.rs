//! A TCP connection over a distance: what comes in goes out later, in both directions, as much of it
//! as there is.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a core that sleeps takes to wake up, and then some: a timer alone is late by it.
const WAKE_UP: Duration = Duration::from_micros(100);

/// Leads connections to another address. Its threads end with the connections; the listening one
/// with the process.
#[derive(Debug)]
pub struct DelayLine {
    address: SocketAddr,
    length: Arc<Length>,
}

/// How long it is, and how that is kept.
#[derive(Debug, Default)]
struct Length {
    one_way_us: AtomicU64,
    is_exact: AtomicBool,
}

impl DelayLine {
    /// Listens on the loopback network for connections to `target`, without delay so far.
    pub fn start(target: String) -> Result<DelayLine> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let length = Arc::new(Length::default());
        let led_by = length.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // A target that is not there closes the connection, as a network would in the end.
                if let Ok(far) = TcpStream::connect(&target) {
                    let _led = lead(near, far, &led_by);
                }
            }
        });
        Ok(DelayLine { address, length })
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// How long `probes` short messages take there and back through a line that is `one_way` long each
    /// way: the medium itself, with nothing at its other end but an echo.
    pub fn round_trip(one_way: Duration, probes: u32) -> Result<Vec<Duration>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let line = DelayLine::start(listener.local_addr()?.to_string())?;
        line.set_one_way(one_way);
        line.set_exact(true);
        let mut near = TcpStream::connect(line.address())?;
        near.set_nodelay(true)?;
        let (mut far, _) = listener.accept()?;
        far.set_nodelay(true)?;
        std::thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).is_ok() && far.write_all(&byte).is_ok() {}
        });
        let mut trips = Vec::new();
        for _ in 0..probes {
            let sent = Instant::now();
            near.write_all(&[0])?;
            near.read_exact(&mut [0])?;
            trips.push(sent.elapsed());
        }
        Ok(trips)
    }

    /// How long everything takes from now on, each way.
    pub fn set_one_way(&self, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.length.one_way_us.store(delay, Ordering::Relaxed);
    }

    /// Whether it takes processor time, a tenth of a millisecond for each message, to be no longer than
    /// that. It would take it from a guest that only computes, to which the tenth is nothing.
    pub fn set_exact(&self, is_exact: bool) {
        self.length.is_exact.store(is_exact, Ordering::Relaxed);
    }
}

fn lead(near: TcpStream, far: TcpStream, length: &Arc<Length>) -> std::io::Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    one_way(near.try_clone()?, far.try_clone()?, length.clone());
    one_way(far, near, length.clone());
    Ok(())
}

/// One thread reads as fast as it can and notes when each piece is due, another one writes it then.
fn one_way(mut from: TcpStream, mut to: TcpStream, length: Arc<Length>) {
    let writer_length = length.clone();
    let (sender, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        prefer();
        let mut buffer = vec![0; 256 << 10];
        while let Ok(read) = from.read(&mut buffer)
            && read > 0
        {
            let at =
                Instant::now() + Duration::from_micros(length.one_way_us.load(Ordering::Relaxed));
            if sender.send((at, buffer[..read].to_vec())).is_err() {
                break;
            }
        }
    });
    std::thread::spawn(move || {
        prefer();
        // The kernel would let a sleep last 50 us longer.
        let _exact = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        for (at, bytes) in due {
            wait_until(at, writer_length.is_exact.load(Ordering::Relaxed));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The end of a connection is late as well.
        let _closed = to.shutdown(Shutdown::Both);
    });
}

/// A line is as long as it says, whatever else this host does: its threads come first. A host that does
/// not let them has a longer line.
fn prefer() {
    // Without a process named it is the calling thread, on Linux.
    let _preferred = rustix::process::setpriority_process(None, -20);
}

/// Sleeps; if it has to be exact, until shortly before, and looks at the clock for the rest.
fn wait_until(due: Instant, is_exact: bool) {
    let left = due.saturating_duration_since(Instant::now());
    if !is_exact {
        return std::thread::sleep(left);
    }
    std::thread::sleep(left.saturating_sub(WAKE_UP));
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_arrives_in_order_and_no_sooner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = DelayLine::start(listener.local_addr().unwrap().to_string()).unwrap();
        let delay = Duration::from_millis(20);
        line.set_one_way(delay);
        let mut near = TcpStream::connect(line.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let sent = Instant::now();
        near.write_all(b"there").unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        far.write_all(&bytes).unwrap();
        near.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"there");
        assert!(sent.elapsed() >= 2 * delay, "{:?}", sent.elapsed());
        drop(far);
        assert_eq!(near.read(&mut bytes).unwrap(), 0);
    }
}
