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
    /// The other side refused, and said this about it.
    #[error("{0}")]
    ByPeer(Told),
    /// Nothing can be encrypted here.
    #[error(
        "this host gives no random numbers (getrandom(2)): a sandbox has to let that system call pass"
    )]
    NoRandomNumbers,
    /// It does not speak TLS 1.3, or not for this purpose.
    #[error("it does not speak as a replica or switch does: {0}")]
    NotTls(String),
}

/// What the other side says by ending a session. It tells its reason only to who has proved to be a
/// host of the site (`docs/decisions/keys.md`, "Who is told why").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Told {
    /// It does not let this host in.
    #[error(
        "the other side does not let this host in: is it named there, in pair.members or by --member?"
    )]
    NotLetIn,
    /// This host's certificate has expired, as its clock says.
    #[error(
        "the other side says that this host's certificate has expired: `understudy keys show` tells \
         when, `understudy keys rotate` issues another; or its clock is wrong"
    )]
    Expired,
    /// It believes another authority.
    #[error(
        "the other side does not know the authority of this host's certificate: the keys of both must \
         be of one `understudy keys init`"
    )]
    AnotherSite,
    /// This host showed none.
    #[error("the other side asks for a certificate")]
    WantsCertificate,
    /// It is there for something else.
    #[error("something else listens there: a switch where a replica was meant, or the reverse")]
    OtherPurpose,
    /// Nothing that is known here.
    #[error("the other side ended the session")]
    Something,
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
            // Only who is no member is told that it is none: this one has not proved anything.
            Refusal::Unproven(what) => return rustls::Error::General(what),
            Refusal::Nameless => return rustls::Error::General(Refusal::Nameless.to_string()),
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
            Error::General(what) => Refusal::Unproven(what),
            Error::AlertReceived(alert) => Refusal::ByPeer(Told::by(alert)),
            Error::FailedToGetRandomBytes => Refusal::NoRandomNumbers,
            other => Refusal::NotTls(other.to_string()),
        }
    }
}

impl Told {
    /// What the other side meant.
    fn by(alert: AlertDescription) -> Told {
        match alert {
            AlertDescription::CertificateExpired => Told::Expired,
            AlertDescription::UnknownCA => Told::AnotherSite,
            // `Refusal::into_tls`: of `NotAMember` alone.
            AlertDescription::CertificateUnknown => Told::NotLetIn,
            AlertDescription::CertificateRequired => Told::WantsCertificate,
            AlertDescription::NoApplicationProtocol => Told::OtherPurpose,
            _ => Told::Something,
        }
    }
}
