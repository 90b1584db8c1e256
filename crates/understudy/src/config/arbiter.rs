//! The arbiter in `vm.toml`: one text for where it is, or a section with what else it takes.

use arbiter::{
    Address, BucketAddress, ClientFiles, EtcdAddress, EtcdLogin, EtcdSettings, S3Credentials,
    S3Settings, Settings, TlsFiles,
};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The arbiter: `arbiter = "/mnt/arbiter"`, `arbiter = "etcd://a,b,c/prefix"`,
/// `arbiter = "s3://bucket/prefix"`, or a section of that and more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArbiterSection {
    /// A directory that both hosts see; NFS will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<PathBuf>,
    /// A store across the network: `etcd://…`, `etcds://…`, `s3://…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// TLS: who signs the store's certificate, PEM; absent: whom the system trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_certificate: Option<PathBuf>,
    /// etcd: this host's certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// etcd: its private key, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<PathBuf>,
    /// etcd: a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// etcd: a file with the user's password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// S3: the URL of a service that is not Amazon's; absent: of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// S3: the region; absent: of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: an access key; absent: of the environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// S3: a file with its secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key_file: Option<PathBuf>,
}

/// The section as TOML has it.
#[derive(Deserialize)]
#[serde(remote = "ArbiterSection", deny_unknown_fields)]
struct Table {
    directory: Option<PathBuf>,
    url: Option<String>,
    ca_certificate: Option<PathBuf>,
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key_file: Option<PathBuf>,
}

