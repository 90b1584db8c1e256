//! The connection on which a backup fetches the pieces of a snapshot, and what stands in for the
//! program's threads at both ends of it.

use crate::process::{Role, Sending};
use crate::scenario::MS;
use crate::world::{What, World};
use replication::ConnectionId;
use replication::message::{Message, MessageReader, SnapshotChunk, SnapshotPart};
use replication::succession::RunId;
use std::collections::VecDeque;

/// What a backup process fetches.
#[derive(Debug, Default)]
pub struct Fetching {
    /// The pairing.
    pub pairing: u64,
    /// The connection, once there is one.
    pub connection: Option<ConnectionId>,
    /// Pieces that came.
    chunks: u64,
    /// All of them came.
    whole: bool,
    /// Where the snapshot belongs is known.
    placed: bool,
    /// The restore has begun.
    begun: bool,
}

impl World {
    /// The backup's core wants the snapshot of this pairing.
    pub(crate) fn fetch(&mut self, node: usize, run: u64, pairing: u64) {
        let other = self.primary_of(node);
        let open = !self.network.links[node][other].cut && !self.network.links[other][node].cut;
        let listener = self.run_of(other).filter(|_| open);
        let connection = listener.map(|listener| {
            let connection = self.network.connect((Some(node), run), (other, listener));
            if let Some(opened) = self.network.connections.get_mut(&connection.0) {
                opened.ends[0].reader = MessageReader::of_snapshot();
            }
            connection
        });
        if let Some(Role::Backup(backup)) = self.role(node) {
            backup.fetching = Some(Fetching {
                pairing,
                connection,
                ..Fetching::default()
            });
        }
        let round_trip = 2 * self.network.links[node][other].delay + MS / 10;
        self.at(round_trip, Some((node, run)), What::Fetches(pairing));
    }

    /// The connection is there, or is not.
    pub(crate) fn fetches(&mut self, node: usize, pairing: u64) {
        let Some(run) = self.run_of(node) else { return };
        let Some(Role::Backup(backup)) = self.role(node) else {
            return;
        };
        let fetching = backup.fetching.as_ref().filter(|f| f.pairing == pairing);
        let Some(fetching) = fetching else { return };
        match fetching.connection {
            Some(connection) => {
                let run_id = RunId(run.into());
                let message = Message::Fetch {
                    pairing,
                    run: run_id,
                };
                self.send(run, connection, &message);
            }
            None => self.fetch_failed(node),
        }
        self.settle(node);
    }

    fn fetch_failed(&mut self, node: usize) {
        let now = self.clock(node);
        let Some(run) = self.run_of(node) else { return };
        if let Some(Role::Backup(backup)) = self.role(node)
            && let Some(main) = backup.connection
        {
            backup.fetching = None;
            backup.core.disconnected(now, Some(main));
            self.close(main, run);
        }
    }

    /// Whether this is the connection for pieces, of which the core knows nothing; what came is dealt
    /// with.
    pub(crate) fn hear_fetching(
        &mut self,
        node: usize,
        connection: ConnectionId,
        message: &Message,
    ) -> bool {
        if let Message::Fetch { pairing, run } = message {
            self.is_asked(node, connection, *pairing, *run);
            return true;
        }
        let Some(Role::Backup(backup)) = self.role(node) else {
            return false;
        };
        let fetching = backup.fetching.as_mut();
        let Some(fetching) = fetching.filter(|f| f.connection == Some(connection)) else {
            return false;
        };
        match message {
            Message::Snapshot(chunk) if chunk.pairing == fetching.pairing => {
                fetching.chunks += 1;
                backup.stored.extend_from_slice(&chunk.bytes);
                self.nodes[node].disk.is_being_copied();
            }
            Message::SnapshotEnd { pairing, chunks }
                if *pairing == fetching.pairing && *chunks == fetching.chunks =>
            {
                fetching.whole = true;
                self.restore_if_whole(node);
            }
            other => self.violated(format!("on the connection for pieces: {other:?}")),
        }
        true
    }

