//! The event loop of a replica that looks what it can be.

use super::host::Host;
use super::markers::Purpose;
use super::peers::Peers;
use crate::end::{Ended, ReplicaError};
use crate::host_time::monotonic;
use crate::status::ReplicaStatus;
use replication::message::Message;
use replication::startup::{Startup, StartupAction};
use replication::succession::Entry;

/// What comes of it.
pub enum Next {
    /// The process ends.
    Exit(Result<Ended, ReplicaError>),
    /// The machine is started from its images and disks.
    Start(Box<Entry>),
    /// The primary at this address is joined.
    Join(String, Box<Entry>),
}

/// Serves until it is known what this replica is.
pub fn serve(
    host: &mut Host,
    startup: &mut Startup,
    peers: &[String],
) -> Result<Next, ReplicaError> {
    host.arbiter.forget();
    let greeting = host.pair_config.greeting.clone();
    let mut asked = Peers::new(peers.to_vec(), greeting, host.waker.clone());
    loop {
        while let Some((purpose, result)) = host.markers.done() {
            // Of a role that is given up: what it wrote still counts.
            host.marker_written(purpose, result);
            startup.worth_is(host.markers.worth());
        }
        while let Some((request, outcome)) = host.arbiter.answer(monotonic()) {
            startup.arbiter_answered(monotonic(), &request, &outcome);
        }
        while let Some((peer, answer)) = asked.answer() {
            startup.peer_answered(monotonic(), peer, answer);
        }
        startup.tick(monotonic());
        if let Some(next) = actions(host, startup, &mut asked, peers) {
            return Ok(next);
        }
        let deadline = startup.next_deadline();
        let waiting = startup.waiting().to_string();
        let happened = host.wait(deadline, true, |host| status(host, &waiting))?;
        if happened.stop {
            return Ok(Next::Exit(Ok(Ended::Asked)));
        }
        for (connection, message) in happened.messages {
            if matches!(message, Message::Ask { .. } | Message::Hello { .. }) {
                host.send(connection, &Message::Standing(startup.standing()));
            }
            host.close(connection);
        }
    }
}

fn actions(
    host: &mut Host,
    startup: &mut Startup,
    asked: &mut Peers,
    peers: &[String],
) -> Option<Next> {
    while let Some(action) = startup.next_action() {
        match action {
            StartupAction::Ask(request) => host.arbiter.ask(monotonic(), request),
            StartupAction::AskPeers => asked.ask(),
            StartupAction::Wait(waiting) => {
                host.events.add("waiting", 0, 0, waiting.to_string());
            }
            StartupAction::Join { peer, newest } => {
                let address = peers[usize::from(peer.0)].clone();
                return Some(Next::Join(address, newest));
            }
            StartupAction::Start { won } => return Some(Next::Start(won)),
            StartupAction::Refuse(refusal) => {
                return Some(Next::Exit(Err(ReplicaError::LifeIsOver(refusal))));
            }
        }
    }
    None
}

fn status(host: &Host, waiting: &str) -> ReplicaStatus {
    ReplicaStatus {
        role: "waiting".into(),
        state: waiting.into(),
        listen: host.listen_address(),
        ..host.base_status(None)
    }
}

impl Host {
    /// Tells what came of a marker that nobody waits for any more, or that failed.
    pub fn marker_written(&mut self, purpose: Purpose, result: std::io::Result<()>) {
        if let Err(error) = result {
            let what = format!("the marker of {purpose:?} cannot be written: {error}");
            self.events.add("marker_failed", 0, 0, what);
        }
    }
}
