//! A link of so many bytes a second in each direction, before a server.

use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that go at once.
const PIECE_BYTES: usize = 4096;
/// What waits for the link waits at its sender, but for so much.
const BUFFER_BYTES: usize = 64 << 10;
/// A connection that has the link keeps it until nothing has come for so long.
const LINGERS: Duration = Duration::from_millis(50);

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// Connections take turns by the piece.
    Fair,
    /// Who has the link has it for as long as there is something to send.
    Hogged,
}

/// The link. Its threads end with the connections; the listening one with the process.
#[derive(Debug)]
pub struct SlowLink {
    address: String,
    bytes_per_second: Arc<AtomicU64>,
}

/// One direction of it.
struct Direction {
    turns: Turns,
    bytes_per_second: Arc<AtomicU64>,
    owned: Mutex<()>,
    /// When what was given to it so far will have gone.
    free: Mutex<Instant>,
}

impl SlowLink {
    /// To `target`, as fast as the host at first.
    pub fn start(target: String, turns: Turns) -> SlowLink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        set_socket_recv_buffer_size(&listener, BUFFER_BYTES).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let bytes_per_second = Arc::new(AtomicU64::new(u64::MAX));
        let direction = || {
            Arc::new(Direction {
                turns,
                bytes_per_second: bytes_per_second.clone(),
                owned: Mutex::new(()),
                free: Mutex::new(Instant::now()),
            })
        };
        let (there, back) = (direction(), direction());
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                if let Ok(far) = TcpStream::connect(&target) {
                    set_socket_recv_buffer_size(&far, BUFFER_BYTES).unwrap();
                    set_socket_send_buffer_size(&near, BUFFER_BYTES).unwrap();
                    near.set_nodelay(true).unwrap();
                    far.set_nodelay(true).unwrap();
                    let ends = (near.try_clone().unwrap(), far.try_clone().unwrap());
                    lead(ends.0, ends.1, there.clone());
                    lead(far, near, back.clone());
                }
            }
        });
        SlowLink {
            address,
            bytes_per_second,
        }
    }

    /// Where it begins.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on it carries so many; 0: nothing.
    pub fn carries(&self, bytes_per_second: u64) {
        self.bytes_per_second
            .store(bytes_per_second, Ordering::Relaxed);
    }
}

impl Direction {
    /// Waits as long as so many bytes take.
    fn carry(&self, bytes: usize) {
        while self.bytes_per_second.load(Ordering::Relaxed) == 0 {
            thread::sleep(LINGERS);
        }
        let speed = self.bytes_per_second.load(Ordering::Relaxed);
        let takes = Duration::from_secs_f64(bytes as f64 / speed as f64);
        let until = {
            let mut free = self.free.lock().unwrap();
            *free = (*free).max(Instant::now()) + takes;
            *free
        };
        thread::sleep(until.saturating_duration_since(Instant::now()));
    }
}

fn lead(mut from: TcpStream, mut to: TcpStream, direction: Arc<Direction>) {
    thread::spawn(move || {
        let mut piece = [0; PIECE_BYTES];
        loop {
            from.set_read_timeout(None).unwrap();
            let Ok(read @ 1..) = from.read(&mut piece) else {
                break;
            };
            let owned = (direction.turns == Turns::Hogged).then(|| direction.owned.lock().unwrap());
            direction.carry(read);
            if to.write_all(&piece[..read]).is_err() {
                break;
            }
            if owned.is_some() && hog(&mut from, &mut to, &direction).is_err() {
                break;
            }
        }
        let _closed = to.shutdown(Shutdown::Both);
        let _closed = from.shutdown(Shutdown::Both);
    });
}

/// Sends whatever comes without a pause.
fn hog(from: &mut TcpStream, to: &mut TcpStream, direction: &Direction) -> std::io::Result<()> {
    let mut piece = [0; PIECE_BYTES];
    from.set_read_timeout(Some(LINGERS))?;
    loop {
        match from.read(&mut piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                direction.carry(read);
                to.write_all(&piece[..read])?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