impl<'de> Deserialize<'de> for ArbiterSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ArbiterSection, D::Error> {
        struct Section;
        impl<'de> Visitor<'de> for Section {
            type Value = ArbiterSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a directory, etcd://…, s3://…, or a section [arbiter]")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ArbiterSection, E> {
                Ok(ArbiterSection::at(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ArbiterSection, A::Error> {
                Table::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(Section)
    }
}

/// A key, and what is wrong with it.
pub type Wrong = (&'static str, String);

/// How a variable of the environment is looked up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A password or a secret is no longer.
const SECRET_LIMIT_BYTES: u64 = 4096;

impl ArbiterSection {
    /// The arbiter of this address, which takes nothing else.
    pub fn at(address: &str) -> ArbiterSection {
        let is_url = address.contains("://");
        ArbiterSection {
            directory: (!is_url).then(|| address.into()),
            url: is_url.then(|| address.into()),
            ..ArbiterSection::default()
        }
    }

    /// Whether it is the arbiter of this address.
    pub fn is_at(&self, address: &str) -> bool {
        let own = self.address();
        own.is_ok_and(|own| address.parse().is_ok_and(|other: Address| own == other))
    }

    /// All paths, with their keys.
    pub fn paths(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        [
            ("arbiter.directory", &self.directory),
            ("arbiter.ca_certificate", &self.ca_certificate),
            ("arbiter.certificate", &self.certificate),
            ("arbiter.private_key", &self.private_key),
            ("arbiter.password_file", &self.password_file),
            (
                "arbiter.secret_access_key_file",
                &self.secret_access_key_file,
            ),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path.as_deref()?)))
    }

    /// Resolves relative paths.
    pub fn resolve(&mut self, resolve: impl Fn(&mut PathBuf)) {
        [
            &mut self.directory,
            &mut self.ca_certificate,
            &mut self.certificate,
            &mut self.private_key,
            &mut self.password_file,
            &mut self.secret_access_key_file,
        ]
        .into_iter()
        .flatten()
        .for_each(resolve);
    }

    /// Checks all that can be said without this host.
    pub fn check(&self) -> Result<(), Wrong> {
        let address = self.address()?;
        let is_etcd = matches!(address, Address::Etcd(_));
        let is_s3 = matches!(address, Address::S3(_));
        let keys = [
            (
                "arbiter.ca_certificate",
                self.ca_certificate.is_some(),
                is_etcd || is_s3,
            ),
            ("arbiter.certificate", self.certificate.is_some(), is_etcd),
            ("arbiter.private_key", self.private_key.is_some(), is_etcd),
            ("arbiter.user", self.user.is_some(), is_etcd),
            (
                "arbiter.password_file",
                self.password_file.is_some(),
                is_etcd,
            ),
            ("arbiter.endpoint", self.endpoint.is_some(), is_s3),
            ("arbiter.region", self.region.is_some(), is_s3),
            ("arbiter.access_key_id", self.access_key_id.is_some(), is_s3),
            (
                "arbiter.secret_access_key_file",
                self.secret_access_key_file.is_some(),
                is_s3,
            ),
        ];
        if let Some((key, ..)) = keys
            .iter()
            .find(|(_, is_given, is_known)| *is_given && !is_known)
        {
            return Err((key, "this kind of arbiter has no such key".into()));
        }
        for (key, is_given, other, is_other_given) in [
            (
                "arbiter.certificate",
                self.certificate.is_some(),
                "private_key",
                self.private_key.is_some(),
            ),
            (
                "arbiter.user",
                self.user.is_some(),
                "password_file",
                self.password_file.is_some(),
            ),
            (
                "arbiter.access_key_id",
                self.access_key_id.is_some(),
                "secret_access_key_file",
                self.secret_access_key_file.is_some(),
            ),
        ] {
            if is_given != is_other_given {
                return Err((key, format!("give it together with `{other}`, or neither")));
            }
        }
        let wants_tls = self.ca_certificate.is_some() || self.certificate.is_some();
        match address {
            Address::Etcd(address) if wants_tls && !address.is_encrypted => {
                Err(("arbiter.url", "certificates are for etcds://".into()))
            }
            _ => Ok(()),
        }
    }

    fn address(&self) -> Result<Address, Wrong> {
        match (&self.directory, &self.url) {
            (Some(directory), None) => Ok(Address::Directory(directory.clone())),
            (None, Some(url)) => match url.parse() {
                Ok(Address::Directory(_)) => Err((
                    "arbiter.url",
                    format!("{url:?} is no URL; a path is a `directory`"),
                )),
                Ok(address) => Ok(address),
                Err(error) => Err(("arbiter.url", error.to_string())),
            },
            _ => Err(("arbiter", "give either `directory` or `url`".into())),
        }
    }

    /// All that it takes to open it, from this section, its files and the environment.
    pub fn settings(&self, environment: Environment<'_>) -> Result<Settings, Wrong> {
        Ok(match self.address()? {
            Address::Directory(path) => Settings::Directory(path),
            Address::Etcd(address) => Settings::Etcd(self.etcd(address)?),
            Address::S3(address) => Settings::S3(self.s3(address, environment)?),
        })
    }

    fn tls(&self) -> TlsFiles {
        let client = self.certificate.as_ref().zip(self.private_key.as_ref());
        TlsFiles {
            ca_certificate: self.ca_certificate.clone(),
            client: client.map(|(certificate, private_key)| ClientFiles {
                certificate: certificate.clone(),
                private_key: private_key.clone(),
            }),
        }
    }

    fn etcd(&self, address: EtcdAddress) -> Result<EtcdSettings, Wrong> {
        let login = self.user.as_ref().zip(self.password_file.as_ref());
        let login = login.map(|(user, file)| {
            Ok(EtcdLogin {
                user: user.clone(),
                password: secret(file).map_err(|why| ("arbiter.password_file", why))?,
            })
        });
        Ok(EtcdSettings {
            address,
            tls: self.tls(),
            login: login.transpose()?,
        })
    }

    fn s3(
        &self,
        address: BucketAddress,
        environment: Environment<'_>,
    ) -> Result<S3Settings, Wrong> {
        let either = |names: &[&str]| names.iter().find_map(|name| environment(name));
        let region = self.region.clone();
        let region = region.or_else(|| either(&["AWS_REGION", "AWS_DEFAULT_REGION"]));
        let endpoint = self.endpoint.clone();
        let endpoint = endpoint.or_else(|| either(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]));
        let credentials = match (&self.access_key_id, &self.secret_access_key_file) {
            (Some(id), Some(file)) => Some(S3Credentials {
                access_key_id: id.clone(),
                secret_access_key: secret(file)
                    .map_err(|why| ("arbiter.secret_access_key_file", why))?,
                session_token: None,
            }),
            _ => {
                let id = environment("AWS_ACCESS_KEY_ID");
                id.zip(environment("AWS_SECRET_ACCESS_KEY"))
                    .map(|(id, secret)| S3Credentials {
                        access_key_id: id,
                        secret_access_key: secret,
                        session_token: environment("AWS_SESSION_TOKEN"),
                    })
            }
        };
        Ok(S3Settings {
            address,
            endpoint,
            region: region.ok_or_else(|| {
                let why = "a bucket needs one, here or in AWS_REGION";
                ("arbiter.region", why.to_owned())
            })?,
            credentials: credentials.ok_or_else(|| {
                let why = "a bucket needs an access key: this and `secret_access_key_file`, or \
                           AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
                ("arbiter.access_key_id", why.to_owned())
            })?,
            tls: self.tls(),
        })
    }
}

/// What a file of one line holds.
fn secret(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_LIMIT_BYTES).read_to_string(&mut text))
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty", path.display())),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> Result<ArbiterSection, String> {
        #[derive(Deserialize)]
        struct Whole {
            arbiter: ArbiterSection,
        }
        let whole: Whole = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        whole
            .arbiter
            .check()
            .map_err(|(key, why)| format!("{key}: {why}"))?;
        Ok(whole.arbiter)
    }

    fn no_environment(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn one_text_says_where_it_is() {
        for (short, long) in [
            ("arbiter = \"/mnt/a\"", "[arbiter]\ndirectory = \"/mnt/a\""),
            (
                "arbiter = \"etcd://a,b/p\"",
                "[arbiter]\nurl = \"etcd://a,b/p\"",
            ),
            (
                "arbiter = \"s3://bucket\"",
                "[arbiter]\nurl = \"s3://bucket\"",
            ),
        ] {
            let section = section(short);
            assert_eq!(section, self::section(long));
            assert!(section.is_ok(), "{section:?}");
        }
        let etcd = section("arbiter = \"etcd://a,b/p\"").unwrap();
        let settings = etcd.settings(&no_environment).unwrap();
        assert!(
            matches!(settings, Settings::Etcd(etcd) if etcd.address.endpoints == ["a:2379", "b:2379"])
        );
    }

    #[test]
    fn what_is_missing_or_does_not_belong_is_named_by_key() {
        for (text, key) in [
            ("arbiter = 3", "a directory, etcd://"),
            ("arbiter = \"ftp://a\"", "arbiter.url: "),
            ("[arbiter]\nurl = \"/mnt\"", "arbiter.url: "),
            ("[arbiter]\n", "arbiter: give either"),
            (
                "[arbiter]\ndirectory = \"a\"\nurl = \"s3://bucket\"",
                "arbiter: give either",
            ),
            (
                "[arbiter]\ndirectory = \"a\"\nregion = \"x\"",
                "arbiter.region: ",
            ),
            (
                "[arbiter]\nurl = \"s3://bucket\"\nuser = \"x\"",
                "arbiter.user: ",
            ),
            (
                "[arbiter]\nurl = \"etcd://a\"\nuser = \"x\"",
                "arbiter.user: give it together",
            ),
            (
                "[arbiter]\nurl = \"etcd://a\"\nca_certificate = \"x\"",
                "etcds://",
            ),
            (
                "[arbiter]\nurl = \"etcds://a\"\nprivate_key = \"x\"",
                "arbiter.certificate: ",
            ),
            (
                "[arbiter]\nurl = \"s3://bucket\"\nendpont = \"x\"",
                "endpont",
            ),
        ] {
            let error = section(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn a_bucket_is_reached_by_keys_or_by_the_usual_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        std::fs::write(&file, "hidden\n").unwrap();
        let bucket = section("arbiter = \"s3://bucket/p\"").unwrap();
        let missing = bucket.settings(&no_environment).unwrap_err();
        assert!(missing.0 == "arbiter.region" && missing.1.contains("AWS_REGION"));
        let environment = |name: &str| Some(format!("{name}'s"));
        let Ok(Settings::S3(settings)) = bucket.settings(&environment) else {
            panic!("a bucket")
        };
        assert_eq!(settings.region, "AWS_REGION's");
        assert_eq!(settings.endpoint.as_deref(), Some("AWS_ENDPOINT_URL_S3's"));
        assert_eq!(
            settings.credentials.secret_access_key,
            "AWS_SECRET_ACCESS_KEY's"
        );
        let keys = ArbiterSection {
            region: Some("eu".into()),
            access_key_id: Some("id".into()),
            secret_access_key_file: Some(file),
            ..bucket
        };
        let Ok(Settings::S3(settings)) = keys.settings(&no_environment) else {
            panic!("a bucket")
        };
        assert_eq!(settings.credentials.secret_access_key, "hidden");
        assert_eq!(settings.endpoint, None);
    }
}
