//! Requests over HTTP that end in time, whatever the other side does.

#[allow(unsafe_code)] // an ioctl, SIOCOUTQ, that no safe wrapper offers
mod send_queue;
mod watched;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use ureq::http::Request;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, AsSendBody, Timeout};
use watched::{Lane, WatchedConnector};

/// The longest answer that is read, in bytes: two contents of keys with all that is around them.
const ANSWER_LIMIT: u64 = 64 << 10;
/// A connection is used again within one claim. One that has been idle for longer may have been
/// forgotten by whoever is between, and to find that out takes as long as an answer may take.
const IDLE_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of an answer that are taken at once.
const PIECE_BYTES: usize = 64 << 10;

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// All of it together.
    Within(Duration),
    /// As long as it likes, while this is never spent without anything that comes, or that the other side confirms.
    Silence(Duration),
}

/// One attempt to have a request answered.
pub struct Attempt<'a> {
    deadline: Deadline,
    gives_way: bool,
    /// Is told how many bytes more have come, or, before they do, go.
    pub(crate) moves: Option<&'a mut dyn FnMut(u64)>,
}

impl<'a> Attempt<'a> {
    /// The answer is there within this time, to its last byte, or there is none.
    pub fn within(time: Duration) -> Attempt<'a> {
        Attempt {
            deadline: Deadline::Within(time),
            gives_way: false,
            moves: None,
        }
    }

    /// It goes on until nothing has come for so long, and nothing of what is sent has arrived.
    pub fn until_silent_for(time: Duration) -> Attempt<'a> {
        Attempt {
            deadline: Deadline::Silence(time),
            ..Attempt::within(time)
        }
    }

    /// What is sent can wait: little of it is under way at a time.
    #[must_use]
    pub fn that_gives_way(self) -> Attempt<'a> {
        Attempt {
            gives_way: true,
            ..self
        }
    }

    /// `moves` is told of the bytes of an object: how many more have come, or, before they do, how many more go. Those
    /// wait until it returns.
    #[must_use]
    pub fn telling(self, moves: &'a mut dyn FnMut(u64)) -> Attempt<'a> {
        Attempt {
            moves: Some(moves),
            ..self
        }
    }
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("deadline", &self.deadline)
            .field("gives_way", &self.gives_way)
            .finish_non_exhaustive()
    }
}

/// Files with which TLS is spoken, all PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Who signs the server's certificate; absent: whom the system trusts.
    pub ca_certificate: Option<PathBuf>,
    /// With which certificate and key this host is known there.
    pub client: Option<ClientFiles>,
}

/// A client's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// It, and those that lead to it.
    pub certificate: PathBuf,
    /// Its private key.
    pub private_key: PathBuf,
}

/// A file of TLS cannot be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It does not hold what it should.
    #[error("{} holds no {what} in PEM", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status, any.
    pub status: u16,
    /// The body, of at most as many bytes as were asked for.
    pub body: Vec<u8>,
}

/// A client. Its requests neither follow redirections nor are they repeated.
pub(crate) struct Client {
    first: Agent,
    gives_way: Agent,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// One that speaks TLS with these files where a URL says so.
    pub fn new(files: &TlsFiles) -> Result<Client, TlsError> {
        let roots = match &files.ca_certificate {
            Some(path) => certificates(path)?,
            None => rustls_native_certs::load_native_certs()
                .certs
                .iter()
                .map(|certificate| Certificate::from_der(certificate).to_owned())
                .collect(),
        };
        let client = files.client.as_ref().map(client_certificate).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&roots))
            .client_cert(client)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_age(IDLE_LIMIT)
            // What is between might answer from its memory.
            .proxy(None)
            .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = |lane| {
            let connector = ().chain(WatchedConnector(lane));
            let connector = connector.chain(RustlsConnector::default());
            Agent::with_parts(config.clone(), connector, DefaultResolver::default())
        };
        Ok(Client {
            first: agent(Lane::First),
            gives_way: agent(Lane::GivesWay),
        })
    }

    /// Sends a request and reads its answer within `timeout`, or says why there is none.
    pub fn send(
        &self,
        request: Request<impl AsSendBody>,
        timeout: Duration,
    ) -> Result<Answer, String> {
        self.send_limited(request, &mut Attempt::within(timeout), ANSWER_LIMIT)
    }

    /// As [`Client::send`], of an answer of at most `limit` bytes. What was sent is not told of here.
    pub fn send_limited(
        &self,
        request: Request<impl AsSendBody>,
        attempt: &mut Attempt<'_>,
        limit: u64,
    ) -> Result<Answer, String> {
        let deadline = attempt.deadline;
        let agent = match attempt.gives_way {
            true => &self.gives_way,
            false => &self.first,
        };
        let configured = agent.configure_request(request);
        let request = match deadline {
            Deadline::Within(time) => configured.timeout_global(Some(time)).build(),
            Deadline::Silence(time) => configured
                .timeout_resolve(Some(time))
                .timeout_connect(Some(time))
                .timeout_per_read(Some(time))
                .timeout_per_write(Some(time))
                .build(),
        };
        let failed = |error: ureq::Error| plain(&error, deadline);
        let mut response = agent.run(request).map_err(failed)?;
        let status = response.status().as_u16();
        let mut reader = response.body_mut().with_config().limit(limit).reader();
        let (mut body, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
        loop {
            match reader.read(&mut piece) {
                Ok(0) => return Ok(Answer { status, body }),
                Ok(bytes) => {
                    body.extend_from_slice(&piece[..bytes]);
                    if let (200, Some(moves)) = (status, &mut attempt.moves) {
                        moves(bytes as u64);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

/// An error as one would say it.
fn plain(error: &ureq::Error, deadline: Deadline) -> String {
    match (error, deadline) {
        (ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite), Deadline::Silence(time)) => {
            format!("not a byte went or came for {:.1} s", time.as_secs_f64())
        }
        (ureq::Error::Timeout(_), _) => "no answer in time".into(),
        (ureq::Error::Io(error), _) => error.to_string(),
        (other, _) => other.to_string(),
    }
}

/// A body that is text, for a message: one line, not too long.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let plain = line.chars().filter(|c| !c.is_control());
    plain.take(200).collect()
}

fn read(path: &Path) -> Result<Vec<PemItem<'static>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Unreadable {
        path: path.into(),
        source,
    })?;
    Ok(parse_pem(&bytes).filter_map(Result::ok).collect())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, TlsError> {
    let certificates: Vec<_> = read(path)?
        .into_iter()
        .filter_map(|item| match item {
            PemItem::Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(missing(path, "certificate"));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, TlsError> {
    let key = read(path)?.into_iter().find_map(|item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    });
    key.ok_or_else(|| missing(path, "private key"))
}

fn client_certificate(files: &ClientFiles) -> Result<ClientCert, TlsError> {
    let chain = certificates(&files.certificate)?;
    let key = private_key(&files.private_key)?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn missing(path: &Path, what: &'static str) -> TlsError {
    TlsError::Missing {
        path: path.into(),
        what,
    }
}
