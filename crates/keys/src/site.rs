//! The authority of a site, and the keys that it gives to hosts.
//!
//! ```text
//! DIR/authority.pem         the authority's certificate and private key
//! DIR/next-authority.pem    the one that is to follow it, while hosts learn to believe it
//! DIR/authorities.pem       what hosts believe
//! DIR/hosts/NAME/           what belongs on host NAME: host.pem, authorities.pem
//! ```

use crate::certificate::Certificate;
use crate::date::DAY;
use crate::directory::{AUTHORITIES_FILE, HOST_FILE, HostDirectory};
use crate::error::KeysError;
use crate::files;
use crate::keys::now;
use crate::name::HostName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use time::OffsetDateTime;

const AUTHORITY_FILE: &str = "authority.pem";
const NEXT_AUTHORITY_FILE: &str = "next-authority.pem";
const HOSTS_DIRECTORY: &str = "hosts";
/// An authority is followed by another when somebody decides so; nothing expires by itself.
const AUTHORITY_DAYS: u32 = 36_500;
/// Clocks of hosts may be behind that of the authority's.
const BACKDATED: Duration = DAY;

/// The site cannot do what it is asked to.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// There is an authority already.
    #[error("{} is a site already; `understudy keys rotate \
             --authority` lets one follow another", .0.display())]
    Exists(PathBuf),
    /// There is none.
    #[error("{} is no site: `understudy keys init` makes one", .0.display())]
    NoSite(PathBuf),
    /// This host has keys already.
    #[error("{0} has keys already; `understudy keys rotate` gives it new ones")]
    HasKeys(HostName),
    /// No such host.
    #[error("{0} has no keys of this site; `understudy keys issue` gives it some")]
    Unknown(HostName),
    /// One name was given twice.
    #[error("{0} is named twice: each host has keys of its own, give every name once")]
    NamedTwice(HostName),
    /// Hosts believe one authority alone already.
    #[error(
        "there is nothing to retire: hosts believe one authority alone already; `understudy keys rotate \
         --authority` has another one follow"
    )]
    NothingToRetire,
    /// Another authority follows already.
    #[error(
        "another authority follows already: copy the hosts' directories, then `understudy keys rotate` \
         issues by it"
    )]
    FollowsAlready,
    /// Hosts that would not be believed any more.
    #[error(
        "these hosts still have keys of the authority before: {0}; `understudy keys rotate` first"
    )]
    StillIssued(String),
    /// Keys that are there cannot be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Unwritable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No key or certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its first moment.
    pub from: UnixTime,
    /// Its last moment.
    pub until: UnixTime,
}

impl Validity {
    /// So many days from now on.
    pub fn days(days: u32) -> Validity {
        let now = Duration::from_secs(now().as_secs());
        Validity {
            from: UnixTime::since_unix_epoch(now.saturating_sub(BACKDATED)),
            until: UnixTime::since_unix_epoch(now + DAY * days),
        }
    }
}

/// A site: the directory with its authority.
#[derive(Debug)]
pub struct Site {
    directory: PathBuf,
}

/// An authority that can sign.
struct Authority {
    pem: String,
    certificate_pem: String,
    key: KeyPair,
}

impl Site {
    /// Makes a site with a new authority, for its owner alone.
    ///
    /// # Errors
    /// There is one in this directory, or it cannot be written.
    pub fn init(directory: &Path) -> Result<Site, SiteError> {
        let site = Site {
            directory: directory.into(),
        };
        if site.path(AUTHORITY_FILE).exists() {
            return Err(SiteError::Exists(directory.into()));
        }
        site.make_directory(directory)?;
        let authority = Authority::new()?;
        site.write(&site.path(AUTHORITIES_FILE), &authority.certificate_pem)?;
        site.write(&site.path(AUTHORITY_FILE), &authority.pem)?;
        Ok(site)
    }

    /// A site that is there.
    ///
    /// # Errors
    /// There is none.
    pub fn open(directory: &Path) -> Result<Site, SiteError> {
        let site = Site {
            directory: directory.into(),
        };
        if !site.path(AUTHORITY_FILE).exists() {
            return Err(SiteError::NoSite(directory.into()));
        }
        Ok(site)
    }

    /// Where the keys of a host are, here.
    pub fn host_directory(&self, name: &HostName) -> PathBuf {
        self.path(HOSTS_DIRECTORY).join(name.as_str())
    }

    /// The hosts that have keys of this site, and what their certificates say.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn hosts(&self) -> Result<Vec<Certificate>, SiteError> {
        let directory = self.path(HOSTS_DIRECTORY);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => {
                return Err(KeysError::Unreadable {
                    path: directory,
                    source,
                }
                .into());
            }
        };
        let mut hosts = Vec::new();
        for entry in entries.flatten() {
            hosts.push(HostDirectory::read(&entry.path())?.certificate);
        }
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(hosts)
    }

    /// Gives hosts their first keys and certificates: all of them or, if one cannot be given any, none.
    /// Returns the directories to be copied there.
    ///
    /// # Errors
    /// One has some or is named twice, or they cannot be made.
    pub fn issue_all(
        &self,
        names: &[HostName],
        validity: Validity,
    ) -> Result<Vec<PathBuf>, SiteError> {
        distinct(names)?;
        let has_keys = |name: &&HostName| self.host_directory(name).join(HOST_FILE).exists();
        if let Some(name) = names.iter().find(has_keys) {
            return Err(SiteError::HasKeys(name.clone()));
        }
        names
            .iter()
            .map(|name| self.issue(name, validity))
            .collect()
    }

    /// Gives a host its first key and certificate. Returns the directory to be copied there.
    ///
    /// # Errors
    /// It has some, or they cannot be made.
    pub fn issue(&self, name: &HostName, validity: Validity) -> Result<PathBuf, SiteError> {
        let directory = self.host_directory(name);
        if directory.join(HOST_FILE).exists() {
            return Err(SiteError::HasKeys(name.clone()));
        }
        self.make_directory(&directory)?;
        self.give(name, validity, &self.authority(AUTHORITY_FILE)?)?;
        Ok(directory)
    }

    /// Gives hosts new keys and certificates: from the authority that follows, if one does. Until they
    /// are copied, those before go on to hold.
    ///
    /// # Errors
    /// One of them has none or is named twice, or they cannot be made.
    pub fn rotate(
        &self,
        names: &[HostName],
        validity: Validity,
    ) -> Result<Vec<PathBuf>, SiteError> {
        distinct(names)?;
        let unknown = |name: &&HostName| !self.host_directory(name).join(HOST_FILE).exists();
        if let Some(name) = names.iter().find(unknown) {
            return Err(SiteError::Unknown(name.clone()));
        }
        let next = self.path(NEXT_AUTHORITY_FILE);
        if next.exists() {
            let authority = self.path(AUTHORITY_FILE);
            fs::rename(&next, &authority).map_err(|source| SiteError::Unwritable {
                path: authority,
                source,
            })?;
        }
        let authority = self.authority(AUTHORITY_FILE)?;
        let give = |name| self.give(name, validity, &authority);
        names.iter().map(give).collect()
    }

    /// Makes the authority that is to follow, and has all hosts believe both.
    ///
    /// # Errors
    /// One follows already, or it cannot be written.
    pub fn begin_authority(&self) -> Result<(), SiteError> {
        let next = self.path(NEXT_AUTHORITY_FILE);
        if next.exists() {
            return Err(SiteError::FollowsAlready);
        }
        let authority = Authority::new()?;
        let both = format!("{}{}", self.believed()?, authority.certificate_pem);
        self.write(&next, &authority.pem)?;
        self.believe(&both)
    }

    /// Has all hosts believe the present authority alone.
    ///
    /// # Errors
    /// They do already, some host has keys of another one, or it cannot be written.
    pub fn retire_authorities(&self) -> Result<(), SiteError> {
        if self.path(NEXT_AUTHORITY_FILE).exists() {
            return Err(SiteError::FollowsAlready);
        }
        if self.is_one_believed()? {
            return Err(SiteError::NothingToRetire);
        }
        let authority = self.authority(AUTHORITY_FILE)?;
        let anchors = crate::directory::authorities(
            &self.path(AUTHORITY_FILE),
            authority.certificate_pem.as_bytes(),
        )?;
        let algorithms = crate::directory::provider().signature_verification_algorithms;
        let mut others = Vec::new();
        for host in self.hosts()? {
            let read = HostDirectory::read(&self.host_directory(&host.name))?;
            if Certificate::examine(&read.der, &anchors, &algorithms).is_err() {
                others.push(host.name.to_string());
            }
        }
        if !others.is_empty() {
            return Err(SiteError::StillIssued(others.join(", ")));
        }
        self.believe(&authority.certificate_pem)
    }

    /// Whether hosts believe more than one authority.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn authority_count(&self) -> Result<usize, SiteError> {
        let path = self.path(AUTHORITIES_FILE);
        let pem = self.believed()?;
        Ok(crate::directory::authorities(&path, pem.as_bytes())?.len())
    }

    /// Whether the site and all its hosts' directories name one authority alone: an earlier attempt to
    /// write them may have failed in the middle.
    fn is_one_believed(&self) -> Result<bool, SiteError> {
        if self.authority_count()? != 1 {
            return Ok(false);
        }
        for host in self.hosts()? {
            if HostDirectory::read(&self.host_directory(&host.name))?.authority_count() != 1 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn believed(&self) -> Result<String, SiteError> {
        let path = self.path(AUTHORITIES_FILE);
        fs::read_to_string(&path).map_err(|source| KeysError::Unreadable { path, source }.into())
    }

    fn believe(&self, authorities: &str) -> Result<(), SiteError> {
        self.write(&self.path(AUTHORITIES_FILE), authorities)?;
        for host in self.hosts()? {
            let path = self.host_directory(&host.name).join(AUTHORITIES_FILE);
            self.write(&path, authorities)?;
        }
        Ok(())
    }

    fn give(
        &self,
        name: &HostName,
        validity: Validity,
        authority: &Authority,
    ) -> Result<PathBuf, SiteError> {
        let directory = self.host_directory(name);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
        params.subject_alt_names = vec![SanType::DnsName(name.as_str().try_into()?)];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(validity.from);
        params.not_after = moment(validity.until);
        let issuer = Issuer::new(authority_params(), &authority.key);
        let certificate = params.signed_by(&key, &issuer)?;
        // What it believes first: with the new certificate alone it would not believe itself.
        self.write(&directory.join(AUTHORITIES_FILE), &self.believed()?)?;
        let both = format!("{}{}", certificate.pem(), key.serialize_pem());
        self.write(&directory.join(HOST_FILE), &both)?;
        Ok(directory)
    }

    fn authority(&self, name: &str) -> Result<Authority, SiteError> {
        let path = self.path(name);
        let malformed = |what: String| KeysError::Malformed {
            path: path.clone(),
            what,
        };
        let pem = fs::read_to_string(&path).map_err(|source| KeysError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let restore = "restore it from a copy: no other file has this authority's private key";
        let no_key = |error: &dyn Display| malformed(format!("no private key: {error}; {restore}"));
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| no_key(&error))?;
        let key = KeyPair::try_from(&key).map_err(|error| no_key(&error))?;
        CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| malformed(format!("no certificate: {error}; {restore}")))?;
        // The certificate comes first in the file (`Authority::new`).
        let end = "-----END CERTIFICATE-----\n";
        let normal = pem.replace("\r\n", "\n");
        let (certificate, _) = normal
            .split_once(end)
            .ok_or_else(|| malformed("no certificate at its beginning".into()))?;
        Ok(Authority {
            certificate_pem: format!("{certificate}{end}"),
            pem,
            key,
        })
    }

    fn make_directory(&self, path: &Path) -> Result<(), SiteError> {
        files::make_directory(path).map_err(|source| SiteError::Unwritable {
            path: path.into(),
            source,
        })
    }

    fn write(&self, path: &Path, content: &str) -> Result<(), SiteError> {
        files::replace(path, content).map_err(|source| SiteError::Unwritable {
            path: path.into(),
            source,
        })
    }
}

impl Authority {
    fn new() -> Result<Authority, SiteError> {
        let key = KeyPair::generate()?;
        let mut params = authority_params();
        let validity = Validity::days(AUTHORITY_DAYS);
        params.not_before = moment(validity.from);
        params.not_after = moment(validity.until);
        let certificate_pem = params.self_signed(&key)?.pem().replace("\r\n", "\n");
        Ok(Authority {
            pem: format!("{certificate_pem}{}", key.serialize_pem()),
            certificate_pem,
            key,
        })
    }
}

/// Whether each name is there once.
fn distinct(names: &[HostName]) -> Result<(), SiteError> {
    let before = |index: usize| &names[..index];
    let mut twice = names.iter().enumerate();
    match twice.find(|(index, name)| before(*index).contains(name)) {
        Some((_, name)) => Err(SiteError::NamedTwice(name.clone())),
        None => Ok(()),
    }
}

/// What is the same of every authority: they are told apart by their keys.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "understudy authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn moment(time: UnixTime) -> OffsetDateTime {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    // Nobody's certificate is to hold beyond the year 9999.
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
