//! Objects in a bucket: put once, read, listed, removed. The arbiter's keys are such objects, and so are the files of
//! a journal that is kept in a bucket.

use crate::address::BucketAddress;
use crate::http::{Answer, Attempt, Client, excerpt};
use crate::s3::{S3Credentials, S3Error, S3Settings};
use crate::trouble::{PROBE, Trouble, create_twice};
use rusty_s3::actions::{DeleteObject, GetObject, PutObject, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, SystemTime};
use thiserror::Error;
use ureq::{SendBody, http};

/// For how long a signed request is good: one that was held up somewhere does nothing later.
const REQUEST_VALIDITY: Duration = Duration::from_secs(60);
/// The longest answer that is read: two contents of keys with all that is around them, or what is wrong.
const ANSWER_LIMIT: u64 = 64 << 10;
/// The longest page of a list: a thousand names of at most a kilobyte, with what is told of each.
const PAGE_LIMIT: u64 = 4 << 20;
/// Bytes of an object that go at once.
const OUTGOING_BYTES: usize = 64 << 10;

/// Why a bucket did not do what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BucketError {
    /// Nobody answered, or whoever did cannot now. It may have been done.
    #[error("{0}")]
    Silent(String),
    /// The answer is no.
    #[error("{0}")]
    Refused(String),
}

impl From<Trouble> for BucketError {
    fn from(trouble: Trouble) -> BucketError {
        match trouble {
            Trouble::Silent(why) => BucketError::Silent(why),
            Trouble::Refused(why) => BucketError::Refused(why),
        }
    }
}

/// What is there under a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectList {
    /// Objects by their names, with their bytes; in the order of their names.
    pub objects: Vec<(String, u64)>,
    /// What is before the next `/` of names that have one, where only that was asked for.
    pub directories: Vec<String>,
}

/// A bucket, under the prefix of its address: every name here is without that.
#[derive(Debug)]
pub struct ObjectBucket {
    address: BucketAddress,
    bucket: Bucket,
    credentials: Credentials,
    client: Client,
}

impl ObjectBucket {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// The endpoint is none, or a file of TLS cannot be used.
    pub fn new(settings: &S3Settings) -> Result<ObjectBucket, S3Error> {
        let address = &settings.address;
        let client = Client::new(&settings.tls).map_err(|source| S3Error::Tls {
            address: address.clone(),
            source,
        })?;
        let bucket = bucket(settings).map_err(|why| S3Error::Refused {
            address: address.clone(),
            why,
        })?;
        let S3Credentials {
            access_key_id,
            secret_access_key,
            session_token,
        } = settings.credentials.clone();
        let credentials = match session_token {
            Some(token) => Credentials::new_with_token(access_key_id, secret_access_key, token),
            None => Credentials::new(access_key_id, secret_access_key),
        };
        Ok(ObjectBucket {
            address: address.clone(),
            bucket,
            credentials,
            client,
        })
    }

    /// Which it is.
    pub fn address(&self) -> &BucketAddress {
        &self.address
    }

