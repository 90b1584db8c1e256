//! The directory of a host's keys, as it is on that host.

use crate::certificate::Certificate;
use crate::error::KeysError;
use crate::files;
use rustls::crypto::{CryptoProvider, ring};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor};
use std::path::Path;

/// The host's certificate and private key, together: they are replaced as one.
pub const HOST_FILE: &str = "host.pem";
/// The certificates of the authorities whose hosts are believed.
pub const AUTHORITIES_FILE: &str = "authorities.pem";

/// What is in it.
#[derive(Debug)]
pub struct HostDirectory {
    /// What the host's certificate says.
    pub certificate: Certificate,
    /// The certificate itself.
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) authorities: Vec<TrustAnchor<'static>>,
    /// Both files, byte for byte: whether something has changed.
    pub(crate) content: [Vec<u8>; 2],
}

/// Both files, and which bytes they have.
pub(crate) fn content(directory: &Path) -> Result<[Vec<u8>; 2], KeysError> {
    let read = |name: &str| {
        let path = directory.join(name);
        files::read(&path).map_err(|source| KeysError::Unreadable { path, source })
    };
    Ok([read(HOST_FILE)?, read(AUTHORITIES_FILE)?])
}

impl HostDirectory {
    /// Reads it.
    ///
    /// # Errors
    /// A file is missing, is nothing of the kind, or others than its owner may read the private key;
    /// or the certificate is of none of the authorities.
    pub fn read(directory: &Path) -> Result<HostDirectory, KeysError> {
        let path = directory.join(HOST_FILE);
        let unreadable = |source| KeysError::Unreadable {
            path: path.clone(),
            source,
        };
        if let Some(mode) = files::open_to_others(&path).map_err(unreadable)? {
            return Err(KeysError::OpenToOthers { path, mode });
        }
        HostDirectory::parse(directory, content(directory)?)
    }

    fn parse(directory: &Path, content: [Vec<u8>; 2]) -> Result<HostDirectory, KeysError> {
        let host = directory.join(HOST_FILE);
        let [host_pem, authorities_pem] = &content;
        let malformed = |path: &Path, what: String| KeysError::Malformed {
            path: path.into(),
            what,
        };
        let lacks = |what, error| malformed(&host, incomplete(what, &error));
        let der = CertificateDer::from_pem_slice(host_pem)
            .map_err(|error| lacks("certificate", error))?;
        let key =
            PrivateKeyDer::from_pem_slice(host_pem).map_err(|error| lacks("private key", error))?;
        let authorities = authorities(&directory.join(AUTHORITIES_FILE), authorities_pem)?;
        let algorithms = provider().signature_verification_algorithms;
        let certificate = Certificate::examine(&der, &authorities, &algorithms)
            .map_err(|refusal| malformed(&host, refusal.to_string()))?;
        Ok(HostDirectory {
            certificate,
            der,
            key,
            authorities,
            content,
        })
    }

    /// How many authorities are believed: two while one follows another.
    pub fn authority_count(&self) -> usize {
        self.authorities.len()
    }
}

/// A file of keys that lacks something, as a copy that was cut off does.
fn incomplete(what: &str, error: &rustls_pki_types::pem::Error) -> String {
    use rustls_pki_types::pem::Error;
    let how = match error {
        Error::MissingSectionEnd { .. } => "is cut off".to_owned(),
        Error::NoItemsFound => "is not there".to_owned(),
        other => format!("cannot be read ({other})"),
    };
    format!("its {what} {how}: {COPY_AGAIN}")
}

/// What to do about files that are not as they were made.
const COPY_AGAIN: &str =
    "copy the host's directory from the site again, all of it (`understudy keys show` looks at it)";

/// The authorities of a file of certificates, one at least.
pub(crate) fn authorities(path: &Path, pem: &[u8]) -> Result<Vec<TrustAnchor<'static>>, KeysError> {
    let malformed = |what: String| KeysError::Malformed {
        path: path.into(),
        what,
    };
    let mut authorities = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate =
            certificate.map_err(|error| malformed(incomplete("certificate", &error)))?;
        let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|error| {
            malformed(format!(
                "no authority's certificate ({error}): {COPY_AGAIN}"
            ))
        })?;
        authorities.push(anchor.to_owned());
    }
    if authorities.is_empty() {
        let what = format!("no certificate of an authority is in it: {COPY_AGAIN}");
        return Err(malformed(what));
    }
    Ok(authorities)
}

/// What encrypts and signs: TLS 1.3 with AES-128 in GCM (first, as every host of today has instructions
/// for it) or ChaCha20.
pub(crate) fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: vec![
            ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
            ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}
