use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

const SUSPECT_AFTER: Duration = Duration::from_millis(240);
const MS: Duration = Duration::from_millis(1);

/// One direction of one connection: what was written, in order, and when it arrives.
#[derive(Debug, Default)]
struct Pipe {
    under_way: VecDeque<(Duration, Vec<u8>)>,
    /// Nothing arrives before.
    cut_until: Duration,
}

/// Two ends, and what is between them.
struct World {
    now: Duration,
    ends: [Links; 2],
    /// By link, then by the end that writes.
    pipes: BTreeMap<LinkId, [Pipe; 2]>,
    delays: [Duration; MAX_LINKS],
    sent: [Vec<u8>; 2],
    arrived: [Vec<u8>; 2],
    /// What was seen of the links at each end, and when it was another.
    seen: [BTreeMap<LinkId, bool>; 2],
    news: Vec<(usize, LinkId, bool)>,
    bytes_written: usize,
}

impl World {
    fn new() -> World {
        let times = LinkTimes::within(SUSPECT_AFTER);
        World {
            now: Duration::ZERO,
            ends: [0, 1].map(|_| Links::new(Duration::ZERO, times)),
            pipes: BTreeMap::new(),
            delays: [MS; MAX_LINKS],
            sent: Default::default(),
            arrived: Default::default(),
            seen: Default::default(),
            news: Vec::new(),
            bytes_written: 0,
        }
    }

    fn with_links(count: u8) -> World {
        let mut world = World::new();
        (0..count).for_each(|link| world.open(link));
        world
    }

    fn open(&mut self, link: u8) {
        let id = LinkId(link);
        self.pipes.insert(id, Default::default());
        let now = self.now;
        self.ends.iter_mut().for_each(|end| end.opened(now, id));
    }

    /// A connection ends; what is under way is lost.
    fn end(&mut self, link: u8) {
        let id = LinkId(link);
        if self.pipes.remove(&id).is_some() {
            let now = self.now;
            self.ends.iter_mut().for_each(|end| end.ended(now, id));
        }
    }

    fn cut(&mut self, link: u8, directions: &[usize], cut_for: Duration) {
        if let Some(pipes) = self.pipes.get_mut(&LinkId(link)) {
            for direction in directions {
                pipes[*direction].cut_until = self.now + cut_for;
            }
        }
    }

    fn send(&mut self, end: usize, bytes: &[u8]) {
        self.ends[end].send(bytes).unwrap();
        self.sent[end].extend_from_slice(bytes);
    }

    /// What is to be written is written; a pipe that has much under way takes nothing.
    fn write(&mut self) {
        for (id, pipes) in &mut self.pipes {
            for (end, pipe) in pipes.iter_mut().enumerate() {
                let mut bytes = Vec::new();
                let has_room = pipe.under_way.len() < 8;
                if has_room && self.ends[end].transmit(self.now, *id, &mut bytes) {
                    self.bytes_written += bytes.len();
                    let at = self.now + self.delays[usize::from(id.0)];
                    pipe.under_way.push_back((at, bytes));
                }
            }
        }
    }

    fn deliver(&mut self) {
        for (id, pipes) in &mut self.pipes {
            for (end, pipe) in pipes.iter_mut().enumerate() {
                while pipe.cut_until <= self.now
                    && pipe
                        .under_way
                        .front()
                        .is_some_and(|(at, _)| *at <= self.now)
                    && let Some((_, bytes)) = pipe.under_way.pop_front()
                {
                    let to = 1 - end;
                    let arrived = &mut self.arrived[to];
                    self.ends[to]
                        .receive(self.now, *id, &bytes, |bytes| {
                            arrived.extend_from_slice(bytes)
                        })
                        .unwrap();
                }
            }
        }
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now += MS;
        self.deliver();
        for links in &mut self.ends {
            if self.now >= links.deadline() {
                links.tick(self.now);
            }
            assert!(links.deadline() > self.now, "nobody is kept busy");
            if let Some(lost) = links.lost(self.now) {
                // The connection is ended at this end first, and at the other as well.
                links.ended(self.now, lost);
                self.pipes.remove(&lost);
            }
        }
        for links in &mut self.ends {
            let gone = (0..MAX_LINKS as u8).map(LinkId);
            let gone = gone.filter(|id| !self.pipes.contains_key(id));
            gone.for_each(|id| links.ended(self.now, id));
        }
        self.write();
        for end in 0..2 {
            for id in (0..MAX_LINKS as u8).map(LinkId) {
                let is_up = self.ends[end].state(id) == Some(LinkState::Up);
                if self.seen[end].insert(id, is_up).unwrap_or(false) != is_up {
                    self.news.push((end, id, is_up));
                }
            }
            let arrived = &self.arrived[1 - end];
            assert!(
                self.sent[end].starts_with(arrived),
                "what arrives is what was sent, in order"
            );
        }
    }

