//! The links of channels to hosts that are reached at several addresses.

use super::{Happened, Host};
use crate::host_time::monotonic;
use crate::status::LinkLine;
use replication::ConnectionId;
use replication::links::LinkId;
use std::collections::VecDeque;

impl Host {
    /// A connection says that it is a link of a channel. One that no channel of that host told this token has hears
    /// nothing: it is closed.
    pub(super) fn attach_link(
        &mut self,
        id: ConnectionId,
        token: u128,
        link: LinkId,
        happened: &mut Happened,
    ) {
        let Some(of) = self.channels.remove(&id) else {
            return;
        };
        let mut channels = self.channels.iter_mut();
        let named = channels.find(|(_, channel)| channel.is_named(token, of.peer()));
        if let Some((id, channel)) = named {
            let (id, received) = (*id, channel.attach(monotonic(), link, of));
            self.take_received(id, received, happened);
        }
    }

    /// Sees to the links of all channels.
    pub(super) fn tend_links(&mut self, happened: &mut Happened) {
        let now = monotonic();
        let mut ended = Vec::new();
        for (id, channel) in &mut self.channels {
            if let Err(error) = channel.tend(now, &self.membership, &self.waker) {
                ended.push((*id, error));
            }
            for (event, detail) in channel.news(now) {
                self.events.add(event, 0, 0, detail);
            }
        }
        for (id, error) in ended {
            self.take_received(id, (VecDeque::new(), Err(error)), happened);
        }
    }

    /// The links of a channel, if it has any.
    pub fn links_of(&self, id: ConnectionId) -> Option<Vec<LinkLine>> {
        self.channels.get(&id)?.lines()
    }

    /// The links of the channel to a host, if it has any.
    pub fn links_with(&self, host: &str) -> Option<Vec<LinkLine>> {
        let mut channels = self.channels.values();
        channels.find_map(|channel| {
            let is_its = channel.peer().is_some_and(|peer| peer.as_str() == host);
            channel.lines().filter(|_| is_its)
        })
    }
}