    /// Of the service.
    pub(crate) fn host(&self) -> Option<&str> {
        self.bucket.base_url().host_str()
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.address.prefix)
    }

    /// Puts an object that is not there: false if one of this name is.
    ///
    /// # Errors
    /// Nobody answers, or says no. It may be there all the same if nobody answers.
    pub fn create(
        &self,
        name: &str,
        content: &[u8],
        attempt: &mut Attempt<'_>,
    ) -> Result<bool, BucketError> {
        match self.put_new(name, content, attempt)? {
            Put::Done => Ok(true),
            Put::IsThere => Ok(false),
            Put::Raced => {
                let why = "somebody else puts it at the same time".to_owned();
                Err(BucketError::Silent(why))
            }
        }
    }

    pub(crate) fn put_new(
        &self,
        name: &str,
        content: &[u8],
        attempt: &mut Attempt<'_>,
    ) -> Result<Put, Trouble> {
        let answer = self.put(name, content, true, attempt)?;
        match answer.status {
            200 | 201 => Ok(Put::Done),
            412 => Ok(Put::IsThere),
            // Somebody puts it right now.
            409 => Ok(Put::Raced),
            501 => Err(Trouble::Refused(format!(
                "{}: it does not know conditional writes",
                said(&answer)
            ))),
            _ => Err(trouble(&answer)),
        }
    }

    /// Puts an object, over one that is there.
    pub(crate) fn write(
        &self,
        name: &str,
        content: &[u8],
        attempt: &mut Attempt<'_>,
    ) -> Result<(), Trouble> {
        let answer = self.put(name, content, false, attempt)?;
        match answer.status {
            200 | 201 => Ok(()),
            _ => Err(trouble(&answer)),
        }
    }

    fn put(
        &self,
        name: &str,
        content: &[u8],
        is_create: bool,
        attempt: &mut Attempt<'_>,
    ) -> Result<Answer, Trouble> {
        let object = self.key(name);
        let mut action = PutObject::new(&self.bucket, Some(&self.credentials), &object);
        if is_create {
            action.headers_mut().insert("if-none-match", "*");
        }
        let url = action.sign(REQUEST_VALIDITY);
        let mut request = http::Request::put(url.as_str());
        if is_create {
            request = request.header("if-none-match", "*");
        }
        self.send(request, content, attempt, ANSWER_LIMIT)
    }

    /// What an object holds, `limit` bytes at most; nothing if it is not there.
    ///
    /// # Errors
    /// Nobody answers, or says no; or it holds more.
    pub fn get(
        &self,
        name: &str,
        limit: u64,
        attempt: &mut Attempt<'_>,
    ) -> Result<Option<Vec<u8>>, BucketError> {
        Ok(self.read(name, limit, attempt)?)
    }

    pub(crate) fn read(
        &self,
        name: &str,
        limit: u64,
        attempt: &mut Attempt<'_>,
    ) -> Result<Option<Vec<u8>>, Trouble> {
        let object = self.key(name);
        let url =
            GetObject::new(&self.bucket, Some(&self.credentials), &object).sign(REQUEST_VALIDITY);
        let request = http::Request::get(url.as_str()).header("cache-control", "no-cache");
        let answer = self.send(request, &[], attempt, limit.max(ANSWER_LIMIT))?;
        match answer.status {
            200 if answer.body.len() as u64 <= limit => Ok(Some(answer.body)),
            200 => Err(Trouble::Refused(format!("{name} has been tampered with"))),
            // Anything else that is not found is not this bucket.
            404 if error_code(&answer.body).as_deref() == Some("NoSuchKey") => Ok(None),
            403 if error_code(&answer.body).as_deref() == Some("AccessDenied") => {
                Err(Trouble::Refused(format!(
                    "{}: it takes s3:GetObject, s3:PutObject and s3:ListBucket (without which nobody is told that a key is not there)",
                    said(&answer)
                )))
            }
            _ => Err(trouble(&answer)),
        }
    }

    /// All objects whose names begin like this; with `is_flat`, those without another `/` after it, and what is before
    /// that of the others.
    ///
    /// # Errors
    /// Nobody answers, or says no, or something that is no list.
    pub fn list(
        &self,
        beginning: &str,
        is_flat: bool,
        attempt: &mut Attempt<'_>,
    ) -> Result<ObjectList, BucketError> {
        let mut list = ObjectList::default();
        let mut after = None;
        loop {
            let page = self.page(beginning, is_flat, after.as_deref(), attempt)?;
            let Some(page) = Page::parse(&page, &self.key("")) else {
                let why = "the answer to a list is none".to_owned();
                return Err(BucketError::Refused(why));
            };
            list.objects.extend(page.list.objects);
            list.directories.extend(page.list.directories);
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(list),
            }
        }
    }

    fn page(
        &self,
        beginning: &str,
        is_flat: bool,
        after: Option<&str>,
        attempt: &mut Attempt<'_>,
    ) -> Result<Vec<u8>, Trouble> {
        // A list is what is got of the bucket itself.
        let mut action = GetObject::new(&self.bucket, Some(&self.credentials), "");
        let query = action.query_mut();
        query.insert("list-type", "2");
        query.insert("prefix", self.key(beginning));
        if is_flat {
            query.insert("delimiter", "/");
        }
        if let Some(after) = after {
            query.insert("continuation-token", after.to_owned());
        }
        let url = action.sign(REQUEST_VALIDITY);
        let request = http::Request::get(url.as_str()).header("cache-control", "no-cache");
        let answer = self.send(request, &[], attempt, PAGE_LIMIT)?;
        match answer.status {
            200 => Ok(answer.body),
            _ => Err(trouble(&answer)),
        }
    }

    /// Finds out whether it puts an object only where there is none.
    ///
    /// # Errors
    /// It does not, or nobody answers.
    pub fn prove(&self, attempt: &mut Attempt<'_>) -> Result<(), BucketError> {
        Ok(create_twice(|content| {
            let put = self.put_new(PROBE, content, attempt)?;
            Ok(put == Put::Done)
        })?)
    }

    /// Removes an object; one that is not there is no error.
    ///
    /// # Errors
    /// Nobody answers, or says no.
    pub fn remove(&self, name: &str, attempt: &mut Attempt<'_>) -> Result<(), BucketError> {
        let object = self.key(name);
        let action = DeleteObject::new(&self.bucket, Some(&self.credentials), &object);
        let url = action.sign(REQUEST_VALIDITY);
        let request = http::Request::delete(url.as_str());
        let answer = self.send(request, &[], attempt, ANSWER_LIMIT)?;
        match answer.status {
            200 | 202 | 204 | 404 => Ok(()),
            _ => Err(trouble(&answer).into()),
        }
    }

    fn send(
        &self,
        request: http::request::Builder,
        body: &[u8],
        attempt: &mut Attempt<'_>,
        limit: u64,
    ) -> Result<Answer, Trouble> {
        let is_put = request.method_ref() == Some(&http::Method::PUT);
        let wrong = |error: http::Error| Trouble::Refused(error.to_string());
        let sent = if is_put {
            let request = request.header(http::header::CONTENT_LENGTH, body.len());
            // What is told is told of the object, not of the answer.
            let mut body = Outgoing {
                left: body,
                moves: attempt.moves.take(),
            };
            let request = request.body(SendBody::from_reader(&mut body));
            let sent = request
                .map_err(wrong)
                .map(|request| self.client.send_limited(request, attempt, limit));
            attempt.moves = body.moves;
            sent?
        } else {
            let request = request.body(()).map_err(wrong)?;
            self.client.send_limited(request, attempt, limit)
        };
        sent.map_err(Trouble::Silent)
    }
}

