//! The arbiter's store on etcd, by the JSON gateway of its API v3 (`/v3/kv/…`, on by default).
//!
//! A key is created by one transaction: it must not exist, and the one before must. Reads are
//! linearizable, so a member without a quorum answers nothing. What is asked again at another member
//! because the first gave no answer may have been done twice: of two creates with the same content one
//! is refused, and the caller reads the key back.

use crate::address::EtcdAddress;
use crate::http::{Client, TlsError, TlsFiles, excerpt};
use crate::trouble::{PROBE, Trouble, create_twice};
use crate::{Budget, CONTENT_LIMIT, Store};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use replication::succession::{Key, Outcome, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;
use thiserror::Error;
use ureq::http;

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdSettings {
    /// Its members, and where the keys are.
    pub address: EtcdAddress,
    /// For TLS.
    pub tls: TlsFiles,
    /// Where etcd asks who one is.
    pub login: Option<EtcdLogin>,
}

/// A user of etcd's.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdLogin {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for EtcdLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdLogin")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// etcd cannot be the arbiter.
#[derive(Debug, Error)]
pub enum EtcdError {
    /// A file of TLS.
    #[error("arbiter {address}: {source}")]
    Tls {
        /// Which etcd.
        address: EtcdAddress,
        /// What is wrong.
        source: TlsError,
    },
    /// It answers, and says no.
    #[error("arbiter {address}: {why}")]
    Refused {
        /// Which etcd.
        address: EtcdAddress,
        /// What it says.
        why: String,
    },
}

/// Create-only keys in etcd.
#[derive(Debug)]
pub struct EtcdStore {
    address: EtcdAddress,
    client: Client,
    login: Option<EtcdLogin>,
    /// What etcd gave for the login.
    token: Option<String>,
    /// The member that answered last.
    preferred: usize,
    /// How far the cluster was when it answered last.
    seen: Option<Seen>,
    /// It has shown that it creates a key once.
    is_proven: bool,
}

/// Which cluster, and how many changes it had.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    cluster: String,
    revision: u64,
}

/// What every answer begins with.
#[derive(Debug, Deserialize)]
struct Header {
    cluster_id: String,
    /// Numbers of 64 bits are text in etcd's JSON; a zero is left out.
    #[serde(default)]
    revision: String,
}

trait Headed: DeserializeOwned {
    fn header(&self) -> &Header;
}

#[derive(Debug, Deserialize)]
struct PutAnswer {
    header: Header,
}

#[derive(Debug, Deserialize)]
struct RangeAnswer {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Debug, Deserialize)]
struct Pair {
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct TxnAnswer {
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<OperationAnswer>,
}

#[derive(Debug, Deserialize)]
struct OperationAnswer {
    response_range: Option<Found>,
}

/// What a read within a transaction brought.
#[derive(Debug, Deserialize)]
struct Found {
    #[serde(default)]
    kvs: Vec<Pair>,
}

macro_rules! headed {
    ($($answer:ty)*) => {
        $(impl Headed for $answer {
            fn header(&self) -> &Header {
                &self.header
            }
        })*
    };
}
headed!(PutAnswer RangeAnswer TxnAnswer);

impl EtcdStore {
    /// Uses etcd, which need not answer now.
    ///
    /// # Errors
    /// A file of TLS cannot be used; or etcd answers, and it cannot be the arbiter: its gateway is
    /// off, it does not let this host write, it creates a key twice.
    pub fn open(settings: &EtcdSettings) -> Result<EtcdStore, EtcdError> {
        let address = &settings.address;
        let client = Client::new(&settings.tls).map_err(|source| EtcdError::Tls {
            address: address.clone(),
            source,
        })?;
        let mut store = EtcdStore {
            address: address.clone(),
            client,
            login: settings.login.clone(),
            token: None,
            preferred: 0,
            seen: None,
            is_proven: false,
        };
        match store.prove(Budget::begin()) {
            Ok(()) | Err(Trouble::Silent(_)) => Ok(store),
            Err(Trouble::Refused(why)) => Err(EtcdError::Refused {
                address: address.clone(),
                why,
            }),
        }
    }

    fn prove(&mut self, budget: Budget) -> Result<(), Trouble> {
        if !self.is_proven {
            create_twice(|content| {
                let created = self.create(budget, PROBE, None, content)?;
                Ok(created == Created::Now)
            })?;
            self.is_proven = true;
        }
        Ok(())
    }

