//! Positions: whatever was done before, the machine at one of them is the one of a straight replay.

use crate::guest::Recorded;
use machine::Machine;
use machine::debugging::{Access, Trap, Watchpoint};
use replica::vcpu::decode_input;
use replication::record::RecordBody;
use std::collections::{BTreeMap, BTreeSet};
use understudy::debugging::timeline::{Found, Timeline};
use understudy::replaying::history::History;

fn timeline(history: History) -> Timeline {
    Timeline::new(
        history.machine,
        history.before,
        history.records,
        history.end,
    )
    .unwrap()
}

/// A replay that only ever goes on, with nothing of a debugger in it: the reference.
struct Straight {
    history: History,
    next: usize,
}

impl Straight {
    fn new(history: History) -> Straight {
        let mut straight = Straight { history, next: 0 };
        straight.inject();
        straight
    }

    fn inject(&mut self) {
        let machine = &mut self.history.machine;
        while let Some(record) = self.history.records.get(self.next)
            && record.count.0 <= machine.instruction_count()
        {
            if let RecordBody::Input(encoded) = &record.body {
                machine.inject(&decode_input(encoded).unwrap()).unwrap();
            }
            drop(machine.outputs());
            self.next += 1;
        }
    }

    fn run_to(&mut self, position: u64) -> &mut dyn Machine {
        while self.history.machine.instruction_count() < position {
            let record = self.history.records.get(self.next);
            let until = record.map_or(position, |record| record.count.0.min(position));
            let _stop = self.history.machine.run(until);
            drop(self.history.machine.outputs());
            self.inject();
        }
        &mut *self.history.machine
    }
}

/// Addresses of the instructions that are executed at every position from the beginning on.
fn path(recorded: &Recorded) -> Vec<u64> {
    let mut straight = Straight::new(recorded.history("interpreter"));
    let end = straight.history.end;
    (0..end)
        .map(|position| {
            let debuggable = straight.run_to(position).debuggable().unwrap();
            let next = debuggable.next_hart().unwrap_or(0);
            debuggable.harts()[next].program_counter
        })
        .collect()
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }
}

/// What a debugger should find, from the path alone.
struct Model<'a> {
    path: &'a [u64],
    breakpoints: BTreeSet<u64>,
    /// Instructions that store where it is watched.
    stores: BTreeSet<u64>,
}

impl Model<'_> {
    fn stores_at(&self, position: u64) -> bool {
        self.stores.contains(&self.path[position as usize])
    }

    fn breaks_at(&self, position: u64) -> bool {
        self.breakpoints.contains(&self.path[position as usize])
    }

    fn go_on(&self, from: u64) -> u64 {
        let end = self.path.len() as u64;
        for position in from..end {
            if position > from && self.breaks_at(position) {
                return position;
            }
            if self.stores_at(position) {
                return position + 1;
            }
        }
        end
    }

    fn go_back(&self, from: u64) -> u64 {
        let positions = (0..from).rev();
        let mut found =
            positions.filter(|position| self.breaks_at(*position) || self.stores_at(*position));
        found.next().unwrap_or(0)
    }
}

fn never() -> impl FnMut() -> bool {
    || false
}

