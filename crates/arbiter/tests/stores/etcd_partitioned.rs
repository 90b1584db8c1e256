//! etcd whose members are cut from each other: network namespaces, so root. Says so and passes without.

use crate::namespaces::{Host, Lan};
use crate::servers::{Etcd, wait_for};
use crate::{Claimant, entry, key};
use arbiter::{EtcdStore, Store};
use replication::succession::{Outcome, Request, Verdict};

/// Does something at a host.
fn at<T: Send>(lan: &Lan, host: Host, what: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let there = scope.spawn(|| {
            lan.enter_host(host).unwrap();
            what()
        });
        there.join().unwrap()
    })
}

/// Which member leads.
fn leader(etcd: &Etcd) -> Host {
    wait_for("a leader", || {
        Host::ALL
            .into_iter()
            .enumerate()
            .find_map(|(member, host)| {
                let url = format!("http://{}/v3/maintenance/status", etcd.endpoint(member));
                let mut answer = ureq::post(url).send("{}").ok()?;
                let text = answer.body_mut().read_to_string().ok()?;
                let status: serde_json::Value = serde_json::from_str(&text).ok()?;
                (status["leader"] == status["header"]["member_id"]).then_some(host)
            })
    })
}

fn another(host: Host) -> Host {
    Host::ALL.into_iter().find(|other| *other != host).unwrap()
}

/// The host that is cut off and one of the others claim the same generation at the same time.
fn claim_on_both_sides(etcd: &Etcd, generation: u64, cut: Host) {
    let (lan, majority) = (etcd.lan(), another(cut));
    let mut stores: [EtcdStore; 2] = [cut, majority].map(|host| at(lan, host, || etcd.open_all()));
    let mut minority = Claimant::new(entry(generation, 1, 1));
    lan.set_cable(cut, false).unwrap();
    let [alone, others] = &mut stores;
    std::thread::scope(|scope| {
        let (claimant, store) = (&mut minority, &mut *alone);
        scope.spawn(move || {
            at(lan, cut, move || {
                claimant.ask_in_vain(store, 1);
                let read = store.answer(&Request::Read { key: key(0) });
                assert!(
                    matches!(read, Outcome::Unknown(_)),
                    "a member that is cut off says what it cannot know: {read:?}"
                );
            });
        });
        let verdict = at(lan, majority, || {
            Claimant::new(entry(generation, 2, 1)).verdict(others)
        });
        assert_eq!(verdict, Verdict::Won, "two of three can decide");
    });
    lan.set_cable(cut, true).unwrap();
    let lost = Verdict::Lost(Box::new(entry(generation, 2, 1)));
    assert_eq!(at(lan, cut, || minority.verdict(alone)), lost);
}

#[test]
fn a_side_without_a_majority_decides_nothing_and_the_other_goes_on() {
    let Some(lan) = Lan::lay().unwrap() else {
        return;
    };
    let Some(etcd) = Etcd::on_lan(lan) else {
        return;
    };
    let led = leader(&etcd);
    claim_on_both_sides(&etcd, 0, led);
    // It does not lead any more, or again: one that does not is cut as well.
    let follows = another(leader(&etcd));
    claim_on_both_sides(&etcd, 1, follows);
    // Nobody hears anybody: nobody decides. What was asked is decided once they do.
    let lan = etcd.lan();
    let mut stores = Host::ALL.map(|host| at(lan, host, || etcd.open_all()));
    let mut claimants = [0, 1, 2].map(|host| Claimant::new(entry(2, host, 1)));
    for host in Host::ALL {
        lan.set_cable(host, false).unwrap();
    }
    std::thread::scope(|scope| {
        for ((host, store), claimant) in Host::ALL.into_iter().zip(&mut stores).zip(&mut claimants)
        {
            scope.spawn(move || at(lan, host, || claimant.ask_in_vain(store, 1)));
        }
    });
    for host in Host::ALL {
        lan.set_cable(host, true).unwrap();
    }
    let verdicts = Host::ALL.into_iter().zip(&mut stores).zip(&mut claimants);
    let verdicts =
        verdicts.map(|((host, store), claimant)| at(lan, host, || claimant.verdict(store)));
    let won = verdicts.filter(|verdict| *verdict == Verdict::Won).count();
    assert_eq!(won, 1, "one wins");
}
