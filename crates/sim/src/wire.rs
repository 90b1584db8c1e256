//! The way between two processes: dialling, sending, delivering, ending.

use crate::coverage::Situation;
use crate::network::Segment;
use crate::process::Role;
use crate::scenario::MS;
use crate::world::{What, World};
use replication::ConnectionId;
use replication::message::Message;

impl World {
    /// The node of the primary that a backup joins.
    pub(crate) fn primary_of(&self, node: usize) -> usize {
        match self.nodes[node].process.as_ref().map(|p| &p.role) {
            Some(Role::Backup(backup)) => backup.primary,
            _ => panic!("only a backup has a primary"),
        }
    }

    pub(crate) fn dial(&mut self, node: usize, run: u64) {
        let other = self.primary_of(node);
        let open = !self.network.links[node][other].cut && !self.network.links[other][node].cut;
        let listener = self.run_of(other).filter(|_| open);
        let round_trip = 2 * self.network.links[node][other].delay + MS / 10;
        match listener {
            Some(listener) => {
                let connection = self.network.connect((Some(node), run), (other, listener));
                self.at(
                    round_trip,
                    Some((node, run)),
                    What::Connected(Some(connection)),
                );
            }
            None => {
                let after = round_trip + self.random.between(0, 30) * MS;
                self.at(after, Some((node, run)), What::Connected(None));
            }
        }
    }

    pub(crate) fn connected(&mut self, node: usize, connection: Option<ConnectionId>) {
        let now = self.clock(node);
        // It may have ended before the event loop heard that it was there.
        let ended = connection
            .is_some_and(|connection| !self.network.connections[&connection.0].ends[0].open);
        if let Some(Role::Backup(backup)) = self.role(node) {
            match connection {
                Some(connection) => {
                    backup.connection = Some(connection);
                    backup.core.connected(now, connection);
                }
                None => backup.core.disconnected(now, None),
            }
            if ended {
                backup.core.disconnected(now, connection);
            }
        }
        self.settle(node);
    }

    pub(crate) fn send(&mut self, run: u64, connection: ConnectionId, message: &Message) {
        self.note(|| format!("process {run} on {}: {message:?}", connection.0));
        let Some(side) = self.network.side(connection, run) else {
            return;
        };
        let Some(bytes) = self.network.encode(connection, side, message) else {
            return;
        };
        let piece = self.random.pick(&[3, 50, 1000, usize::MAX]);
        for piece in bytes.chunks(piece.min(bytes.len()).max(1)) {
            let mut piece = piece.to_vec();
            let node = self.network.connections[&connection.0].ends[side].node;
            if let Some(node) = node
                && std::mem::take(&mut self.nodes[node].damage)
            {
                let bit = self.random.between(0, piece.len() as u64 * 8 - 1) as usize;
                piece[bit / 8] ^= 1 << (bit % 8);
                self.note(|| "a bit flips on the wire".to_owned());
            }
            self.post(connection, side, Segment::Bytes(piece));
        }
    }

    pub(crate) fn post(&mut self, connection: ConnectionId, side: usize, segment: Segment) {
        let jitter = self.random.bits();
        if let Some(at) = self
            .network
            .post(self.now, jitter, connection, side, segment)
        {
            self.at(at - self.now, None, What::Pump(connection, side));
        }
    }

    pub(crate) fn close(&mut self, connection: ConnectionId, run: u64) {
        if let Some(side) = self.network.side(connection, run)
            && let Some(opened) = self.network.connections.get_mut(&connection.0)
            && std::mem::replace(&mut opened.ends[side].open, false)
        {
            self.post(connection, side, Segment::End);
        }
    }

    /// Everything that could not get through may get through now.
    pub(crate) fn pump_all(&mut self) {
        let numbers: Vec<u64> = self.network.connections.keys().copied().collect();
        for number in numbers {
            for side in 0..2 {
                self.at(0, None, What::Pump(ConnectionId(number), side));
            }
        }
    }

    /// Delivers what has arrived from `side` of the connection.
    pub(crate) fn pump(&mut self, connection: ConnectionId, side: usize) {
        loop {
            let Some(opened) = self.network.connections.get(&connection.0) else {
                return;
            };
            let receiver = &opened.ends[1 - side];
            if !self.network.flows(opened, side)
                || receiver
                    .node
                    .is_some_and(|node| self.nodes[node].frozen_since.is_some())
            {
                return;
            }
            let (node, run, open) = (receiver.node, receiver.run, receiver.open);
            let now = self.now;
            let Some(opened) = self.network.connections.get_mut(&connection.0) else {
                return;
            };
            let void = opened.ends[side].void;
            let outgoing = &mut opened.ends[side].outgoing;
            let Some((_, segment)) = outgoing.pop_front_if(|(at, _)| *at <= now) else {
                return;
            };
            let lost = void && matches!(segment, Segment::Bytes(_));
            match (node, segment) {
                (Some(node), segment) if open && self.run_of(node) == Some(run) && !lost => {
                    self.deliver(node, connection, 1 - side, segment);
                }
                _ => {}
            }
        }
    }

    fn deliver(&mut self, node: usize, connection: ConnectionId, side: usize, segment: Segment) {
        let Segment::Bytes(bytes) = segment else {
            return self.hear_end(node, connection, side);
        };
        if let Some(opened) = self.network.connections.get_mut(&connection.0) {
            opened.ends[side].reader.push(&bytes);
        }
        loop {
            let Some(opened) = self.network.connections.get_mut(&connection.0) else {
                return;
            };
            let end = &mut opened.ends[side];
            if !end.open {
                return;
            }
            match end.reader.next_message() {
                Ok(Some(message)) => self.hear(node, connection, message),
                Ok(None) => return,
                Err(error) => {
                    self.note(|| format!("node {node}: {error}"));
                    self.coverage.reached(Situation::DamageNoticed);
                    let run = self.run_of(node).unwrap_or(0);
                    self.close(connection, run);
                    return self.hear_end(node, connection, side);
                }
            }
        }
    }

    fn hear(&mut self, node: usize, connection: ConnectionId, message: Message) {
        if self.hear_fetching(node, connection, &message) {
            return self.settle(node);
        }
        let now = self.clock(node);
        let is_hello = matches!(message, Message::Hello { .. });
        match self.role(node) {
            Some(Role::Primary(primary)) => primary.core.received(now, connection, message),
            Some(Role::Backup(_) | Role::Starting) if is_hello => {
                self.answer_standing(node, connection);
            }
            Some(Role::Backup(backup)) => backup.core.received(now, connection, message),
            Some(Role::Starting) | None => {}
        }
        self.settle(node);
    }

    fn hear_end(&mut self, node: usize, connection: ConnectionId, side: usize) {
        let now = self.clock(node);
        if let Some(opened) = self.network.connections.get_mut(&connection.0) {
            opened.ends[side].open = false;
        }
        if self.fetching_ended(node, connection) {
            return self.settle(node);
        }
        match self.role(node) {
            Some(Role::Primary(primary)) => primary.core.disconnected(now, connection),
            Some(Role::Backup(backup)) => backup.core.disconnected(now, Some(connection)),
            Some(Role::Starting) | None => {}
        }
        self.settle(node);
    }
}
