//! The links of a channel to a host that is reached at several addresses: dialed again when they end, and told of.

use super::channel::ChannelError;
use crate::packing::MessageStream;
use crate::peer_addresses::PeerAddresses;
use crate::peer_stream::Membership;
use crate::status::LinkLine;
use crate::transport::{Connection, Dialing};
use crate::wake::Waker;
use replication::links::{LinkId, LinkState, LinkTimes, Links};
use replication::message::{Message, MessageWriter};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long one attempt to open a link may take.
const DIAL_TIMEOUT: Duration = Duration::from_millis(500);
/// A link that has ended is opened again after this…
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// …and after twice as long each time that this fails, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// One that is not there so long after the channel's beginning is told of, though it never was.
const NEVER_UP: Duration = Duration::from_secs(5);
/// Of one link it is told at most this often: one that comes and goes must not fill the state directory.
const TOLD_INTERVAL: Duration = Duration::from_secs(5);

/// What a channel has of its links.
#[derive(Debug)]
pub struct ChannelLinks {
    /// By which a further link names the channel.
    pub token: u128,
    /// What goes over which.
    pub state: Links,
    /// What comes is of links: the other end has said so.
    pub hears: bool,
    /// Of the end that opens them.
    dials: Option<Dials>,
    /// Where each leads, for people.
    places: BTreeMap<LinkId, String>,
    told: BTreeMap<LinkId, Told>,
    began: Duration,
}

/// What was told of a link.
#[derive(Clone, Copy, Debug)]
struct Told {
    is_up: bool,
    at: Option<Duration>,
}

/// Opens links, and opens them again.
#[derive(Debug)]
struct Dials {
    addresses: PeerAddresses,
    /// By the number of the link, which is the index of its address.
    dials: Vec<Dial>,
}

#[derive(Debug)]
struct Dial {
    dialing: Option<Dialing>,
    next_at: Duration,
    pause: Duration,
}

impl Dial {
    fn failed(&mut self, now: Duration) {
        self.next_at = now + self.pause;
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
    }
}

impl ChannelLinks {
    /// Of a channel whose first link is there, and leads to `place`.
    pub fn new(now: Duration, token: u128, times: LinkTimes, place: String) -> ChannelLinks {
        let mut state = Links::new(now, times);
        let first = LinkId(0);
        state.opened(now, first);
        let told = Told {
            is_up: true,
            at: None,
        };
        ChannelLinks {
            token,
            state,
            hears: false,
            dials: None,
            places: BTreeMap::from([(first, place)]),
            told: BTreeMap::from([(first, told)]),
            began: now,
        }
    }

    /// The same, at the end that opens the others: the host's addresses, the one of the first link in front.
    pub fn that_dial(
        now: Duration,
        token: u128,
        times: LinkTimes,
        to: &PeerAddresses,
    ) -> ChannelLinks {
        let mut links = ChannelLinks::new(now, token, times, to.first().to_owned());
        let dial = |_| Dial {
            dialing: None,
            next_at: now,
            pause: FIRST_PAUSE,
        };
        let places = to.iter().map(str::to_owned);
        links.places = (0..).map(LinkId).zip(places).collect();
        links.dials = Some(Dials {
            addresses: to.clone(),
            dials: to.iter().map(dial).collect(),
        });
        links
    }

    /// A link is there.
    pub fn opened(&mut self, now: Duration, link: LinkId, place: Option<String>) {
        self.state.opened(now, link);
        if let Some(place) = place {
            self.places.insert(link, place);
        }
    }

    /// Takes what came on a link, and gives the reader of messages what is next.
    ///
    /// # Errors
    /// It is none of a link's frames, or none of a channel's chunks.
    pub fn receive(
        &mut self,
        now: Duration,
        link: LinkId,
        bytes: &[u8],
        reader: &mut MessageStream,
    ) -> Result<(), ChannelError> {
        let mut understood = Ok(());
        self.state.receive(now, link, bytes, |bytes| {
            if understood.is_ok() {
                understood = reader.push(bytes);
            }
        })?;
        Ok(understood?)
    }

    /// A link has ended: it is opened again after a while.
    pub fn ended(&mut self, now: Duration, link: LinkId) {
        let was_up = self.state.state(link) == Some(LinkState::Up);
        self.state.ended(now, link);
        let dials = self.dials.iter_mut().flat_map(|dials| &mut dials.dials);
        if let Some(dial) = dials.into_iter().nth(link.0.into()) {
            if was_up {
                dial.pause = FIRST_PAUSE;
            }
            dial.failed(now);
        }
    }