    /// A key's name as etcd's JSON has it.
    fn key(&self, name: &str) -> String {
        STANDARD.encode(format!("{}/{name}", self.address.prefix))
    }

    fn create(
        &mut self,
        budget: Budget,
        name: &str,
        after: Option<&str>,
        content: &[u8],
    ) -> Result<Created, Trouble> {
        if content.len() > CONTENT_LIMIT {
            return Err(Trouble::Refused(format!("{name} is too long")));
        }
        let key = self.key(name);
        let after = after.map(|after| self.key(after));
        let compare = |key: &str, result: &str| json!({"key": key, "target": "CREATE", "result": result, "create_revision": "0"});
        let mut conditions = vec![compare(&key, "EQUAL")];
        let mut otherwise = Vec::new();
        if let Some(after) = &after {
            conditions.push(compare(after, "GREATER"));
            otherwise.push(json!({"request_range": {"key": after, "keys_only": true}}));
        }
        let transaction = json!({
            "compare": conditions,
            "success": [{"request_put": {"key": key, "value": STANDARD.encode(content)}}],
            "failure": otherwise,
        });
        let answer: TxnAnswer = self.ask(budget, "kv/txn", &transaction)?;
        if answer.succeeded {
            return Ok(Created::Now);
        }
        let before = answer.responses.first();
        let before = before.and_then(|answer| answer.response_range.as_ref());
        let is_after_missing = after.is_some() && before.is_none_or(|range| range.kvs.is_empty());
        Ok(if is_after_missing {
            Created::NotAfter
        } else {
            Created::Before
        })
    }

    fn read(&mut self, budget: Budget, name: &str) -> Result<Outcome, Trouble> {
        let range: RangeAnswer = self.ask(budget, "kv/range", &json!({"key": self.key(name)}))?;
        let Some(pair) = range.kvs.first() else {
            return Ok(Outcome::Absent);
        };
        match STANDARD.decode(&pair.value) {
            Ok(content) if content.len() <= CONTENT_LIMIT => Ok(Outcome::Holds(content)),
            _ => Err(Trouble::Refused(format!("{name} has been tampered with"))),
        }
    }

    fn write(&mut self, budget: Budget, name: &str, content: &[u8]) -> Result<Outcome, Trouble> {
        let put = json!({"key": self.key(name), "value": STANDARD.encode(content)});
        let _written: PutAnswer = self.ask(budget, "kv/put", &put)?;
        Ok(Outcome::Written)
    }

    /// Asks the members one after the other, first the one that answered last.
    fn ask<A: Headed>(&mut self, budget: Budget, path: &str, body: &Value) -> Result<A, Trouble> {
        let members = self.address.endpoints.len();
        let mut troubles = Vec::new();
        let mut is_refused = false;
        for attempt in 0..members {
            let member = (self.preferred + attempt) % members;
            let share = budget.share(members - attempt);
            match self.ask_member(member, share, path, body) {
                Ok(answer) => {
                    self.preferred = member;
                    return Ok(answer);
                }
                Err(trouble) => {
                    is_refused |= matches!(trouble, Trouble::Refused(_));
                    troubles.push(format!(
                        "{}: {}",
                        self.address.endpoints[member],
                        trouble.text()
                    ));
                }
            }
        }
        let text = troubles.join("; ");
        Err(match is_refused {
            true => Trouble::Refused(text),
            false => Trouble::Silent(text),
        })
    }

    fn ask_member<A: Headed>(
        &mut self,
        member: usize,
        timeout: Duration,
        path: &str,
        body: &Value,
    ) -> Result<A, Trouble> {
        if self.login.is_some() && self.token.is_none() {
            self.log_in(member, timeout)?;
        }
        let answer = match self.post(member, timeout, path, body) {
            Err(Refusal::Login(_)) if self.login.is_some() => {
                self.log_in(member, timeout)?;
                self.post(member, timeout, path, body)
            }
            other => other,
        };
        let answer = answer.map_err(Refusal::trouble)?;
        let answer: A = serde_json::from_slice(&answer)
            .map_err(|error| Trouble::Refused(format!("this is not etcd's answer: {error}")))?;
        self.notice(answer.header())?;
        Ok(answer)
    }

