//! Asks the store on a thread of its own: a store that hangs (NFS without its server) must not
//! stop heartbeats, acknowledgements or the status.

use super::{Created, Found, Store};
use std::io;
use std::sync::mpsc::{self, Sender};

/// What the store is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Create a key.
    Create {
        /// Which.
        key: String,
        /// Its content.
        content: Vec<u8>,
    },
    /// Read a key.
    Read {
        /// Which.
        key: String,
    },
}

/// What it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Question::Create`].
    Create {
        /// Which key.
        key: String,
        /// What came of it.
        created: Created,
    },
    /// To [`Question::Read`].
    Read {
        /// Which key.
        key: String,
        /// What came of it.
        found: Found,
    },
}

/// The thread. It ends when this is dropped, as soon as the store answers.
#[derive(Debug)]
pub struct ArbiterThread {
    questions: Sender<Question>,
}

impl ArbiterThread {
    /// Starts it; `answered` is called there with every answer.
    pub fn start(
        mut store: Box<dyn Store>,
        answered: impl Fn(Answer) + Send + 'static,
    ) -> io::Result<ArbiterThread> {
        let (questions, asked) = mpsc::channel();
        std::thread::Builder::new()
            .name("arbiter".into())
            .spawn(move || {
                for question in asked {
                    answered(match question {
                        Question::Create { key, content } => {
                            let created = store.create(&key, &content);
                            Answer::Create { key, created }
                        }
                        Question::Read { key } => {
                            let found = store.read(&key);
                            Answer::Read { key, found }
                        }
                    });
                }
            })?;
        Ok(ArbiterThread { questions })
    }

    /// Asks; the answer comes through the callback, in order.
    pub fn ask(&self, question: Question) {
        // The thread ends only with this object.
        let _sent = self.questions.send(question);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arbiter::DirectoryStore;

    #[test]
    fn questions_are_answered_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(directory.path()).unwrap();
        let (sender, answers) = mpsc::channel();
        let thread = ArbiterThread::start(Box::new(store), move |answer| {
            sender.send(answer).unwrap();
        })
        .unwrap();
        thread.ask(Question::Create {
            key: "k".into(),
            content: b"me".to_vec(),
        });
        thread.ask(Question::Create {
            key: "k".into(),
            content: b"you".to_vec(),
        });
        thread.ask(Question::Read { key: "k".into() });
        assert_eq!(
            answers.iter().take(3).collect::<Vec<_>>(),
            [
                Answer::Create {
                    key: "k".into(),
                    created: Created::Now
                },
                Answer::Create {
                    key: "k".into(),
                    created: Created::Exists
                },
                Answer::Read {
                    key: "k".into(),
                    found: Found::Content(b"me".to_vec())
                },
            ]
        );
    }
}
