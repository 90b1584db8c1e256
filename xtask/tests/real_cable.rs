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
use pair::replica::{Replica, wait_for};
use site::Site;
use std::time::Duration;

/// The status of a replica that must not go on.
const CLAIM_LOST: i32 = 3;

/// The replica comes back to a world in which the other one went on: it ends, and did nothing.
fn assert_stands_down(replica: &mut Replica, client: &mut Client) -> Result<()> {
    let process = &mut replica.process;
    let status = client.count_until("the loser to end", || process.ended())?;
    ensure!(status.code() == Some(CLAIM_LOST), "it ended with {status}");
    ensure!(
        replica.events("claim_lost") == 1,
        "it does not say that it lost"
    );
    Ok(())
}

fn primary_is_cut_off(site: &mut Site) -> Result<(Client, Replica)> {
    let mut primary = site.start(Host::A, None)?;
    primary.await_state("alone")?;
    let backup = site.start(Host::B, Some(Host::A))?;
    let mut client = Client::connect(&site.redis_address()?)?;
    primary.await_state("protected")?;
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
    ensure!(
        primary.process.ended()?.is_none(),
        "the old primary gave up"
    );

    site.set_cable(Host::A, true)?;
    assert_stands_down(&mut primary, &mut client)?;
    ensure!(primary.events("claimed") == 0, "both claimed");
    ensure!(
        site.guest_is_at()? == Some(Host::B),
        "the old primary still spoke for the guest"
    );
    client.count(200)?;
    client.check()?;
    Ok((client, backup))
}

fn backup_is_cut_off(site: &mut Site, client: &mut Client, primary: &Replica) -> Result<()> {
    let mut backup = site.start(Host::A, Some(Host::B))?;
    primary.await_state("protected")?;
    client.count(50)?;
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
    assert_stands_down(&mut backup, client)?;
    client.check()
}

/// Only what the primary sends to the backup is lost: both live, both reach arbiter and clients.
fn logging_channel_is_cut_one_way(
    site: &mut Site,
    client: &mut Client,
    primary: &mut Replica,
) -> Result<()> {
    let mut backup = site.start(Host::A, Some(Host::B))?;
    primary.await_state("protected")?;
    client.count(50)?;
    client.longest_wait = Duration::ZERO;
    site.lan.set_one_way(Host::B, Host::A, false)?;
    let ended = client.count_until("one to stand down", || {
        for (role, replica) in [("primary", &mut *primary), ("backup", &mut backup)] {
            if let Some(status) = replica.process.ended()? {
                return Ok(Some((role, status)));
            }
        }
        Ok(None)
    });
    site.lan.set_one_way(Host::B, Host::A, true)?;
    let (role, status) = ended?;
    println!(
        "cut one way: the {role} stood down, the longest wait was {:?}",
        client.longest_wait
    );
    ensure!(
        status.code() == Some(CLAIM_LOST),
        "the {role} ended with {status}"
    );
    let (winner, loser) = if role == "primary" {
        (&mut backup, primary)
    } else {
        (primary, &mut backup)
    };
    ensure!(
        loser.events("claim_lost") == 1,
        "the {role} does not say that it lost"
    );
    winner.await_live()?;
    client.count(100)?;
    ensure!(winner.process.ended()?.is_none(), "both ended");
    client.check()
}

#[test]
fn a_pulled_cable_is_no_second_machine_and_no_lost_connection() {
    let run = || -> Result<()> {
        let Some(lan) = Lan::lay()? else {
            return Ok(());
        };
        let mut site = Site::open(lan)?;
        let (mut client, mut primary) = primary_is_cut_off(&mut site)?;
        backup_is_cut_off(&mut site, &mut client, &primary)?;
        logging_channel_is_cut_one_way(&mut site, &mut client, &mut primary)
    };
    if let Err(error) = run() {
        panic!("{error:#}");
    }
}
