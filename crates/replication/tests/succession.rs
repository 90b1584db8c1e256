//! Keys and markers: what was written whole is read back, anything else is nobody's claim; and the
//! search for the newest key.

use proptest::prelude::*;
use replication::marker::{DiskState, Found, Marker, Role, Worth};
use replication::message::LifeId;
use replication::succession::{
    ArrivalId, Destination, Durability, Entry, Generation, Host, HostId, JournalId, Key, Kind,
    LifeNumber, MachineName, Membership, Newest, Origin, Outcome, RecordNumber, Request, RunId,
    Search, SearchVerdict, Writer,
};
use std::collections::BTreeMap;
use std::time::Duration;

fn machine() -> impl Strategy<Value = MachineName> {
    "[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}".prop_map(|name| MachineName::new(&name).unwrap())
}

fn host() -> impl Strategy<Value = Host> {
    (any::<u128>(), "\\PC{0,70}").prop_map(|(id, node)| Host::new(HostId(id), &node))
}

fn kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(vec![
        Kind::PowerOn,
        Kind::Joined,
        Kind::Dropped,
        Kind::TookOver,
        Kind::HandedOver,
        Kind::ColdStart,
        Kind::Recovered,
        Kind::Moved,
        Kind::Ended,
        Kind::Lost,
    ])
}

prop_compose! {
    fn entry()(
        machine in machine(),
        life in 1..u64::MAX,
        generation in 1..u64::MAX - 1,
        kind in kind(),
        writer in host(),
        members in prop::collection::btree_map(any::<u128>(), "[ -~]{0,9}", 1..8),
        numbers in any::<(u128, u128, u64, u64, u64, u64, bool)>(),
        kept in prop::option::of(any::<u128>()),
        origin in host(),
    ) -> Entry {
        let (run, life_id, record, since, origin_life, origin_generation, both) = numbers;
        let generation = if kind == Kind::PowerOn { 0 } else { generation };
        let members = match kind {
            Kind::PowerOn | Kind::ColdStart | Kind::Recovered | Kind::Ended | Kind::Lost => Vec::new(),
            _ => members.iter().filter(|(id, _)| HostId(**id) != writer.id)
                .map(|(id, node)| Host::new(HostId(*id), node)).collect(),
        };
        let since = match kind {
            Kind::PowerOn | Kind::TookOver | Kind::HandedOver => generation + 1,
            _ => 1 + since % generation.max(1),
        };
        let next = Membership {
            primary: writer.clone(),
            members,
            since: Generation(since),
            durability: if both { Durability::Both } else { Durability::Primary },
            origin: Origin {
                host: origin,
                life: LifeNumber(origin_life),
                generation: Generation(origin_generation),
            },
            journal: match kind {
                Kind::Joined | Kind::Dropped | Kind::Moved => kept.map(JournalId),
                Kind::Recovered => Some(JournalId(kept.unwrap_or(7))),
                _ => None,
            },
        };
        Entry {
            key: Key { machine, life: LifeNumber(life), generation: Generation(generation) },
            kind,
            writer: Writer { host: writer, run: RunId(run) },
            life: LifeId(life_id),
            record: RecordNumber(record),
            next: (!kind.ends_life()).then_some(next),
            moved_to: (kind == Kind::Moved).then(|| Destination {
                address: "etcds://a:2379,b:2379/prefix with % and \u{e4}".into(),
                arrival: ArrivalId(life_id),
            }),
        }
    }
}

prop_compose! {
    fn marker()(
        machine in machine(),
        life in 1..=u64::MAX,
        life_id in any::<u128>(),
        numbers in any::<(u64, u64)>(),
        role in prop::sample::select(vec![Role::Primary, Role::Member, Role::None]),
        disk in prop::sample::select(vec![DiskState::Whole, DiskState::Copying, DiskState::Suspect]),
    ) -> Marker {
        Marker {
            machine,
            life: LifeNumber(life),
            life_id: LifeId(life_id),
            generation: Generation(numbers.0),
            role,
            record: RecordNumber(numbers.1),
            disk,
        }
    }
}

/// Every way in which a line may have been torn or changed by one byte.
fn damages(whole: &[u8], at: usize, by: u8) -> impl Iterator<Item = Vec<u8>> + '_ {
    let prefixes = (0..whole.len()).map(|length| whole[..length].to_vec());
    let at = at % whole.len();
    let mut changed = whole.to_vec();
    changed[at] ^= by;
    let mut longer = whole.to_vec();
    longer.insert(at, by);
    let mut shorter = whole.to_vec();
    shorter.remove(at);
    let mut zeros = whole.to_vec();
    zeros[at..].fill(0);
    let twice = [whole, whole].concat();
    prefixes.chain([changed, longer, shorter, zeros, twice])
}

