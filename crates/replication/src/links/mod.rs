//! Several links of one channel: one ordered stream of bytes over whatever is up.
//!
//! A link is a connection, which delivers in order what it delivers at all. What is sent is cut into numbered segments
//! and goes over one link, the one in use. The other end says how far it has come; what it did not hear of on a
//! link that ended or fell silent is sent again on another. Both ends probe every link. Each end chooses for itself.
//!
//! Sans-I/O: the caller has the connections and the clock. `docs/protocol.md`, "Links".

mod frames;
mod health;
mod order;

pub use frames::{LinkFrame, LinkFrameReader, put_frame};
pub use health::LinkState;
pub use order::{Incoming, MAX_KEPT_BYTES, MAX_SEGMENT_BYTES, WINDOW_BYTES, WINDOW_SEGMENTS};

use crate::wire::WireError;
use health::Link;
use order::Outgoing;
use std::collections::BTreeMap;
use std::time::Duration;
use thiserror::Error;

/// A channel has at most so many.
pub const MAX_LINKS: usize = 4;
/// Bytes that are put on a link in one go.
const BATCH_BYTES: usize = 64 << 10;
/// A link is left for one that is up as well only if the way there is longer by this…
const BETTER_BY: Duration = Duration::from_millis(1);
/// …and twice as long, and so long after it was chosen.
const STICKY_FOR: Duration = Duration::from_secs(2);

/// Names a link of a channel, at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u8);

/// What the other end did that no program of this kind does. The channel is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LinkError {
    /// What came on a link is none of its frames.
    #[error("what came on a link cannot be understood: {0}")]
    Frame(WireError),
    /// A segment that nobody may send yet.
    #[error("segment {number} came on a link too early")]
    Ahead {
        /// Its number.
        number: u64,
    },
    /// It has heard what was never sent.
    #[error("segment {number} was heard on a link before it was sent")]
    Acknowledged {
        /// Its number.
        number: u64,
    },
    /// It has echoed a probe that was never sent.
    #[error("a probe was echoed on a link that was never sent")]
    Echo,
    /// It takes nothing, and too much waits for it.
    #[error("more than {MAX_KEPT_BYTES} bytes wait for the other end of the links")]
    Full,
}

/// When a link is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTimes {
    /// Between two probes.
    pub probe: Duration,
    /// A link of which nothing shows for so long that it gets there is left, if another does.
    pub silent: Duration,
    /// One that has been silent for so long is given up: to connect anew is faster by then.
    pub lost: Duration,
}

impl LinkTimes {
    /// Of two ends that suspect each other after a silence of `suspect_after`, and send something in half of that.
    ///
    /// At worst the last that came is half of it old when a link breaks. A quarter, an eighth until the next look, and
    /// half of that for the doubt are left within the other half.
    pub fn within(suspect_after: Duration) -> LinkTimes {
        LinkTimes {
            probe: suspect_after / 8,
            silent: suspect_after / 4,
            lost: suspect_after * 5,
        }
    }
}

/// One end of a channel's links.
#[derive(Clone, Debug)]
pub struct Links {
    times: LinkTimes,
    links: BTreeMap<LinkId, Link>,
    in_use: Option<LinkId>,
    chosen_at: Duration,
    /// The number of the segment that goes over the link in use next.
    cursor: u64,
    outgoing: Outgoing,
    incoming: Incoming,
    probe_at: Duration,
    ticked_at: Duration,
}

impl Links {
    /// Without a link.
    pub fn new(now: Duration, times: LinkTimes) -> Links {
        Links {
            times,
            links: BTreeMap::new(),
            in_use: None,
            chosen_at: now,
            cursor: 0,
            outgoing: Outgoing::default(),
            incoming: Incoming::default(),
            probe_at: now,
            ticked_at: now,
        }
    }

    /// A link was made. One of the same name has ended.
    pub fn opened(&mut self, now: Duration, id: LinkId) {
        self.ended(now, id);
        assert!(self.links.len() < MAX_LINKS, "links of a channel");
        self.links.insert(id, Link::new(now));
        if self.in_use.is_none() {
            self.use_link(now, id);
        }
    }

