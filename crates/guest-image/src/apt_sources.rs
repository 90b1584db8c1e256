//! Where this machine's apt fetches Debian from: one-line `.list` and deb822 `.sources` files, as
//! sources.list(5) describes them.

use std::path::{Path, PathBuf};

use crate::GuestImageError;

/// The suite that guests are made of: Debian 13.
pub const SUITE: &str = "trixie";

/// Suites of Debian proper, by which one of Debian's archives is told from anybody else's.
const DEBIAN_SUITES: &[&str] = &[
    "trixie",
    "forky",
    "sid",
    "stable",
    "testing",
    "unstable",
    "oldstable",
    "oldoldstable",
    "bookworm",
    "bullseye",
];
const KEYRINGS: &[&str] = &[
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
    "/usr/share/keyrings/debian-archive-trixie-stable.gpg",
    "/etc/apt/trusted.gpg.d/debian-archive-trixie-stable.asc",
];

/// One archive that apt knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its address, as apt takes it (`http:`, `https:`, `mirror+file:`, `file:`...).
    pub address: String,
    /// The suites that are taken from it.
    pub suites: Vec<String>,
}

/// The address of an archive that carries Debian, from the sources below `apt_directory` (such as
/// `/etc/apt`), in the order in which apt reads them.
///
/// # Errors
/// [`GuestImageError::NoArchive`] if there is none; [`GuestImageError::File`] if a source file is
/// there and cannot be read.
pub fn debian_archive(apt_directory: &Path) -> Result<String, GuestImageError> {
    let mut searched = Vec::new();
    for path in source_files(apt_directory)? {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| GuestImageError::file("reading apt's sources", &path, error))?;
        let sources = match path.extension().and_then(|extension| extension.to_str()) {
            Some("sources") => parse_deb822(&text),
            _ => parse_one_line(&text),
        };
        if let Some(source) = sources.into_iter().find(is_debian) {
            return Ok(source.address);
        }
        searched.push(path.display().to_string());
    }
    if searched.is_empty() {
        searched.push(apt_directory.display().to_string());
    }
    Err(GuestImageError::NoArchive {
        searched: searched.join(", "),
    })
}

/// The keys that sign Debian's archive, on this machine.
///
/// # Errors
/// [`GuestImageError::NoKeyring`] if they are not installed.
pub fn debian_keyring() -> Result<PathBuf, GuestImageError> {
    KEYRINGS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
        .ok_or_else(|| GuestImageError::NoKeyring {
            searched: KEYRINGS.join(", "),
        })
}

fn is_debian(source: &Source) -> bool {
    let fetchable = !source.address.starts_with("cdrom:");
    fetchable
        && source
            .suites
            .iter()
            .any(|suite| DEBIAN_SUITES.contains(&suite.as_str()))
}

fn source_files(apt_directory: &Path) -> Result<Vec<PathBuf>, GuestImageError> {
    let mut files = Vec::new();
    let main = apt_directory.join("sources.list");
    if main.is_file() {
        files.push(main);
    }
    let directory = apt_directory.join("sources.list.d");
    if directory.is_dir() {
        let unreadable = |error| GuestImageError::file("listing apt's sources", &directory, error);
        let mut parts = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            if matches!(extension, Some("list" | "sources")) && path.is_file() {
                parts.push(path);
            }
        }
        parts.sort();
        files.extend(parts);
    }
    Ok(files)
}

/// The binary sources of a one-line file: `deb [options] address suite [component...]`.
fn parse_one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line
            .strip_prefix("deb")
            .filter(|rest| rest.starts_with([' ', '\t', '[']))
        else {
            continue;
        };
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => match options.split_once(']') {
                Some((_, rest)) => rest,
                None => continue,
            },
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(address), Some(suite)) = (words.next(), words.next()) {
            sources.push(Source {
                address: address.to_owned(),
                suites: vec![suite.to_owned()],
            });
        }
    }
    sources
}

/// The enabled binary sources of a deb822 file: stanzas of `Field: value`, continued on lines that
/// begin with white space.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut stanza: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(sources_of_stanza(&stanza));
            stanza.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((field, value)) = line.split_once(':') {
            stanza.push((field.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn sources_of_stanza(stanza: &[(String, String)]) -> Vec<Source> {
    let words = |name: &str| -> Vec<String> {
        let field = stanza.iter().find(|(field, _)| field == name);
        field.map_or(Vec::new(), |(_, value)| {
            value.split_whitespace().map(str::to_owned).collect()
        })
    };
    let enabled = match words("enabled").first() {
        Some(value) => !matches!(
            value.to_ascii_lowercase().as_str(),
            "no" | "false" | "0" | "off"
        ),
        None => true,
    };
    if !enabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let suites = words("suites");
    let addresses = words("uris").into_iter();
    addresses
        .map(|address| Source {
            address,
            suites: suites.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str, suites: &[&str]) -> Source {
        Source {
            address: address.to_owned(),
            suites: suites.iter().map(|suite| (*suite).to_owned()).collect(),
        }
    }

    #[test]
    fn sources_list_5_one_line_style() {
        let text = "\
            # deb http://commented.example/debian trixie main\n\
            deb-src http://sources.example/debian trixie main\n\
            deb http://a.example/debian trixie main contrib # why\n\
            deb [arch=amd64 signed-by=/k.gpg] http://b.example/debian\tbookworm main\n\
            deb [broken http://c.example/debian trixie main\n\
            debian is not a type\n\
            deb\n";
        assert_eq!(
            parse_one_line(text),
            [
                source("http://a.example/debian", &["trixie"]),
                source("http://b.example/debian", &["bookworm"]),
            ]
        );
    }

    #[test]
    fn sources_list_5_deb822_style() {
        let text = "\
Types: deb deb-src
# a comment inside
URIs: http://a.example/debian
 http://b.example/debian
Suites: trixie trixie-updates
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 uris: not a field

Enabled: no
Types: deb
URIs: http://c.example/debian
Suites: trixie

types: deb-src
uris: http://d.example/debian
suites: trixie
";
        assert_eq!(
            parse_deb822(text),
            [
                source("http://a.example/debian", &["trixie", "trixie-updates"]),
                source("http://b.example/debian", &["trixie", "trixie-updates"]),
            ]
        );
    }

    #[test]
    fn other_archives_security_archives_and_discs_are_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let parts = directory.path().join("sources.list.d");
        std::fs::create_dir(&parts).unwrap();
        std::fs::write(
            directory.path().join("sources.list"),
            "deb cdrom:[Debian]/ bookworm main\n\
             deb http://security.example/ bookworm-security main\n\
             deb http://other.example/ubuntu noble main\n",
        )
        .unwrap();
        std::fs::write(
            parts.join("x.list.disabled"),
            "deb http://off.example/ sid main\n",
        )
        .unwrap();
        std::fs::write(
            parts.join("z.sources"),
            "Types: deb\nURIs: mirror+file:/m\nSuites: sid\n",
        )
        .unwrap();
        assert_eq!(debian_archive(directory.path()).unwrap(), "mirror+file:/m");
    }

    #[test]
    fn without_a_debian_archive_the_error_names_what_was_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sources.list"), "").unwrap();
        let error = debian_archive(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("sources.list") && error.contains("--mirror"),
            "{error}"
        );
    }
}
