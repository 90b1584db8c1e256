//! What distance costs: a pair whose logging channel takes its time.

use crate::bench::{self, cpu::Target};
use crate::delay_line::DelayLine;
use crate::program::{self, median};
use crate::redis::{Connection, Reply};
use crate::replica::{Replica, demo_guest_for, wait_for};
use crate::single::Single;
use crate::site::{Site, listen_address};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients that ask for one thing after the other.
const CLIENTS: u32 = 20;
/// Messages that measure the delay line itself.
const LINE_PROBES: u32 = 40;
/// How long each measurement takes.
const WINDOW: Duration = Duration::from_secs(4);
/// After the distance has changed: the core looks at the shortest round trip of two seconds.
const SETTLING: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(120);

/// A pair of the demonstration's guest with a delay line between the two.
pub struct Pair {
    line: DelayLine,
    /// The primary, to begin with.
    pub primary: Replica,
    /// The backup.
    pub backup: Replica,
    /// The address that leads to Redis.
    pub redis: String,
    /// After the replicas, whose files it has.
    _site: Site,
}

impl Pair {
    /// Starts it with the guest of this architecture, and waits until it is protected and Redis answers.
    pub fn start(target: Target) -> Result<Pair> {
        let guest = demo_guest_for(&program::path()?, target.debian())?;
        let mut site = Site::open("distance", guest, "256M", 6379)?;
        let primary = site.start(None)?;
        primary.await_state("alone")?;
        let line = DelayLine::start(listen_address(&primary)?)?;
        let backup = site.start(Some(&line.address()))?;
        primary.await_state("protected")?;
        let redis = site.service.clone();
        wait_for("Redis", || {
            let connection = Connection::open(&redis, Duration::from_secs(5));
            Ok(connection.and_then(|mut c| c.call(&["PING"])).ok())
        })?;
        Ok(Pair {
            line,
            primary,
            backup,
            redis,
            _site: site,
        })
    }

    /// Makes the way so long, and waits until that is known to the pair.
    pub fn set_one_way(&self, one_way: Duration) -> Result<()> {
        self.line.set_one_way(one_way);
        std::thread::sleep(SETTLING);
        let status = self.primary.await_state("protected")?;
        ensure!(
            status["protected"] == true,
            "the distance cost the protection"
        );
        Ok(())
    }

    fn instruction_count(&self) -> Result<(f64, Instant)> {
        let status = self.primary.status()?.context("the primary is silent")?;
        let count = status["instruction_count"].as_f64();
        Ok((count.context("no instruction count")?, Instant::now()))
    }

    /// What the primary sent of its log, as it went over the network.
    fn log_bytes(&self) -> Result<f64> {
        let status = self.primary.status()?.context("the primary is silent")?;
        let bytes = status["log_bytes_sent"].as_f64();
        bytes.context("the status has no log_bytes_sent")
    }

    /// Millions of instructions a second of a guest that only computes.
    fn speed(&self) -> Result<f64> {
        const SCRIPT: &str =
            "local s = 0 for i = 1, 80000000 do s = (s * 31 + i) % 1000003 end return s";
        self.line.set_exact(false);
        let redis = self.redis.clone();
        let computing = std::thread::spawn(move || -> Result<Reply> {
            Connection::open(&redis, PATIENCE)?.call(&["EVAL", SCRIPT, "0"])
        });
        std::thread::sleep(Duration::from_millis(500));
        let (before, at) = self.instruction_count()?;
        std::thread::sleep(WINDOW);
        let (after, until) = self.instruction_count()?;
        ensure!(
            !computing.is_finished(),
            "the script was too short: make it longer"
        );
        let Ok(Ok(Reply::Integer(_))) = computing.join() else {
            bail!("the script gave no number");
        };
        Ok((after - before) / (until - at).as_secs_f64() / 1e6)
    }

    /// Requests of all clients together, and where their time goes.
    fn requests(&self, one_way: Duration) -> Result<Requests> {
        self.line.set_exact(true);
        let (before, start) = (self.log_bytes()?, Instant::now());
        let clients = Clients::start(&self.redis, Duration::ZERO);
        std::thread::sleep(WINDOW / 2);
        // Beside the clients, as the pair meets it.
        let line = DelayLine::round_trip(one_way, LINE_PROBES)?;
        std::thread::sleep(WINDOW / 2);
        let status = self.primary.status()?.context("the primary is silent")?;
        let gate_ms = &status["output_delay"];
        let bytes_a_second = (self.log_bytes()? - before) / start.elapsed().as_secs_f64();
        let made = clients.end()?;
        let milliseconds: Vec<f64> = line.iter().map(|trip| trip.as_secs_f64() * 1e3).collect();
        Ok(Requests {
            a_second: made.a_second,
            log_bytes: bytes_a_second / made.a_second,
            mean_ms: made.mean_ms,
            line_ms: median(&milliseconds),
            gate_p50_ms: gate_ms["p50_ms"].as_f64().unwrap_or_default(),
            gate_p99_ms: gate_ms["p99_ms"].as_f64().unwrap_or_default(),
        })
    }
}

/// All clients, each with a request under way or pausing between two.
struct Clients {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<Vec<Duration>>>>,
    start: Instant,
}

/// What clients saw.
struct Answered {
    /// Requests of all of them together.
    a_second: f64,
    /// From a request to its answer, on average.
    mean_ms: f64,
}

