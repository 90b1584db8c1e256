//! A service that is slow, one that is silent, and one that says nothing at all when it says no.

use arbiter::{Address, Attempt, BucketError, ObjectBucket, S3Credentials, S3Settings, TlsFiles};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const SILENCE: Duration = Duration::from_secs(1);
/// Four seconds' bytes.
const OBJECT_BYTES: usize = 400 << 10;
const PIECE_BYTES: usize = 4 << 10;
const PIECE_TIME: Duration = Duration::from_millis(40);

/// Serves one connection after the other.
fn service(serve: impl Fn(Request) + Send + 'static) -> ObjectBucket {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // What it has not read waits at its sender.
    set_socket_recv_buffer_size(&listener, PIECE_BYTES).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            serve(Request::read(stream));
        }
    });
    let Ok(Address::S3(address)) = "s3://bucket/p".parse() else {
        panic!("an address")
    };
    let settings = S3Settings {
        address,
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: "r".into(),
        credentials: S3Credentials {
            access_key_id: "i".into(),
            secret_access_key: "s".into(),
            session_token: None,
        },
        tls: TlsFiles::default(),
    };
    ObjectBucket::new(&settings).unwrap()
}

/// A request up to its body.
struct Request {
    stream: BufReader<TcpStream>,
    body_bytes: usize,
}

impl Request {
    fn read(stream: TcpStream) -> Request {
        let mut request = Request {
            stream: BufReader::with_capacity(PIECE_BYTES, stream),
            body_bytes: 0,
        };
        let mut line = String::new();
        while request.stream.read_line(&mut line).unwrap() > 2 {
            let length = line.to_lowercase();
            if let Some(length) = length.strip_prefix("content-length: ") {
                request.body_bytes = length.trim().parse().unwrap();
            }
            line.clear();
        }
        request
    }

    /// Reads the body as a slow service does.
    fn read_slowly(&mut self) {
        let mut piece = [0; PIECE_BYTES];
        let mut left = self.body_bytes;
        while left > 0 {
            let bytes = left.min(PIECE_BYTES);
            self.stream.read_exact(&mut piece[..bytes]).unwrap();
            left -= bytes;
            thread::sleep(PIECE_TIME);
        }
    }

    fn answer(mut self, head: &str, body: &[u8]) {
        let stream = self.stream.get_mut();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n"
        )
        .unwrap();
        for piece in body.chunks(PIECE_BYTES) {
            stream.write_all(piece).unwrap();
            if length > PIECE_BYTES {
                thread::sleep(PIECE_TIME);
            }
        }
    }
}

/// Finding: a bucket at 100 kB/s was never read, as the time of an object was reckoned.
#[test]
fn what_a_slow_service_takes_and_gives_takes_as_long_as_it_takes_and_is_told_of_meanwhile() {
    let content: Vec<u8> = (0..OBJECT_BYTES).map(|byte| byte as u8).collect();
    let held = content.clone();
    let bucket = service(move |mut request| {
        request.read_slowly();
        let body = if request.body_bytes == 0 {
            &held[..]
        } else {
            &[]
        };
        request.answer("200 OK", body);
    });
    for gives_way in [false, true] {
        let (mut told, mut sent) = (Vec::new(), 0);
        let begun = Instant::now();
        let mut moves = |bytes| {
            sent += bytes;
            told.push((begun.elapsed(), sent));
        };
        let attempt = Attempt::until_silent_for(SILENCE).telling(&mut moves);
        let mut attempt = match gives_way {
            true => attempt.that_gives_way(),
            false => attempt,
        };
        assert_eq!(bucket.create("o", &content, &mut attempt), Ok(true));
        assert!(begun.elapsed() > 3 * SILENCE, "it was not slow");
        assert_eq!(sent, OBJECT_BYTES as u64);
        // What is told of is not far ahead of what has arrived: of the last is told when it can go.
        let (last, _) = told[told.len() - 1];
        assert!(
            last > begun.elapsed() / 3,
            "{last:?} of {:?}",
            begun.elapsed()
        );
    }
    let (begun, mut told) = (Instant::now(), 0);
    let mut moves = |bytes| told += bytes;
    let mut attempt = Attempt::until_silent_for(SILENCE).telling(&mut moves);
    let got = bucket.get("o", OBJECT_BYTES as u64, &mut attempt).unwrap();
    assert!(got == Some(content), "it is another object");
    assert!(begun.elapsed() > 3 * SILENCE, "it was not slow");
    assert_eq!(told, OBJECT_BYTES as u64);
}

#[test]
fn a_service_that_falls_silent_is_given_up_after_that_silence() {
    // Before it reads a body, in the middle of one, before it answers, in the middle of an answer.
    for silent_after in 0..4 {
        let bucket = service(move |mut request| {
            match silent_after {
                0 => {}
                1 => request.stream.read_exact(&mut [0; 100 << 10]).unwrap(),
                2 => request
                    .stream
                    .read_exact(&mut vec![0; request.body_bytes])
                    .unwrap(),
                _ => {
                    let stream = request.stream.get_mut();
                    stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
                        .unwrap();
                }
            }
            thread::sleep(10 * SILENCE);
        });
        let begun = Instant::now();
        let mut attempt = Attempt::until_silent_for(SILENCE);
        let answer = match silent_after {
            3 => bucket.get("o", 9, &mut attempt).map(|_| ()),
            _ => bucket
                .create("o", &[7; OBJECT_BYTES], &mut attempt)
                .map(|_| ()),
        };
        let Err(BucketError::Silent(why)) = answer else {
            panic!("{answer:?}")
        };
        assert!(why.contains("not a byte went or came for 1.0 s"), "{why}");
        let took = begun.elapsed();
        assert!(
            SILENCE <= took && took < 4 * SILENCE,
            "{silent_after}: {took:?}"
        );
    }
}

/// Finding: `status 500: ` with nothing after it.
#[test]
fn an_answer_without_a_word_is_said_to_be_one() {
    let bucket = service(|request| request.answer("500 No", b""));
    let error = bucket.get("o", 9, &mut Attempt::within(10 * SILENCE));
    let why = error.unwrap_err().to_string();
    assert_eq!(why, "status 500, with nothing that says why");
}
