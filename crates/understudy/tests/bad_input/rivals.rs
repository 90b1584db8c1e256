//! Another live machine of the same name, or with the guest's address: both are told, loudly.

use crate::peers::{Peer, greeting, live, stranger};
use crate::support::guest_program::counting_slowly;
use crate::support::{PairDirectory, Process, wait_for};
use network::SwitchPort;
use replication::marker::Worth;
use replication::message::{LifeId, Message};
use replication::startup::{Stance, Standing};
use replication::succession::{Generation, LifeNumber};
use rustix::process::Signal;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The guest's address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// A switch, its address, and what a machine is told of it.
fn switch(pair: &PairDirectory) -> (Process, String, String) {
    let socket = format!("unix:{}", pair.path().join("switch.sock").display());
    let process = Process::start(&["switch", "--listen", &socket]);
    wait_for("the switch", || {
        SwitchPort::connect(&socket.parse().unwrap(), None).ok()
    });
    let network = format!("[network]\nswitch = \"{socket}\"\nmac = \"52:54:00:12:34:56\"\n");
    (process, socket, network)
}

/// Two hosts with two arbiters, of which each has powered the machine on: nobody but the peers can know.
#[test]
fn a_peer_that_is_live_as_well_is_told() {
    let pair = PairDirectory::new(&counting_slowly());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = listener.local_addr().unwrap().to_string();
    let primary = pair.replica("r1", Some(&listen), "");
    let is_live = Arc::new(AtomicBool::new(false));
    let keys = pair.keys();
    let stance = is_live.clone();
    std::thread::spawn(move || {
        loop {
            let mut peer = Peer::accept(&keys, &listener);
            let nothing = Standing {
                machine: greeting().machine,
                host: stranger(),
                stance: Stance::NoMachine,
                life: LifeNumber(0),
                life_id: LifeId(0),
                generation: Generation(0),
                worth: Worth::Fresh,
            };
            let standing = if stance.load(Ordering::Relaxed) {
                live()
            } else {
                nothing
            };
            if let Some(Message::Ask { .. }) = peer.receive() {
                peer.send(&Message::Standing(standing));
            }
        }
    });
    let _process = Process::start(&["replica", "--config", primary.config()]);
    primary.await_state("alone");
    assert!(!primary.has_event("another_live"));
    is_live.store(true, Ordering::Relaxed);
    wait_for("the other one to be told", || {
        primary.has_event("another_live").then_some(())
    });
    primary.await_state("alone");
}

/// A frame from a stranger's address is nobody's business; one from the guest's own is.
#[test]
fn a_frame_from_the_guests_own_address_is_told() {
    let pair = PairDirectory::new(&counting_slowly());
    let (_switch, socket, network) = switch(&pair);
    let (primary, _process, _) = pair.primary_with("r1", &network);
    primary.await_state("alone");
    let port = SwitchPort::connect(&socket.parse().unwrap(), None).unwrap();
    let mut other = port.serving(MAC);
    let mut say = |from: [u8; 6]| {
        let mut frame = [&[0xff; 6][..], &from, &[0x88, 0xb5]].concat();
        frame.resize(64, 0);
        other.send(&frame).unwrap();
    };
    say([2, 0, 0, 0, 0, 9]);
    wait_for("the other machine to be told", || {
        say(MAC);
        primary.has_event("address_conflict").then_some(())
    });
    let status = primary.status().unwrap();
    assert!(status["foreign_frames"].as_u64() >= Some(1), "{status}");
}

/// Finding: it called its successor another machine with its guest's address, and the handbook says to stop one.
#[test]
fn a_primary_that_slept_through_a_takeover_does_not_call_its_successor_a_stranger() {
    let pair = PairDirectory::new(&counting_slowly());
    let (_switch, socket, network) = switch(&pair);
    let (primary, process, listen) = pair.primary_with("r1", &network);
    let (backup, _backup_process) = pair.backup_with("r2", &listen, &network);
    primary.await_state("protected");
    process.signal(Signal::STOP);
    wait_for("the takeover", || {
        backup.status().filter(|status| status["role"] == "primary")
    });
    let port = SwitchPort::connect(&socket.parse().unwrap(), None).unwrap();
    let mut successor = port.serving(MAC);
    let mut frame = [&[0xff; 6][..], &MAC, &[0x88, 0xb5]].concat();
    frame.resize(64, 0);
    // They wait for the one that sleeps, too. Of the first second of a primary nobody is told.
    wait_for("the successor to hear them", || {
        successor.send(&frame).unwrap();
        backup.has_event("address_conflict").then_some(())
    });
    process.signal(Signal::CONT);
    wait_for("the woken one to follow", || {
        primary.status().filter(|status| status["role"] == "backup")
    });
    assert!(primary.has_event("claim_lost"));
    assert!(!primary.has_event("address_conflict"));
    assert!(!primary.has_event("another_live"), "it is its successor");
}
