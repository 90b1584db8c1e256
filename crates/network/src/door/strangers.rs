//! Those who have not said yet who they are, and who of them makes place when there are too many.
//!
//! A flood may come from one host or from thousands. Those go first of whom many come from one place, then
//! those who have said nothing before those who began to prove who they are, then the oldest; and none of
//! them pushes out a connection from where a member has come before. So a flood takes places of its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Instant;

/// Strangers at the same time.
const LIMIT: usize = 256;
/// A host that joins has fewer under way.
const CROWD: usize = 8;
/// Sources of members that are remembered.
const KNOWN_LIMIT: usize = 64;

/// Where a stranger comes from: an IPv4 address, or a subnet of IPv6, whose owner has all of its
/// addresses (RFC 6177, 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source(IpAddr);

impl Source {
    /// Of a peer's address.
    pub fn of(address: SocketAddr) -> Source {
        Source(match address.ip().to_canonical() {
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            v4 @ IpAddr::V4(_) => v4,
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "somebody at {ip}"),
            IpAddr::V6(ip) => write!(f, "somebody at {ip}/64"),
        }
    }
}

#[derive(Debug)]
struct Stranger<S> {
    stream: S,
    source: Source,
    until: Instant,
    has_spoken: bool,
}

/// The strangers, by the order in which they came.
#[derive(Debug)]
pub struct Strangers<S> {
    by_id: BTreeMap<u64, Stranger<S>>,
    next: u64,
    known: BTreeSet<Source>,
    known_order: VecDeque<Source>,
}

impl<S> Default for Strangers<S> {
    fn default() -> Strangers<S> {
        Strangers {
            by_id: BTreeMap::new(),
            next: 0,
            known: BTreeSet::new(),
            known_order: VecDeque::new(),
        }
    }
}

impl<S> Strangers<S> {
    /// Takes one more. If that are too many one of them goes: from where it came.
    pub fn add(&mut self, stream: S, source: Source, until: Instant) -> Option<Source> {
        let stranger = Stranger {
            stream,
            source,
            until,
            has_spoken: false,
        };
        self.by_id.insert(self.next, stranger);
        self.next += 1;
        if self.by_id.len() <= LIMIT {
            return None;
        }
        let id = self.least()?;
        let gone = self.by_id.remove(&id);
        assert!(
            self.by_id.len() <= LIMIT,
            "a stranger was let stay too many"
        );
        gone.map(|stranger| stranger.source)
    }

    /// Who makes place. The newest does only if nobody else can: it had no time to speak.
    fn least(&self) -> Option<u64> {
        let mut counts: BTreeMap<Source, usize> = BTreeMap::new();
        for stranger in self.by_id.values() {
            *counts.entry(stranger.source).or_default() += 1;
        }
        let newest = self.by_id.keys().next_back().copied();
        let others = self.by_id.iter().filter(|(id, _)| Some(**id) != newest);
        let rank = |(id, stranger): &(&u64, &Stranger<S>)| {
            (
                self.known.contains(&stranger.source),
                counts[&stranger.source] <= CROWD,
                stranger.has_spoken,
                usize::MAX - counts[&stranger.source],
                **id,
            )
        };
        let least = others.min_by_key(rank).map(|(id, _)| *id);
        least.or(newest)
    }

    /// This one has sent something.
    pub fn has_spoken(&mut self, id: u64) {
        if let Some(stranger) = self.by_id.get_mut(&id) {
            stranger.has_spoken = true;
        }
    }

