//! Real processes with a journal in a bucket of a real server (`moto`): hosts are lost with all that is on them, frozen
//! and thawed, the bucket hangs, and the machine goes on exactly where the outside saw it last.
//!
//! `KILLS=20 cargo test --release -p understudy --test real_bucket -- lost` loses as many hosts.

mod support;

use arbiter::Attempt;
use replica::config::{JournalBucket, JournalPlace};
use replica::journal::ReadMeter;
use replica::journal::history::JournalHistory;
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};
use support::bucket::{Bucket, Host};
use support::guest_program::{
    counting_busily, counting_slowly, filling_memory_then_counting_busily,
};
use support::journaled::assert_one_history;
use support::slow_link::Turns;
use support::{PairDirectory, error_text, wait_for};

const NAMES: [&str; 26] = [
    "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s",
    "t", "u", "v", "w", "x", "y", "z",
];

/// Each host is lost for good, with its state directory; the next one has nothing but the configuration.
#[test]
fn hosts_are_lost_and_the_machine_goes_on_from_the_bucket_where_it_was_seen_last() {
    let kills = std::env::var("KILLS").map_or(3, |kills| kills.parse().unwrap());
    let Some(bucket) = Bucket::at_distance(10) else {
        return;
    };
    let pair = PairDirectory::new(&counting_slowly());
    let mut host = Host::start(&pair, &bucket, NAMES[0], ["", ""]).in_force();
    let mut seen = Vec::new();
    for (kill, next) in NAMES[1..].iter().enumerate().take(kills) {
        host.await_more(200 + 137 * kill);
        host.process.kill();
        // The same host comes back first, every second time.
        if kill % 2 == 1 {
            let before = host.files.console().len();
            host.restart();
            host.await_more(50);
            host.process.kill();
            seen.push(host.files.console()[..before].to_owned());
            seen.push(host.files.console()[before..].to_owned());
        } else {
            seen.push(host.files.console());
        }
        let gone = host.name;
        fs::remove_dir_all(&host.files.state).unwrap();
        host = Host::start(&pair, &bucket, next, ["", ""]).goes_on_without(gone);
    }
    host.await_more(300);
    host.process.kill();
    seen.push(host.files.console());
    let parts: Vec<&str> = seen.iter().map(String::as_str).collect();
    assert_one_history(&parts);
}

/// A person said of a host that it is off, and it only slept: what it does when it wakes up nobody sees.
#[test]
fn a_host_that_was_frozen_adds_nothing_any_more_and_nobody_sees_what_it_does() {
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let pair = PairDirectory::new(&counting_busily());
    let journal = "recover_within = \"1s\"\n";
    let frozen = Host::start(&pair, &bucket, "a", ["", journal]).in_force();
    frozen.await_more(200);
    frozen.process.signal(Signal::STOP);
    let last = bucket.objects().iter().filter_map(segment_number).max();
    let live = Host::start(&pair, &bucket, "b", ["", journal]).goes_on_without("a");
    // Of what the frozen one wrote nothing is left but what keeps it off.
    wait_for("what it wrote to go", || {
        let objects = bucket.objects();
        let is_old =
            |object: &&(String, u64)| segment_number(object).is_some_and(|n| Some(n) <= last);
        objects.iter().filter(is_old).all(is_fence).then_some(())
    });
    let before = bucket.objects();
    frozen.process.signal(Signal::CONT);
    wait_for("it to notice", || {
        frozen.files.has_event("claim_lost").then_some(())
    });
    let events = fs::read_to_string(frozen.files.state.join("events.jsonl")).unwrap();
    // Its put was refused, or it put what had been under way and looked for what it had put before.
    assert!(
        events.contains("another process put it")
            || events.contains("another process goes on from this journal"),
        "{events}"
    );
    let seen = frozen.files.console();
    live.await_more(200);
    assert_eq!(frozen.files.console(), seen);
    assert_one_history(&[&seen, &live.files.console()]);
    // Nothing has come where the frozen one wrote; but it may have put once more what it had put without hearing of it, and what
    // had gone since: in front of what keeps it off, where nobody reads.
    let (after, newest) = (
        bucket.objects(),
        before.iter().filter_map(segment_number).max(),
    );
    let come = after.iter().filter(|object| !before.contains(object));
    for object in come {
        let mut fences = before.iter().filter(|object| is_fence(object));
        let is_repeated = fences
            .any(|fence| segment_number(fence) == segment_number(object) && object.0 < fence.0);
        assert!(
            segment_number(object) >= newest || is_repeated,
            "{object:?} after {newest:?}"
        );
    }
}