proptest! {
    #[test]
    fn a_key_is_read_as_it_was_written_and_fits(entry in entry()) {
        let content = entry.content();
        let read = Entry::parse(&entry.key, &content);
        prop_assert_eq!(read.as_ref(), Ok(&entry));
        prop_assert_eq!(read.unwrap().content(), content);
        let name = entry.key.object_name();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        prop_assert!(name.len() <= 200 && name.chars().all(is_plain), "{}", name);
    }

    /// Finding 8: an empty or torn key was taken for somebody else's claim.
    #[test]
    fn a_torn_or_changed_key_is_nobodys_claim(entry in entry(), at: usize, by in 1..=255u8) {
        for damaged in damages(&entry.content(), at, by) {
            prop_assert!(Entry::parse(&entry.key, &damaged).is_err(), "{:?}", damaged);
        }
    }

    #[test]
    fn what_another_key_holds_is_nobodys_claim(entry in entry()) {
        let other = entry.key.of(Generation(entry.key.generation.0 + 1));
        prop_assert!(Entry::parse(&other, &entry.content()).is_err());
    }

    #[test]
    fn a_marker_is_read_as_it_was_written(marker in marker()) {
        prop_assert_eq!(Marker::parse(&marker.machine, &marker.content()), Ok(marker));
    }

    #[test]
    fn a_torn_or_changed_marker_gives_no_rights(marker in marker(), at: usize, by in 1..=255u8) {
        for damaged in damages(&marker.content(), at, by) {
            let found = Found::read(&marker.machine, Some(&damaged));
            prop_assert!(matches!(found, Found::Unreadable(_)), "{:?}", found);
            let other = Found::Marker(marker.clone());
            for worth in [Worth::of(&found, std::slice::from_ref(&other)), Worth::of(&other, &[found])] {
                prop_assert!(matches!(worth, Worth::Nothing(_)), "{:?}", worth);
            }
        }
    }

    #[test]
    fn the_worth_of_several_disks_is_that_of_the_least(markers in prop::collection::vec(marker(), 1..4)) {
        let disks: Vec<Found> = markers.iter().cloned().map(Found::Marker).collect();
        let least = markers.iter().map(|m| (m.life, m.generation)).min().unwrap();
        let Worth::Known(worth) = Worth::of(&Found::Nothing, &disks) else {
            panic!("whole markers are known");
        };
        prop_assert_eq!((worth.life, worth.generation), least);
        let all_whole = markers.iter().all(|marker| marker.disk == DiskState::Whole);
        prop_assert_eq!(worth.disk == DiskState::Whole, all_whole);
    }

    /// From any guess, right or wrong, the newest key is found in few reads.
    #[test]
    fn the_newest_key_is_found(
        generations in prop::collection::vec(0..300u64, 0..6),
        guess in (0..400u64, 0..400u64),
        torn: bool,
    ) {
        let name = MachineName::new("vm").unwrap();
        let mut keys = BTreeMap::new();
        for (index, last) in generations.iter().enumerate() {
            for generation in 0..=*last {
                let life = LifeNumber(index as u64 + 1);
                let key = Key { machine: name.clone(), life, generation: Generation(generation) };
                keys.insert(key.clone(), plain(&key).content());
            }
        }
        let newest = keys.last_key_value().map(|(key, _)| key.clone());
        let guess = (LifeNumber(guess.0), Generation(guess.1));
        let mut search = Search::new(Duration::ZERO, name, guess, Default::default());
        let mut now = Duration::ZERO;
        let mut mended = !torn;
        for reads in 0.. {
            prop_assert!(reads < 60, "{} reads", reads);
            now = search.deadline().unwrap().max(now);
            let request = search.poll(now).unwrap();
            let Request::Read { key } = &request else { panic!("a search only reads") };
            let outcome = match keys.get(key) {
                Some(content) if Some(key) == newest.as_ref() && !mended => {
                    Outcome::Holds(content[..content.len() / 2].to_vec())
                }
                Some(content) => Outcome::Holds(content.clone()),
                None => Outcome::Absent,
            };
            match search.answer(now, &request, &outcome) {
                SearchVerdict::Pending if reads > 40 => mended = true,
                SearchVerdict::Pending => {}
                SearchVerdict::Found(Newest::NoLife) => {
                    prop_assert_eq!(newest, None);
                    break;
                }
                SearchVerdict::Found(Newest::Key(entry)) => {
                    prop_assert!(mended, "a torn key was believed");
                    prop_assert_eq!(Some(entry.key), newest);
                    break;
                }
            }
        }
    }
}

/// Some entry for `key`.
fn plain(key: &Key) -> Entry {
    let host = Host::new(HostId(1), "a");
    let is_first = key.generation == Generation(0);
    Entry {
        key: key.clone(),
        kind: if is_first {
            Kind::PowerOn
        } else {
            Kind::ColdStart
        },
        writer: Writer {
            host: host.clone(),
            run: RunId(2),
        },
        life: LifeId(3),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: host.clone(),
            members: Vec::new(),
            since: Generation(1),
            durability: Durability::Primary,
            origin: Origin {
                host,
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    }
}

#[test]
fn a_disk_that_was_put_in_anew_gives_no_rights() {
    let marker = Marker {
        machine: MachineName::new("vm").unwrap(),
        life: LifeNumber(1),
        life_id: LifeId(1),
        generation: Generation(4),
        role: Role::Primary,
        record: RecordNumber(1),
        disk: DiskState::Whole,
    };
    let older = Marker {
        generation: Generation(3),
        ..marker.clone()
    };
    let state = Found::Marker(marker);
    for disk in [Found::Nothing, Found::Marker(older)] {
        let worth = Worth::of(&state, &[disk]);
        assert!(matches!(worth, Worth::Nothing(_)), "{worth}");
    }
}
