//! What the snapshots of a journal weigh, and how long they take, while a guest serves Redis.

use super::redis::redis_benchmark;
use crate::program;
use crate::redis::{Connection, Reply};
use crate::replica::{demo_guest, wait_for};
use crate::site::Site;
use anyhow::{Context, Result, ensure};
use replication::journal::SnapshotFileReader;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PORT: u16 = 6379;
/// Bytes of a value with which the memory is filled.
const VALUE_BYTES: usize = 64 << 10;
/// So often it is looked whether a snapshot is there.
const LOOK: Duration = Duration::from_millis(2);

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Load<'a> {
    /// RAM, as vm.toml takes it.
    pub memory: &'a str,
    /// Values that Redis holds before, in MiB.
    pub fill_mib: usize,
    /// Keys that are written and read.
    pub keys: usize,
    /// How long.
    pub seconds: u64,
}

/// A snapshot that became whole.
#[derive(Clone, Copy, Debug)]
struct Seen {
    is_whole: bool,
    bytes: u64,
    took: Duration,
}

/// `cargo xtask bench snapshots`.
pub fn bench(load: Load<'_>, directory: &Path) -> Result<()> {
    ensure!(
        program::exists("redis-benchmark"),
        "redis-benchmark is missing: apt-get install redis-tools"
    );
    fs::create_dir_all(directory)?;
    let directory = directory.canonicalize()?;
    let journal = directory.join(format!("snapshots-{}", std::process::id()));
    let guest = demo_guest(&program::path()?)?;
    let mut site = Site::open("snapshots", guest, load.memory, PORT)?;
    let mut replica = site.start_with_journal(&journal)?;
    replica.await_state("journaled")?;
    let open = || Connection::open(&site.service, Duration::from_secs(60));
    wait_for("Redis", || {
        Ok(open().and_then(|mut it| it.call(&["PING"])).ok())
    })?;
    fill(&mut open()?, load.fill_mib)?;
    let (seen, segment_bytes, requests, took) = watch(&journal, &site.service, load)?;
    let status = replica.status()?.unwrap_or_default();
    let recovers_in_ms = &status["journal_recovers_in_ms"];
    // What it takes to be there again, of which a part is the snapshots'.
    replica.process.kill()?;
    let began = Instant::now();
    let replica = site.start_with_journal(&journal)?;
    replica.await_state("journaled")?;
    let live_after = began.elapsed();
    let recovered = replica.details("recovered").pop().unwrap_or_default();
    drop(replica);
    fs::remove_dir_all(&journal).context("the journal cannot be removed")?;
    let snapshot_bytes: u64 = seen.iter().map(|snapshot| snapshot.bytes).sum();
    let per_hour = |bytes: u64| bytes as f64 * 3600.0 / took.as_secs_f64() / 1e9;
    println!(
        "{}",
        json!({
            "whole": describe(&seen, true),
            "increments": describe(&seen, false),
            "gb_per_hour": { "snapshots": per_hour(snapshot_bytes), "records": per_hour(segment_bytes) },
            "requests_per_second": requests,
            "said_to_recover_in_ms": recovers_in_ms,
            "live_after_s": live_after.as_secs_f64(),
            "recovered": recovered,
        })
    );
    Ok(())
}

/// Values that hardly pack, so many MiB of them.
fn fill(redis: &mut Connection, mib: usize) -> Result<()> {
    let mut state: u64 = 88_172_645_463_325_252;
    for number in 0..mib * (1 << 20) / VALUE_BYTES {
        let value = (0..VALUE_BYTES).map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            // 64 letters: six bits of each byte are anybody's guess.
            char::from(b'0' + (state >> 58) as u8)
        });
        let key = format!("fill:{number}");
        let reply = redis.call(&["SET", &key, &value.collect::<String>()])?;
        ensure!(reply == Reply::Text(b"OK".to_vec()), "SET gave {reply:?}");
    }
    Ok(())
}

type Watched = (Vec<Seen>, u64, f64, Duration);

/// Loads Redis for so long, and looks what becomes of the journal.
fn watch(journal: &Path, service: &str, load: Load<'_>) -> Result<Watched> {
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<_> {
            let mut watch = Watch::default();
            while !stop.load(Ordering::Relaxed) {
                watch.look(journal)?;
                std::thread::sleep(LOOK);
            }
            Ok((watch.seen, watch.segments.values().sum::<u64>()))
        });
        let keys = load.keys.to_string();
        let arguments = ["-n", "20000", "-r", &keys, "-d", "100"];
        let mut rates = Vec::new();
        let mut rate = || -> Result<()> {
            while began.elapsed() < Duration::from_secs(load.seconds) {
                rates.push(redis_benchmark(service, &arguments)?.mean());
            }
            Ok(())
        };
        let loaded = rate();
        stop.store(true, Ordering::Relaxed);
        let watched = watching.join();
        loaded?;
        let (seen, segment_bytes) =
            watched.map_err(|_| anyhow::anyhow!("the watch panicked"))??;
        let mean = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
        Ok((seen, segment_bytes, mean, began.elapsed()))
    })
}

/// What is seen of a journal's directory from outside.
#[derive(Default)]
struct Watch {
    /// Since when each is being written.
    begun: BTreeMap<PathBuf, Instant>,
    known: BTreeSet<PathBuf>,
    seen: Vec<Seen>,
    /// Bytes of each segment, when it was seen last.
    segments: BTreeMap<PathBuf, u64>,
}

impl Watch {
    fn look(&mut self, journal: &Path) -> Result<()> {
        let journals = fs::read_dir(journal)?.filter_map(Result::ok);
        let files = journals.filter_map(|journal| fs::read_dir(journal.path()).ok());
        for file in files.flatten().filter_map(Result::ok) {
            let (path, name) = (file.path(), file.file_name());
            let name = name.to_string_lossy();
            if name.ends_with(".new") {
                self.begun.entry(path).or_insert_with(Instant::now);
            } else if name.ends_with(".segment") {
                // One that goes at this moment was as long before.
                if let Ok(found) = file.metadata() {
                    self.segments.insert(path, found.len());
                }
            } else if name.ends_with(".snapshot") && self.known.insert(path.clone()) {
                self.whole(&path)?;
            }
        }
        Ok(())
    }

    /// A snapshot has its name. One that was begun before anybody looked tells no time.
    fn whole(&mut self, path: &Path) -> Result<()> {
        let Some(begun) = self.begun.remove(&path.with_extension("snapshot.new")) else {
            return Ok(());
        };
        let took = begun.elapsed();
        let file = fs::read(path)?;
        let mut reader = SnapshotFileReader::default();
        reader.push(&file[..file.len().min(1 << 20)]);
        let _first = reader.next_piece();
        let head = reader.head().context("a snapshot without a head")?;
        self.seen.push(Seen {
            is_whole: head.builds_on.is_none(),
            bytes: file.len() as u64,
            took,
        });
        Ok(())
    }
}

fn describe(seen: &[Seen], is_whole: bool) -> Value {
    let seen: Vec<&Seen> = seen.iter().filter(|it| it.is_whole == is_whole).collect();
    let mib: Vec<f64> = seen.iter().map(|it| it.bytes as f64 / 1048576.0).collect();
    let took: Vec<f64> = seen.iter().map(|it| it.took.as_secs_f64()).collect();
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    match seen.len() {
        0 => json!({ "number": 0 }),
        number => json!({
            "number": number,
            "mib": { "median": program::median(&mib), "most": most(&mib) },
            "took_s": { "median": program::median(&took), "most": most(&took) },
        }),
    }
}
