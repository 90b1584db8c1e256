//! What TLS costs a message on the logging channel: a message and its answer between two threads on the
//! loopback, in a session of hosts' keys and beside it without one.

use crate::program::{self, median};
use crate::replica;
use anyhow::{Context, Result, bail};
use keys::{BlockingSession, Keys, LetIn, Purpose};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a message with the records of a turn, and of an acknowledgement, as they are under Redis.
const MESSAGE_BYTES: usize = 400;
const ANSWER_BYTES: usize = 32;
/// Round trips of a block; the blocks of both take turns.
const BLOCK: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a way, with or without TLS.
trait Way: Read + Write + Send {}
impl<T: Read + Write + Send> Way for T {}

/// A way to a thread that answers every message.
struct Echo {
    way: Box<dyn Way>,
    /// Ends when the way is closed, with the processor time that it took.
    answering: JoinHandle<Result<Duration>>,
}

/// `cargo xtask bench tls`.
pub fn bench(repetitions: usize) -> Result<()> {
    println!("load at the start: {}", program::load());
    pin(0)?;
    let directory = super::scratch("tls")?;
    let issued = replica::keys(&directory)?;
    let keys = Keys::open(&issued, Purpose::Replica, LetIn::Site)?;
    let mut plain = Echo::start(None)?;
    let mut secure = Echo::start(Some(keys))?;
    let (mut plain_us, mut secure_us) = (Vec::new(), Vec::new());
    let (mut plain_cpu, mut secure_cpu) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..repetitions {
        plain_cpu += plain.round_trips(&mut plain_us)?;
        secure_cpu += secure.round_trips(&mut secure_us)?;
    }
    plain_cpu += plain.end()?;
    secure_cpu += secure.end()?;
    std::fs::remove_dir_all(directory)?;
    println!("load at the end: {}", program::load());
    let trips = (repetitions * BLOCK) as f64;
    let cpu_us = |time: Duration| (time.as_secs_f64() * 1e7 / trips).round() / 10.0;
    let added_us = median(&secure_us) - median(&plain_us);
    println!(
        "{}",
        json!({
            "round_trips": trips,
            "plain_p50_us": median(&plain_us).round(),
            "tls_p50_us": median(&secure_us).round(),
            "added_p50_us": added_us.round(),
            "cpu_us_both_ends": { "plain": cpu_us(plain_cpu), "tls": cpu_us(secure_cpu) },
        })
    );
    Ok(())
}

impl Echo {
    fn start(keys: Option<Keys>) -> Result<Echo> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let socket = TcpStream::connect(listener.local_addr()?)?;
        let (theirs, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        theirs.set_nodelay(true)?;
        let their_keys = keys.clone();
        let answering = std::thread::spawn(move || {
            pin(1)?;
            let way: Box<dyn Way> = match their_keys {
                Some(keys) => Box::new(BlockingSession::accept(&keys, theirs, PATIENCE)?),
                None => Box::new(theirs),
            };
            answer(way)
        });
        let way: Box<dyn Way> = match keys {
            Some(keys) => Box::new(BlockingSession::connect(&keys, socket, PATIENCE)?),
            None => Box::new(socket),
        };
        Ok(Echo { way, answering })
    }

    /// Times a block of round trips, in microseconds each; the processor time of this end.
    fn round_trips(&mut self, took_us: &mut Vec<f64>) -> Result<Duration> {
        let (message, mut reply) = ([7; MESSAGE_BYTES], [0; ANSWER_BYTES]);
        let before = processor_time();
        for _ in 0..BLOCK {
            let sent = Instant::now();
            self.way.write_all(&message)?;
            self.way.flush()?;
            self.way.read_exact(&mut reply)?;
            took_us.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        Ok(processor_time() - before)
    }

    fn end(self) -> Result<Duration> {
        drop(self.way);
        match self.answering.join() {
            Ok(time) => time.context("the other end"),
            Err(_) => bail!("the other end panicked"),
        }
    }
}

/// Keeps this thread on one core: two that share one wake each other sooner than two that do not, and
/// which it is would be the scheduler's choice, another one with TLS than without.
fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).context("this needs two cores")
}

/// Answers every message until the way is closed.
fn answer(mut way: Box<dyn Way>) -> Result<Duration> {
    let before = processor_time();
    let (mut message, reply) = ([0; MESSAGE_BYTES], [9; ANSWER_BYTES]);
    while way.read_exact(&mut message).is_ok() {
        way.write_all(&reply)?;
        way.flush()?;
    }
    Ok(processor_time() - before)
}

/// Of this thread.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
