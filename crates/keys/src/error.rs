//! What can be wrong with keys, and why somebody is not let in.

use crate::date::Date;
use crate::name::HostName;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The keys of this host cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// A file cannot be read or written.
    #[error(
        "cannot read {}: {source}; `understudy keys issue` makes the keys of a host", path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the private key.
    #[error(
        "others than its owner may read {} (mode {mode:03o}): chmod 600, and if others had the chance, \
         `understudy keys rotate`", path.display()
    )]
    OpenToOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Something in a file is not what belongs there.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// This host is not one of those that it should speak with.
    #[error(
        "the keys in {} are those of {name}, which is not among the members {members}: give this host \
         its own keys, or name it", directory.display()
    )]
    NotAMember {
        /// Where the keys are.
        directory: PathBuf,
        /// Whose they are.
        name: HostName,
        /// Who is.
        members: String,
    },
}

/// Why a session does not come about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The certificate is of another authority.
    #[error(
        "its certificate is not of this site's authority: the keys of both must be of one \
         `understudy keys init` (after a new authority, copy the new authorities.pem to all hosts first)"
    )]
    AnotherSite,
    /// The certificate has expired.
    #[error(
        "its certificate expired on {} (the clock here says {}): issue another with `understudy keys \
         rotate` and copy it there", Date(*not_after), Date(*now)
    )]
    Expired {
        /// Its last moment.
        not_after: UnixTime,
        /// What the clock here says.
        now: UnixTime,
    },
    /// A host of the site that has nothing to do with this machine.
    #[error("it is {0}, which is not one of {1}")]
    NotAMember(String, String),
    /// A certificate without exactly one name of a host.
    #[error("its certificate names no host")]
    Nameless,
    /// What it sent cannot be a certificate, or not the key that belongs to it.
    #[error("it did not prove who it is: {0}")]
    Unproven(String),
    /// The other side refused, for a reason of its own.
    #[error("{0}")]
    ByPeer(&'static str),
    /// Nothing can be encrypted here.
    #[error(
        "this host gives no random numbers (getrandom(2)): a sandbox has to let that system call pass"
    )]
    NoRandomNumbers,
    /// It does not speak TLS 1.3, or not for this purpose.
    #[error("it does not speak as a replica or switch does: {0}")]
    NotTls(String),
}

impl Refusal {
    /// As rustls has to be told; the alert that the other side gets follows from it.
    pub(crate) fn into_tls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(match self {
            Refusal::Expired { not_after, now } => CertificateError::ExpiredContext {
                time: now,
                not_after,
            },
            Refusal::AnotherSite => CertificateError::UnknownIssuer,
            other => CertificateError::Other(rustls::OtherError(Arc::new(other))),
        })
    }

    /// What rustls means.
    pub(crate) fn of_tls(error: rustls::Error) -> Refusal {
        use rustls::Error;
        match error {
            Error::InvalidCertificate(CertificateError::ExpiredContext { time, not_after }) => {
                Refusal::Expired {
                    not_after,
                    now: time,
                }
            }
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Refusal::AnotherSite,
            Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(inner))) => {
                let refusal = inner.downcast_ref::<Refusal>().cloned();
                refusal.unwrap_or_else(|| Refusal::Unproven(inner.to_string()))
            }
            Error::InvalidCertificate(other) => Refusal::Unproven(other.to_string()),
            Error::NoCertificatesPresented => Refusal::Unproven("it showed no certificate".into()),
            Error::AlertReceived(alert) => Refusal::ByPeer(alert_text(alert)),
            Error::FailedToGetRandomBytes => Refusal::NoRandomNumbers,
            other => Refusal::NotTls(other.to_string()),
        }
    }
}

/// What the other side meant by ending the session.
fn alert_text(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateExpired => {
            "the other side says that this host's certificate has expired: `understudy keys show` tells \
             when, `understudy keys rotate` issues another; or its clock is wrong"
        }
        AlertDescription::UnknownCA => {
            "the other side does not know the authority of this host's certificate: the keys of both must \
             be of one `understudy keys init`"
        }
        AlertDescription::CertificateUnknown => {
            "the other side does not let this host in: is it named there, in pair.members or by --member?"
        }
        AlertDescription::CertificateRequired => "the other side asks for a certificate",
        AlertDescription::NoApplicationProtocol => {
            "something else listens there: a switch where a replica was meant, or the reverse"
        }
        _ => "the other side ended the session",
    }
}
