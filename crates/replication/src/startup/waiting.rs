//! Why a start waits, for people; and why what a person said changes nothing.

use super::Stance;
use crate::marker::Worth;
use crate::succession::{Generation, Host, HostId, JournalId, Kind, LifeNumber};
use std::collections::BTreeSet;
use std::fmt;

/// Why a start waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It has only just begun to look.
    Looking,
    /// The arbiter gave no useful answer.
    Arbiter(String),
    /// The arbiter does not know what this host's marker names, or what it itself once said.
    ArbiterForgot {
        /// The life that this host knows of.
        life: LifeNumber,
        /// Its generation.
        generation: Generation,
        /// What the disks here are worth.
        worth: Worth,
    },
    /// A peer lives in what this host's arbiter does not know.
    ArbiterDiffers(Host),
    /// Somebody holds the machine, and has not yet gone live or given it up.
    Peer(Host, Stance),
    /// This host is a spare, and nobody has begun a life yet.
    Spare,
    /// Another host has the right disk.
    RightDisk {
        /// That host.
        host: Host,
        /// Whether it answers.
        reach: Reach,
        /// What this host's own is worth.
        own: Worth,
        /// Whom a person would have to declare off, all of them, for the machine to start from the
        /// disk here: who has the right one, and who may hold the running machine. Empty: not even
        /// then.
        to_name: Vec<Host>,
    },
    /// The disk here is the right one, but hosts that may hold the running machine do not answer: all
    /// of them.
    Silent(Vec<Host>),
    /// Hosts that may hold the running machine answer, but cannot be asked. Nobody's word makes them be
    /// off.
    Unasked {
        /// Those hosts, and others that do not answer.
        hosts: Vec<Host>,
        /// Why they cannot be asked.
        why: String,
    },
    /// The disk here should be the right one, and is not.
    OwnDisk(Worth),
    /// The journal here is being read.
    JournalRead,
    /// The machine goes on from this journal alone, and it cannot be gone on from, and why.
    Journal {
        /// Which.
        id: JournalId,
        /// Why.
        why: String,
    },
    /// This host could start the machine, but lacks something that the machine is made of, and what.
    Obstacle(String),
    /// The arbiter is asked for the key.
    Claiming(Kind),
    /// A peer is live and takes no backup now.
    LiveElsewhere(Host),
}

/// Whether a host can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It answers.
    Answers,
    /// It does not answer.
    Silent,
    /// It answers, but cannot be asked, and why.
    TurnedAway(String),
}

impl Waiting {
    /// The hosts that it is about, whom a person may declare to be off.
    pub fn hosts(&self) -> &[Host] {
        match self {
            Waiting::Silent(hosts)
            | Waiting::Unasked { hosts, .. }
            | Waiting::RightDisk { to_name: hosts, .. } => hosts,
            Waiting::Peer(host, _)
            | Waiting::ArbiterDiffers(host)
            | Waiting::LiveElsewhere(host) => std::slice::from_ref(host),
            Waiting::Looking
            | Waiting::Arbiter(_)
            | Waiting::ArbiterForgot { .. }
            | Waiting::OwnDisk(_)
            | Waiting::JournalRead
            | Waiting::Journal { .. }
            | Waiting::Spare
            | Waiting::Obstacle(_)
            | Waiting::Claiming(_) => &[],
        }
    }

    /// Why it still waits although a person said that these hosts are off, and what would help.
    pub fn although_off(&self, without: &BTreeSet<HostId>) -> String {
        match self {
            Waiting::Silent(hosts) | Waiting::RightDisk { to_name: hosts, .. } => {
                let unnamed = hosts.iter().filter(|host| !without.contains(&host.id));
                let reasons: Vec<String> = unnamed.map(|host| self.need_of(host)).collect();
                if reasons.is_empty() {
                    return self.to_string();
                }
                format!(
                    "that is not enough: {}; if that is off for good, too, name them together: {}",
                    reasons.join(", "),
                    command(hosts)
                )
            }
            Waiting::Peer(host, stance) => {
                format!("host {host} answers, so it is not off: it {stance}")
            }
            Waiting::OwnDisk(_) => format!(
                "no host's being off helps: {self}; put the right disk back, or begin another life from \
                 what is here: `understudy new-life --config FILE`"
            ),
            other => format!("no host's being off helps: {other}"),
        }
    }

    /// Why a host has to be named.
    fn need_of(&self, needed: &Host) -> String {
        match self {
            Waiting::RightDisk { host, .. } if host.id == needed.id => {
                format!("host {host} has the right disk")
            }
            Waiting::RightDisk { .. } => {
                format!("host {needed} may hold the running machine, or the right disk")
            }
            _ => format!("host {needed} may hold the running machine and does not answer"),
        }
    }
}

