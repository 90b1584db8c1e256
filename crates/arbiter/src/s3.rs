//! The arbiter's store in a bucket: S3, or what speaks its protocol and knows conditional writes.
//!
//! A key is an object that is put with `If-None-Match: *`. The condition is signed with the request, so
//! whatever leaves it out on the way makes the request invalid. That the key before is there is read in
//! the request before, from the same bucket: keys are never removed.

use crate::address::BucketAddress;
use crate::bucket::{ObjectBucket, Put};
use crate::http::{Attempt, TlsError, TlsFiles};
use crate::trouble::{PROBE, Trouble, create_twice};
use crate::{Budget, CONTENT_LIMIT, Store};
use replication::succession::{Outcome, Request};
use std::fmt;
use thiserror::Error;

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
    #[error("{address}: {source}")]
    Tls {
        /// Which bucket.
        address: BucketAddress,
        /// What is wrong.
        source: TlsError,
    },
    /// The service answers, and cannot be the arbiter.
    #[error("{address}: {why}")]
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
    bucket: ObjectBucket,
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
        let mut store = S3Store {
            bucket: ObjectBucket::new(settings)?,
            is_proven: false,
        };
        match store.prove(Budget::begin()) {
            Ok(()) | Err(Trouble::Silent(_)) => Ok(store),
            Err(Trouble::Refused(why)) => Err(S3Error::Refused {
                address: settings.address.clone(),
                why,
            }),
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

    /// Whether it was created.
    fn create(&self, budget: Budget, name: &str, content: &[u8]) -> Result<bool, Trouble> {
        check_length(name, content)?;
        match self
            .bucket
            .put_new(name, content, &mut Attempt::within(budget.share(1)))?
        {
            Put::Done => Ok(true),
            // There, or somebody else creates it right now.
            Put::IsThere | Put::Raced => Ok(false),
        }
    }

    fn write(&self, budget: Budget, name: &str, content: &[u8]) -> Result<Outcome, Trouble> {
        check_length(name, content)?;
        self.bucket
            .write(name, content, &mut Attempt::within(budget.share(1)))?;
        Ok(Outcome::Written)
    }

    fn read(&self, budget: Budget, name: &str) -> Result<Outcome, Trouble> {
        let content = self.bucket.read(
            name,
            CONTENT_LIMIT as u64,
            &mut Attempt::within(budget.share(1)),
        )?;
        Ok(content.map_or(Outcome::Absent, Outcome::Holds))
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

fn check_length(name: &str, content: &[u8]) -> Result<(), Trouble> {
    match content.len() <= CONTENT_LIMIT {
        true => Ok(()),
        false => Err(Trouble::Refused(format!("{name} is too long"))),
    }
}

impl Store for S3Store {
    fn name(&self) -> String {
        let address = self.bucket.address();
        match self.bucket.host() {
            Some(host) => format!("{address} at {host}"),
            None => address.to_string(),
        }
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        self.carry_out(request).unwrap_or_else(|trouble| {
            Outcome::Unknown(format!(
                "arbiter {}: {}",
                self.bucket.address(),
                trouble.text()
            ))
        })
    }
}
