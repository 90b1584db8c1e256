//! Real processes on two hosts and a LAN, as network namespaces: cables are pulled, nobody is
//! killed. Needs root; says so and passes without.

#[path = "cable/namespaces.rs"]
mod namespaces;
mod pair;
#[path = "cable/site.rs"]
mod site;

use anyhow::{Result, ensure};
use namespaces::{Host, Lan};
use pair::client::Client;
use site::Site;
use std::time::Duration;
use xtask::replica::{Replica, wait_for};

/// The replica comes back to a world in which the other one went on: it says nothing more for the
/// guest, and follows the other one.
fn assert_follows(loser: &Replica, winner: &Replica, client: &mut Client) -> Result<()> {
    client.count_until("the loser to follow", || {
        let status = loser.status()?.filter(|status| status["role"] == "backup");
        let protected = winner
            .status()?
            .is_some_and(|status| status["protected"] == true);
        Ok(status.filter(|_| protected))
    })?;
    ensure!(
        loser.events("claim_lost") + loser.events("looks_again") > 0,
        "it does not say that it lost"
    );
    Ok(())
}

fn primary_is_cut_off(
    site: &Site,
    client: &mut Client,
    primary: &Replica,
    backup: &Replica,
) -> Result<()> {
    client.count(200)?;
    ensure!(
        site.guest_is_at()? == Some(Host::A),
        "the guest is not at the primary's port"
    );

    site.set_cable(Host::A, false)?;
    client.count(1)?;
    println!(
        "the primary's cable pulled: the longest wait was {:?}",
        client.longest_wait
    );
    backup.await_live()?;
    client.count(200)?;
    wait_for("the switch to see the guest at its new port", || {
        Ok((site.guest_is_at()? == Some(Host::B)).then_some(()))
    })?;
    // The old primary still runs its guest, holds every output, and asks the arbiter in vain.
    primary.await_state("claiming")?;
    wait_for("it to ask in vain", || {
        Ok((primary.events("arbiter_unanswered") > 0).then_some(()))
    })?;

    site.set_cable(Host::A, true)?;
    assert_follows(primary, backup, client)?;
    ensure!(primary.events("claim_lost") == 1, "it did not lose");
    ensure!(primary.events("claimed") == 0, "both claimed");
    ensure!(
        site.guest_is_at()? == Some(Host::B),
        "the old primary still spoke for the guest"
    );
    client.count(200)?;
    client.check()
}

fn backup_is_cut_off(
    site: &Site,
    client: &mut Client,
    primary: &Replica,
    backup: &Replica,
) -> Result<()> {
    client.longest_wait = Duration::ZERO;
    site.set_cable(Host::A, false)?;
    client.count(1)?;
    println!(
        "the backup's cable pulled: the longest wait was {:?}",
        client.longest_wait
    );
    primary.await_state("alone")?;
    client.count(50)?;
    wait_for("it to ask in vain", || {
        Ok((backup.events("arbiter_unanswered") > 0).then_some(()))
    })?;
    site.set_cable(Host::A, true)?;
    assert_follows(backup, primary, client)?;
    client.check()
}

/// Only what the primary sends to the backup is lost: both live, both reach arbiter and clients.
fn logging_channel_is_cut_one_way(
    site: &Site,
    client: &mut Client,
    primary: &Replica,
    backup: &Replica,
) -> Result<()> {
    client.longest_wait = Duration::ZERO;
    let generation = |replica: &Replica| -> Result<Option<u64>> {
        let status = replica
            .status()?
            .filter(|status| status["role"] == "primary");
        Ok(status.and_then(|status| status["generation"].as_u64()))
    };
    let before = generation(primary)?;
    site.lan.set_one_way(Host::B, Host::A, false)?;
    let winner = client.count_until("one to go on alone", || {
        for replica in [primary, backup] {
            let now = generation(replica)?;
            if now.is_some() && now > before {
                return Ok(Some(replica));
            }
        }
        Ok(None)
    });
    site.lan.set_one_way(Host::B, Host::A, true)?;
    let winner = winner?;
    println!(
        "cut one way: the {} went on, the longest wait was {:?}",
        if std::ptr::eq(winner, primary) {
            "primary"
        } else {
            "backup"
        },
        client.longest_wait
    );
    let loser = if std::ptr::eq(winner, primary) {
        backup
    } else {
        primary
    };
    assert_follows(loser, winner, client)?;
    client.count(100)?;
    client.check()
}

#[test]
fn a_pulled_cable_is_no_second_machine_and_no_lost_connection() {
    let run = || -> Result<()> {
        let Some(lan) = Lan::lay()? else {
            return Ok(());
        };
        let mut site = Site::open(lan)?;
        let a = site.start(Host::A, Some(Host::B))?;
        a.await_state("alone")?;
        let b = site.start(Host::B, Some(Host::A))?;
        let mut client = Client::connect(&site.redis_address()?)?;
        a.await_state("protected")?;
        primary_is_cut_off(&site, &mut client, &a, &b)?;
        backup_is_cut_off(&site, &mut client, &b, &a)?;
        logging_channel_is_cut_one_way(&site, &mut client, &b, &a)
    };
    if let Err(error) = run() {
        panic!("{error:#}");
    }
}
