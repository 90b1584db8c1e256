//! "Another arbiter" in docs/protocol.md: a life moves from one store to another, and whoever takes part
//! dies at any step, or is cut off from one of them. Stores in memory, every step.

use arbiter::{Store, Trail};
use replication::message::LifeId;
use replication::mutation::Mutations;
use replication::succession::{
    ArrivalId, Claim, ClaimPacing, Destination, Entry, Generation, Host, HostId, Key, Kind,
    LifeNumber, MachineName, Membership, Newest, Origin, Outcome, RecordNumber, Request, RunId,
    Search, SearchVerdict, Verdict, Writer, arrival_content,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Keys, and whether nobody can reach them.
#[derive(Default)]
struct Keys {
    keys: BTreeMap<Key, Vec<u8>>,
    is_cut: bool,
    /// So many reads show half of what a key holds.
    torn: u32,
}

/// All arbiters that there are, by name.
#[derive(Clone, Default)]
struct World(Arc<Mutex<BTreeMap<String, Keys>>>);

/// A process's way to one of them. It dies after so many requests: the last is carried out, and it does
/// not hear of it.
struct Memory {
    world: World,
    name: String,
    left: Arc<Mutex<u32>>,
}

impl Store for Memory {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            return Outcome::Unknown("dead".into());
        }
        *left -= 1;
        let mut world = self.world.0.lock().unwrap();
        let store = world.entry(self.name.clone()).or_default();
        if store.is_cut {
            return Outcome::Unknown("cut off".into());
        }
        let outcome = match request {
            Request::Create {
                after: Some(after), ..
            } if !store.keys.contains_key(after) => Outcome::Unknown(after.missing()),
            Request::Create { key, .. } if store.keys.contains_key(key) => Outcome::NotCreated,
            Request::Create { key, content, .. } => {
                store.keys.insert(key.clone(), content.clone());
                Outcome::Created
            }
            Request::Read { key } => match store.keys.get(key) {
                Some(content) if store.torn > 0 => {
                    store.torn -= 1;
                    Outcome::Holds(content[..content.len() / 2].into())
                }
                Some(content) => Outcome::Holds(content.clone()),
                None => Outcome::Absent,
            },
            other => panic!("{other:?}"),
        };
        match *left {
            0 => Outcome::Unknown("dead".into()),
            _ => outcome,
        }
    }
}

const FOREVER: u32 = u32::MAX;

impl World {
    fn process(&self, name: &str, dies_after: u32) -> Trail {
        let left = Arc::new(Mutex::new(dies_after));
        let memory = {
            let (world, left) = (self.clone(), left);
            move |name: &str| -> Box<dyn Store> {
                Box::new(Memory {
                    world: world.clone(),
                    name: name.into(),
                    left: left.clone(),
                })
            }
        };
        Trail::new(memory(name), Box::new(move |name| Ok(memory(name))))
    }

    fn set_cut(&self, name: &str, is_cut: bool) {
        self.0
            .lock()
            .unwrap()
            .entry(name.into())
            .or_default()
            .is_cut = is_cut;
    }

    /// What every arbiter has of each key: one content.
    fn assert_one_history(&self) {
        let world = self.0.lock().unwrap();
        let mut all: BTreeMap<&Key, &Vec<u8>> = BTreeMap::new();
        for (key, content) in world.values().flat_map(|store| &store.keys) {
            if !key.is_arrival() {
                let known = *all.entry(key).or_insert(content);
                assert_eq!(known, content, "{} was decided twice", key.object_name());
            }
        }
    }
}

fn machine() -> MachineName {
    MachineName::new("vm").unwrap()
}

fn host(id: u128) -> Host {
    Host::new(HostId(id), "host")
}

fn writer(id: u128, run: u128) -> Writer {
    Writer {
        host: host(id),
        run: RunId(run),
    }
}

/// Host 1 powers on.
fn first() -> Entry {
    Entry {
        key: Key::power_on(&machine(), LifeNumber(1)),
        kind: Kind::PowerOn,
        writer: writer(1, 1),
        life: LifeId(9),
        record: RecordNumber(1),
        next: Some(Membership {
            primary: host(1),
            members: Vec::new(),
            since: Generation(1),
            durability: Default::default(),
            origin: Origin {
                host: host(1),
                life: LifeNumber(0),
                generation: Generation(0),
            },
            journal: None,
        }),
        moved_to: None,
    }
}

