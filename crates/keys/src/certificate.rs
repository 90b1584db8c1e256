//! What a certificate says.

use crate::error::Refusal;
use crate::name::HostName;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::fmt;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};

/// SHA-256 of a certificate, in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for byte in self.0 {
            write!(f, "{separator}{byte:02x}")?;
            separator = ":";
        }
        Ok(())
    }
}

/// A host's certificate, as far as its own site is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The host.
    pub name: HostName,
    /// Its last moment.
    pub not_after: UnixTime,
    /// To be compared by people.
    pub fingerprint: Fingerprint,
}

/// Long after every certificate.
const END_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));

impl Certificate {
    /// Of a certificate that one of the authorities issued, expired or not.
    ///
    /// # Errors
    /// It is another's, or not one of a host.
    pub(crate) fn examine(
        der: &CertificateDer<'_>,
        authorities: &[TrustAnchor<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<Certificate, Refusal> {
        let not_after = match verify(
            der,
            authorities,
            algorithms,
            END_OF_TIME,
            KeyUsage::server_auth(),
        ) {
            Err(Unverified::Expired { not_after }) => not_after,
            // It would not have expired then.
            Ok(()) => END_OF_TIME,
            Err(Unverified::NotYet { not_before }) => not_before,
            Err(Unverified::Refused(refusal)) => return Err(refusal),
        };
        // The same question at a time at which its answer is not the time.
        match verify(
            der,
            authorities,
            algorithms,
            not_after,
            KeyUsage::server_auth(),
        ) {
            Err(Unverified::Refused(refusal)) => return Err(refusal),
            Ok(()) | Err(Unverified::Expired { .. } | Unverified::NotYet { .. }) => {}
        }
        Ok(Certificate {
            name: host_name(der)?,
            not_after,
            fingerprint: Fingerprint::of(der),
        })
    }
}

/// Why a certificate does not hold at some moment.
pub(crate) enum Unverified {
    /// Its time is over.
    Expired {
        /// Its last moment.
        not_after: UnixTime,
    },
    /// Its time has not come.
    NotYet {
        /// Its first moment.
        not_before: UnixTime,
    },
    /// At no moment.
    Refused(Refusal),
}

/// Whether one of the authorities issued the certificate itself, and it holds at `time`. Nobody
/// else's certificate may stand between.
pub(crate) fn verify(
    der: &CertificateDer<'_>,
    authorities: &[TrustAnchor<'_>],
    algorithms: &WebPkiSupportedAlgorithms,
    time: UnixTime,
    usage: KeyUsage,
) -> Result<(), Unverified> {
    let unproven = |error: webpki::Error| Unverified::Refused(Refusal::Unproven(error.to_string()));
    let certificate = EndEntityCert::try_from(der).map_err(unproven)?;
    let verified =
        certificate.verify_for_usage(algorithms.all, authorities, &[], time, usage, None, None);
    match verified {
        Ok(_) => Ok(()),
        Err(webpki::Error::CertExpired { not_after, .. }) => Err(Unverified::Expired { not_after }),
        Err(webpki::Error::CertNotValidYet { not_before, .. }) => {
            Err(Unverified::NotYet { not_before })
        }
        Err(
            webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::CaUsedAsEndEntity,
        ) => Err(Unverified::Refused(Refusal::AnotherSite)),
        Err(other) => Err(unproven(other)),
    }
}

/// The one host that a certificate names.
pub(crate) fn host_name(der: &CertificateDer<'_>) -> Result<HostName, Refusal> {
    let certificate =
        EndEntityCert::try_from(der).map_err(|error| Refusal::Unproven(error.to_string()))?;
    let mut names = certificate.valid_dns_names();
    let name = names.next().and_then(|name| name.parse().ok());
    match (name, names.next()) {
        (Some(name), None) => Ok(name),
        (None, _) | (Some(_), Some(_)) => Err(Refusal::Nameless),
    }
}