/// Random walks: each arrives where the path says, and finds the machine of a straight replay there.
fn walk(
    recorded: &Recorded,
    engine: &str,
    interval: u64,
    page_bytes: usize,
    seeds: std::ops::Range<u64>,
) {
    let places = recorded.places;
    let path = path(recorded);
    let end = path.len() as u64;
    assert!(path.contains(&places.handler), "it takes interrupts");
    let mut digests: BTreeMap<u64, u128> = BTreeMap::new();
    for seed in seeds {
        let random = &mut Random(seed);
        let mut timeline = timeline(recorded.history(engine));
        timeline.limit_checkpoints(interval, page_bytes);
        let mut model = Model {
            path: &path,
            breakpoints: BTreeSet::new(),
            stores: BTreeSet::new(),
        };
        let mut visited = Vec::new();
        let mut position = 0;
        for turn in 0..60 {
            let context =
                format!("{engine}, interval {interval}, seed {seed}, turn {turn}, from {position}");
            match random.below(6) {
                0 => {
                    let some = [
                        places.line,
                        places.store,
                        places.handler,
                        places.handler_store,
                        places.second,
                    ];
                    model.breakpoints = (0..random.below(3))
                        .map(|_| some[random.below(5) as usize])
                        .collect();
                    let watches = random.below(3) == 0;
                    model.stores = watches.then_some(places.store).into_iter().collect();
                    let watchpoint = Watchpoint {
                        address: places.counted + random.below(4),
                        length: 1,
                        access: Access::Write,
                    };
                    let watchpoints = watches.then_some(watchpoint).into_iter().collect();
                    timeline
                        .set_traps(model.breakpoints.clone(), watchpoints)
                        .unwrap();
                }
                1 => {
                    position = random.below(end + 1);
                    let found = timeline.go_to(position, &mut never()).unwrap();
                    assert_eq!(found, Found::Position, "{context}");
                }
                2 if position < end => {
                    position += 1;
                    timeline.step_watching(&mut never()).unwrap();
                }
                3 if position > 0 => {
                    position -= 1;
                    timeline.go_to(position, &mut never()).unwrap();
                }
                4 => {
                    let found = timeline.go_on(&mut never()).unwrap();
                    position = model.go_on(position);
                    let is_end = found == Found::End;
                    assert!(!is_end || position == end, "{context}: {found:?}");
                }
                _ => {
                    let found = timeline.go_back(&mut never()).unwrap();
                    position = model.go_back(position);
                    assert!(
                        found != Found::Begin || position == 0,
                        "{context}: {found:?}"
                    );
                }
            }
            assert_eq!(timeline.position(), position, "{context}");
            visited.push((position, timeline.digest(), context));
        }
        // In one straight replay.
        visited.sort();
        let mut straight = Straight::new(recorded.history("interpreter"));
        for (position, digest, context) in visited {
            let expected = *digests
                .entry(position)
                .or_insert_with(|| straight.run_to(position).digest());
            assert_eq!(digest, expected, "at {position}: {context}");
        }
    }
}

#[test]
fn random_walks_of_the_interpreter_arrive_where_a_straight_replay_does() {
    walk(&Recorded::new(), "interpreter", 1000, usize::MAX, 0..6);
}

#[test]
fn random_walks_of_the_jit_arrive_where_a_straight_replay_does() {
    walk(&Recorded::new(), "jit", 700, usize::MAX, 100..108);
    walk(&Recorded::new(), "jit", u64::MAX / 2, usize::MAX, 200..203);
}

#[test]
fn random_walks_of_x86_64_arrive_where_a_straight_replay_does() {
    let recorded = Recorded::pc();
    walk(&recorded, "interpreter", 1000, usize::MAX, 600..604);
    walk(&recorded, "jit", 700, usize::MAX, 700..706);
    walk(&recorded, "jit", 100, 64 << 10, 800..804);
}

/// Where it was on the way, code is compiled, and would lead over a breakpoint if any could.
#[test]
fn compiled_code_leads_over_no_breakpoint() {
    for recorded in [Recorded::new(), Recorded::pc()] {
        let places = recorded.places;
        let path = path(&recorded);
        for place in [places.line, places.second, places.store] {
            let mut timeline = timeline(recorded.history("jit"));
            timeline.limit_checkpoints(u64::MAX / 2, usize::MAX);
            let breakpoints = BTreeSet::from([place]);
            timeline
                .set_traps(breakpoints.clone(), BTreeSet::new())
                .unwrap();
            let model = Model {
                path: &path,
                breakpoints,
                stores: BTreeSet::new(),
            };
            let mut position = path.len() as u64 * 2 / 3;
            timeline.go_to(position, &mut never()).unwrap();
            for _ in 0..10 {
                timeline.go_on(&mut never()).unwrap();
                position = model.go_on(position);
                assert_eq!(timeline.position(), position, "{place:#x}");
            }
        }
    }
}