fn joined(opened: &Entry) -> Entry {
    let next = Membership {
        members: vec![host(2)],
        ..opened.membership().clone()
    };
    opened.left(writer(1, 1), Kind::Joined, RecordNumber(2), Some(next))
}

fn dropped(opened: &Entry) -> Entry {
    let next = Membership {
        members: Vec::new(),
        ..opened.membership().clone()
    };
    opened.left(writer(1, 1), Kind::Dropped, RecordNumber(3), Some(next))
}

fn destination(name: &str) -> Destination {
    Destination {
        address: name.into(),
        arrival: ArrivalId(name.bytes().fold(7, |id, byte| id * 251 + u128::from(byte))),
    }
}

/// Asks some times, and says what came of it.
fn claim(store: &mut dyn Store, entry: &Entry) -> Verdict {
    let pacing = ClaimPacing::default();
    let mut now = Duration::ZERO;
    let mut claim = Claim::new(now, entry.clone(), None, pacing, Mutations::default());
    for _ in 0..12 {
        now += Duration::from_secs(2);
        let request = claim.poll(now).unwrap();
        let outcome = store.answer(&request);
        match claim.answer(now, &request, &outcome) {
            Verdict::Pending => {}
            verdict => return verdict,
        }
    }
    Verdict::Pending
}

/// The newest key, as a start finds it.
fn newest(store: &mut dyn Store, guess: (u64, u64)) -> Option<Newest> {
    let mut now = Duration::ZERO;
    let guess = (LifeNumber(guess.0), Generation(guess.1));
    let mut search = Search::new(now, machine(), guess, ClaimPacing::default());
    for _ in 0..200 {
        now += Duration::from_secs(2);
        let request = search.poll(now)?;
        let outcome = store.answer(&request);
        if let SearchVerdict::Found(newest) = search.answer(now, &request, &outcome) {
            return Some(newest);
        }
    }
    None
}

fn won(store: &mut dyn Store, entry: &Entry) {
    assert_eq!(claim(store, entry), Verdict::Won, "{entry}");
}

/// Two hosts in generation 4 at `old`, which has left three before.
fn world(old: &str) -> (World, Entry) {
    let world = World::default();
    let mut store = world.process(old, FOREVER);
    let mut opened = first();
    won(&mut store, &opened);
    for _ in 0..2 {
        let joined = joined(&opened);
        won(&mut store, &joined);
        opened = dropped(&joined);
        won(&mut store, &opened);
    }
    let opened = joined(&opened);
    won(&mut store, &opened);
    (world, opened)
}

/// What a primary does once its members see the new arbiter: the key, and then anything that it asks.
/// True: it knows that the life has moved and that the new one has it.
fn moves(world: &World, from: &str, opened: &Entry, to: &str, dies_after: u32) -> bool {
    let mut new = world.process(to, FOREVER);
    let arrival = Request::Create {
        key: Key::arrival(&machine()),
        after: None,
        content: arrival_content(&machine(), destination(to).arrival),
    };
    let created = new.answer(&arrival);
    assert!(matches!(created, Outcome::Created | Outcome::NotCreated));
    let mut store = world.process(from, dies_after);
    let moved = opened.moved(writer(1, 1), RecordNumber(4), destination(to));
    if claim(&mut store, &moved) != Verdict::Won {
        return false;
    }
    let key = moved.key.clone();
    store.answer(&Request::Read { key }) == Outcome::Holds(moved.content())
}

