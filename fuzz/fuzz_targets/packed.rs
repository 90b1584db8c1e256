//! Whatever a peer that has come in sends after it has said that it packs, cut anywhere: nothing panics, no more memory is
//! taken than a message may have, and no message is made of anything but chunks.
//!
//! The first byte says how many bytes come at a time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use replica::packing::MessageStream;

fuzz_target!(|data: &[u8]| {
    let [piece, bytes @ ..] = data else {
        return;
    };
    let mut stream = MessageStream::default();
    stream.goes_on_packed().unwrap();
    assert!(stream.goes_on_packed().is_err(), "it said so twice");
    for piece in bytes.chunks(usize::from(*piece) + 1) {
        if stream.push(piece).is_err() {
            return;
        }
        loop {
            match stream.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
