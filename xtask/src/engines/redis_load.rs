//! Clients of Redis in the guest: the load comes over the network, so that interrupts and frames meet
//! the guest anywhere.

use super::console::Console;
use crate::redis::{Connection, Reply};
use crate::{program, single};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const CLIENTS: u64 = 4;
/// Rounds of each client; a round is six requests.
const ROUNDS: u64 = 500;
/// How long one reply may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Boots the guest, puts it under load, and powers it off at its console.
pub fn drive(mut arguments: Vec<String>, messages: &Path) -> Result<(ExitStatus, Vec<u8>)> {
    let address = format!("127.0.0.1:{}", single::free_port()?);
    let socket = messages.with_extension("switch");
    let listen = format!("unix:{}", socket.display());
    let mut switch = single::Running(
        Command::new(program::path()?)
            .args(["switch", "--listen", &listen, "--forward"])
            .arg(format!("{address}=10.0.2.15:6379"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("understudy does not start")?,
    );
    let start = Instant::now();
    while !socket.exists() && switch.0.try_wait()?.is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(2));
    }
    arguments.extend(["--network".to_owned(), listen]);
    let mut console = Console::start(&arguments, messages)?;
    console.expect("understudy: guest ready (10.0.2.15")?;
    load(&address)?;
    console.send("poweroff -f\n")?;
    console.finish()
}

fn load(address: &str) -> Result<()> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || one_client(address, client)))
            .collect();
        for client in clients {
            client.join().expect("a client does not panic")?;
        }
        anyhow::Ok(())
    })?;
    let mut connection = Connection::open(address, PATIENCE)?;
    let total = (CLIENTS * ROUNDS) as i64;
    expect(
        &mut connection,
        &["INCRBY", "total", "0"],
        Reply::Integer(total),
    )?;
    expect(
        &mut connection,
        &["DBSIZE"],
        Reply::Integer(CLIENTS as i64 * 102 + 1),
    )
}

fn one_client(address: &str, client: u64) -> Result<()> {
    let mut connection = Connection::open(address, PATIENCE)?;
    let own = format!("counter:{client}");
    let list = format!("list:{client}");
    let increment = "return redis.call('INCR', KEYS[1]) + tonumber(ARGV[1])";
    for round in 0..ROUNDS {
        let key = format!("key:{client}:{}", round % 100);
        let value = format!("{client}.{round}.").repeat(1 + (round as usize * 37) % 300);
        let ok = Reply::Text(b"OK".to_vec());
        expect(&mut connection, &["SET", &key, &value], ok)?;
        let same = Reply::Text(value.clone().into_bytes());
        expect(&mut connection, &["GET", &key], same)?;
        let length = Reply::Integer(value.len() as i64);
        expect(&mut connection, &["STRLEN", &key], length)?;
        connection.call(&["INCR", "total"])?;
        let next = Reply::Integer(round as i64 + 1);
        expect(&mut connection, &["RPUSH", &list, &value], next)?;
        let by_script = Reply::Integer(round as i64 + 8);
        expect(
            &mut connection,
            &["EVAL", increment, "1", &own, "7"],
            by_script,
        )?;
        if client == 0 && round % 250 == 100 {
            // The server forks, and both write to pages that they share.
            connection.call(&["BGSAVE", "SCHEDULE"])?;
        }
    }
    Ok(())
}

fn expect(connection: &mut Connection, words: &[&str], wanted: Reply) -> Result<()> {
    let reply = connection.call(words)?;
    ensure!(
        reply == wanted,
        "Redis answers {} with {reply:?} and not {wanted:?}",
        words.join(" ")
    );
    Ok(())
}