/// What to type when these hosts are off, by names as far as those tell them apart.
fn command(hosts: &[Host]) -> String {
    let is_plain = |host: &Host| {
        let of_name = hosts.iter().filter(|other| other.node() == host.node());
        !host.node().is_empty() && !host.node().contains(',') && of_name.count() == 1
    };
    let names: Vec<String> = hosts
        .iter()
        .map(|host| {
            if is_plain(host) {
                host.to_string()
            } else {
                host.id.to_string()
            }
        })
        .collect();
    format!(
        "`understudy start --config FILE --without {}`",
        names.join(",")
    )
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Waiting::Looking => write!(f, "looking at the arbiter"),
            Waiting::Arbiter(why) => write!(
                f,
                "the arbiter gives no answer, and nothing starts without it: {why}"
            ),
            Waiting::ArbiterForgot {
                life,
                generation,
                worth,
            } => write!(
                f,
                "the arbiter knows nothing of generation {generation} of life {life}: is it the \
                 right one, and mounted? Here is {worth}"
            ),
            Waiting::ArbiterDiffers(host) => write!(
                f,
                "host {host} is in a life that this host's arbiter does not know: \
                 the two use different arbiters"
            ),
            Waiting::Spare => write!(
                f,
                "this host is a spare (`pair.spare`): one of the others powers the machine on"
            ),
            Waiting::Peer(host, stance) => write!(f, "host {host} {stance}"),
            Waiting::RightDisk {
                host,
                reach,
                own,
                to_name,
            } => {
                let how = match reach {
                    Reach::Answers => "and answers",
                    Reach::Silent => "and does not answer",
                    Reach::TurnedAway(why) => why,
                };
                write!(f, "host {host} has the right disk, {how}; here is {own}")?;
                match &to_name[..] {
                    [] => f.write_str(", which cannot start the machine, whoever is off"),
                    _ if *reach != Reach::Silent => Ok(()),
                    to_name => write!(
                        f,
                        "; if what is not here is gone for good, say so: {}",
                        command(to_name)
                    ),
                }
            }
            Waiting::Unasked { hosts, why } => {
                let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
                write!(
                    f,
                    "nothing starts here while {} may hold the running machine and cannot be asked: \
                     {why}; whoever answers is not off: let the hosts know each other, or end the \
                     replica there",
                    names.join(", ")
                )
            }
            Waiting::Silent(hosts) => {
                let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
                let (pronoun, verb) = match hosts.len() {
                    1 => ("it is", "does"),
                    _ => ("they are all", "do"),
                };
                write!(
                    f,
                    "the right disk is here, but {} may hold the running machine and {verb} not \
                     answer; if {pronoun} off, say so: {}",
                    names.join(", "),
                    command(hosts)
                )
            }
            Waiting::OwnDisk(worth) => {
                write!(f, "this host should have the right disk, but has {worth}")
            }
            Waiting::JournalRead => write!(f, "the journal is being read"),
            Waiting::Journal { id, why } => write!(
                f,
                "what the outside saw last is in journal {id} of this host, and the machine cannot go \
                 on from there: {why}. It is looked at again; to give up what was in memory, begin \
                 another life: `understudy new-life --config FILE`"
            ),
            Waiting::Obstacle(what) => write!(
                f,
                "the machine would start here, and cannot: {what}; it is looked at again"
            ),
            Waiting::Claiming(kind) => write!(f, "asking the arbiter for the key of {kind}"),
            Waiting::LiveElsewhere(host) => write!(f, "host {host} is live"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(id: u128, node: &str) -> Host {
        Host::new(HostId(id), node)
    }

    #[test]
    fn who_else_has_to_be_named_is_said_with_the_whole_command() {
        let waiting = Waiting::RightDisk {
            host: host(2, "b"),
            reach: Reach::Silent,
            own: Worth::Fresh,
            to_name: vec![host(2, "b"), host(3, "c")],
        };
        assert!(waiting.to_string().contains("--without b,c`"), "{waiting}");
        let why = waiting.although_off(&[HostId(2)].into());
        for words in ["host c may hold", "--without b,c`"] {
            assert!(why.contains(words), "{why}");
        }
        assert!(!why.contains("host b has"), "{why}");
        let why = waiting.although_off(&[HostId(3)].into());
        assert!(why.contains("host b has the right disk"), "{why}");
    }

    #[test]
    fn hosts_of_one_name_are_told_apart_by_their_identities() {
        let waiting = Waiting::Silent(vec![host(2, "b"), host(3, "b"), host(4, "d")]);
        let text = waiting.to_string();
        let all = format!("--without {},{},d`", HostId(2), HostId(3));
        assert!(text.contains(&all), "{text}");
    }

    #[test]
    fn whatever_it_waits_for_the_reason_is_told() {
        let stands = Waiting::Peer(host(2, "b"), Stance::Following);
        let why = stands.although_off(&[HostId(2)].into());
        assert!(why.contains("not off") && why.contains("follows"), "{why}");
        let unfit = Waiting::RightDisk {
            host: host(2, "b"),
            reach: Reach::Silent,
            own: Worth::Nothing("half a copy".into()),
            to_name: Vec::new(),
        };
        let why = unfit.although_off(&BTreeSet::new());
        assert!(
            why.contains("half a copy") && why.contains("whoever is off"),
            "{why}"
        );
        let own = Waiting::OwnDisk(Worth::Nothing("half a copy".into()));
        assert!(own.although_off(&BTreeSet::new()).contains("new-life"));
    }
}
