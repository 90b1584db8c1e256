//! The arbiter's store in a bucket: S3, or what speaks its protocol and knows conditional writes.
//!
//! A key is an object that is put with `If-None-Match: *`. The condition is signed with the request, so
//! whatever leaves it out on the way makes the request invalid. That the key before is there is read in
//! the request before, from the same bucket: keys are never removed.

use crate::address::BucketAddress;
use crate::http::{Answer, Client, TlsError, TlsFiles, excerpt};
use crate::trouble::{PROBE, Trouble, create_twice};
use crate::{Budget, CONTENT_LIMIT, Store};
use replication::succession::{Outcome, Request};
use rusty_s3::actions::{GetObject, PutObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::fmt;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use ureq::http;

/// For how long a signed request is good: one that was held up somewhere does nothing later.
const REQUEST_VALIDITY: Duration = Duration::from_secs(60);

/// How a bucket is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// Which, and where in it the keys are.
    pub address: BucketAddress,
    /// The URL of the service, which then has the bucket in the path; absent: Amazon's of the region.
    pub endpoint: Option<String>,
    /// The region, as in `eu-central-1`.
    pub region: String,
    /// Who asks.
    pub credentials: S3Credentials,
    /// For TLS.
    pub tls: TlsFiles,
}

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// Its public part.
    pub access_key_id: String,
    /// Its private part.
    pub secret_access_key: String,
    /// Of a session that does not last.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// The bucket cannot be the arbiter.
#[derive(Debug, Error)]
pub enum S3Error {
    /// A file of TLS.
    #[error("arbiter {address}: {source}")]
    Tls {
        /// Which bucket.
        address: BucketAddress,
        /// What is wrong.
        source: TlsError,
    },
    /// The service answers, and cannot be the arbiter.
    #[error("arbiter {address}: {why}")]
    Refused {
        /// Which bucket.
        address: BucketAddress,
        /// Why.
        why: String,
    },
}

/// Create-only keys in a bucket.
#[derive(Debug)]
pub struct S3Store {
    address: BucketAddress,
    bucket: Bucket,
    credentials: Credentials,
    client: Client,
    /// It has shown that it creates a key once.
    is_proven: bool,
}

impl S3Store {
    /// Uses a bucket, whose service need not answer now.
    ///
    /// # Errors
    /// The endpoint is none or a file of TLS cannot be used; or the service answers, and the bucket
    /// cannot be the arbiter: it is not there, it does not let this host write or see what is not
    /// there, it creates a key twice.
    pub fn open(settings: &S3Settings) -> Result<S3Store, S3Error> {
        let address = &settings.address;
        let refused = |why: String| S3Error::Refused {
            address: address.clone(),
            why,
        };
        let client = Client::new(&settings.tls).map_err(|source| S3Error::Tls {
            address: address.clone(),
            source,
        })?;
        let bucket = bucket(settings).map_err(refused)?;
        let S3Credentials {
            access_key_id,
            secret_access_key,
            session_token,
        } = settings.credentials.clone();
        let credentials = match session_token {
            Some(token) => Credentials::new_with_token(access_key_id, secret_access_key, token),
            None => Credentials::new(access_key_id, secret_access_key),
        };
        let mut store = S3Store {
            address: address.clone(),
            bucket,
            credentials,
            client,
            is_proven: false,
        };
        match store.prove(Budget::begin()) {
            Ok(()) | Err(Trouble::Silent(_)) => Ok(store),
            Err(Trouble::Refused(why)) => Err(refused(why)),
        }
    }