/// Bytes of an object on their way.
struct Outgoing<'a, 'b> {
    left: &'a [u8],
    moves: Option<&'b mut dyn FnMut(u64)>,
}

impl Read for Outgoing<'_, '_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let most = out.len().min(OUTGOING_BYTES);
        let bytes = self.left.len().min(most);
        if let (1.., Some(moves)) = (bytes, &mut self.moves) {
            moves(bytes as u64);
        }
        let (piece, left) = self.left.split_at(bytes);
        out[..bytes].copy_from_slice(piece);
        self.left = left;
        Ok(bytes)
    }
}

/// What became of an object that was to be put where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    Done,
    IsThere,
    /// Somebody else puts it at the same time.
    Raced,
}

/// A page of a list.
struct Page {
    list: ObjectList,
    /// By what the next one is asked for.
    next: Option<String>,
}

impl Page {
    /// Of S3's XML. Names here have nothing in them that XML writes otherwise.
    fn parse(xml: &[u8], root: &str) -> Option<Page> {
        let xml = std::str::from_utf8(xml).ok()?;
        let result = elements(xml, "ListBucketResult").next()?;
        let objects = elements(result, "Contents").map(|object| {
            let name = elements(object, "Key").next()?.strip_prefix(root)?;
            let bytes = elements(object, "Size").next()?.parse().ok()?;
            Some((name.to_owned(), bytes))
        });
        let directories = elements(result, "CommonPrefixes").map(|directory| {
            let name = elements(directory, "Prefix").next()?.strip_prefix(root)?;
            Some(name.strip_suffix('/')?.to_owned())
        });
        let is_cut = elements(result, "IsTruncated").next() == Some("true");
        let next = elements(result, "NextContinuationToken").next();
        Some(Page {
            list: ObjectList {
                objects: objects.collect::<Option<_>>()?,
                directories: directories.collect::<Option<_>>()?,
            },
            next: match is_cut {
                true => Some(next?.to_owned()),
                false => None,
            },
        })
    }
}

/// What is in each element of this name, none of which is in another.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let (_, begun) = rest.split_once(&*open)?;
            let (attributes, inner) = begun.split_once('>')?;
            rest = inner;
            // A longer name, or an element with nothing in it.
            if attributes.is_empty() || attributes.starts_with(' ') {
                let (inner, after) = inner.split_once(&*close)?;
                rest = after;
                return Some(inner);
            }
        }
    })
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
    elements(text, "Code").next().map(str::to_owned)
}

/// What the service said.
fn said(answer: &Answer) -> String {
    let Answer { status, body } = answer;
    match (error_code(body), excerpt(body)) {
        (Some(code), _) => format!("status {status}, {code}"),
        (None, text) if text.is_empty() => format!("status {status}, with nothing that says why"),
        (None, text) => format!("status {status}: {text}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_word_is_told_as_one_and_an_excerpt_is_told() {
        let text = |body: &[u8]| {
            let body = body.to_vec();
            trouble(&Answer { status: 500, body }).text()
        };
        assert_eq!(text(b""), "status 500, with nothing that says why");
        assert_eq!(text(b" \r\n"), "status 500, with nothing that says why");
        assert_eq!(text(b"<html>busy"), "status 500: <html>busy");
        assert_eq!(
            text(b"<Error><Code>SlowDown</Code></Error>"),
            "status 500, SlowDown"
        );
    }

    #[test]
    fn a_page_of_a_list_is_read_and_what_is_none_is_not() {
        let xml = br#"<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix>p/</Prefix>
<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><KeyCount>2</KeyCount>
<Contents><Key>p/a/1</Key><LastModified>x</LastModified><ETag>&quot;e&quot;</ETag><Size>12</Size></Contents>
<Contents><Key>p/a/2</Key><Size>3</Size></Contents><CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes>
</ListBucketResult>"#;
        let page = Page::parse(xml, "p/").unwrap();
        let names = [("a/1".to_owned(), 12), ("a/2".to_owned(), 3)];
        assert_eq!(page.list.objects, names);
        assert_eq!(page.list.directories, ["d"]);
        assert_eq!(page.next.as_deref(), Some("t"));
        assert!(Page::parse(xml, "q/").is_none());
        assert!(Page::parse(b"<html>a portal</html>", "p/").is_none());
    }
}