/// Of everybody who goes on from here, with whatever configuration, at most one does: and if nobody is cut
/// off, exactly one.
fn one_goes_on(world: &World, opened: &Entry, configured: [&str; 2]) -> Entry {
    let mut hosts = configured.map(|name| world.process(name, FOREVER));
    let mut winners = Vec::new();
    for (index, store) in hosts.iter_mut().enumerate() {
        let kind = [Kind::Dropped, Kind::TookOver][index];
        // Both begin from the generation that they know of, and go on while they are in the next one.
        let mut opened = opened.clone();
        loop {
            let next = match kind {
                Kind::Dropped => Entry {
                    writer: writer(1, 2),
                    ..dropped(&opened)
                },
                _ => opened.taken_over(writer(2, 2), kind, RecordNumber(5)),
            };
            match claim(store, &next) {
                Verdict::Won => {
                    winners.push(next);
                    break;
                }
                Verdict::Lost(by) if by.kind == Kind::Moved => opened = *by,
                Verdict::Lost(_) => break,
                Verdict::Pending => break,
            }
        }
    }
    world.assert_one_history();
    assert_eq!(winners.len(), 1, "{winners:?}");
    winners.remove(0)
}

#[test]
fn whoever_moves_dies_at_any_step_and_one_host_goes_on_and_everybody_finds_it() {
    let mut steps = 0;
    let mut moved_at = Vec::new();
    for dies_after in 0.. {
        let (world, opened) = world("old");
        let done = moves(&world, "old", &opened, "new", dies_after);
        world.assert_one_history();
        // Whoever is told the new one too early, finds all of it there or nothing.
        for guess in [(0, 0), (1, 0), (1, 5), (1, 9), (2, 1)] {
            let early = newest(&mut world.process("new", FOREVER), guess);
            let is_there = matches!(&early, Some(Newest::Key(entry)) if entry.kind == Kind::Moved);
            assert!(is_there || early == Some(Newest::NoLife), "{early:?}");
        }
        let winner = one_goes_on(&world, &opened, ["old", "old"]);
        let has_moved = winner.key != opened.next_key();
        moved_at.push(has_moved);
        assert!(has_moved || !done);
        let everywhere: &[&str] = if has_moved { &["old", "new"] } else { &["old"] };
        for name in everywhere {
            for guess in [(0, 0), (1, 2), (1, 30), (3, 0)] {
                let found = newest(&mut world.process(name, FOREVER), guess);
                assert_eq!(found, Some(Newest::Key(Box::new(winner.clone()))), "{name}");
            }
        }
        if done {
            steps = dies_after;
            break;
        }
    }
    assert!(steps > 15, "{steps} steps");
    assert!(moved_at.contains(&false) && moved_at.contains(&true));
}

/// Exactly one of claim and move wins.
#[test]
fn a_takeover_that_comes_first_is_not_undone_by_a_move() {
    let (world, opened) = world("old");
    let taken = opened.taken_over(writer(2, 1), Kind::TookOver, RecordNumber(4));
    won(&mut world.process("old", FOREVER), &taken);
    assert!(!moves(&world, "old", &opened, "new", FOREVER));
    let mut new = world.process("new", FOREVER);
    assert_eq!(newest(&mut new, (1, 6)), Some(Newest::NoLife));
    let found = newest(&mut world.process("old", FOREVER), (0, 0));
    assert_eq!(found, Some(Newest::Key(Box::new(taken))));
}

/// A store knows nothing of what a key says: whoever leads to it does.
#[test]
fn nothing_is_created_at_the_old_arbiter_after_the_life_has_moved() {
    let (world, opened) = world("old");
    assert!(moves(&world, "old", &opened, "new", FOREVER));
    world.set_cut("new", true);
    // A member that was told of the new generation by its primary, and has read nothing of it.
    let moved = opened.moved(writer(1, 1), RecordNumber(4), destination("new"));
    let taken = moved.taken_over(writer(2, 1), Kind::TookOver, RecordNumber(5));
    let mut member = world.process("old", FOREVER);
    assert_eq!(
        claim(&mut member, &taken),
        Verdict::Pending,
        "it is cut off"
    );
    let told = member.answer(&Request::Read {
        key: taken.key.clone(),
    });
    let Outcome::Unknown(told) = told else {
        panic!("{told:?}")
    };
    assert!(told.contains("write `arbiter = \"new\"`"), "{told}");
    let old = world.0.lock().unwrap()["old"].keys.contains_key(&taken.key);
    assert!(!old, "it was created where the life is no more");
    world.set_cut("new", false);
    won(&mut member, &taken);
    assert_eq!(member.name(), "new");
}