impl Clients {
    /// Each begins its next request `pause` after an answer: a server without a backup that is so far away for there and
    /// back together meets the same.
    fn start(redis: &str, pause: Duration) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |number: u32| {
            let (redis, stop) = (redis.to_owned(), stop.clone());
            std::thread::spawn(move || {
                // The kernel would let a pause last 50 us longer.
                let _exact = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
                let mut connection = Connection::open(&redis, PATIENCE)?;
                let key = format!("key:{number}");
                let mut took = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    connection.call(&["SET", &key, "value"])?;
                    took.push(sent.elapsed());
                    std::thread::sleep(pause);
                }
                Ok(took)
            })
        };
        Clients {
            threads: (0..CLIENTS).map(client).collect(),
            stop,
            start: Instant::now(),
        }
    }

    fn end(self) -> Result<Answered> {
        self.stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for client in self.threads {
            let Ok(made) = client.join() else {
                bail!("a client panicked");
            };
            took.extend(made?);
        }
        let total: Duration = took.iter().sum();
        Ok(Answered {
            a_second: took.len() as f64 / self.start.elapsed().as_secs_f64(),
            mean_ms: total.as_secs_f64() * 1e3 / took.len().max(1) as f64,
        })
    }
}

/// The same clients of the same guest without a pair, as far from it as the backup is from the primary.
fn alone(single: &Single, one_way: Duration) -> Result<Answered> {
    let clients = Clients::start(&single.address, 2 * one_way);
    std::thread::sleep(WINDOW);
    clients.end()
}

/// What the clients saw, and what lies under it.
struct Requests {
    /// Of all clients together.
    a_second: f64,
    /// What was sent to the backup for each, in bytes.
    log_bytes: f64,
    /// A request of one client, on average.
    mean_ms: f64,
    /// There and back on the delay line alone, meanwhile: its own threads have to be woken, too.
    line_ms: f64,
    /// How long outputs waited for their acknowledgement.
    gate_p50_ms: f64,
    gate_p99_ms: f64,
}

/// `cargo xtask bench distance`.
pub fn bench(target: Target, one_way_ms: &[u64], repetitions: usize) -> Result<()> {
    println!("load at the start: {}", program::load());
    let pair = Pair::start(target)?;
    let directory = bench::scratch("distance-alone")?;
    let single = Single::start(
        &directory,
        &demo_guest_for(&program::path()?, target.debian())?,
    )?;
    let mut speeds = vec![Vec::new(); one_way_ms.len()];
    let mut requests = vec![Vec::new(); one_way_ms.len()];
    let mut lines = vec![Vec::new(); one_way_ms.len()];
    let mut log_bytes = vec![Vec::new(); one_way_ms.len()];
    let mut alone_requests = vec![Vec::new(); one_way_ms.len()];
    // Around and around: what else this host does meanwhile meets all distances alike.
    for _ in 0..repetitions {
        for (index, one_way) in one_way_ms.iter().enumerate() {
            let way = Duration::from_millis(*one_way);
            pair.set_one_way(way)?;
            speeds[index].push(pair.speed()?);
            let made = pair.requests(way)?;
            println!(
                "{one_way} ms one way: {:.0} M instructions/s, {:.0} requests/s; a request takes \
                 {:.2} ms: the line {:.2}, outputs wait {:.2} (p99 {:.2}); {:.0} bytes of log each",
                speeds[index].last().unwrap_or(&0.0),
                made.a_second,
                made.mean_ms,
                made.line_ms,
                made.gate_p50_ms,
                made.gate_p99_ms,
                made.log_bytes
            );
            let without = alone(&single, way)?;
            println!(
                "    a machine alone, so far from its clients: {:.0} requests/s; a request takes {:.2} ms besides the way",
                without.a_second, without.mean_ms
            );
            alone_requests[index].push(without.a_second);
            requests[index].push(made.a_second);
            log_bytes[index].push(made.log_bytes);
            lines[index].push(made.line_ms);
        }
    }
    println!("load at the end: {}", program::load());
    drop(single);
    std::fs::remove_dir_all(directory)?;
    let speeds: Vec<f64> = speeds.iter().map(|speeds| median(speeds)).collect();
    let requests: Vec<f64> = requests.iter().map(|rates| median(rates)).collect();
    let two_places = |value: f64| (value * 100.0).round() / 100.0;
    let lines: Vec<f64> = lines.iter().map(|lines| median(lines)).collect();
    let bound = |round_trip_ms: f64| f64::from(CLIENTS) / (round_trip_ms / 1e3);
    println!(
        "{}",
        json!({
            "one_way_ms": one_way_ms,
            "speed": speeds.iter().map(|speed| two_places(speed / speeds[0])).collect::<Vec<_>>(),
            "requests": requests.iter().map(|rate| rate.round()).collect::<Vec<_>>(),
            "of_what_the_round_trip_allows": requests.iter().zip(one_way_ms)
                .map(|(rate, one_way)| {
                    (*one_way > 0).then(|| two_places(rate / bound(2.0 * *one_way as f64)))
                })
                .collect::<Vec<_>>(),
            "alone": alone_requests.iter().map(|rates| median(rates).round()).collect::<Vec<_>>(),
            "of_a_machine_alone": requests.iter().zip(&alone_requests)
                .map(|(rate, alone)| two_places(rate / median(alone)))
                .collect::<Vec<_>>(),
            "log_bytes_a_request": log_bytes.iter().map(|bytes| median(bytes).round()).collect::<Vec<_>>(),
            "line_round_trip_ms": lines.iter().map(|trip| two_places(*trip)).collect::<Vec<_>>(),
            "of_what_the_line_allows": requests.iter().zip(&lines).zip(one_way_ms)
                .map(|((rate, trip), one_way)| (*one_way > 0).then(|| two_places(rate / bound(*trip))))
                .collect::<Vec<_>>(),
        })
    );
    Ok(())
}