/// Before an interrupt a debugger sees what its delivery makes of the registers, though nothing was delivered.
#[test]
fn what_is_seen_before_an_interrupt_is_what_the_handler_begins_with() {
    let recorded = Recorded::pc();
    let path = path(&recorded);
    let mut straight = Straight::new(recorded.history("interpreter"));
    let mut seen = 0;
    for (position, address) in (0u64..).zip(&path) {
        if *address == recorded.places.handler {
            let mut view = |position| {
                let debuggable = straight.run_to(position).debuggable().unwrap();
                debuggable.harts().remove(0)
            };
            let (before, behind) = (view(position), view(position + 1));
            // CLD changes RIP alone: RAX to R15, then the flags and the segments.
            assert_eq!(before.registers[..128], behind.registers[..128]);
            assert_eq!(before.registers[136..164], behind.registers[136..164]);
            seen += 1;
        }
    }
    assert!(seen > 5, "{seen}");
}

#[test]
fn random_walks_of_two_harts_arrive_where_a_straight_replay_does() {
    let recorded = Recorded::with_harts(2);
    walk(&recorded, "jit", 2000, usize::MAX, 400..405);
    walk(&recorded, "interpreter", 5000, usize::MAX, 500..503);
    let mut timeline = timeline(recorded.history("jit"));
    let harts: BTreeSet<usize> = (2000..6000)
        .map(|position| {
            timeline.go_to(position, &mut never()).unwrap();
            timeline.debuggable().unwrap().next_hart().unwrap()
        })
        .collect();
    assert_eq!(harts, BTreeSet::from([0, 1]));
}

#[test]
fn random_walks_arrive_where_a_straight_replay_does_though_checkpoints_are_given_up() {
    walk(&Recorded::new(), "jit", 100, 64 << 10, 300..306);
}

#[test]
fn a_watchpoint_hears_of_loads_and_of_nothing_beside_it() {
    for recorded in [Recorded::new(), Recorded::pc()] {
        for engine in ["interpreter", "jit"] {
            hears_of_loads_and_of_nothing_beside_it(&recorded, engine);
        }
    }
}

fn hears_of_loads_and_of_nothing_beside_it(recorded: &Recorded, engine: &str) {
    let places = recorded.places;
    let mut timeline = timeline(recorded.history(engine));
    let watch = |address, access| {
        BTreeSet::from([Watchpoint {
            address,
            length: 4,
            access,
        }])
    };
    // The counter's word is stored and never loaded, and the word after it is neither.
    for (address, access) in [
        (places.counted, Access::Read),
        (places.counted + 4, Access::Any),
    ] {
        timeline
            .set_traps(BTreeSet::new(), watch(address, access))
            .unwrap();
        timeline.go_to(0, &mut never()).unwrap();
        assert_eq!(
            timeline.go_on(&mut never()).unwrap(),
            Found::End,
            "{engine}"
        );
    }
    // The number of interrupts is loaded, then stored.
    timeline
        .set_traps(BTreeSet::new(), watch(places.interrupts, Access::Any))
        .unwrap();
    timeline.go_to(0, &mut never()).unwrap();
    for _ in 0..4 {
        let found = timeline.go_on(&mut never()).unwrap();
        assert!(
            matches!(found, Found::Trap(Trap::Watchpoint { hart: 0, .. })),
            "{engine} {found:?}"
        );
    }
}

/// To look is not to touch: what a debugger reads changes no digest, and no bit of a page table.
#[test]
fn looking_leaves_the_machine_as_it_is() {
    let recorded = Recorded::new();
    let mut timeline = timeline(recorded.history("jit"));
    timeline.go_to(5000, &mut never()).unwrap();
    let before = timeline.digest();
    let debuggable = timeline.debuggable().unwrap();
    let space = debuggable.harts()[0].space;
    assert_eq!(
        debuggable.translate(space, recorded.places.counted),
        Some(recorded.places.counted),
        "it runs in machine mode"
    );
    assert!(
        debuggable
            .target_description()
            .contains("org.gnu.gdb.riscv.cpu")
    );
    assert_eq!(timeline.digest(), before);
}