    /// A member came from there.
    pub fn is_known(&mut self, source: Source) {
        if !self.known.insert(source) {
            return;
        }
        self.known_order.push_back(source);
        if self.known_order.len() > KNOWN_LIMIT
            && let Some(oldest) = self.known_order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// One of them, and where it comes from.
    pub fn get_mut(&mut self, id: u64) -> Option<(&mut S, Source)> {
        let stranger = self.by_id.get_mut(&id)?;
        Some((&mut stranger.stream, stranger.source))
    }

    /// One of them is none any more.
    pub fn remove(&mut self, id: u64) -> Option<(S, Source)> {
        let stranger = self.by_id.remove(&id)?;
        Some((stranger.stream, stranger.source))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (u64, &S)> {
        let all = self.by_id.iter();
        all.map(|(id, stranger)| (*id, &stranger.stream))
    }

    /// When the first one's time is up.
    pub fn deadline(&self) -> Option<Instant> {
        self.by_id.values().map(|stranger| stranger.until).min()
    }

    /// Drops those whose time is up; where they came from.
    pub fn expire(&mut self, now: Instant) -> Vec<Source> {
        let over = |stranger: &Stranger<S>| stranger.until <= now;
        let gone = self.by_id.values().filter(|stranger| over(stranger));
        let gone = gone.map(|stranger| stranger.source).collect();
        self.by_id.retain(|_, stranger| !over(stranger));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn source(number: u32) -> Source {
        Source::of(SocketAddr::from((number.to_be_bytes(), 1)))
    }

    const MEMBER: u32 = 0x0a00_0001;
    /// Nobody's time is up meanwhile.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn has(strangers: &Strangers<&str>, what: &str) -> bool {
        strangers.all().any(|(_, stream)| *stream == what)
    }

    /// A member in its handshake keeps its place, whoever else comes and whatever they say.
    #[test]
    fn a_flood_from_one_host_pushes_nobody_else_out() {
        let mut strangers = Strangers::default();
        strangers.add("member", source(MEMBER), soon());
        for _ in 0..10_000 {
            strangers.add("flood", source(7), soon());
            let newest = strangers.by_id.keys().next_back().copied();
            strangers.has_spoken(newest.unwrap());
        }
        assert!(has(&strangers, "member"));
        assert_eq!(strangers.by_id.len(), LIMIT);
    }

    #[test]
    fn a_silent_flood_from_everywhere_pushes_nobody_out_who_speaks() {
        let mut strangers = Strangers::default();
        strangers.add("member", source(MEMBER), soon());
        strangers.has_spoken(0);
        for number in 0..10_000 {
            strangers.add("flood", source(number), soon());
        }
        assert!(has(&strangers, "member"));
    }

    #[test]
    fn where_a_member_came_from_nobody_is_pushed_out_by_others() {
        let mut strangers = Strangers::default();
        strangers.is_known(source(MEMBER));
        strangers.add("member", source(MEMBER), soon());
        for number in 0..10_000 {
            strangers.add("flood", source(number), soon());
            let newest = strangers.by_id.keys().next_back().copied();
            strangers.has_spoken(newest.unwrap());
        }
        assert!(has(&strangers, "member"));
    }

    /// Whoever comes into a full house has time to speak.
    #[test]
    fn the_newest_is_not_the_one_that_goes() {
        let mut strangers = Strangers::default();
        for number in 0..1_000 {
            strangers.add("flood", source(number), soon());
            let newest = strangers.by_id.keys().next_back().copied();
            strangers.has_spoken(newest.unwrap());
        }
        strangers.add("member", source(MEMBER), soon());
        assert!(has(&strangers, "member"));
    }

    #[test]
    fn a_stranger_has_its_time_and_no_more() {
        let mut strangers = Strangers::default();
        let until = soon();
        strangers.add("slow", source(1), until);
        assert_eq!(strangers.deadline(), Some(until));
        assert!(strangers.expire(until - Duration::from_nanos(1)).is_empty());
        assert_eq!(strangers.expire(until), [source(1)]);
        assert_eq!(strangers.deadline(), None);
    }

    #[test]
    fn rfc6177_a_subnet_is_one_source() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("[2001:db8::1]:1"), of("[2001:db8::ffff:2]:2"));
        assert_ne!(of("[2001:db8::1]:1"), of("[2001:db8:0:1::1]:1"));
        assert_eq!(of("[::ffff:192.0.2.1]:1"), of("192.0.2.1:2"));
        assert_ne!(of("192.0.2.1:1"), of("192.0.2.2:1"));
    }
}