    fn steps(&mut self, count: usize) {
        (0..count).for_each(|_| self.step());
    }

    fn has_all(&self) -> bool {
        (0..2).all(|end| self.arrived[1 - end] == self.sent[end])
    }
}

/// Something happens.
#[derive(Clone, Debug)]
enum Happens {
    Send(usize, usize),
    Open(u8),
    End(u8),
    Cut(u8, u8, u64),
    Delay(u8, u64),
    Wait(usize),
}

fn happens() -> impl Strategy<Value = Happens> {
    let link = 0..3u8;
    prop_oneof![
        4 => (0..2usize, 1..3_000usize).prop_map(|(end, bytes)| Happens::Send(end, bytes)),
        1 => (0..2usize, 100_000..400_000usize).prop_map(|(end, bytes)| Happens::Send(end, bytes)),
        2 => link.clone().prop_map(Happens::Open),
        2 => link.clone().prop_map(Happens::End),
        2 => (link.clone(), 1..4u8, 1..500u64).prop_map(|(link, which, ms)| Happens::Cut(link, which, ms)),
        1 => (link, 0..150u64).prop_map(|(link, ms)| Happens::Delay(link, ms)),
        6 => (1..120usize).prop_map(Happens::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens to the links, what arrives is a prefix of what was sent (looked at in each step), and all of
    /// it as soon as a link holds.
    #[test]
    fn the_stream_arrives_once_and_in_order_whatever_happens_to_its_links(
        all in prop::collection::vec(happens(), 1..60)
    ) {
        let mut world = World::with_links(2);
        for (number, what) in all.into_iter().enumerate() {
            match what {
                Happens::Send(end, length) => {
                    let bytes: Vec<u8> = (0..length).map(|at| (at / 3 + number * 7) as u8).collect();
                    world.send(end, &bytes);
                }
                Happens::Open(link) => world.open(link),
                Happens::End(link) => world.end(link),
                Happens::Cut(link, which, ms) => {
                    let directions: &[usize] = match which {
                        1 => &[0],
                        2 => &[1],
                        _ => &[0, 1],
                    };
                    world.cut(link, directions, MS * ms as u32);
                }
                Happens::Delay(link, ms) => world.delays[usize::from(link)] = MS * ms as u32,
                Happens::Wait(steps) => world.steps(steps),
            }
            world.write();
        }
        world.delays = [MS; MAX_LINKS];
        world.open(2);
        let is_over = |world: &World| world.has_all() && world.ends.iter().all(|end| end.kept_bytes() == 0);
        for _ in 0..2_000 {
            if is_over(&world) {
                break;
            }
            world.step();
        }
        prop_assert!(world.has_all(), "{:?} of {:?}", world.arrived.each_ref().map(Vec::len), world.sent.each_ref().map(Vec::len));
        prop_assert_eq!(world.ends.each_ref().map(Links::kept_bytes), [0, 0], "nothing is kept for nobody");
    }

    /// Segments in any order, any number of times.
    #[test]
    fn segments_that_come_twice_or_out_of_order_are_put_in_order(
        order in prop::collection::vec(0..40u64, 0..400)
    ) {
        let mut incoming = Incoming::default();
        let mut taken = Vec::new();
        let mut came = std::collections::BTreeSet::new();
        for number in order {
            incoming.arrived(number, &[number as u8; 3], |bytes| taken.push(bytes[0])).unwrap();
            came.insert(number);
            let whole = (0..).take_while(|number| came.contains(number)).count();
            prop_assert_eq!(taken.len(), whole);
            prop_assert_eq!(incoming.expected(), whole as u64);
        }
        prop_assert!(taken.iter().zip(0..).all(|(taken, number)| *taken == number));
    }

    /// Bytes of a peer, cut anywhere: an error at the worst, and no more is held than a frame.
    #[test]
    fn any_bytes_on_a_link_are_an_error_at_the_worst(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
    ) {
        let mut links = Links::new(Duration::ZERO, LinkTimes::within(SUSPECT_AFTER));
        links.opened(Duration::ZERO, LinkId(0));
        for piece in pieces {
            if links.receive(MS, LinkId(0), &piece, |_| {}).is_err() {
                break;
            }
        }
    }

    /// What is written is read, however it is cut.
    #[test]
    fn frames_are_read_as_they_were_written(
        frames in prop::collection::vec((0..3u8, any::<u64>(), any::<u64>(), 0..300usize), 1..20),
        cut in 1..50usize,
    ) {
        let bytes = [7; 300];
        let frames: Vec<LinkFrame<'_>> = frames.into_iter().map(|(kind, number, heard, length)| match kind {
            0 => LinkFrame::Segment { number, bytes: &bytes[..length] },
            1 => LinkFrame::Probe { probe: number, heard },
            _ => LinkFrame::Echo { probe: number, heard },
        }).collect();
        let mut written = Vec::new();
        frames.iter().for_each(|frame| put_frame(&mut written, frame));
        let (mut reader, mut expected) = (LinkFrameReader::default(), frames.iter());
        for piece in written.chunks(cut) {
            reader.push(piece);
            while let Some(frame) = reader.next_frame().unwrap() {
                prop_assert_eq!(Some(&frame), expected.next());
            }
        }
        prop_assert_eq!(expected.next(), None);
    }
}

