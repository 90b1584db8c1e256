//! The way to a store, which loses answers, holds requests up or repeats what it said before.

use arbiter::Store;
use replication::succession::{Outcome, Request};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// What happens to requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// They are carried out, and nobody hears of it.
    AnswersLost,
    /// They are refused by something that is broken, and not carried out.
    Failing,
    /// They come to an end at once, and nobody knows why.
    Unreachable,
    /// They are held up until this fault is over, and carried out then.
    HeldUp,
    /// Whoever reads hears what the same question brought when it was asked first.
    Stale,
    /// They are answered with the time of another century, now before and now after this one.
    LyingAboutTime,
    /// The condition of a create is left out (S3).
    Unconditional,
    /// Whoever asks for what is not there hears that it is forbidden (S3 without the right to list).
    Forbidding,
}

/// A way, for as many stores as like.
#[derive(Clone)]
pub struct Way(Arc<(Mutex<Traffic>, Condvar)>);

struct Traffic {
    fault: Fault,
    held_up: usize,
}

impl Way {
    pub fn clear() -> Way {
        Way::with(Fault::None)
    }

    pub fn with(fault: Fault) -> Way {
        let traffic = Traffic { fault, held_up: 0 };
        Way(Arc::new((Mutex::new(traffic), Condvar::new())))
    }

    pub fn set(&self, fault: Fault) {
        self.0.0.lock().unwrap().fault = fault;
        self.0.1.notify_all();
    }

    /// Until a request is held up.
    pub fn await_held_up(&self) {
        let traffic = self.0.0.lock().unwrap();
        let is_empty = |traffic: &mut Traffic| traffic.held_up == 0;
        let _traffic = self.0.1.wait_while(traffic, is_empty).unwrap();
    }

    /// What happens to a request, once it is held up no longer, and whether it was.
    fn pass(&self) -> (Fault, bool) {
        let mut traffic = self.0.0.lock().unwrap();
        let is_held_up = traffic.fault == Fault::HeldUp;
        if is_held_up {
            traffic.held_up += 1;
            self.0.1.notify_all();
            let stays = |traffic: &mut Traffic| traffic.fault == Fault::HeldUp;
            traffic = self.0.1.wait_while(traffic, stays).unwrap();
            traffic.held_up -= 1;
        }
        (traffic.fault, is_held_up)
    }
}

/// A store on this host behind such a way.
pub struct Behind<S> {
    store: S,
    way: Way,
    first: HashMap<String, Outcome>,
}

impl<S: Store> Behind<S> {
    pub fn new(store: S, way: Way) -> Behind<S> {
        Behind {
            store,
            way,
            first: HashMap::new(),
        }
    }
}

impl<S: Store> Store for Behind<S> {
    fn name(&self) -> String {
        self.store.name()
    }

    fn answer(&mut self, request: &Request) -> Outcome {
        let (fault, is_held_up) = self.way.pass();
        let unknown = |why: &str| Outcome::Unknown(why.into());
        if let Fault::Failing | Fault::Unreachable = fault {
            return unknown("input/output error");
        }
        let outcome = self.store.answer(request);
        if is_held_up || fault == Fault::AnswersLost {
            return unknown("the answer was lost");
        }
        if fault == Fault::Stale && matches!(request, Request::Read { .. }) {
            let first = self.first.entry(format!("{request:?}"));
            return first.or_insert(outcome).clone();
        }
        outcome
    }
}

/// A server of HTTP that asks another one. It ends with this object.
pub struct Proxy {
    pub address: SocketAddr,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Leads to `server` (`host:port`).
    pub fn start(server: &str, way: Way) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let thread = {
            let (ended, server) = (ended.clone(), server.to_owned());
            let first = Arc::new(Mutex::new(HashMap::new()));
            move || {
                for client in listener.incoming() {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let (way, server, first) = (way.clone(), server.clone(), first.clone());
                    // One that is held up lives until the test's end, at most.
                    std::thread::spawn(move || {
                        // Whoever asked may be gone.
                        let _served = serve(client?, &server, &way, &first);
                        io::Result::Ok(())
                    });
                }
            }
        };
        Proxy {
            address,
            ended,
            thread: Some(std::thread::spawn(thread)),
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _woken = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What a server said first to each question.
type First = Mutex<HashMap<String, Vec<u8>>>;

/// Leads one request there and its answer back.
fn serve(mut client: TcpStream, server: &str, way: &Way, first: &First) -> io::Result<()> {
    let (mut head, body) = read_request(&mut client)?;
    let (fault, is_held_up) = way.pass();
    match fault {
        Fault::Unreachable => return Ok(()),
        Fault::Failing => {
            let said = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno!\n";
            return client.write_all(said.as_bytes());
        }
        Fault::Unconditional => {
            let is_condition = |line: &str| line.to_lowercase().starts_with("if-none-match:");
            let lines = head.split_inclusive("\r\n");
            head = lines.filter(|line| !is_condition(line)).collect();
        }
        _ => {}
    }
    let question = question(&head, &body);
    let mut answer = ask(server, &head, &body)?;
    if is_held_up || fault == Fault::AnswersLost {
        return Ok(());
    }
    if let (Fault::Stale, Some(question)) = (fault, question) {
        answer = first
            .lock()
            .unwrap()
            .entry(question)
            .or_insert(answer)
            .clone();
    }
    if fault == Fault::Forbidding && answer[8..].starts_with(b" 404") {
        let body = "<Error><Code>AccessDenied</Code></Error>";
        answer = format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
        .into();
    }
    if fault == Fault::LyingAboutTime {
        answer = with_another_time(&answer);
    }
    client.write_all(&answer)
}

/// The answer, as if it were made then.
fn with_another_time(answer: &[u8]) -> Vec<u8> {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n");
    let (head, rest) = answer.split_at(end.expect("an answer has a head"));
    let head = String::from_utf8(head.into()).unwrap();
    let is_time = |line: &str| {
        let line = line.to_lowercase();
        line.starts_with("date:") || line.starts_with("last-modified:")
    };
    let lines: Vec<&str> = head.split("\r\n").filter(|line| !is_time(line)).collect();
    let past = "Thu, 01 Jan 1970 00:00:00 GMT";
    let future = "Fri, 31 Dec 2100 23:59:59 GMT";
    let times = format!("\r\nDate: {past}\r\nLast-Modified: {future}");
    [lines.join("\r\n").as_bytes(), times.as_bytes(), rest].concat()
}

/// What a request that reads asks for, whenever and with whatever signature.
fn question(head: &str, body: &[u8]) -> Option<String> {
    let line = head.lines().next()?;
    let url = line.split('?').next()?;
    let reads = url.starts_with("GET ") || url.contains("/kv/range");
    reads.then(|| format!("{url} {}", String::from_utf8_lossy(body)))
}

fn read_request(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    client.read_exact(&mut body)?;
    Ok((head, body))
}

/// Asks, on a connection that the server is to close.
fn ask(server: &str, head: &str, body: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(server)?;
    let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(head.as_bytes())?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
