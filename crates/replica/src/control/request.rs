//! What a replica is asked, and what it answers.

use crate::status::ReplicaStatus;
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// How are you?
    Status,
    /// A person says something to a replica that waits.
    Word(Word),
    /// Be the guest's console: after an [`Answer::Done`] what the guest prints goes out on the
    /// connection, and what comes on it is typed.
    Console,
    /// A button of the machine is pressed.
    Press(Button),
    /// The machine goes over to another host, and this one follows it. The answer comes when it is done.
    SwitchOver {
        /// The host that is to have it, by its name; whoever can take over if nobody is named.
        to: Option<String>,
    },
    /// Take a snapshot of the machine and its disks, while it runs: after an [`Answer::Done`] its file comes
    /// on the connection.
    Snapshot {
        /// At a primary, though there is a backup that could.
        #[serde(default)]
        here: bool,
    },
    /// Whether that word would be taken as things stand: nothing is done. [`Answer::Done`] says that it would.
    WouldTake(Word),
    /// Nobody but this host can write to the machine's shared disks any more: something outside has seen to that.
    Fenced,
    /// The machine's life goes on at another arbiter. The answer comes when it does.
    MoveArbiter {
        /// Its address.
        to: String,
    },
}

/// A button of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Button {
    /// The guest is asked to power off.
    Power,
    /// The machine begins anew, within its life.
    Reset,
    /// The machine stands still.
    Pause,
    /// It goes on.
    Resume,
}

impl From<Button> for replication::message::Button {
    fn from(button: Button) -> replication::message::Button {
        match button {
            Button::Power => replication::message::Button::Power,
            Button::Reset => replication::message::Button::Reset,
            Button::Pause => replication::message::Button::Pause,
            Button::Resume => replication::message::Button::Resume,
        }
    }
}

/// What only a person may say, after having been told what it costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// These hosts (their names, or their identities) are off and stay off.
    #[serde(default)]
    pub without: Vec<String>,
    /// Begin another life.
    #[serde(default)]
    pub new_life: bool,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<ReplicaStatus>),
    /// It was done; what came of it.
    Done(String),
    /// It was not done, and why.
    Refused(String),
}
