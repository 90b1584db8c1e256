//! `understudy start` and `understudy new-life`: what only a person may decide.

use super::button::unanswered;
use super::replica::open;
use crate::config::VmConfig;
use crate::exit::{ExitStatus, Failure};
use crate::setup::ConfiguredMachine;
use anyhow::anyhow;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use replica::control::{self, Answer, Request, Word};
use replica::new_life::{NewLife, NewLifeError};
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Tell this host's replica, which waits, that other hosts are off and stay off.
///
/// A replica waits when its disk is the right one, but another host that does not answer may hold the
/// running machine, or the right disk. Its status says which. What only those hosts have is given up.
/// A host that is in fact the live primary, alone and out of reach, goes on until it next looks at the
/// arbiter: be sure that it is off.
#[derive(Debug, Args)]
pub struct Start {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The hosts that are off, by name or identity
    #[arg(long, value_name = "HOST", required = true, value_delimiter = ',',
          value_parser = NonEmptyStringValueParser::new())]
    without: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Begin another life of a machine, from the disks of this host.
///
/// After the guest has powered off, or when the last life cannot be found again. An open life is
/// declared lost: what only other hosts have is given up, and what is in a journal. Where a replica runs on this host it starts
/// the machine at once; otherwise `understudy replica` does when it is started.
#[derive(Debug, Args)]
pub struct BeginLife {
    /// The machine and its pair
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Start {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        let directory = &config.state_directory;
        let status = control::status(directory).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => unanswered(directory, &error),
            _ => Failure::new(
                ExitStatus::NoReplica,
                anyhow!(
                    "no replica answers in {} ({error}): start `understudy replica --config {}` \
                     first",
                    directory.display(),
                    self.config.display()
                ),
            ),
        })?;
        let hosts = self.without.join(", ");
        let word = Word {
            without: self.without,
            new_life: false,
        };
        // Who does not want to be asked is told what came of it, and no more.
        if self.yes {
            return say(directory, word);
        }
        // Nobody is frightened, or asked, for the sake of what is refused. An older replica does not know the
        // question, and answers the word itself.
        if let Ok(Answer::Refused(why)) = control::ask(directory, &Request::WouldTake(word.clone()))
        {
            return Err(not_taken(&why));
        }
        println!(
            "{}: this host's replica is {}: {}\n\
             If {hosts} is off, what only it has is given up, and the machine starts from what is here. \
             If it is not off, two machines may be live for some seconds.",
            config.name, status.role, status.state
        );
        if !is_meant(&hosts, &format!("{hosts} is off"))? {
            return Err(Failure::usage(NewLifeError::NotMeant));
        }
        say(directory, word)
    }
}

impl BeginLife {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let config = VmConfig::load(&self.config).map_err(Failure::usage)?;
        match control::status(&config.state_directory) {
            Ok(status) if status.role == "waiting" => {
                self.confirm(
                    &config.name,
                    &format!("the replica waits: {}", status.state),
                )?;
                let word = Word {
                    without: Vec::new(),
                    new_life: true,
                };
                say(&config.state_directory, word)
            }
            Ok(status) => Err(Failure::usage(anyhow!(
                "the machine lives: this host's replica is its {} ({})",
                status.role,
                status.state
            ))),
            Err(_) => self.begin(config),
        }
    }

    /// Where no replica runs.
    fn begin(self, config: VmConfig) -> Result<ExitStatus, Failure> {
        let (replica, store) = open(&config, &self.config)?;
        let (peers, name) = (config.peers(), config.name.clone());
        let machines = ConfiguredMachine(config);
        let mut new_life = NewLife::open(&replica, peers, &machines, store)?;
        self.confirm(&name, &new_life.situation()?.text)?;
        let won = new_life.begin()?;
        println!(
            "life {} of {name} has begun: `understudy replica --config {}` starts its machine",
            won.key.life,
            self.config.display()
        );
        Ok(ExitStatus::Success)
    }

    fn confirm(&self, name: &str, situation: &str) -> Result<(), Failure> {
        println!(
            "{name}: {situation}\n\
             A new life starts from the disks of this host. An open one is declared lost: what only \
             other hosts have, in memory or on their disks, is given up, and so is what is in a journal, \
             here or elsewhere: the machine begins anew. A host that still runs it \
             out of reach goes on until it next looks at the arbiter: be sure that none does."
        );
        if self.yes || is_meant(name, "the machine's name")? {
            Ok(())
        } else {
            Err(Failure::usage(NewLifeError::NotMeant))
        }
    }
}

/// Asks for a word to be typed.
pub(super) fn is_meant(word: &str, meaning: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(anyhow!(
            "nobody to ask at this terminal: give --yes if it is meant"
        )));
    }
    print!("To go on, type {word} ({meaning}): ");
    io::stdout().flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == word)
}

fn not_taken(why: &str) -> Failure {
    Failure::new(
        ExitStatus::Failure,
        anyhow!("the replica did not take it: {why}"),
    )
}

fn say(directory: &Path, word: Word) -> Result<ExitStatus, Failure> {
    match control::ask(directory, &Request::Word(word))? {
        Answer::Done(text) => {
            println!("{text}");
            Ok(ExitStatus::Success)
        }
        Answer::Refused(why) => Err(not_taken(&why)),
        Answer::Status(_) => Err(Failure::from(anyhow!("the replica answered a question"))),
    }
}
