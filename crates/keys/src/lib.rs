//! Who may speak: the certificates of a site's hosts, and mutual TLS 1.3 over the streams of whoever has
//! an event loop.
//!
//! A site has an authority ([`Site`]), which gives each host a key and a certificate with the host's name.
//! A process holds those of its host as [`Keys`], together with the names of the hosts that it lets in; a
//! [`Session`] is one connection with one of them. Sessions touch no socket but the one that they are
//! handed, and never wait: [`BlockingSession`] is for threads that may.
//!
//! Why it is as it is: `docs/decisions/keys.md`.
#![forbid(unsafe_code)]

mod blocking;
mod certificate;
mod date;
mod directory;
mod error;
mod files;
mod keys;
mod name;
mod session;
mod site;
mod verifier;

pub use blocking::BlockingSession;
pub use certificate::{Certificate, Fingerprint};
pub use date::{Date, whole_days};
pub use directory::{AUTHORITIES_FILE, HOST_FILE, HostDirectory};
pub use error::{KeysError, Refusal, Told};
pub use keys::{Keys, LetIn, Purpose};
pub use name::{HostName, HostNameError};
pub use rustls_pki_types::UnixTime;
pub use session::{SMALLEST_BUFFER, Session};
pub use site::{Site, SiteError, Validity};

#[cfg(test)]
mod tests;
