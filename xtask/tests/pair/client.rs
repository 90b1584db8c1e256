//! A client that notices a lost connection, a lost reply and a repeated one.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use xtask::redis::{Connection, Reply};
use xtask::replica::wait_for;

/// How long one reply may take before the client counts it as an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// One open connection to a counter: every reply has to be the next number.
pub struct Client {
    connection: Connection,
    value: i64,
    /// The longest wait for a reply.
    pub longest_wait: Duration,
}

impl Client {
    /// Connects as soon as Redis answers.
    pub fn connect(address: &str) -> Result<Client> {
        wait_for("Redis", || {
            let mut probe = Connection::open(address, Duration::from_secs(1))?;
            Ok(probe.call(&["PING"]).ok())
        })?;
        let connection = Connection::open(address, PATIENCE)?;
        Ok(Client {
            connection,
            value: 0,
            longest_wait: Duration::ZERO,
        })
    }

    /// Counts so far on.
    pub fn count(&mut self, increments: u32) -> Result<()> {
        for _ in 0..increments {
            let start = Instant::now();
            let reply = self
                .connection
                .call(&["INCR", "counter"])
                .context("the one connection broke")?;
            self.longest_wait = self.longest_wait.max(start.elapsed());
            self.value += 1;
            ensure!(
                reply == Reply::Integer(self.value),
                "{reply:?} instead of {}",
                self.value
            );
        }
        Ok(())
    }

    /// Counts while `done` is not yet so.
    pub fn count_until<T>(
        &mut self,
        what: &str,
        mut done: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        wait_for(what, || {
            self.count(1)?;
            done()
        })
    }

    /// The counter is where it was counted to.
    pub fn check(&mut self) -> Result<()> {
        let reply = self.connection.call(&["GET", "counter"])?;
        ensure!(
            reply == Reply::Text(self.value.to_string().into()),
            "{reply:?}, not {}",
            self.value
        );
        Ok(())
    }
}
