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
    /// Another host has the right disk, or what else the machine is started from.
    RightDisk {
        /// That host.
        host: Host,
        /// What it has.
        basis: Basis,
        /// Whether it answers.
        reach: Reach,
        /// What this host's own is worth.
        own: Worth,
        /// Whom a person would have to declare off, all of them, for the machine to start from the
        /// disk here: who has the right one, and who may hold the running machine. Empty: not even
        /// then.
        to_name: Vec<Host>,
    },
    /// The disk here is the right one, but hosts that may hold the running machine do not answer.
    Silent {
        /// All of them.
        hosts: Vec<Host>,
        /// What is here.
        basis: Basis,
    },
    /// The machine was on this host, as far as its name goes, and its identity is another one.
    Identity {
        /// As the arbiter knows it.
        host: Host,
        /// What was here.
        basis: Basis,
    },
    /// Hosts that may hold the running machine answer, but cannot be asked. Nobody's word makes them be
    /// off.
    Unasked {
        /// Those hosts, and others that do not answer.
        hosts: Vec<Host>,
        /// Why they cannot be asked.
        why: String,
    },
    /// The disk here should be the right one, and is not.
    OwnDisk(Worth, Basis),
    /// The journal here is being read.
    JournalRead,
    /// Others are being kept from adding anything to the journal that the machine goes on from.
    JournalFenced,
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

/// What the machine is started from, where nobody holds it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Its disks, of which one host's are the right ones.
    Disk,
    /// It writes none, and outputs waited for a journal.
    Journal,
    /// That journal, which this host reaches as well: another host had the machine.
    SharedJournal,
    /// It writes none: its images, by which it begins anew.
    Images,
}