/// What ends a segment is shorter than any commit.
fn is_fence((name, bytes): &(String, u64)) -> bool {
    name.contains(".segment/") && *bytes < 30
}

/// The number of the segment or snapshot of which this is an object.
fn segment_number((name, _): &(String, u64)) -> Option<u64> {
    let file = name.split('/').nth(1)?;
    file.split('.').next()?.parse().ok()
}

/// The bucket hangs for a while, and then for longer than the configuration allows.
#[test]
fn while_the_bucket_hangs_nothing_leaves_and_then_the_machine_goes_on_without_a_journal() {
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let pair = PairDirectory::new(&counting_slowly());
    let host = Host::start(&pair, &bucket, "a", ["", "timeout = \"8s\"\n"]).in_force();
    host.await_more(300);
    bucket.signal(Signal::STOP);
    wait_for("it to be told", || {
        host.files.has_event("journal_unanswered").then_some(())
    });
    // The event loop answers, and outputs wait.
    let status = host.files.status().unwrap();
    assert_eq!(status["journal"]["state"], "in force", "{status}");
    assert_ne!(status["journal"]["unanswered"], "", "{status}");
    assert!(
        status["loop_longest_ms"].as_f64().unwrap() < 2_000.0,
        "{status}"
    );
    let seen = host.files.console();
    host.files.status().unwrap();
    assert_eq!(host.files.console(), seen);
    bucket.signal(Signal::CONT);
    wait_for("it to be told", || {
        host.files.has_event("journal_answers").then_some(())
    });
    host.await_more(300);
    assert!(!host.files.has_event("journal_failed"));
    bucket.signal(Signal::STOP);
    wait_for("the journal to be given up", || {
        host.files.has_event("journal_failed").then_some(())
    });
    let events = fs::read_to_string(host.files.state.join("events.jsonl")).unwrap();
    let failed = events
        .lines()
        .find(|line| line.contains("\"journal_failed\""));
    let failed = failed.unwrap();
    assert!(
        failed.contains("for 8s nothing of what was to be stored became durable"),
        "{failed}"
    );
    assert!(failed.contains("does not answer: "), "{failed}");
    host.await_more(300);
    bucket.signal(Signal::CONT);
    // Another one is begun, and the one before goes.
    wait_for("another journal", || {
        let events = fs::read_to_string(host.files.state.join("events.jsonl")).unwrap();
        (events.matches("\"journal_in_force\"").count() == 2).then_some(())
    });
    assert_one_history(&[&host.files.console()]);
    wait_for("the one before to go", || {
        let objects = bucket.objects();
        let mut journals: Vec<&str> = objects
            .iter()
            .filter_map(|(name, _)| Some(name.split_once('/')?.0))
            .collect();
        journals.dedup();
        (journals.len() == 1).then_some(())
    });
}

/// Its service is another one from one moment to the next: what was put before is gone, and what is put now would stand alone.
#[test]
fn a_bucket_that_was_emptied_is_noticed_before_anything_leaves_and_another_journal_is_begun() {
    let Some(mut bucket) = Bucket::start() else {
        return;
    };
    let pair = PairDirectory::new(&counting_slowly());
    let mut host = Host::start(&pair, &bucket, "a", ["", ""]).in_force();
    host.await_more(300);
    bucket.replace();
    let events = wait_for("another journal", || {
        let events = fs::read_to_string(host.files.state.join("events.jsonl")).unwrap();
        let is_another = events.matches("\"journal_in_force\"").count() == 2;
        is_another.then_some(events)
    });
    assert!(events.contains("the bucket was emptied"), "{events}");
    host.await_more(300);
    host.process.kill();
    let before = host.files.console();
    host.restart();
    host.await_more(50);
    let all = host.files.console();
    assert_one_history(&[&before, &all[before.len()..]]);
}

