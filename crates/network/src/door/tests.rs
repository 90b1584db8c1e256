//! Strangers at a door, over real sockets.

use super::*;
use keys::{BlockingSession, LetIn, Purpose, Site, Validity};
use std::io::{Read, Write};

/// How long a stranger has here.
const SHORT: Duration = Duration::from_millis(300);
/// Whatever is waited for is there long before, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    door: Door,
    keys: Keys,
    _site: tempfile::TempDir,
}

impl House {
    fn open() -> House {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let host = "hosta".parse().unwrap();
        let issued = site.issue(&host, Validity::days(9)).unwrap();
        let keys = Keys::open(&issued, Purpose::Replica, LetIn::Site).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let door = Door::open_for(SHORT, listener, keys.clone(), || {}, || {}).unwrap();
        House {
            door,
            keys,
            _site: directory,
        }
    }

    fn knock(&self) -> TcpStream {
        let stream = TcpStream::connect(self.door.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// The first message of a member's handshake.
    fn hello(&self) -> Vec<u8> {
        struct Wire(Vec<u8>);
        impl Read for Wire {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(ErrorKind::WouldBlock.into())
            }
        }
        impl Write for Wire {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut wire = Wire(Vec::new());
        assert!(!self.keys.connect().unwrap().handshake(&mut wire).unwrap());
        wire.0
    }

    fn lets_a_member_in(&self) {
        let session = BlockingSession::connect(&self.keys, self.knock(), PATIENCE);
        session.unwrap();
        let until = Instant::now() + PATIENCE;
        while self.door.member().is_none() {
            assert!(Instant::now() < until, "a member waited in vain");
            std::thread::yield_now();
        }
    }
}

/// Numbers that are the same on every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % below
    }
}

/// Says a byte now and then for as long as it is listened to. Returns how long that was.
fn trickle(mut stream: TcpStream, bytes: &[u8]) -> Duration {
    let began = Instant::now();
    let pause = Some(SHORT / 20);
    stream.set_read_timeout(pause).unwrap();
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).is_err() || began.elapsed() > PATIENCE {
            break;
        }
        match stream.read(&mut [0; 999]) {
            Ok(0) => break,
            Err(error) if error.kind() != ErrorKind::WouldBlock => break,
            Ok(_) | Err(_) => {}
        }
    }
    began.elapsed()
}

/// A place is for a time, not for as long as somebody goes on to speak.
#[test]
fn whoever_speaks_on_and_on_without_saying_who_it_is_has_its_time_and_no_more() {
    let house = House::open();
    let hello = house.hello();
    // The beginning of a handshake that never ends, and a record of which there is ever more to come.
    let openings = [
        hello[..hello.len() - 1].to_vec(),
        vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3],
    ];
    let speakers = openings.map(|opening| {
        let stream = house.knock();
        std::thread::spawn(move || trickle(stream, &opening))
    });
    for speaker in speakers {
        let stayed = speaker.join().unwrap();
        assert!(stayed < PATIENCE, "it was listened to for {stayed:?}");
        assert!(stayed >= SHORT / 2, "it had no time to speak: {stayed:?}");
    }
    // They are told of after they were closed.
    let until = Instant::now() + PATIENCE;
    let mut late = 0;
    while late < 2 {
        assert!(Instant::now() < until, "{late} of 2 were told of");
        let (told, _) = house.door.turned_away();
        let is_late = |what: &&String| what.contains("did not say within 0.3 s");
        late += told.iter().filter(is_late).count();
        std::thread::yield_now();
    }
    assert_eq!(late, 2);
    house.lets_a_member_in();
}

/// Any bytes, cut anywhere, by many at a time: all are closed, and the door goes on.
#[test]
fn any_bytes_cut_anywhere_leave_the_door_as_it_was() {
    let house = House::open();
    let hello = house.hello();
    let mut numbers = Numbers(7);
    let mut knocked = Vec::new();
    for round in 0..300 {
        let mut said: Vec<u8> = match round % 3 {
            0 => (0..numbers.next(6_000))
                .map(|_| numbers.next(256) as u8)
                .collect(),
            _ => hello.clone(),
        };
        if round % 3 == 1 {
            said.truncate(numbers.next(hello.len()));
        }
        if round % 3 == 2 {
            let at = numbers.next(said.len());
            said[at] ^= 1 << numbers.next(8);
        }
        let mut stream = house.knock();
        let cut = numbers.next(said.len() + 1);
        // It may be closed in the middle.
        let _written = stream.write_all(&said[..cut]);
        let _written = stream.write_all(&said[cut..]);
        knocked.push(stream);
    }
    for mut stream in knocked {
        let mut buffer = [0; 4096];
        // An end, however the door makes it, and not this side's patience.
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    assert_ne!(error.kind(), ErrorKind::WouldBlock, "it was never closed");
                    break;
                }
            }
        }
    }
    assert!(house.door.member().is_none(), "a stranger came in");
    house.lets_a_member_in();
}
