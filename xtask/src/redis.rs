//! A Redis client that notices everything: one connection, one request at a time, never a retry.

use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `:n`
    Integer(i64),
    /// `$n`, or `+text`
    Text(Vec<u8>),
    /// `$-1`
    Nothing,
}

/// One open connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects. `patience` bounds how long one reply may take.
    pub fn open(address: &str, patience: Duration) -> Result<Connection> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        Ok(Connection {
            reader: BufReader::new(stream),
        })
    }

    /// Sends a command and waits for its reply.
    pub fn call(&mut self, words: &[&str]) -> Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.reader
            .get_mut()
            .write_all(request.as_bytes())
            .context("the connection broke")?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.reader.read_line(&mut line).context("no reply")?;
        let Some(line) = line.strip_suffix("\r\n") else {
            bail!("the connection was closed")
        };
        let (kind, rest) = line.split_at_checked(1).context("an empty reply")?;
        Ok(match kind {
            ":" => Reply::Integer(rest.parse()?),
            "+" => Reply::Text(rest.into()),
            "$" if rest == "-1" => Reply::Nothing,
            "$" => {
                let length: usize = rest.parse()?;
                let mut bytes = vec![0; length + 2];
                self.reader
                    .read_exact(&mut bytes)
                    .context("a reply that ends early")?;
                bytes.truncate(length);
                Reply::Text(bytes)
            }
            _ => bail!("Redis says {line:?}"),
        })
    }
}