    /// Opens what is not open, and gives what was opened: connections that are links from here on.
    pub fn dial(
        &mut self,
        now: Duration,
        membership: &Membership,
        waker: &Waker,
    ) -> Vec<(LinkId, Connection)> {
        let Some(Dials { addresses, dials }) = self.dials.as_mut().filter(|_| self.hears) else {
            return Vec::new();
        };
        let mut made = Vec::new();
        for ((dial, address), id) in dials
            .iter_mut()
            .zip(addresses.iter())
            .zip((0..).map(LinkId))
        {
            let dialed = dial.dialing.as_ref().map(Dialing::dialed);
            match dialed {
                Some(None) => {}
                Some(Some(dialed)) => {
                    dial.dialing = None;
                    let named = dialed.map_err(io::Error::other);
                    match named.and_then(|dialed| name(dialed.connection, self.token, id)) {
                        Ok(connection) => made.push((id, connection)),
                        Err(_) => dial.failed(now),
                    }
                }
                None if self.state.state(id).is_none() && now >= dial.next_at => {
                    let address = PeerAddresses::from(address.to_owned());
                    let (membership, waker) = (membership.clone(), waker.clone());
                    match Dialing::start(&address, DIAL_TIMEOUT, membership, waker) {
                        Ok(dialing) => dial.dialing = Some(dialing),
                        Err(_) => dial.failed(now),
                    }
                }
                None => {}
            }
        }
        made
    }

    /// When there is something to do.
    pub fn deadline(&self) -> Duration {
        let dials = self.dials.iter().filter(|_| self.hears);
        let dials = dials.flat_map(|dials| (0..).map(LinkId).zip(&dials.dials));
        let is_due = |(id, dial): &(LinkId, &Dial)| {
            dial.dialing.is_none() && self.state.state(*id).is_none()
        };
        let dials = dials.filter(is_due).map(|(_, dial)| dial.next_at);
        dials.fold(self.state.deadline(), Duration::min)
    }

    /// What is new of the links, for people: the event's name, and the text. `host`: who is at the other end.
    pub fn news(&mut self, now: Duration, host: &str) -> Vec<(&'static str, String)> {
        let mut news = Vec::new();
        for (id, place) in &self.places {
            let state = self.state.state(*id);
            if state == Some(LinkState::New) {
                continue;
            }
            let is_up = state == Some(LinkState::Up);
            let told = self.told.entry(*id).or_insert(Told {
                is_up: false,
                at: None,
            });
            let is_time = told.at.is_none_or(|at| now >= at + TOLD_INTERVAL);
            let never_was = !is_up && told.at.is_none() && now >= self.began + NEVER_UP;
            if told.is_up == is_up && !never_was || !is_time {
                continue;
            }
            let at = Some(now);
            *told = Told { is_up, at };
            let ms =
                |trip: Duration| format!(", {:.1} ms there and back", trip.as_secs_f64() * 1e3);
            let trip = self.state.round_trip(*id).map_or(String::new(), ms);
            let others = (0..).map(LinkId).take(self.places.len());
            let others = others.filter(|id| self.state.state(*id) == Some(LinkState::Up));
            let others = others.count();
            news.push(match is_up {
                true => ("link_up", format!("{host} answers at {place}{trip}")),
                false => (
                    "link_down",
                    format!("{host} does not answer at {place}; links that are up: {others}"),
                ),
            });
        }
        news
    }

    /// For the status.
    pub fn lines(&self) -> Vec<LinkLine> {
        let line = |(id, place): (&LinkId, &String)| LinkLine {
            address: place.clone(),
            in_use: self.state.in_use() == Some(*id),
            up: self.state.state(*id) == Some(LinkState::Up),
            round_trip_ms: self
                .state
                .round_trip(*id)
                .map(|trip| trip.as_secs_f64() * 1e3),
        };
        self.places.iter().map(line).collect()
    }
}

/// Says on a connection that it is this link.
fn name(mut connection: Connection, token: u128, link: LinkId) -> io::Result<Connection> {
    let mut bytes = Vec::new();
    MessageWriter::default().write(&mut bytes, &Message::Link { token, link });
    connection.send(&bytes)?;
    connection.flush()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding: a link that never came up was told of by nobody, and who had configured it thought that it was there.
    #[test]
    fn a_link_that_never_came_up_is_told_of_once() {
        let addresses = ["192.0.2.1:7400", "198.51.100.1:7400"].map(str::to_owned);
        let to = PeerAddresses::new(addresses.to_vec()).unwrap();
        let times = LinkTimes::within(Duration::from_millis(240));
        let mut links = ChannelLinks::that_dial(Duration::ZERO, 7, times, &to);
        let mut told = Vec::new();
        for second in 0..60 {
            let news = links.news(Duration::from_secs(second), "hostb");
            told.extend(news.into_iter().map(|news| (second, news)));
        }
        let (second, (event, detail)) = &told[0];
        assert_eq!(
            (*second, *event, told.len()),
            (5, "link_down", 1),
            "{told:?}"
        );
        assert!(detail.contains("198.51.100.1:7400"), "{detail}");
    }
}