    /// A link has ended.
    pub fn ended(&mut self, now: Duration, id: LinkId) {
        let Some(link) = self.links.remove(&id) else {
            return;
        };
        if self.in_use == Some(id) {
            self.in_use = None;
            let best = self.best(|_| true);
            if let Some(best) = best {
                self.use_link(now, best);
            }
        }
        self.send_again(link.carried);
    }

    /// Sends: bytes of the channel's stream.
    ///
    /// # Errors
    /// The other end takes nothing, and too much waits for it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.outgoing.push(bytes)
    }

    /// Appends what is to be written on a link that has room. Whether there is anything.
    pub fn transmit(&mut self, now: Duration, id: LinkId, out: &mut Vec<u8>) -> bool {
        let begin = out.len();
        let heard = self.incoming.expected();
        let Some(link) = self.links.get_mut(&id) else {
            return false;
        };
        if let Some(probe) = link.to_echo.take() {
            put_frame(out, &LinkFrame::Echo { probe, heard });
        }
        if link.probe_due {
            let probe = link.probe(now);
            put_frame(out, &LinkFrame::Probe { probe, heard });
        }
        if self.in_use == Some(id) {
            self.cursor = self.cursor.max(self.outgoing.acknowledged());
            while out.len() - begin < BATCH_BYTES
                && let Some(bytes) = self.outgoing.give(self.cursor)
            {
                let number = self.cursor;
                put_frame(out, &LinkFrame::Segment { number, bytes });
                self.cursor += 1;
                link.carried = link.carried.max(self.cursor);
            }
        }
        out.len() > begin
    }

    /// Bytes came on a link. What is in order by them is given to `take`.
    ///
    /// # Errors
    /// The other end is none that can be understood: the channel is of no more use.
    pub fn receive(
        &mut self,
        now: Duration,
        id: LinkId,
        bytes: &[u8],
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), LinkError> {
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        link.reader.push(bytes);
        let (mut heard_to, mut was_echoed) = (0, false);
        while let Some(frame) = link.reader.next_frame()? {
            match frame {
                LinkFrame::Segment { number, bytes } => {
                    self.incoming.arrived(number, bytes, &mut take)?;
                }
                LinkFrame::Probe { probe, heard } => {
                    heard_to = heard_to.max(heard);
                    link.to_echo = Some(probe);
                }
                LinkFrame::Echo { probe, heard } => {
                    heard_to = heard_to.max(heard);
                    if !link.echoed(now, probe) {
                        return Err(LinkError::Echo);
                    }
                    was_echoed = true;
                }
            }
        }
        if was_echoed {
            link.state = LinkState::Up;
        }
        if self.outgoing.acknowledge(heard_to)?
            && let Some(used) = self.in_use.and_then(|used| self.links.get_mut(&used))
        {
            used.gets_there(now);
        }
        Ok(())
    }

    /// Time has passed: probes are due, and a link may have fallen silent.
    pub fn tick(&mut self, now: Duration) {
        let slept = now.saturating_sub(std::mem::replace(&mut self.ticked_at, now));
        if slept > self.times.silent {
            // What came meanwhile is yet to be read.
            self.links
                .values_mut()
                .for_each(|link| link.gets_there(now));
        }
        if now >= self.probe_at {
            self.probe_at = now + self.times.probe;
            self.links
                .values_mut()
                .for_each(|link| link.probe_due = true);
        }
        self.look_for_silence(now);
        self.look_for_better(now);
    }

    /// When [`Links::tick`] is to be called at the latest.
    pub fn deadline(&self) -> Duration {
        let links = self.links.values();
        let links = links.filter(|link| link.state != LinkState::Silent);
        let doubts = links.filter_map(|link| link.doubted_since);
        let doubts = doubts.map(|since| since + self.doubt());
        doubts.fold(self.probe_at, Duration::min)
    }

    /// For so long a link is only doubted: after a pause of the other end one is heard before the other.
    fn doubt(&self) -> Duration {
        self.times.probe / 2
    }

    fn look_for_silence(&mut self, now: Duration) {
        let freshest = self.links.values().map(|link| link.fresh).max();
        let freshest = freshest.unwrap_or(now);
        let doubt = self.doubt();
        let mut fell_silent = Vec::new();
        for (id, link) in &mut self.links {
            let is_silent = now >= link.fresh + self.times.silent;
            // While all are silent the other end is, and that is no matter of links.
            if !is_silent || freshest < link.fresh + self.times.silent / 2 {
                link.doubted_since = None;
                continue;
            }
            let since = *link.doubted_since.get_or_insert(now);
            if now >= since + doubt && link.state != LinkState::Silent {
                fell_silent.push(*id);
                link.state = LinkState::Silent;
            }
        }
        for id in fell_silent {
            if self.in_use == Some(id)
                && let Some(best) = self.best(|link| link.state == LinkState::Up)
            {
                self.use_link(now, best);
            }
            if self.in_use != Some(id)
                && let Some(link) = self.links.get_mut(&id)
            {
                let carried = std::mem::take(&mut link.carried);
                self.send_again(carried);
            }
        }
    }

    /// The link in use is left for one that is up as well only if that is much better, and not again and again.
    fn look_for_better(&mut self, now: Duration) {
        let Some(used) = self.in_use.and_then(|used| self.links.get(&used)) else {
            return;
        };
        let best = self.best(|link| link.state == LinkState::Up);
        let Some(best) = best.filter(|best| self.in_use != Some(*best)) else {
            return;
        };
        if used.state == LinkState::Silent {
            let carried = used.carried;
            self.use_link(now, best);
            return self.send_again(carried);
        }
        let round_trips = (used.round_trip(), self.round_trip(best));
        if let (Some(used), Some(other)) = round_trips
            && used > (2 * other).max(other + BETTER_BY)
            && now >= self.chosen_at + STICKY_FOR
        {
            self.use_link(now, best);
        }
    }

    /// Of those for which this is true the one with the shortest way, if it is known.
    fn best(&self, is_eligible: impl Fn(&Link) -> bool) -> Option<LinkId> {
        let links = self.links.iter().filter(|(_, link)| is_eligible(link));
        let rank = |link: &Link| {
            let is_up = link.state == LinkState::Up;
            (!is_up, link.round_trip().unwrap_or(Duration::MAX))
        };
        links.min_by_key(|(_, link)| rank(link)).map(|(id, _)| *id)
    }

    /// From here on what is sent goes over this one; what went over others may arrive by them yet.
    fn use_link(&mut self, now: Duration, id: LinkId) {
        self.in_use = Some(id);
        self.chosen_at = now;
    }

    /// What went over a link that ended or fell silent, and was not heard, goes over the one in use again. `carried`: so
    /// far it had got.
    fn send_again(&mut self, carried: u64) {
        let acknowledged = self.outgoing.acknowledged();
        if carried > acknowledged {
            self.cursor = acknowledged;
        }
    }

    /// A link that fell silent so long ago that it is to be ended, while another is up.
    pub fn lost(&self, now: Duration) -> Option<LinkId> {
        let is_lost =
            |link: &Link| link.state == LinkState::Silent && now >= link.fresh + self.times.lost;
        let lost = self.links.iter().find(|(_, link)| is_lost(link));
        let another_is_up = || self.links.values().any(|link| link.state == LinkState::Up);
        lost.filter(|_| another_is_up()).map(|(id, _)| *id)
    }

    /// Whether nothing shows that the other end is there any more: no link is open, or those that are were not heard
    /// of for twice as long as makes a link silent.
    pub fn is_over(&self, now: Duration) -> bool {
        let is_heard = |link: &Link| {
            link.state != LinkState::Silent && now < link.fresh + 2 * self.times.silent
        };
        !self.links.values().any(is_heard)
    }

    /// The link over which this end sends.
    pub fn in_use(&self) -> Option<LinkId> {
        self.in_use
    }

    /// What is known of a link; `None`: it is not open.
    pub fn state(&self, id: LinkId) -> Option<LinkState> {
        self.links.get(&id).map(|link| link.state)
    }

    /// How long it is there and back on a link, without what waits behind traffic.
    pub fn round_trip(&self, id: LinkId) -> Option<Duration> {
        self.links.get(&id).and_then(Link::round_trip)
    }

    /// Bytes that the other end does not have yet, as far as is known.
    pub fn kept_bytes(&self) -> usize {
        self.outgoing.kept_bytes()
    }
}

#[cfg(test)]
mod tests;