/// A pulled cable must be over before the core suspects anybody: half of the silence that it bears is left for what
/// the last message was old by then.
#[test]
fn a_link_that_falls_silent_is_left_within_half_of_the_silence_that_the_core_bears() {
    for directions in [&[0][..], &[1], &[0, 1]] {
        for begin in 0..60 {
            let mut world = World::with_links(2);
            world.steps(100 + begin);
            let used = world.ends[0].in_use().unwrap();
            world.cut(used.0, directions, Duration::from_secs(60));
            world.send(0, b"there");
            world.send(1, b"and back");
            let cut_at = world.now;
            while !world.has_all() {
                world.step();
                assert!(
                    world.now <= cut_at + SUSPECT_AFTER / 2,
                    "{directions:?} {begin}: {:?}",
                    world.now - cut_at
                );
            }
        }
    }
}

#[test]
fn a_pause_of_the_other_end_moves_no_traffic_and_is_told_of_no_link() {
    let mut world = World::with_links(2);
    world.steps(200);
    world.news.clear();
    let used = world.ends.each_ref().map(Links::in_use);
    for _ in 0..10 {
        // One end's process stands still, and then reads one link before the other.
        let until = world.now + MS * 150;
        while world.now < until {
            world.now += MS;
            let now = world.now;
            if now >= world.ends[0].deadline() {
                world.ends[0].tick(now);
            }
            world.write();
        }
        world.steps(100);
    }
    assert_eq!(world.ends.each_ref().map(Links::in_use), used);
    assert_eq!(world.news, []);
}

#[test]
fn the_traffic_goes_the_shorter_way_and_does_not_jump_between_equal_ones() {
    let mut world = World::with_links(2);
    world.delays = [MS * 10, MS * 2, MS, MS];
    world.steps(1_500);
    assert_eq!(world.ends[0].in_use(), Some(LinkId(0)), "not at once");
    world.steps(1_000);
    assert_eq!(world.ends[0].in_use(), Some(LinkId(1)));
    world.delays[0] = MS;
    world.steps(10_000);
    let round_trips = [0, 1].map(|link| world.ends[0].round_trip(LinkId(link)).unwrap());
    assert!(round_trips[0] < round_trips[1], "{round_trips:?}");
    let stays = world.ends[0].in_use();
    world.delays[0] = MS * 2;
    world.steps(10_000);
    assert_eq!(world.ends[0].in_use(), stays, "equal ways");
}

#[test]
fn a_link_that_comes_and_goes_is_told_of_each_time() {
    let mut world = World::with_links(2);
    world.steps(100);
    world.news.clear();
    let first = world.ends[0].in_use().unwrap();
    world.cut(first.0, &[0, 1], MS * 200);
    world.steps(500);
    for end in 0..2 {
        let of_end = world.news.iter().filter(|(of, _, _)| *of == end);
        let told: Vec<_> = of_end.map(|(_, id, is_up)| (*id, *is_up)).collect();
        assert_eq!(told, [(first, false), (first, true)]);
    }
    assert_ne!(
        world.ends[0].in_use(),
        Some(first),
        "it stays where it is well"
    );
    // Cut for longer it is given up, and opened anew by somebody.
    world.cut(first.0, &[0, 1], Duration::from_secs(60));
    world.steps(2_000);
    assert_eq!(world.ends[0].state(first), None);
    world.open(first.0);
    world.steps(100);
    assert_eq!(world.ends[0].state(first), Some(LinkState::Up));
}