    /// The probe, and that a key which is not there is told from one that may not be seen: S3 says the
    /// same of both to whoever may not list the bucket.
    fn prove(&mut self, budget: Budget) -> Result<(), Trouble> {
        if self.is_proven {
            return Ok(());
        }
        create_twice(|content| self.create(budget, PROBE, content))?;
        match self.read(budget, "absent")? {
            Outcome::Absent => {
                self.is_proven = true;
                Ok(())
            }
            _ => Err(Trouble::Refused(
                "it has an object \"absent\" under the prefix, which nobody here writes".into(),
            )),
        }
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.address.prefix)
    }

    /// Whether it was created.
    fn create(&self, budget: Budget, name: &str, content: &[u8]) -> Result<bool, Trouble> {
        let answer = self.put(budget, name, content, true)?;
        match answer.status {
            200 | 201 => Ok(true),
            // There, or somebody else creates it right now.
            412 | 409 => Ok(false),
            501 => Err(Trouble::Refused(format!(
                "{}: it does not know conditional writes",
                said(&answer)
            ))),
            _ => Err(trouble(&answer)),
        }
    }

    fn write(&self, budget: Budget, name: &str, content: &[u8]) -> Result<Outcome, Trouble> {
        let answer = self.put(budget, name, content, false)?;
        match answer.status {
            200 | 201 => Ok(Outcome::Written),
            _ => Err(trouble(&answer)),
        }
    }

    fn put(
        &self,
        budget: Budget,
        name: &str,
        content: &[u8],
        is_create: bool,
    ) -> Result<Answer, Trouble> {
        if content.len() > CONTENT_LIMIT {
            return Err(Trouble::Refused(format!("{name} is too long")));
        }
        let object = self.object(name);
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), &object);
        if is_create {
            action.headers_mut().insert("if-none-match", "*");
        }
        let url = action.sign(REQUEST_VALIDITY);
        let mut request = http::Request::put(url.as_str());
        if is_create {
            request = request.header("if-none-match", "*");
        }
        self.send(budget, request, content.to_vec())
    }

    fn read(&self, budget: Budget, name: &str) -> Result<Outcome, Trouble> {
        let object = self.object(name);
        let url =
            GetObject::new(&self.bucket, Some(&self.credentials), &object).sign(REQUEST_VALIDITY);
        let request = http::Request::get(url.as_str()).header("cache-control", "no-cache");
        let answer = self.send(budget, request, ())?;
        match answer.status {
            200 if answer.body.len() <= CONTENT_LIMIT => Ok(Outcome::Holds(answer.body)),
            200 => Err(Trouble::Refused(format!("{name} has been tampered with"))),
            // Anything else that is not found is not this bucket.
            404 if error_code(&answer.body).as_deref() == Some("NoSuchKey") => Ok(Outcome::Absent),
            403 if error_code(&answer.body).as_deref() == Some("AccessDenied") => {
                Err(Trouble::Refused(format!(
                    "{}: it takes s3:GetObject, s3:PutObject and s3:ListBucket (without which nobody is told that a key is not there)",
                    said(&answer)
                )))
            }
            _ => Err(trouble(&answer)),
        }
    }

    fn send(
        &self,
        budget: Budget,
        request: http::request::Builder,
        body: impl ureq::AsSendBody,
    ) -> Result<Answer, Trouble> {
        let request = request
            .body(body)
            .map_err(|error| Trouble::Refused(error.to_string()))?;
        self.client
            .send(request, budget.share(1))
            .map_err(Trouble::Silent)
    }

    fn carry_out(&mut self, request: &Request) -> Result<Outcome, Trouble> {
        let budget = Budget::begin();
        self.prove(budget)?;
        match request {
            Request::Create {
                key,
                after,
                content,
            } => {
                if let Some(after) = after
                    && self.read(budget, &after.object_name())? == Outcome::Absent
                {
                    return Ok(Outcome::Unknown(after.missing()));
                }
                Ok(match self.create(budget, &key.object_name(), content)? {
                    true => Outcome::Created,
                    false => Outcome::NotCreated,
                })
            }
            Request::Read { key } => self.read(budget, &key.object_name()),
            Request::WriteBeacon { beacon, content } => {
                self.write(budget, &beacon.object_name(), content)
            }
            Request::ReadBeacon { beacon } => self.read(budget, &beacon.object_name()),
            Request::Elsewhere { .. } => Ok(Request::knows_no_other()),
        }
    }
}

fn bucket(settings: &S3Settings) -> Result<Bucket, String> {
    let region = &settings.region;
    let name = &settings.address.bucket;
    // A dot in the name is one more level than Amazon's certificates are for.
    let (endpoint, style) = match &settings.endpoint {
        Some(endpoint) => (endpoint.clone(), UrlStyle::Path),
        None if name.contains('.') => {
            (format!("https://s3.{region}.amazonaws.com"), UrlStyle::Path)
        }
        None => (
            format!("https://s3.{region}.amazonaws.com"),
            UrlStyle::VirtualHost,
        ),
    };
    let url = endpoint
        .parse()
        .map_err(|error| format!("the endpoint {endpoint:?} is no URL: {error}"))?;
    Bucket::new(url, style, name.clone(), region.clone())
        .map_err(|error| format!("the endpoint {endpoint:?} cannot be: {error}"))
}

/// S3's code for what is wrong, from its XML.
fn error_code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    Some(code.to_owned())
}

/// What the service said.
fn said(answer: &Answer) -> String {
    let Answer { status, body } = answer;
    match error_code(body) {
        Some(code) => format!("status {status}, {code}"),
        None => format!("status {status}: {}", excerpt(body)),
    }
}

fn trouble(answer: &Answer) -> Trouble {
    let said = said(answer);
    match answer.status {
        300..=399 => Trouble::Refused(format!(
            "{said}: the bucket is in another region or elsewhere"
        )),
        403 if said.contains("RequestTimeTooSkewed") => Trouble::Refused(format!(
            "{said}: this host's clock is wrong ({:?} now)",
            Clock
        )),
        408 | 425 | 429 => Trouble::Silent(said),
        400..=499 => Trouble::Refused(said),
        _ => Trouble::Silent(said),
    }
}

/// Seconds since 1970, for a message about the clock.
struct Clock;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since_epoch = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        write!(f, "{} s since 1970", since_epoch.as_secs())
    }
}

impl Store for S3Store {
    fn name(&self) -> String {
        match self.bucket.base_url().host_str() {
            Some(host) => format!("{} at {host}", self.address),
            None => self.address.to_string(),
        }
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        self.carry_out(request).unwrap_or_else(|trouble| {
            Outcome::Unknown(format!("arbiter {}: {}", self.address, trouble.text()))
        })
    }
}
