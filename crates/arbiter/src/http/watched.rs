//! Connections that tell a slow service from a silent one.
//!
//! What a write gives to the kernel has not arrived: on a slow way a megabyte may be in its buffers, for ten seconds in which
//! nothing is written and nothing is answered. So while something is waited for, it is looked how much of what was
//! written the other side has confirmed: as long as that grows, or anything comes, it is not silent.
//!
//! No more is under way than goes in a moment: what was written is then never far ahead of what has arrived, and whoever
//! gives the bytes knows how far they are. What can wait ([`Lane::GivesWay`]) has less under way, so that what is in a hurry, on another
//! connection, is not behind megabytes of it.

use super::send_queue::unconfirmed_bytes;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

/// While something is waited for it is looked so often what was confirmed.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes that are given to a connection at once.
const PIECE_BYTES: usize = 64 << 10;
/// How much is confirmed in a second is measured over so long.
const RATE_INTERVAL: Duration = Duration::from_millis(50);
/// It is looked so often whether there is room for more.
const ROOM_INTERVAL: Duration = Duration::from_millis(2);
/// The least time for one of several addresses.
const LEAST_CONNECT: Duration = Duration::from_millis(10);

/// How what is sent on a connection stands to what is sent on others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// As fast as it goes.
    First,
    /// Little is under way at a time.
    GivesWay,
}

impl Lane {
    /// As much may be under way as was confirmed in this time…
    fn ahead(self) -> Duration {
        match self {
            Lane::First => Duration::from_secs(1),
            Lane::GivesWay => Duration::from_millis(250),
        }
    }

    /// …and so much at least.
    fn least_bytes(self) -> u64 {
        match self {
            Lane::First => 128 << 10,
            Lane::GivesWay => 64 << 10,
        }
    }
}

/// Makes connections that are watched.
#[derive(Debug)]
pub(super) struct WatchedConnector(pub Lane);

impl<In: Transport> Connector<In> for WatchedConnector {
    type Out = WatchedTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<In>,
    ) -> Result<Option<WatchedTransport>, Error> {
        let stream = connect(&details.addrs, details.timeout)?;
        stream.set_nodelay(details.config.no_delay())?;
        let buffers = LazyBuffers::new(
            details.config.input_buffer_size(),
            details.config.output_buffer_size(),
        );
        Ok(Some(WatchedTransport {
            stream,
            buffers,
            looks_after: None,
            written: 0,
            confirmed: 0,
            moved: Instant::now(),
            pace: Pace::begin(self.0),
        }))
    }
}

/// The first address that answers; each has half of the time that is left, and the last all of it.
fn connect(addresses: &[SocketAddr], timeout: NextTimeout) -> Result<TcpStream, Error> {
    let began = Instant::now();
    let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for (index, address) in addresses.iter().enumerate() {
        let connected = match timeout.not_zero() {
            None => TcpStream::connect(address),
            Some(limit) => {
                let left = limit.saturating_sub(began.elapsed());
                let is_last = index + 1 == addresses.len();
                let share = if is_last { left } else { left / 2 };
                TcpStream::connect_timeout(address, share.max(LEAST_CONNECT))
            }
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    match failed.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            Err(Error::Timeout(Timeout::Connect))
        }
        _ => Err(failed.into()),
    }
}

/// How much may be under way.
#[derive(Debug)]
struct Pace {
    lane: Lane,
    since: Instant,
    confirmed: u64,
    bytes_per_second: f64,
}

impl Pace {
    fn begin(lane: Lane) -> Pace {
        Pace {
            lane,
            since: Instant::now(),
            confirmed: 0,
            bytes_per_second: 0.0,
        }
    }

    fn saw(&mut self, now: Instant, confirmed: u64) {
        let took = now.saturating_duration_since(self.since);
        if took >= RATE_INTERVAL {
            let bytes = confirmed.saturating_sub(self.confirmed);
            self.bytes_per_second = bytes as f64 / took.as_secs_f64();
            (self.since, self.confirmed) = (now, confirmed);
        }
    }

    fn most_under_way(&self) -> u64 {
        let ahead = self.bytes_per_second * self.lane.ahead().as_secs_f64();
        (ahead as u64).max(self.lane.least_bytes())
    }
}

