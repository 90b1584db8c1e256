//! `understudy keys`.

use crate::exit::{ExitStatus, Failure};
use anyhow::anyhow;
use clap::{Args, Subcommand};
use keys::{
    AUTHORITIES_FILE, Certificate, Date, HOST_FILE, HostDirectory, HostName, Site, SiteError,
    UnixTime, Validity, whole_days,
};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Make and look at the keys by which hosts know each other.
///
/// A site is a directory with an authority, on a machine that you trust: not on a host. `init` makes it,
/// `issue` gives each host a key. Copy DIR/hosts/NAME to host NAME (as its owner alone can read it), and
/// name it there as `pair.keys`.
#[derive(Debug, Args)]
pub struct Keys {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a site: an authority, which issues the keys of hosts
    Init(Init),
    /// Give hosts their first keys
    Issue(Issue),
    /// Give hosts new keys, or have another authority follow; what is in force goes on to hold
    Rotate(Rotate),
    /// Say what keys there are, and until when they hold
    Show(Show),
}

#[derive(Debug, Args)]
struct SiteOption {
    /// The site's directory
    #[arg(long, value_name = "DIR")]
    site: PathBuf,
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    site: SiteOption,
}

#[derive(Debug, Args)]
struct Days {
    /// For how many days the certificates hold
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
}

#[derive(Debug, Args)]
struct Issue {
    #[command(flatten)]
    site: SiteOption,
    #[command(flatten)]
    days: Days,
    /// The hosts, by the names that `pair.members` gives them
    #[arg(value_name = "HOST", required = true)]
    hosts: Vec<HostName>,
}

#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    site: SiteOption,
    #[command(flatten)]
    days: Days,
    /// Have another authority follow. Hosts believe both from then on: copy their directories, then
    /// `rotate` and copy again, then `rotate --retire` and copy once more
    #[arg(long, conflicts_with_all = ["retire", "hosts"])]
    authority: bool,
    /// Have hosts believe the present authority alone
    #[arg(long, conflicts_with = "hosts")]
    retire: bool,
    /// The hosts; all of the site without any
    #[arg(value_name = "HOST")]
    hosts: Vec<HostName>,
}

#[derive(Debug, Args)]
struct Show {
    /// A site's directory, or that of a host's keys
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl Keys {
    /// Carries the command out.
    pub fn execute(self) -> Result<ExitStatus, Failure> {
        let text = match self.command {
            Command::Init(init) => init.text(),
            Command::Issue(issue) => issue.text(),
            Command::Rotate(rotate) => rotate.text(),
            Command::Show(show) => show.text(),
        };
        let text = text?;
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitStatus::Success)
    }
}

fn failure(error: SiteError) -> Failure {
    Failure::usage(error)
}

impl Init {
    fn text(self) -> Result<String, Failure> {
        let directory = self.site.site;
        Site::init(&directory).map_err(failure)?;
        Ok(format!(
            "{} is a site now; its authority can make keys for any host: keep it to yourself\n",
            directory.display()
        ))
    }
}

impl Issue {
    fn text(self) -> Result<String, Failure> {
        let site = Site::open(&self.site.site).map_err(failure)?;
        let directories = site.issue_all(&self.hosts, Validity::days(self.days.days));
        let directories = directories.map_err(failure)?;
        let hosts = self.hosts.iter().zip(&directories);
        Ok(hosts
            .map(|(host, directory)| to_be_copied(host, directory))
            .collect())
    }
}

fn to_be_copied(host: &HostName, directory: &Path) -> String {
    format!("copy {} to {host}\n", directory.display())
}

impl Rotate {
    fn text(self) -> Result<String, Failure> {
        let site = Site::open(&self.site.site).map_err(failure)?;
        let all: Vec<HostName> = site
            .hosts()
            .map_err(failure)?
            .into_iter()
            .map(|host| host.name)
            .collect();
        let mut text = String::new();
        let hosts = if self.authority {
            site.begin_authority().map_err(failure)?;
            all
        } else if self.retire {
            site.retire_authorities().map_err(failure)?;
            all
        } else {
            let hosts = if self.hosts.is_empty() {
                all
            } else {
                self.hosts
            };
            site.rotate(&hosts, Validity::days(self.days.days))
                .map_err(failure)?;
            hosts
        };
        for host in &hosts {
            text.push_str(&to_be_copied(host, &site.host_directory(host)));
        }
        text.push_str("replicas and switches that run take them within seconds\n");
        if self.authority {
            text.push_str("then: understudy keys rotate\n");
        }
        Ok(text)
    }
}

/// Whoever may not look into it would be told that it is nothing.
fn may_be_read(directory: &Path) -> Result<(), Failure> {
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Failure::usage(anyhow!(
            "{} cannot be read: {error}; it is its owner's alone: ask as that user",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

impl Show {
    fn text(self) -> Result<String, Failure> {
        let directory = &self.directory;
        may_be_read(directory)?;
        if directory.join(HOST_FILE).exists() {
            let host = HostDirectory::read(directory).map_err(Failure::usage)?;
            let authorities = authorities(host.authority_count());
            return Ok(format!("{}{authorities}", line(&host.certificate)));
        }
        if !directory.join(AUTHORITIES_FILE).exists() {
            return Err(Failure::usage(anyhow!(
                "{} is neither a site nor the keys of a host",
                directory.display()
            )));
        }
        let site = Site::open(directory).map_err(failure)?;
        let hosts = site.hosts().map_err(failure)?;
        let mut text: String = hosts.iter().map(line).collect();
        text.push_str(&authorities(site.authority_count().map_err(failure)?));
        Ok(text)
    }
}

fn authorities(count: usize) -> String {
    match count {
        1 => "one authority is believed\n".to_owned(),
        more => format!("{more} authorities are believed: one follows another\n"),
    }
}

fn line(certificate: &Certificate) -> String {
    let days = whole_days(UnixTime::now(), certificate.not_after);
    let when = if days < 0 {
        "EXPIRED".to_owned()
    } else {
        format!("{days} days left")
    };
    format!(
        "{}: until {}, {when}, SHA-256 {}\n",
        certificate.name,
        Date(certificate.not_after),
        certificate.fingerprint
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_shown_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let site = Site::init(directory.path()).unwrap();
        let now = UnixTime::now().as_secs();
        let at = |days: i64| {
            let seconds = (now as i64 + days * 86_400) as u64;
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds))
        };
        for (host, until) in [("old", at(-2)), ("new", at(31))] {
            let validity = Validity {
                from: at(-9),
                until,
            };
            site.issue(&host.parse().unwrap(), validity).unwrap();
        }
        let show = Show {
            directory: directory.path().into(),
        };
        let text = show.text().unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("new: until "), "{text}");
        assert!(lines[0].contains(", 31 days left") || lines[0].contains(", 30 days left"));
        assert!(lines[1].starts_with("old: ") && lines[1].contains("EXPIRED"));
        assert_eq!(lines[2], "one authority is believed");
    }
}
