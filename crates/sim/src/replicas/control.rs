//! People, at the control sockets: these are real ones, in the state directories.

use super::node::NAMES;
use super::shared::ProcessId;
use super::world::World;
use replica::control::{Answer, Request, SOCKET_NAME, Word};
use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// A person is about to say to a host that another one is off.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    /// To whom.
    pub told: usize,
    /// Who is.
    pub off: usize,
}

/// Somebody has asked, and waits.
pub struct Conversation {
    node: usize,
    process: ProcessId,
    stream: UnixStream,
    what: &'static str,
    answer: Vec<u8>,
    /// Who has to stay off until it is answered.
    off: Option<usize>,
}

/// As switchovers are counted.
const SWITCHOVER: &str = "switchover";
/// …and moves of the life to another arbiter.
const ARBITER_MOVE: &str = "arbiter move";

fn name(request: &Request) -> &'static str {
    match request {
        Request::Snapshot { .. } => "snapshot",
        Request::Status => "status",
        Request::Word(_) | Request::WouldTake(_) => "without",
        Request::Console => "console",
        Request::Press(_) => "button",
        Request::SwitchOver { .. } => SWITCHOVER,
        Request::MoveArbiter { .. } => ARBITER_MOVE,
        Request::Fenced => "fenced",
    }
}

impl World {
    /// Somebody asks a node; `off` has to stay off until that is answered.
    pub fn ask(&mut self, node: usize, request: Request, off: Option<usize>) {
        let Some(process) = self.nodes[node].process else {
            return;
        };
        let path = self.directory.of(node).join(SOCKET_NAME);
        let Ok(mut line) = serde_json::to_vec(&request) else {
            return;
        };
        line.push(b'\n');
        let asked = UnixStream::connect(path).and_then(|mut stream| {
            stream.set_nonblocking(true)?;
            stream.write_all(&line)?;
            Ok(stream)
        });
        let what = name(&request);
        // One that has only begun has no socket yet.
        let Ok(stream) = asked else { return };
        self.note(|text| {
            let _ = write!(text, "node {node} is asked for: {request:?}");
        });
        let mut state = self.shared.lock();
        state.observer.count(&format!("asked: {what}"));
        if off.is_some() {
            state.observer.given_up(true);
        }
        let threads = state.of_process(process);
        state.unpark_all(threads);
        drop(state);
        self.conversations.push(Conversation {
            node,
            process,
            stream,
            what,
            answer: Vec::new(),
            off,
        });
    }

    /// A person says that a host is off, which it is.
    pub fn say_off(&mut self, asking: Asking) {
        let Asking { told, off } = asking;
        if !self.nodes[off].is_kept_off {
            return;
        }
        let word = Word {
            without: vec![NAMES[off].into()],
            new_life: false,
        };
        self.ask(told, Request::Word(word), Some(off));
    }

    /// A host need not be off any longer, if nobody is told that it is.
    pub fn not_off(&mut self, node: usize) -> bool {
        let mut conversations = self.conversations.iter();
        if conversations.any(|open| open.off == Some(node)) {
            return false;
        }
        self.nodes[node].is_kept_off = false;
        true
    }

    /// Whether the machine may go over to another host because somebody asked for that.
    pub fn somebody_awaits_a_switchover(&self) -> bool {
        let mut conversations = self.conversations.iter();
        conversations.any(|open| open.what == SWITCHOVER)
    }

    /// Whether the life may go on in another generation because somebody asked for what takes one.
    pub fn somebody_awaits_a_generation(&self) -> bool {
        let mut conversations = self.conversations.iter();
        let takes_one = |what| what == SWITCHOVER || what == ARBITER_MOVE;
        conversations.any(|open| takes_one(open.what))
    }

    /// Takes what was answered.
    pub fn hear(&mut self) {
        let mut index = 0;
        while index < self.conversations.len() {
            let open = &mut self.conversations[index];
            let mut buffer = [0; 65536];
            let is_over = match open.stream.read(&mut buffer) {
                Ok(0) => true,
                Ok(length) => {
                    open.answer.extend_from_slice(&buffer[..length]);
                    open.answer.contains(&b'\n')
                }
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            };
            if !is_over {
                index += 1;
                continue;
            }
            let open = self.conversations.remove(index);
            let answer: Option<Answer> = serde_json::from_slice(&open.answer).ok();
            let (node, process) = (open.node, open.process);
            self.note(|text| {
                let _ = write!(text, "node {node} ({}) answers: {answer:?}", process.0);
            });
            let mut state = self.shared.lock();
            match answer {
                Some(Answer::Done(_)) => state.observer.count(&format!("done: {}", open.what)),
                Some(Answer::Refused(_)) => {
                    state.observer.count(&format!("refused: {}", open.what));
                    if open.off.is_some() {
                        state.observer.given_up(false);
                    }
                }
                _ => {}
            }
        }
    }
}
