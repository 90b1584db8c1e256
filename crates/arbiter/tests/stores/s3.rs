//! What is special about buckets: services that leave the condition out, or tell less than they should.

use crate::servers::{Backend, S3, open_s3, s3_settings};
use crate::way::{Fault, Proxy, Way};
use crate::{Claimant, claim, entry};
use arbiter::S3Store;
use replication::succession::Verdict;

#[test]
fn a_service_that_ignores_the_condition_is_refused_at_the_start() {
    let Some(s3) = S3::start() else { return };
    let proxy = Proxy::start(&s3.endpoint(), Way::with(Fault::Unconditional));
    let error = open_s3(&proxy).unwrap_err().to_string();
    assert!(
        error.contains("s3://bucket/tests") && error.contains("ignores the condition"),
        "{error}"
    );
}

/// It could not be asked at the start: nothing is decided before it has shown what it does.
#[test]
fn a_service_that_ignores_the_condition_is_found_out_when_it_can_be_reached() {
    let Some(s3) = S3::start() else { return };
    let way = Way::with(Fault::Unreachable);
    let proxy = Proxy::start(&s3.endpoint(), way.clone());
    let mut store = open_s3(&proxy).unwrap();
    way.set(Fault::Unconditional);
    let told = Claimant::new(entry(0, 1, 1)).ask_in_vain(&mut store, 4);
    assert!(told.contains("ignores the condition"), "{told}");
    way.set(Fault::None);
    assert_eq!(claim(&mut store, entry(0, 1, 1)), Verdict::Won);
}

#[test]
fn a_bucket_that_is_not_there_or_may_not_be_listed_is_one_clear_error() {
    let Some(s3) = S3::start() else { return };
    let mut settings = s3_settings(&s3.endpoint());
    settings.address.bucket = "missing".into();
    let error = S3Store::open(&settings).unwrap_err().to_string();
    assert!(
        error.contains("s3://missing/tests") && error.contains("NoSuchBucket"),
        "{error}"
    );

    let proxy = Proxy::start(&s3.endpoint(), Way::with(Fault::Forbidding));
    let error = open_s3(&proxy).unwrap_err().to_string();
    assert!(error.contains("s3:ListBucket"), "{error}");
}

#[test]
fn an_endpoint_that_is_none_is_one_clear_error_and_no_message_has_the_secret() {
    let mut settings = s3_settings("127.0.0.1:5000");
    settings.endpoint = Some("minio:9000".into());
    let error = S3Store::open(&settings).unwrap_err().to_string();
    assert!(error.contains("minio:9000"), "{error}");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("\"secret\""), "{shown}");
}
