//! What a machine would be booted from on both hosts. `docs/protocol.md`, "What a host boots".

use crate::pair::{Pair, ms};
use crate::support::config;
use replication::backup::BackupAction;
use replication::capacity::HostFacts;
use replication::config::PairConfig;
use replication::configuration::{Configuration, Difference};
use replication::event::Event;
use replication::primary::PrimaryAction;

fn boot(kernel: &str, command_line: &str) -> Configuration {
    let told = Configuration::new(0).with("kernel", kernel);
    told.with("command_line", command_line)
}

/// A pair whose backup has joined with what its host would boot, by a program of this protocol.
fn pair(ours: &Configuration, theirs: &Configuration, protocol: u32) -> Pair {
    let backup = PairConfig {
        protocol,
        ..config("b")
    };
    let mut pair = Pair::new(config("long"), backup);
    pair.primary.would_boot(pair.now, ours);
    pair.backup.host_has(HostFacts::default(), theirs.clone());
    pair.settle();
    pair.run(ms(100));
    assert!(pair.primary.status().protected, "it is taken all the same");
    pair
}

/// What was told of it on the primary and on the backup, each time, and whether that was before the backup was relied
/// on.
fn told(pair: &Pair) -> [Vec<Vec<String>>; 2] {
    let described = |event: &Event| match event {
        Event::BootsOtherwise { host, differences } => Some(
            differences
                .iter()
                .map(|difference| difference.describe(host.node()))
                .collect(),
        ),
        _ => None,
    };
    let primary = pair.primary_did.iter().filter_map(|action| match action {
        PrimaryAction::Report(event) => described(event),
        _ => None,
    });
    let backup = pair.backup_did.iter().filter_map(|action| match action {
        BackupAction::Report(event) => described(event),
        _ => None,
    });
    [primary.collect(), backup.collect()]
}

fn names(differences: &[Difference]) -> Vec<&str> {
    let names = differences.iter().map(|difference| difference.key.as_str());
    names.collect()
}

/// Finding: a backup whose kernel was another one was taken without a word.
#[test]
fn a_backup_that_would_boot_something_else_is_taken_and_both_say_what_differs() {
    let mut pair = pair(&boot("#1", "quiet"), &boot("#2", "quiet"), 11);
    let [primary, backup] = told(&pair);
    assert_eq!(primary, [["kernel: #1 here, #2 at b"]]);
    assert_eq!(backup, [["kernel: #2 here, #1 at long"]]);
    let place = |wanted: fn(&Event) -> bool| {
        let mut actions = pair.primary_did.iter();
        actions.position(|action| matches!(action, PrimaryAction::Report(event) if wanted(event)))
    };
    let said = place(|event| matches!(event, Event::BootsOtherwise { .. }));
    assert!(said < place(|event| matches!(event, Event::Protected { .. })));
    let status = pair.primary.status();
    assert_eq!(names(&status.followers[0].boots_otherwise), ["kernel"]);
    assert_eq!(names(&pair.backup.status().boots_otherwise), ["kernel"]);
    // A rolling change: the primary's files are replaced as well.
    pair.primary.would_boot(pair.now, &boot("#2", "quiet"));
    pair.settle();
    assert_eq!(
        told(&pair)[0].last().map(Vec::len),
        Some(0),
        "they are alike"
    );
    assert_eq!(pair.primary.status().followers[0].boots_otherwise, []);
    let told_before = told(&pair)[0].len();
    pair.primary.would_boot(pair.now, &boot("#2", "quiet"));
    pair.settle();
    assert_eq!(told(&pair)[0].len(), told_before, "told once");
}

#[test]
fn what_is_alike_or_not_told_is_no_difference() {
    let one = boot("#1", "quiet");
    for (theirs, protocol) in [
        (one.clone(), 11),
        (boot("#2", "quiet"), 10),
        (boot("#2", "quiet"), 9),
        (Configuration::default(), 11),
    ] {
        let pair = pair(&one, &theirs, protocol);
        assert_eq!(told(&pair), [vec![], vec![]] as [Vec<Vec<String>>; 2]);
        assert_eq!(pair.primary.status().followers[0].boots_otherwise, []);
        assert_eq!(pair.backup.status().boots_otherwise, []);
    }
}
