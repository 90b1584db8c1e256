//! What is special about etcd: members that die, stand still and come back.

use crate::servers::{Etcd, etcd_settings, open_etcd, races, wait_for};
use crate::{Claimant, claim, entry, key};
use arbiter::{ClientFiles, EtcdLogin, EtcdStore, Store, TlsFiles};
use replication::succession::{Outcome, Request, Verdict};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads until the store answers again.
fn await_answer(store: &mut EtcdStore) {
    wait_for("etcd to answer again", || {
        let outcome = store.answer(&Request::Read { key: key(u64::MAX) });
        (outcome == Outcome::Absent).then_some(())
    });
}

#[test]
fn a_member_that_was_killed_or_stood_still_has_all_keys_and_nobody_claims_meanwhile() {
    let Some(mut etcd) = Etcd::members(1) else {
        return;
    };
    let mut store = etcd.open_all();
    assert_eq!(claim(&mut store, entry(0, 1, 1)), Verdict::Won);

    etcd.kill(0);
    let mut claimant = Claimant::new(entry(1, 1, 1));
    let told = claimant.ask_in_vain(&mut store, 2);
    assert!(
        told.contains("etcd://") && told.contains("refused"),
        "{told}"
    );
    etcd.run(0);
    etcd.await_member(0);
    assert_eq!(claimant.verdict(&mut store), Verdict::Won);
    let lost = Verdict::Lost(Box::new(entry(0, 1, 1)));
    assert_eq!(claim(&mut store, entry(0, 2, 1)), lost);

    let member = etcd.members[0].as_ref().unwrap();
    member.signal(Signal::STOP);
    let mut claimant = Claimant::new(entry(2, 1, 1));
    let told = claimant.ask_in_vain(&mut store, 1);
    assert!(told.contains("no answer in time"), "{told}");
    member.signal(Signal::CONT);
    assert_eq!(claimant.verdict(&mut store), Verdict::Won);
}

#[test]
fn of_three_members_one_may_die_or_stand_still_and_two_may_not() {
    let Some(mut etcd) = Etcd::members(3) else {
        return;
    };
    let mut store = etcd.open_all();
    let mut generation = 0;
    let mut win = |store: &mut EtcdStore| {
        assert_eq!(claim(store, entry(generation, 1, 1)), Verdict::Won);
        generation += 1;
    };
    win(&mut store);
    for member in 0..3 {
        etcd.kill(member);
        win(&mut store);
        etcd.run(member);
        etcd.await_member(member);
    }
    for member in 0..3 {
        let paused = etcd.members[member].as_ref().unwrap();
        paused.signal(Signal::STOP);
        win(&mut store);
        paused.signal(Signal::CONT);
        etcd.await_member(member);
    }
    etcd.kill(0);
    etcd.kill(1);
    let mut claimant = Claimant::new(entry(generation, 1, 1));
    claimant.ask_in_vain(&mut store, 2);
    let read = store.answer(&Request::Read { key: key(0) });
    assert!(
        matches!(read, Outcome::Unknown(_)),
        "one of three says what it cannot know: {read:?}"
    );
    etcd.run(0);
    await_answer(&mut store);
    assert_eq!(claimant.verdict(&mut store), Verdict::Won);
}

/// Each generation has one winner though members die and come back while it is claimed.
#[test]
fn races_have_one_winner_while_members_are_killed() {
    let races = races(60);
    let Some(mut etcd) = Etcd::members(3) else {
        return;
    };
    let stores: Vec<EtcdStore> = (0..4).map(|_| etcd.open_all()).collect();
    let is_over = AtomicBool::new(false);
    let verdicts: Vec<Vec<Verdict>> = std::thread::scope(|scope| {
        let claimants: Vec<_> = stores
            .into_iter()
            .zip(1..)
            .map(|(mut store, host)| {
                let race = move |generation| claim(&mut store, entry(generation, host, 1));
                scope.spawn(move || (0..races).map(race).collect())
            })
            .collect();
        let killer = scope.spawn(|| {
            for member in (0..3).cycle() {
                if is_over.load(Ordering::SeqCst) {
                    break;
                }
                etcd.kill(member);
                etcd.run(member);
                etcd.await_member(member);
            }
        });
        let verdicts = claimants
            .into_iter()
            .map(|claimant| claimant.join().unwrap());
        let verdicts = verdicts.collect();
        is_over.store(true, Ordering::SeqCst);
        killer.join().unwrap();
        verdicts
    });
    for race in 0..races as usize {
        let of_race = verdicts.iter().map(|verdicts| &verdicts[race]);
        let winners = of_race.filter(|verdict| **verdict == Verdict::Won).count();
        assert_eq!(winners, 1, "race {race}: {verdicts:?}");
    }
}

