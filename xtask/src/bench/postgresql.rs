//! PostgreSQL under pgbench while primaries are killed: what was acknowledged is there.

use crate::engines::image;
use crate::program;
use crate::replica::{Replica, wait_for};
use crate::site::{Site, listen_address};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PORT: u16 = 5432;
const CLIENTS: u32 = 8;
/// Transactions of each client in one run of pgbench, on one connection.
const TRANSACTIONS: u32 = 100;
/// The guest's own work between two kills.
const BETWEEN: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Primaries that were killed.
    pub kills: usize,
    /// Attempts to join that failed.
    pub joins_failed: usize,
    /// Transactions that pgbench was told were committed.
    pub transactions: u64,
    /// Of those, how many are not in the database.
    pub lost: i64,
    /// From each kill until the machine was protected again, in seconds.
    pub protected_after_s: Vec<f64>,
}

/// The guest, built if it is not there: PostgreSQL with a cluster in RAM, open to the network.
fn guest(directory: &Path) -> Result<PathBuf> {
    let image = directory.join("postgresql-server");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-workloads");
    let file = |name: &str| format!("{}:/workload/{name}", files.join(name).display());
    let arguments = [
        "--package",
        "postgresql-17",
        "--add-file",
        &file("postgresql_server.sh"),
        "--add-file",
        &file("bank_books.sql"),
        "--service",
        &format!("postgresql:{PORT}=/workload/postgresql_server.sh"),
    ];
    image::build(&image, &arguments.map(str::to_owned))?;
    Ok(image.canonicalize()?)
}

/// Kills so many primaries of a guest with so much memory under pgbench.
pub fn run(kills: usize, memory: &str, guest_directory: &Path) -> Result<Outcome> {
    for program in ["pgbench", "psql"] {
        ensure!(
            program::exists(program),
            "{program} is missing: apt-get install postgresql"
        );
    }
    let mut site = Site::open("postgresql", guest(guest_directory)?, memory, PORT)?;
    let mut primary = site.start(None)?;
    primary.await_state("alone")?;
    let mut backup = site.start(Some(&listen_address(&primary)?))?;
    let server = Server::of(&site)?;
    wait_for("PostgreSQL and its books", || {
        Ok(server
            .query("SELECT count(*) FROM branches")
            .ok()
            .filter(|rows| rows == "4"))
    })?;
    primary.await_state("protected")?;
    let load = Load::start(server.clone());
    let mut outcome = Outcome::default();
    for kill in 1..=kills {
        std::thread::sleep(BETWEEN);
        primary.await_state("protected")?;
        if load.running.is_finished() {
            break;
        }
        let at = Instant::now();
        primary.process.kill()?;
        backup.await_live()?;
        let joiner = site.start(Some(&listen_address(&backup)?))?;
        primary = std::mem::replace(&mut backup, joiner);
        primary.await_state("protected")?;
        outcome.protected_after_s.push(at.elapsed().as_secs_f64());
        outcome.joins_failed += failures(&primary) + failures(&backup);
        outcome.kills = kill;
        println!(
            "kill {kill}: protected again after {:.1} s",
            at.elapsed().as_secs_f64()
        );
    }
    outcome.transactions = load.end()?;
    let books = server.query("SELECT count(*) FROM history")?;
    outcome.lost = outcome.transactions as i64 - books.parse::<i64>()?;
    let agree = "SELECT (SELECT sum(balance) FROM accounts) = (SELECT sum(delta) FROM history) \
                 AND (SELECT sum(balance) FROM branches) = (SELECT sum(delta) FROM history)";
    ensure!(server.query(agree)? == "t", "the books do not agree");
    Ok(outcome)
}

fn failures(replica: &Replica) -> usize {
    replica.events("join_failed") + replica.events("looks_again")
}

#[derive(Clone)]
struct Server {
    host: String,
    port: String,
}

impl Server {
    fn of(site: &Site) -> Result<Server> {
        let (host, port) = site.service.rsplit_once(':').context("no port")?;
        Ok(Server {
            host: host.into(),
            port: port.into(),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-h", &self.host, "-p", &self.port, "-U", "postgres"]);
        command.env("PGDATABASE", "postgres");
        command
    }

    fn query(&self, query: &str) -> Result<String> {
        let mut psql = self.command("psql");
        let output = psql
            .args(["-At", "-c", query])
            .env("PGCONNECT_TIMEOUT", "5")
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// One run of pgbench: how many transactions it was told were committed.
    fn transfers(&self) -> Result<u64> {
        let bank = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-workloads/bank.sql");
        let mut pgbench = self.command("pgbench");
        pgbench.args([
            "-n",
            "-c",
            &CLIENTS.to_string(),
            "-t",
            &TRANSACTIONS.to_string(),
            "-f",
        ]);
        let output = pgbench.arg(bank).output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "pgbench: {said}{errors}");
        let processed = said
            .lines()
            .find_map(|line| line.strip_prefix("number of transactions actually processed: "));
        let processed = processed.and_then(|counts| counts.split('/').next());
        processed
            .with_context(|| format!("pgbench says nothing of transactions: {said}"))?
            .parse()
            .context("pgbench counts strangely")
    }
}

/// pgbench, again and again. A connection that breaks ends it with an error.
struct Load {
    stop: Arc<AtomicBool>,
    running: JoinHandle<Result<u64>>,
}

impl Load {
    fn start(server: Server) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = stop.clone();
        let running = std::thread::spawn(move || {
            let mut transactions = 0;
            while !asked.load(Ordering::Relaxed) {
                transactions += server.transfers()?;
            }
            Ok(transactions)
        });
        Load { stop, running }
    }

    fn end(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        match self.running.join() {
            Ok(transactions) => transactions,
            Err(_) => bail!("the load panicked"),
        }
    }
}

/// `cargo xtask bench postgresql`.
pub fn bench(kills: usize, memory: &str, guest_directory: &Path) -> Result<()> {
    println!("load at the start: {}", program::load());
    let outcome = run(kills, memory, guest_directory)?;
    println!("load at the end: {}", program::load());
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let worst = outcome
        .protected_after_s
        .iter()
        .copied()
        .fold(0.0, f64::max);
    println!(
        "{}",
        json!({
            "kills": outcome.kills,
            "joins_failed": outcome.joins_failed,
            "transactions": outcome.transactions,
            "lost": outcome.lost,
            "protected_after_s": {
                "median": tenths(program::median(&outcome.protected_after_s)),
                "worst": tenths(worst),
            },
        })
    );
    Ok(())
}