/// What waits is not sent all at once, and what is under way is bounded at both ends.
#[test]
fn no_more_is_under_way_than_the_window() {
    let mut world = World::with_links(1);
    let much = vec![7; WINDOW_BYTES + (4 << 20)];
    world.send(0, &much);
    let mut out = Vec::new();
    while world.ends[0].transmit(world.now, LinkId(0), &mut out) {}
    assert!((WINDOW_BYTES - MAX_SEGMENT_BYTES..WINDOW_BYTES + (64 << 10)).contains(&out.len()));
    let mut arrived = 0;
    world.ends[1]
        .receive(MS, LinkId(0), &out, |bytes| arrived += bytes.len())
        .unwrap();
    let mut back = Vec::new();
    assert!(world.ends[1].transmit(MS, LinkId(0), &mut back));
    world.ends[0].receive(MS, LinkId(0), &back, |_| {}).unwrap();
    assert!(
        world.ends[0].transmit(MS, LinkId(0), &mut out),
        "there is room again"
    );
    let full = vec![0; MAX_KEPT_BYTES];
    assert_eq!(world.ends[0].send(&full), Err(LinkError::Full));
}

#[test]
fn what_no_program_sends_ends_the_channel() {
    let mut incoming = Incoming::default();
    let ahead = incoming.arrived(WINDOW_SEGMENTS, b"x", |_| {});
    assert_eq!(
        ahead,
        Err(LinkError::Ahead {
            number: WINDOW_SEGMENTS
        })
    );
    let far = vec![0; MAX_SEGMENT_BYTES];
    let held = (1..WINDOW_SEGMENTS).take_while(|n| incoming.arrived(*n, &far, |_| {}).is_ok());
    assert_eq!(held.count() * MAX_SEGMENT_BYTES, WINDOW_BYTES);
    let said = |frame: &LinkFrame<'_>| {
        let mut links = Links::new(Duration::ZERO, LinkTimes::within(SUSPECT_AFTER));
        links.opened(Duration::ZERO, LinkId(0));
        let mut bytes = Vec::new();
        put_frame(&mut bytes, frame);
        links.receive(MS, LinkId(0), &bytes, |_| {})
    };
    assert_eq!(
        said(&LinkFrame::Echo { probe: 1, heard: 0 }),
        Err(LinkError::Echo)
    );
    let heard = said(&LinkFrame::Probe { probe: 1, heard: 1 });
    assert_eq!(heard, Err(LinkError::Acknowledged { number: 1 }));
}

/// Where nothing shows that the other end is there any more the connection has ended, as it would with one link.
#[test]
fn a_process_that_dies_while_a_cable_is_pulled_is_noticed_by_the_link_that_ends() {
    let mut world = World::with_links(2);
    world.steps(200);
    world.cut(0, &[0, 1], Duration::from_secs(60));
    world.steps(200);
    let now = world.now;
    assert!(!world.ends[0].is_over(now));
    world.ends[0].ended(now, LinkId(1));
    assert!(world.ends[0].is_over(now));
    let mut world = World::with_links(2);
    world.steps(200);
    let now = world.now;
    world.ends[0].ended(now, LinkId(1));
    assert!(!world.ends[0].is_over(now), "the other is well");
}

/// After a pause of the other end one link is heard before the other.
#[test]
fn the_link_that_is_heard_second_after_a_pause_is_not_taken_for_silent() {
    let mut world = World::with_links(2);
    world.delays[1] = MS * 4;
    world.steps(200);
    world.news.clear();
    let until = world.now + MS * 150;
    while world.now < until {
        world.now += MS;
        let now = world.now;
        world.ends[0].tick(now);
        world.write();
    }
    for _ in 0..60 {
        world.step();
        let now = world.now;
        world.ends[0].tick(now);
    }
    assert_eq!(world.news, []);
}

/// What came while this process slept is yet to be read: the first link of which it reads an end is not the last.
#[test]
fn a_process_that_slept_does_not_take_its_links_for_dead() {
    let mut world = World::with_links(2);
    world.steps(200);
    let now = world.now + 2 * SUSPECT_AFTER;
    world.ends[0].tick(now);
    world.ends[0].ended(now, LinkId(1));
    assert!(!world.ends[0].is_over(now));
}

/// A stream that nobody disturbs costs little more than its bytes.
#[test]
fn nothing_is_sent_twice_while_all_is_well() {
    let mut world = World::with_links(2);
    for _ in 0..1_000 {
        world.send(0, &[7; 1_000]);
        world.step();
    }
    world.steps(100);
    assert!(world.has_all());
    assert!(world.bytes_written < 1_020_000, "{}", world.bytes_written);
}