/// Snapshots now and then keep it short, and history is looked into where it is.
#[test]
fn what_is_too_old_goes_and_what_is_kept_is_replayed_from_the_bucket() {
    let Some(bucket) = Bucket::start() else {
        return;
    };
    let pair = PairDirectory::new(&counting_busily());
    let journal = "recover_within = \"1s\"\n";
    let mut host = Host::start(&pair, &bucket, "a", ["", journal]).in_force();
    let first = || bucket.objects().iter().filter_map(segment_number).min();
    wait_for("what is before a snapshot to go", || {
        (first()? > 2).then_some(())
    });
    // Nothing goes while somebody reads, and all of it afterwards.
    let place = JournalPlace::Bucket(Box::new(JournalBucket {
        settings: bucket.settings(),
        patience: Duration::from_secs(20),
    }));
    let read = JournalHistory::all_in(&place, &ReadMeter::default()).unwrap();
    let (journal, way_in) = (&read[0], &read[0].ways_in()[0]);
    let newest = || bucket.objects().iter().filter_map(segment_number).max();
    let then = newest();
    wait_for("another snapshot", || {
        (newest() > then.map(|n| n + 1)).then_some(())
    });
    let (_, mut records) = journal.enter(way_in, None).unwrap();
    let mut batches = 0;
    while records.next_batch().unwrap().is_some() {
        batches += 1;
    }
    assert!(batches > 0);
    drop(records);
    drop(read);
    wait_for("it to go", || (first() >= then).then_some(()));
    host.process.kill();
    let url = "s3://bucket/journals";
    let list = bucket.understudy(&["replay", url, "--list"]);
    assert!(list.status.success(), "{}", error_text(&list));
    let text = String::from_utf8(list.stdout).unwrap();
    assert!(
        text.contains("machine test") && text.contains("until "),
        "{text}"
    );
    let replayed = bucket.understudy(&["replay", "--config", host.files.config()]);
    assert!(replayed.status.success(), "{}", error_text(&replayed));
    // An object is not what was put: that is said, and nothing is started from something else.
    let objects = bucket.objects();
    let newest = objects
        .iter()
        .rfind(|(name, _)| name.contains(".segment/") && !name.ends_with("/0000000000000000"));
    let (name, bytes) = newest.unwrap();
    let client = bucket.client();
    let limit = &mut Attempt::within(Duration::from_secs(20));
    let mut content = client.get(name, *bytes, limit).unwrap().unwrap();
    let at = content.len() / 2;
    content[at] ^= 1;
    client.remove(name, limit).unwrap();
    assert!(client.create(name, &content, limit).unwrap());
    host.restart();
    let said = wait_for("it to wait", || {
        let status = host.files.status()?;
        let state = status["state"].as_str()?.to_owned();
        state.contains("damaged after record").then_some(state)
    });
    assert!(said.contains("s3://bucket/journals/"), "{said}");
    content[at] ^= 1;
    client.remove(name, limit).unwrap();
    assert!(client.create(name, &content, limit).unwrap());
    host.await_more(200);
}

/// How long it takes a machine to fill the memory of which its snapshots here are made.
const FILLED_BYTES: u64 = 3 << 20;

/// A machine that went on from its journal begins with a whole snapshot. What outputs wait for is not behind that.
fn records_are_durable_while_a_snapshot_is_put_by_a_slow_link(turns: Turns) {
    let Some(bucket) = Bucket::behind_link(turns) else {
        return;
    };
    let pair = PairDirectory::new(&filling_memory_then_counting_busily(FILLED_BYTES));
    let journal = "timeout = \"5s\"\nrecover_within = \"1s\"\n";
    let mut host = Host::start(&pair, &bucket, "a", ["", journal]).in_force();
    host.await_more(200);
    host.process.kill();
    let before = host.files.console().len();
    host.restart();
    host.await_more(10);
    let snapshots = || {
        let objects = bucket.objects().into_iter();
        let whole = objects.filter(|(name, _)| name.ends_with(".snapshot/whole"));
        whole.filter_map(|object| segment_number(&object)).max()
    };
    // The whole one takes fifteen seconds.
    bucket.link().carries(FILLED_BYTES / 15);
    let then = snapshots();
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    let mut seen = host.files.console().len();
    let begun = Instant::now();
    while snapshots() == then && begun.elapsed() < Duration::from_secs(60) {
        let now = host.files.console().len();
        if now > seen {
            longest = longest.max(last.elapsed());
            (seen, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(snapshots() > then, "no snapshot became whole");
    assert!(begun.elapsed() > Duration::from_secs(5), "it was not slow");
    assert!(!host.files.has_event("journal_failed"));
    eprintln!("{turns:?}: an output waited {longest:?} at most");
    assert!(longest < Duration::from_secs(15), "{longest:?}");
    host.process.kill();
    let all = host.files.console();
    assert_one_history(&[&all[..before], &all[before..]]);
}

#[test]
fn records_are_durable_while_a_snapshot_is_put_by_a_slow_link_that_connections_share() {
    records_are_durable_while_a_snapshot_is_put_by_a_slow_link(Turns::Fair);
}

#[test]
fn records_are_durable_while_a_snapshot_is_put_by_a_slow_link_that_one_connection_has() {
    records_are_durable_while_a_snapshot_is_put_by_a_slow_link(Turns::Hogged);
}