#[test]
fn a_new_arbiter_that_was_emptied_or_is_another_one_is_found_out() {
    for foreign in [false, true] {
        let (world, opened) = world("old");
        assert!(moves(&world, "old", &opened, "new", FOREVER));
        {
            let mut stores = world.0.lock().unwrap();
            let new = stores.get_mut("new").unwrap();
            new.keys.clear();
            if foreign {
                let content = arrival_content(&machine(), ArrivalId(77));
                new.keys.insert(Key::arrival(&machine()), content);
            }
        }
        let moved = opened.moved(writer(1, 1), RecordNumber(4), destination("new"));
        let taken = moved.taken_over(writer(2, 1), Kind::TookOver, RecordNumber(5));
        for name in ["old", "new"] {
            let mut store = world.process(name, FOREVER);
            assert_eq!(claim(&mut store, &taken), Verdict::Pending, "{name}");
        }
        let mut store = world.process("old", FOREVER);
        let _noticed = store.answer(&Request::Read {
            key: moved.key.clone(),
        });
        let told = store.answer(&Request::Read {
            key: taken.key.clone(),
        });
        assert!(
            matches!(&told, Outcome::Unknown(why) if why.contains("emptied")),
            "{told:?}"
        );
    }
}

/// There and back, and on to a third one: each configuration that was ever right still leads there.
#[test]
fn a_life_moves_back_and_on_and_every_old_configuration_leads_to_it() {
    let (world, mut opened) = world("a");
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "c"), ("c", "b")] {
        for dies_after in 0.. {
            let next = opened.moved(writer(1, 1), RecordNumber(4), destination(to));
            if moves(&world, from, &opened, to, dies_after) {
                opened = next;
                break;
            }
            world.assert_one_history();
            let mut anybody = world.process(from, FOREVER);
            let key = next.key.clone();
            if anybody.answer(&Request::Read { key }) != Outcome::Absent {
                opened = next;
                break;
            }
        }
        for name in ["a", "b", "c"] {
            let mut store = world.process(name, FOREVER);
            let found = newest(&mut store, (0, 0));
            let is_fresh =
                !world.0.lock().unwrap().contains_key(name) || found == Some(Newest::NoLife);
            let is_found = found == Some(Newest::Key(Box::new(opened.clone())));
            assert!(is_found || is_fresh && name == "c", "{name}: {found:?}");
            if is_found {
                assert_eq!(store.name(), to, "from {name}");
            }
        }
        let again = joined(&dropped(&opened));
        let mut store = world.process("a", FOREVER);
        won(&mut store, &dropped(&opened));
        won(&mut store, &again);
        opened = again;
        world.assert_one_history();
    }
}

/// What is read while it is not whole yet is not what the new arbiter has for good.
#[test]
fn half_a_key_is_never_copied() {
    for torn in 0..40 {
        let (world, opened) = world("old");
        let _dies_soon_after = moves(&world, "old", &opened, "elsewhere", 3);
        let moved = opened.moved(writer(1, 1), RecordNumber(4), destination("elsewhere"));
        let taken = moved.taken_over(writer(2, 1), Kind::TookOver, RecordNumber(5));
        let mut member = world.process("old", FOREVER);
        world.0.lock().unwrap().get_mut("old").unwrap().torn = torn;
        let verdict = claim(&mut member, &taken);
        world.assert_one_history();
        if verdict == Verdict::Pending {
            world.0.lock().unwrap().get_mut("old").unwrap().torn = 0;
            won(&mut member, &taken);
        }
        world.assert_one_history();
    }
}

/// A host with the configuration of after begins no life of its own before.
#[test]
fn no_life_begins_where_one_is_to_arrive() {
    let (world, opened) = world("old");
    assert!(!moves(&world, "old", &opened, "new", 1));
    let mut early = world.process("new", FOREVER);
    let other = Entry {
        writer: writer(3, 1),
        next: Some(Membership {
            primary: host(3),
            ..first().membership().clone()
        }),
        ..first()
    };
    assert_eq!(claim(&mut early, &other), Verdict::Pending);
    let told = early.answer(&Request::Create {
        key: other.key.clone(),
        after: None,
        content: other.content(),
    });
    assert!(
        matches!(&told, Outcome::Unknown(why) if why.contains("arrival.vm")),
        "{told:?}"
    );
}
