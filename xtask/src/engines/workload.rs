//! The workloads: what is in the guest, and who gives it something to do.

use anyhow::{Result, bail};

/// A guest and what it does.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name on the command line.
    pub name: &'static str,
    /// RAM, as `understudy run` takes it.
    pub memory: &'static str,
    /// What the guest is made of.
    pub guest: Guest,
}

/// What a workload's guest is made of, and with that what drives it.
#[derive(Clone, Debug)]
pub enum Guest {
    /// Debian packages in RAM; the guest runs the first of these files of `xtask/guest-workloads`
    /// and powers off.
    Script {
        /// Debian package names.
        packages: &'static [&'static str],
        /// File names; the first one is run.
        files: &'static [&'static str],
    },
    /// The demonstration's guest; clients on this host reach its Redis through the network.
    Redis,
    /// Debian with systemd on a disk; somebody logs in on the console and types a script.
    DebianOnDisk {
        /// File name of the script.
        script: &'static str,
    },
}

/// All workloads.
pub fn all() -> [Workload; 6] {
    [
        Workload {
            name: "login",
            memory: "512M",
            guest: Guest::DebianOnDisk { script: "login.sh" },
        },
        Workload {
            name: "redis",
            memory: "256M",
            guest: Guest::Redis,
        },
        Workload {
            name: "postgresql",
            memory: "1536M",
            guest: Guest::Script {
                packages: &["postgresql-17"],
                files: &[
                    "postgresql.sh",
                    "postgresql.sql",
                    "bank.sql",
                    "bank_books.sql",
                ],
            },
        },
        Workload {
            name: "compiler",
            memory: "1536M",
            guest: Guest::Script {
                packages: &["gcc-14", "libc6-dev"],
                files: &["compiler.sh", "signals.c", "written_code.c", "lisp.c"],
            },
        },
        Workload {
            name: "node",
            memory: "1G",
            guest: Guest::Script {
                packages: &["nodejs"],
                files: &["node.sh", "node.js"],
            },
        },
        Workload {
            name: "java",
            memory: "2G",
            guest: Guest::Script {
                packages: &["openjdk-21-jdk-headless"],
                files: &["java.sh", "Workload.java"],
            },
        },
    ]
}

/// The workloads of these names, or all of them.
pub fn select(names: &[String]) -> Result<Vec<Workload>> {
    let all = all();
    for name in names {
        if !all.iter().any(|workload| workload.name == name) {
            let known: Vec<&str> = all.iter().map(|workload| workload.name).collect();
            bail!(
                "there is no workload {name}: name one of {}",
                known.join(", ")
            );
        }
    }
    Ok(all
        .into_iter()
        .filter(|workload| names.is_empty() || names.iter().any(|name| name == workload.name))
        .collect())
}