impl Basis {
    /// How the host that has it is told of.
    fn held(self) -> &'static str {
        match self {
            Basis::Disk => "has the right disk",
            Basis::Journal => "has the journal that the machine goes on from",
            Basis::SharedJournal | Basis::Images => "had the machine last",
        }
    }
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
            Waiting::Silent { hosts, .. }
            | Waiting::Unasked { hosts, .. }
            | Waiting::RightDisk { to_name: hosts, .. } => hosts,
            Waiting::Peer(host, _)
            | Waiting::Identity { host, .. }
            | Waiting::ArbiterDiffers(host)
            | Waiting::LiveElsewhere(host) => std::slice::from_ref(host),
            Waiting::Looking
            | Waiting::Arbiter(_)
            | Waiting::ArbiterForgot { .. }
            | Waiting::OwnDisk(..)
            | Waiting::JournalRead
            | Waiting::JournalFenced
            | Waiting::Journal { .. }
            | Waiting::Spare
            | Waiting::Obstacle(_)
            | Waiting::Claiming(_) => &[],
        }
    }

    /// Whether it waits for nothing else than a person's word that these hosts are off.
    pub fn would_end(&self, without: &BTreeSet<HostId>) -> bool {
        match self {
            Waiting::Silent { hosts, .. } | Waiting::RightDisk { to_name: hosts, .. } => {
                hosts.iter().all(|host| without.contains(&host.id)) && !hosts.is_empty()
            }
            Waiting::Identity { host, .. } => without.contains(&host.id),
            _ => false,
        }
    }

    /// Why it still waits although a person said that these hosts are off, and what would help.
    pub fn although_off(&self, without: &BTreeSet<HostId>) -> String {
        match self {
            Waiting::Silent { hosts, .. } | Waiting::RightDisk { to_name: hosts, .. } => {
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
            Waiting::OwnDisk(..) => format!(
                "no host's being off helps: {self}; put the right one back, or begin another life from \
                 what is here: `understudy new-life --config FILE`"
            ),
            other => format!("no host's being off helps: {other}"),
        }
    }

    /// Why a host has to be named.
    fn need_of(&self, needed: &Host) -> String {
        match self {
            Waiting::RightDisk { host, basis, .. } if host.id == needed.id => {
                format!("host {host} {}", basis.held())
            }
            Waiting::RightDisk {
                basis: Basis::Disk, ..
            } => {
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
                "host {host} is in a life, or in a generation of it, that this host's arbiter does not know: \
                 the two use different arbiters"
            ),
            Waiting::Spare => write!(
                f,
                "this host is a spare (`pair.spare`): the others have the machine, or power it on, and it joins when one of them is lacking"
            ),
            Waiting::Peer(host, stance) => write!(f, "host {host} {stance}"),
            Waiting::RightDisk {
                host,
                basis,
                reach,
                own,
                to_name,
            } => {
                let how = match reach {
                    Reach::Answers => "and answers",
                    Reach::Silent => "and does not answer",
                    Reach::TurnedAway(why) => why,
                };
                write!(f, "host {host} {}, {how}", basis.held())?;
                if *basis == Basis::Disk {
                    write!(f, "; here is {own}")?;
                }
                let anew = match basis {
                    Basis::Disk => "",
                    Basis::SharedJournal => {
                        ", and the machine goes on from the journal, which is here"
                    }
                    Basis::Journal | Basis::Images => ", and the machine begins anew here",
                };
                match &to_name[..] {
                    [] => f.write_str(", which cannot start the machine, whoever is off"),
                    _ if *reach != Reach::Silent => Ok(()),
                    to_name => write!(
                        f,
                        "; if what is not here is gone for good, say so{anew}: {}",
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
            Waiting::Identity { host, basis } => {
                let (node, id) = (host.node(), host.id);
                write!(
                    f,
                    "the machine was on a host of this one's name, {node}, with another identity: is its \
                     state directory not mounted, or lost? Put it back"
                )?;
                if *basis == Basis::Journal {
                    write!(
                        f,
                        "; if it is lost for good and the journal is here, write \"{id} {node}\" to \
                         host-id in the state directory and start again"
                    )?;
                }
                let word = match basis {
                    Basis::SharedJournal => {
                        "if nothing runs under that name any more, the machine goes on from the journal"
                    }
                    Basis::Disk | Basis::Journal | Basis::Images => "to give up what was there",
                };
                write!(
                    f,
                    "; {word}, say so: `understudy start --config FILE --without {id}`"
                )
            }
            Waiting::Silent { hosts, basis } => {
                let names: Vec<String> = hosts.iter().map(Host::to_string).collect();
                let (pronoun, verb) = match hosts.len() {
                    1 => ("it is", "does"),
                    _ => ("they are all", "do"),
                };
                let here = match basis {
                    Basis::Disk => "the right disk is here",
                    Basis::Journal | Basis::SharedJournal => {
                        "the journal that the machine goes on from is here"
                    }
                    Basis::Images => "the machine would begin anew here",
                };
                write!(
                    f,
                    "{here}, but {} may hold the running machine and {verb} not \
                     answer; if {pronoun} off, say so: {}",
                    names.join(", "),
                    command(hosts)
                )
            }
            Waiting::OwnDisk(worth, Basis::Disk) => {
                write!(f, "this host should have the right disk, but has {worth}")
            }
            Waiting::OwnDisk(worth, _) => write!(
                f,
                "what this host noted of the machine in its state directory is of no use: {worth}"
            ),
            Waiting::JournalRead => write!(f, "the journal is being read"),
            Waiting::JournalFenced => write!(
                f,
                "the journal is being closed to whoever had it before, and read to its end"
            ),
            Waiting::Journal { id, why } => write!(
                f,
                "what the outside saw last is in journal {id} of this host, and the machine cannot go \
                 on from there: {why}; it is looked at again. To give up what was in memory, begin \
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
            basis: Basis::Disk,
            reach: Reach::Silent,
            own: Worth::Fresh,
            to_name: vec![host(2, "b"), host(3, "c")],
        };
        assert!(waiting.to_string().contains("--without b,c`"), "{waiting}");
        assert!(waiting.would_end(&[HostId(2), HostId(3)].into()));
        assert!(!waiting.would_end(&[HostId(2)].into()));
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
        let waiting = Waiting::Silent {
            hosts: vec![host(2, "b"), host(3, "b"), host(4, "d")],
            basis: Basis::Disk,
        };
        let text = waiting.to_string();
        let all = format!("--without {},{},d`", HostId(2), HostId(3));
        assert!(text.contains(&all), "{text}");
    }

    /// Finding: a machine that writes no disk waited for "the right disk".
    #[test]
    fn a_machine_without_disks_waits_for_no_disk() {
        for basis in [Basis::Journal, Basis::Images] {
            let elsewhere = Waiting::RightDisk {
                host: host(2, "b"),
                basis,
                reach: Reach::Silent,
                own: Worth::Fresh,
                to_name: vec![host(2, "b"), host(3, "c")],
            };
            let here = Waiting::Silent {
                hosts: vec![host(2, "b")],
                basis,
            };
            let useless = Waiting::OwnDisk(Worth::Nothing("nothing".into()), basis);
            let why = elsewhere.although_off(&[HostId(3)].into());
            for text in [
                elsewhere.to_string(),
                here.to_string(),
                useless.to_string(),
                why,
            ] {
                assert!(!text.contains("disk"), "{text}");
            }
            assert!(elsewhere.to_string().contains("begins anew here"));
        }
    }

    #[test]
    fn whatever_it_waits_for_the_reason_is_told() {
        let stands = Waiting::Peer(host(2, "b"), Stance::Following);
        let why = stands.although_off(&[HostId(2)].into());
        assert!(why.contains("not off") && why.contains("follows"), "{why}");
        let unfit = Waiting::RightDisk {
            host: host(2, "b"),
            basis: Basis::Disk,
            reach: Reach::Silent,
            own: Worth::Nothing("half a copy".into()),
            to_name: Vec::new(),
        };
        let why = unfit.although_off(&BTreeSet::new());
        assert!(
            why.contains("half a copy") && why.contains("whoever is off"),
            "{why}"
        );
        let own = Waiting::OwnDisk(Worth::Nothing("half a copy".into()), Basis::Disk);
        assert!(own.although_off(&BTreeSet::new()).contains("new-life"));
    }
}