    /// One cluster only goes forward. What another one says, or this one after it was set back, is
    /// nothing to go by.
    fn notice(&mut self, header: &Header) -> Result<(), Trouble> {
        let revision = header.revision.parse().unwrap_or(0);
        if let Some(seen) = &self.seen {
            if seen.cluster != header.cluster_id {
                return Err(Trouble::Refused(format!(
                    "it belongs to cluster {}, not to {} as before",
                    header.cluster_id, seen.cluster
                )));
            }
            if revision < seen.revision {
                return Err(Trouble::Refused(format!(
                    "it is at revision {revision}, and was at {}: it was emptied or set back",
                    seen.revision
                )));
            }
        }
        self.seen = Some(Seen {
            cluster: header.cluster_id.clone(),
            revision,
        });
        Ok(())
    }

    fn log_in(&mut self, member: usize, timeout: Duration) -> Result<(), Trouble> {
        #[derive(Deserialize)]
        struct Authenticated {
            token: String,
        }
        self.token = None;
        let Some(login) = &self.login else {
            return Ok(());
        };
        let body = json!({"name": login.user, "password": login.password});
        let answer = self
            .post(member, timeout, "auth/authenticate", &body)
            .map_err(Refusal::trouble)?;
        let authenticated: Authenticated = serde_json::from_slice(&answer)
            .map_err(|error| Trouble::Refused(format!("it gave no token: {error}")))?;
        self.token = Some(authenticated.token);
        Ok(())
    }

    fn post(
        &self,
        member: usize,
        timeout: Duration,
        path: &str,
        body: &Value,
    ) -> Result<Vec<u8>, Refusal> {
        let scheme = if self.address.is_encrypted {
            "https"
        } else {
            "http"
        };
        let endpoint = &self.address.endpoints[member];
        let mut request = http::Request::post(format!("{scheme}://{endpoint}/v3/{path}"))
            .header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let request = request
            .body(body.to_string())
            .map_err(|error| Refusal::Final(error.to_string()))?;
        let answer = self
            .client
            .send(request, timeout)
            .map_err(Refusal::Passing)?;
        if answer.status == 200 {
            return Ok(answer.body);
        }
        Err(Refusal::of(answer.status, &answer.body))
    }
}

/// What a create came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Created {
    /// It is there, by us.
    Now,
    /// It was there before.
    Before,
    /// The one before is not there, so it is not, either.
    NotAfter,
}

/// Why a member did not do it.
enum Refusal {
    /// It wants to know who asks.
    Login(String),
    /// It says no.
    Final(String),
    /// It cannot now.
    Passing(String),
}

impl Refusal {
    /// By the status: that of gRPC's code, as the gateway translates it.
    fn of(status: u16, body: &[u8]) -> Refusal {
        #[derive(Deserialize)]
        struct Said {
            error: String,
        }
        let said =
            serde_json::from_slice::<Said>(body).map_or_else(|_| excerpt(body), |said| said.error);
        let text = match said.is_empty() {
            true => format!("status {status}, with nothing that says why"),
            false => format!("status {status}: {said}"),
        };
        match status {
            401 => Refusal::Login(text),
            404 | 405 => Refusal::Final(format!(
                "{text}: its JSON gateway is off (enable-grpc-gateway), or this is not etcd"
            )),
            400..=428 | 431..=499 => Refusal::Final(text),
            _ => Refusal::Passing(text),
        }
    }

    fn trouble(self) -> Trouble {
        match self {
            Refusal::Login(text) | Refusal::Final(text) => Trouble::Refused(text),
            Refusal::Passing(text) => Trouble::Silent(text),
        }
    }
}

impl Store for EtcdStore {
    fn name(&self) -> String {
        self.address.to_string()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let budget = Budget::begin();
        let outcome = self.prove(budget).and_then(|()| match request {
            Request::Create {
                key,
                after,
                content,
            } => {
                let name = after.as_ref().map(Key::object_name);
                let created = self.create(budget, &key.object_name(), name.as_deref(), content)?;
                Ok(match (created, after) {
                    (Created::Now, _) => Outcome::Created,
                    (Created::NotAfter, Some(after)) => Outcome::Unknown(after.missing()),
                    (Created::Before | Created::NotAfter, _) => Outcome::NotCreated,
                })
            }
            Request::Read { key } => self.read(budget, &key.object_name()),
            Request::WriteBeacon { beacon, content } => {
                self.write(budget, &beacon.object_name(), content)
            }
            Request::ReadBeacon { beacon } => self.read(budget, &beacon.object_name()),
            Request::Elsewhere { .. } => Ok(Request::knows_no_other()),
        });
        outcome.unwrap_or_else(|trouble| {
            Outcome::Unknown(format!("arbiter {}: {}", self.address, trouble.text()))
        })
    }
}
