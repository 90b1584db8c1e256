//! The keys of this host, for one purpose, as long as a process runs.

use crate::certificate::Certificate;
use crate::directory::{self, HostDirectory, provider};
use crate::error::{KeysError, Refusal};
use crate::name::HostName;
use crate::session::Session;
use crate::verifier::{Acquaintances, Verifier};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What two hosts speak about: a session of one purpose is of no use for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Replicas of a machine.
    Replica,
    /// A switch and what is attached to it.
    Switch,
}

impl Purpose {
    /// As the handshake says it (RFC 7301).
    fn protocol(self) -> Vec<u8> {
        match self {
            Purpose::Replica => b"understudy-replica".to_vec(),
            Purpose::Switch => b"understudy-switch".to_vec(),
        }
    }
}

/// Which hosts of the site are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetIn {
    /// Everyone that has a certificate.
    Site,
    /// Those.
    Hosts(BTreeSet<HostName>),
}

impl LetIn {
    /// Whether this one is.
    pub fn has(&self, name: &HostName) -> bool {
        match self {
            LetIn::Site => true,
            LetIn::Hosts(names) => names.contains(name),
        }
    }
}

impl fmt::Display for LetIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LetIn::Site => f.write_str("the site's hosts"),
            LetIn::Hosts(names) => {
                let names: Vec<&str> = names.iter().map(HostName::as_str).collect();
                f.write_str(&names.join(", "))
            }
        }
    }
}

/// What sessions are begun with, until the files change.
#[derive(Debug)]
struct Loaded {
    certificate: Certificate,
    authorities: usize,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    content: [Vec<u8>; 2],
}

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    purpose: Purpose,
    let_in: LetIn,
    acquaintances: Arc<Acquaintances>,
    loaded: Mutex<Arc<Loaded>>,
}

/// The keys of this host. Copies are one and the same.
#[derive(Clone, Debug)]
pub struct Keys(Arc<Inner>);

impl Keys {
    /// Reads the keys in `directory`, to let these hosts in and no others.
    ///
    /// # Errors
    /// See [`HostDirectory::read`]; or certificate and private key do not belong together.
    pub fn open(directory: &Path, purpose: Purpose, let_in: LetIn) -> Result<Keys, KeysError> {
        let acquaintances = Arc::new(Acquaintances::default());
        let read = HostDirectory::read(directory)?;
        let loaded = load(directory, read, purpose, &let_in, &acquaintances)?;
        Ok(Keys(Arc::new(Inner {
            directory: directory.into(),
            purpose,
            let_in,
            acquaintances,
            loaded: Mutex::new(Arc::new(loaded)),
        })))
    }

    /// Reads the files again if they have changed, for the sessions from now on; those that are open
    /// stay. Says whether they had. It waits for the disk: not for an event loop.
    ///
    /// # Errors
    /// As [`Keys::open`]. What was read before stays in force.
    pub fn reload(&self) -> Result<bool, KeysError> {
        let inner = &*self.0;
        if directory::content(&inner.directory)? == self.loaded().content {
            return Ok(false);
        }
        let read = HostDirectory::read(&inner.directory)?;
        if read.certificate.name != self.loaded().certificate.name {
            return Err(KeysError::Malformed {
                path: inner.directory.clone(),
                what: format!(
                    "the keys are those of {} now, and were those of {}",
                    read.certificate.name,
                    self.loaded().certificate.name
                ),
            });
        }
        let loaded = load(
            &inner.directory,
            read,
            inner.purpose,
            &inner.let_in,
            &inner.acquaintances,
        )?;
        *self.lock() = Arc::new(loaded);
        Ok(true)
    }

    /// This host's certificate.
    pub fn certificate(&self) -> Certificate {
        self.loaded().certificate.clone()
    }

    /// How many authorities are believed.
    pub fn authority_count(&self) -> usize {
        self.loaded().authorities
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.0.directory
    }

    /// Who is let in.
    pub fn let_in(&self) -> &LetIn {
        &self.0.let_in
    }

    /// Begins a session as the one that connected.
    ///
    /// # Errors
    /// The host gives no random numbers.
    pub fn connect(&self) -> Result<Session, Refusal> {
        let client = self.loaded().client.clone();
        // Who it is says its certificate, whatever the address.
        let name = ServerName::try_from("understudy.invalid").expect("a plain name");
        let client = ClientConnection::new(client, name).map_err(Refusal::of_tls)?;
        Ok(Session::new(client.into(), self.0.purpose.protocol()))
    }

    /// Begins a session as the one that was connected to.
    ///
    /// # Errors
    /// The host gives no random numbers.
    pub fn accept(&self) -> Result<Session, Refusal> {
        let server = self.loaded().server.clone();
        let server = ServerConnection::new(server).map_err(Refusal::of_tls)?;
        Ok(Session::new(server.into(), self.0.purpose.protocol()))
    }

    fn loaded(&self) -> Arc<Loaded> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Loaded>> {
        // One assignment: a panic elsewhere leaves nothing half done.
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This host's calendar.
pub(crate) fn now() -> UnixTime {
    UnixTime::now()
}

fn load(
    directory: &Path,
    read: HostDirectory,
    purpose: Purpose,
    let_in: &LetIn,
    acquaintances: &Arc<Acquaintances>,
) -> Result<Loaded, KeysError> {
    let authority_count = read.authority_count();
    let HostDirectory {
        certificate,
        der,
        key,
        authorities,
        content,
    } = read;
    let malformed = |error: rustls::Error| KeysError::Malformed {
        path: directory.join(directory::HOST_FILE),
        what: format!(
            "certificate and private key are of no use together ({error}): copy the host's directory \
             from the site again, or `understudy keys rotate`"
        ),
    };
    let provider = Arc::new(provider());
    let verifier = Arc::new(Verifier {
        authorities,
        let_in: let_in.clone(),
        acquaintances: acquaintances.clone(),
        algorithms: provider.signature_verification_algorithms,
    });
    let chain = vec![der];
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder
                .with_client_cert_verifier(verifier.clone())
                .with_single_cert(chain.clone(), key.clone_key())
        })
        .map_err(malformed)?;
    server.alpn_protocols = vec![purpose.protocol()];
    // No session is resumed, and nothing is believed before the handshake: nothing can be said twice.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|builder| {
            builder
                .dangerous()
                .with_custom_certificate_verifier(verifier)
                .with_client_auth_cert(chain, key)
        })
        .map_err(malformed)?;
    client.alpn_protocols = vec![purpose.protocol()];
    client.resumption = Resumption::disabled();
    client.enable_sni = false;
    Ok(Loaded {
        certificate,
        authorities: authority_count,
        client: Arc::new(client),
        server: Arc::new(server),
        content,
    })
}
