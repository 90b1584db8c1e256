//! Two programs of different versions. `docs/protocol.md`, "Versions".

use crate::pair::{Pair, ms};
use crate::support::config;
use replication::backup::{BackupAction, BackupStop};
use replication::capacity::HostFacts;
use replication::config::PairConfig;
use replication::message::{
    Message, OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, Refusal, spoken_by_both,
};
use replication::primary::PrimaryAction;

fn of_protocol(node: &str, protocol: u32) -> PairConfig {
    PairConfig {
        protocol,
        ..config(node)
    }
}

/// What the backup said in its greetings, and what the primary told it that the machine needs.
fn greetings(pair: &Pair) -> (Vec<u32>, Option<bool>) {
    let hellos = pair.backup_did.iter().filter_map(|action| match action {
        BackupAction::Send {
            message: Message::Hello { protocol, .. },
            ..
        } => Some(*protocol),
        _ => None,
    });
    let welcome = pair.primary_did.iter().find_map(|action| match action {
        PrimaryAction::Send {
            message: Message::Welcome { needs, .. },
            ..
        } => Some(needs.is_some()),
        _ => None,
    });
    (hellos.collect(), welcome)
}

/// A rolling upgrade: the backup is newer, then the primary is.
#[test]
fn a_newer_program_speaks_the_protocol_of_an_older_one() {
    let (old, new) = (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION);
    for (primary, backup, said, tells) in [
        (new, new, vec![new], true),
        (old, new, vec![new, old], false),
        (new, old, vec![old], false),
    ] {
        let mut pair = Pair::new(of_protocol("long", primary), of_protocol("b", backup));
        pair.connects_again = true;
        pair.settle();
        pair.run(ms(100));
        assert!(pair.primary.status().protected, "{primary} and {backup}");
        assert_eq!(greetings(&pair), (said, Some(tells)));
        pair.output(10, 1);
        assert_eq!(pair.emitted, [1]);
    }
}

#[test]
fn versions_that_have_none_in_common_refuse_each_other_with_both_numbers() {
    let foreign = PROTOCOL_VERSION + 7;
    assert_eq!(
        spoken_by_both(PROTOCOL_VERSION, OLDEST_PROTOCOL_VERSION - 1),
        None
    );
    // Newer, and what is told is the newest that it speaks: what this one said it has refused.
    assert_eq!(spoken_by_both(PROTOCOL_VERSION, foreign), None);
    // A question in the oldest version, that a newer program does not speak any more.
    let again = spoken_by_both(OLDEST_PROTOCOL_VERSION, foreign);
    assert_eq!(again, Some(PROTOCOL_VERSION));
    let mut pair = Pair::new(
        of_protocol("long", OLDEST_PROTOCOL_VERSION - 1),
        config("b"),
    );
    pair.connects_again = true;
    pair.settle();
    let Some(BackupAction::Stop(BackupStop::Refused(refusal))) = pair.backup_did.last() else {
        panic!("{:?}", pair.backup_did.last());
    };
    let ours = OLDEST_PROTOCOL_VERSION - 1;
    assert_eq!(*refusal, Refusal::ProtocolVersion { ours });
    let told = refusal.to_string();
    let here = format!("this host {OLDEST_PROTOCOL_VERSION} to {PROTOCOL_VERSION}");
    assert!(
        told.contains(&format!("version {ours}")) && told.contains(&here),
        "{told}"
    );
}

/// What is not told is not held against a host of an older program.
#[test]
fn an_older_joiner_is_not_refused_for_what_it_does_not_tell() {
    let mut primary = config("long");
    primary.machine_memory = 1 << 30;
    let mut pair = Pair::new(primary, of_protocol("b", OLDEST_PROTOCOL_VERSION));
    pair.settle();
    pair.run(ms(100));
    assert!(pair.primary.status().protected);
    let follower = &pair.primary.status().followers[0];
    assert_eq!(follower.facts, HostFacts::default());
}