/// Two endpoints that are not members of one cluster would be two arbiters.
#[test]
fn a_member_of_another_cluster_is_not_believed() {
    let (Some(mut one), Some(two)) = (Etcd::members(1), Etcd::members(1)) else {
        return;
    };
    let mut store = open_etcd(&[one.endpoint(0), two.endpoint(0)]).unwrap();
    assert_eq!(claim(&mut store, entry(0, 1, 1)), Verdict::Won);
    one.kill(0);
    let told = Claimant::new(entry(1, 1, 1)).ask_in_vain(&mut store, 1);
    assert!(told.contains("belongs to cluster"), "{told}");
}

#[test]
fn etcd_that_asks_for_a_certificate_is_shown_one_and_is_believed_only_with_its_own() {
    let Some(etcd) = Etcd::with_tls() else { return };
    let certificates = etcd.tls.as_ref().unwrap();
    let mut settings = etcd_settings(&[etcd.endpoint(0)]);
    settings.address.is_encrypted = true;
    settings.tls = TlsFiles {
        ca_certificate: Some(certificates.path("ca.pem")),
        client: Some(ClientFiles {
            certificate: certificates.path("client.pem"),
            private_key: certificates.path("client.key"),
        }),
    };
    let mut store = EtcdStore::open(&settings).unwrap();
    await_answer(&mut store);
    assert_eq!(claim(&mut store, entry(0, 1, 1)), Verdict::Won);

    let mut nobody = settings.clone();
    nobody.tls.client = None;
    let mut stranger = settings.clone();
    stranger.tls.ca_certificate = None;
    for settings in [nobody, stranger] {
        let mut store = EtcdStore::open(&settings).unwrap();
        let read = store.answer(&Request::Read { key: key(0) });
        assert!(matches!(read, Outcome::Unknown(_)), "{read:?}");
    }
    settings.tls.ca_certificate = Some(certificates.path("ca.key"));
    let error = EtcdStore::open(&settings).unwrap_err().to_string();
    assert!(error.contains("ca.key holds no certificate"), "{error}");
}

#[test]
fn etcd_that_asks_who_one_is_is_told_and_a_wrong_password_is_one_clear_error() {
    let Some(mut etcd) = Etcd::members(1) else {
        return;
    };
    for (path, body) in [
        ("user/add", r#"{"name":"root","password":"right"}"#),
        ("role/add", r#"{"name":"root"}"#),
        ("user/grant", r#"{"user":"root","role":"root"}"#),
        ("enable", "{}"),
    ] {
        let url = format!("http://{}/v3/auth/{path}", etcd.endpoint(0));
        ureq::post(url).send(body).unwrap();
    }
    let mut settings = etcd_settings(&[etcd.endpoint(0)]);
    let error = EtcdStore::open(&settings).unwrap_err().to_string();
    assert!(error.contains("user name is empty"), "{error}");
    let mut login = |password: &str| {
        settings.login = Some(EtcdLogin {
            user: "root".into(),
            password: password.into(),
        });
        EtcdStore::open(&settings)
    };
    let error = login("wrong").unwrap_err().to_string();
    assert!(
        error.contains("invalid user ID or password") && !error.contains("wrong"),
        "{error}"
    );
    let mut store = login("right").unwrap();
    assert_eq!(claim(&mut store, entry(0, 1, 1)), Verdict::Won);
    // A member that was started anew knows no token that it gave before.
    etcd.kill(0);
    etcd.run(0);
    await_answer(&mut store);
    assert_eq!(claim(&mut store, entry(1, 1, 1)), Verdict::Won);
}