    /// The core knows where the snapshot belongs.
    pub(crate) fn snapshot_placed(&mut self, node: usize) {
        if let Some(Role::Backup(backup)) = self.role(node)
            && let Some(fetching) = &mut backup.fetching
        {
            fetching.placed = true;
            self.restore_if_whole(node);
        }
    }

    fn restore_if_whole(&mut self, node: usize) {
        let Some(run) = self.run_of(node) else { return };
        if let Some(Role::Backup(backup)) = self.role(node)
            && let Some(fetching) = &mut backup.fetching
            && fetching.whole
            && fetching.placed
            && !std::mem::replace(&mut fetching.begun, true)
        {
            self.begin_restore(node, run);
        }
    }

    /// Somebody asks a primary for the pieces.
    fn is_asked(&mut self, node: usize, connection: ConnectionId, pairing: u64, run: RunId) {
        let Some(own) = self.run_of(node) else { return };
        if let Some(Role::Primary(primary)) = self.role(node)
            && let Some(joiner) = primary.core.joining()
            && (joiner.pairing, joiner.run) == (pairing, run)
        {
            primary.asking = Some((pairing, connection));
            return self.begin_sending(node);
        }
        self.close(connection, own);
    }

    /// Begins to send, if there is a snapshot and somebody who asked for it.
    pub(crate) fn begin_sending(&mut self, node: usize) {
        let pieces = self.scenario.chunks.max(1) as usize;
        let Some(run) = self.run_of(node) else { return };
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let Some((pairing, connection)) = primary.asking else {
            return;
        };
        let Some((_, bytes)) = primary.snapshot.take_if(|(of, _)| *of == pairing) else {
            return;
        };
        let left: VecDeque<Vec<u8>> = bytes
            .chunks(bytes.len().div_ceil(pieces).max(1))
            .map(<[u8]>::to_vec)
            .collect();
        primary.sending = Some(Sending {
            pairing,
            connection,
            chunks: left.len() as u64,
            left,
        });
        let after = self.scenario.chunk_time;
        self.at(after, Some((node, run)), What::Chunk(pairing));
    }

    /// The next piece leaves, or the end.
    pub(crate) fn send_chunk(&mut self, node: usize, pairing: u64) {
        let Some(run) = self.run_of(node) else { return };
        let Some(Role::Primary(primary)) = self.role(node) else {
            return;
        };
        let sending = primary.sending.as_mut().filter(|s| s.pairing == pairing);
        let Some(sending) = sending else { return };
        let (connection, chunks) = (sending.connection, sending.chunks);
        let Some(bytes) = sending.left.pop_front() else {
            primary.sending = None;
            return self.send(run, connection, &Message::SnapshotEnd { pairing, chunks });
        };
        let chunk = SnapshotChunk {
            pairing,
            part: SnapshotPart::Machine,
            offset: 0,
            total: bytes.len() as u64,
            bytes,
        };
        self.send(run, connection, &Message::Snapshot(chunk));
        let after = self.scenario.chunk_time;
        self.at(after, Some((node, run)), What::Chunk(pairing));
    }

    /// Whether the connection that ended is one for pieces; what comes of it is done.
    pub(crate) fn fetching_ended(&mut self, node: usize, connection: ConnectionId) -> bool {
        let now = self.clock(node);
        match self.role(node) {
            Some(Role::Primary(primary)) => {
                let is_it = |asking: &mut (u64, ConnectionId)| asking.1 == connection;
                let Some((pairing, _)) = primary.asking.take_if(is_it) else {
                    return false;
                };
                if primary.sending.take().is_some() {
                    primary.core.snapshot_failed(now, pairing);
                }
                true
            }
            Some(Role::Backup(backup)) => {
                let fetching = backup.fetching.as_ref();
                let Some(fetching) = fetching.filter(|f| f.connection == Some(connection)) else {
                    return false;
                };
                if !fetching.whole {
                    self.fetch_failed(node);
                }
                true
            }
            Some(Role::Starting) | None => false,
        }
    }
}