/// Until when something is waited for.
#[derive(Clone, Copy)]
struct Limits {
    until: Option<(Instant, Timeout)>,
    /// For how long nothing at all may be heard.
    silence: Option<Duration>,
}

impl Limits {
    fn of(timeout: NextTimeout, silence: Option<Duration>) -> Limits {
        let exact = (!timeout.after.is_not_happening()).then_some(*timeout.after);
        let until = exact.and_then(|after| Instant::now().checked_add(after));
        Limits {
            until: until.map(|until| (until, timeout.reason)),
            silence,
        }
    }
}

/// One connection.
pub(super) struct WatchedTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// After so long a call of the socket returns; none: it was not told yet.
    looks_after: Option<Duration>,
    /// Bytes that were given to the socket, and how many of them are known to have arrived.
    written: u64,
    confirmed: u64,
    /// When something was last seen to move.
    moved: Instant,
    pace: Pace,
}

impl WatchedTransport {
    /// Looks what has moved, and whether it is waited any longer.
    fn look(&mut self, limits: Limits) -> Result<(), Error> {
        let now = Instant::now();
        let unconfirmed = unconfirmed_bytes(&self.stream)?;
        let confirmed = self.written.saturating_sub(unconfirmed);
        if confirmed > self.confirmed {
            self.confirmed = confirmed;
            self.moved = now;
        }
        self.pace.saw(now, confirmed);
        if let Some((until, reason)) = limits.until
            && now >= until
        {
            return Err(Error::Timeout(reason));
        }
        if let Some(silence) = limits.silence
            && now.saturating_duration_since(self.moved) >= silence
        {
            return Err(Error::Timeout(Timeout::PerRead));
        }
        Ok(())
    }

    /// A call of the socket returns in time for the next look.
    fn set_look(&mut self, limits: Limits) -> io::Result<()> {
        let left = limits.until.map_or(LOOK_INTERVAL, |(until, _)| {
            until.saturating_duration_since(Instant::now())
        });
        let after = left.clamp(Duration::from_millis(1), LOOK_INTERVAL);
        if self.looks_after != Some(after) {
            self.stream.set_read_timeout(Some(after))?;
            self.stream.set_write_timeout(Some(after))?;
            self.looks_after = Some(after);
        }
        Ok(())
    }

    /// Waits until little enough is under way.
    fn await_room(&mut self, limits: Limits) -> Result<(), Error> {
        while unconfirmed_bytes(&self.stream)? >= self.pace.most_under_way() {
            thread::sleep(ROOM_INTERVAL);
            self.look(limits)?;
        }
        Ok(())
    }
}

/// Whether a call of a socket took as long as it may, or was interrupted, and may be made again.
fn is_to_be_repeated(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

impl Transport for WatchedTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let limits = Limits::of(timeout, timeout.per_write.map(|time| *time));
        self.moved = Instant::now();
        let mut sent = 0;
        while sent < amount {
            self.await_room(limits)?;
            self.set_look(limits)?;
            let end = amount.min(sent + PIECE_BYTES);
            let piece = &self.buffers.output()[sent..end];
            match (&self.stream).write(piece) {
                Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(bytes) => {
                    sent += bytes;
                    self.written += bytes as u64;
                }
                Err(error) if is_to_be_repeated(&error) => self.look(limits)?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let limits = Limits::of(timeout, timeout.per_read.map(|time| *time));
        self.moved = Instant::now();
        loop {
            self.set_look(limits)?;
            match (&self.stream).read(self.buffers.input_append_buf()) {
                Ok(bytes) => {
                    self.buffers.input_appended(bytes);
                    return Ok(bytes > 0);
                }
                Err(error) if is_to_be_repeated(&error) => self.look(limits)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One that nobody closed, and on which nothing came that nobody had asked for.
    fn is_open(&mut self) -> bool {
        let looked = self.stream.set_nonblocking(true);
        let read = looked.and_then(|()| (&self.stream).read(&mut [0]));
        let is_quiet = matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        is_quiet && self.stream.set_nonblocking(false).is_ok()
    }
}

impl fmt::Debug for WatchedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedTransport")
            .field("address", &self.stream.peer_addr().ok())
            .finish_non_exhaustive()
    }
}
