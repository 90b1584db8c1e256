//! What two hosts have to have the same of before they pair, by key, so that a refusal can name what
//! differs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// The most keys of a configuration.
pub const MAX_KEYS: usize = 16;
/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 32;
/// The longest value, in bytes; of a longer one the beginning and a hash are told.
pub const MAX_VALUE_BYTES: usize = 64;
/// …so much of its beginning.
const BEGINNING_BYTES: usize = 40;
/// Between that and the hash.
const CUT: &str = "… #";
/// A long value is told in at most so many pieces besides, under its key, this and their numbers.
const MOST_PIECES: usize = 8;
const PIECE: char = ':';
/// The longest build, in bytes.
pub const MAX_BUILD_BYTES: usize = 40;

/// Keys that are told only where they are not this: programs that know nothing else tell nothing of them.
const UNTOLD: [(&str, &str); 1] = [("replication", "log")];

/// The key under which a difference is told that has none of its own.
const REST: &str = "other settings (their hash)";

/// What a program was built from, as people are told: version and commit. Nothing depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build(String);

impl Build {
    /// Of at most [`MAX_BUILD_BYTES`]; what is longer is cut, and control characters are replaced.
    pub fn new(text: &str) -> Build {
        let text = &text[..text.floor_char_boundary(MAX_BUILD_BYTES)];
        let printable = |c: char| if c.is_control() { '?' } else { c };
        Build(text.chars().map(printable).collect())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The configuration of a machine, as far as its hosts have to agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    values: BTreeMap<String, String>,
    rest: u64,
}

impl Configuration {
    /// Without a key. `rest`: a hash of all that has to be equal, told or not.
    pub fn new(rest: u64) -> Configuration {
        Configuration {
            values: BTreeMap::new(),
            rest,
        }
    }

    /// With one more key.
    ///
    /// # Panics
    /// The key is there, is longer than [`MAX_KEY_BYTES`], or one too many: keys are the program's.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Configuration {
        assert!(key.len() <= MAX_KEY_BYTES, "{key:?} is too long a key");
        let before = self.values.insert(key.into(), bounded(value.to_string()));
        assert!(before.is_none(), "{key:?} is there twice");
        assert!(self.values.len() <= MAX_KEYS, "too many keys");
        self
    }

    /// With one more key, whose value may be long: of that its beginning and a hash are told as of any, and under keys of
    /// their own pieces of it, for [`boot_differences`].
    ///
    /// # Panics
    /// As [`Configuration::with`].
    #[must_use]
    pub fn with_long(self, key: &str, value: &str) -> Configuration {
        let mut told = self.with(key, value);
        let mut rest = value;
        for number in 1..=MOST_PIECES {
            if value.len() <= MAX_VALUE_BYTES || rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.floor_char_boundary(MAX_VALUE_BYTES));
            told = told.with(&format!("{key}{PIECE}{number}"), piece);
            rest = after;
        }
        told
    }

    /// The value of a key, as far as it is told in pieces or as a whole; `None` if only its beginning is.
    fn whole(&self, key: &str) -> Option<String> {
        let pieces =
            (1..=MOST_PIECES).map_while(|number| self.values.get(&format!("{key}{PIECE}{number}")));
        let whole: String = pieces.map(String::as_str).collect();
        if !whole.is_empty() {
            return Some(whole);
        }
        let value = self.values.get(key)?;
        (!value.contains(CUT)).then(|| value.clone())
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Keys and values, by key.
    pub fn values(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let values = self.values.iter();
        values.map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// The hash of all.
    pub fn rest(&self) -> u64 {
        self.rest
    }

    /// What a peer says of its own, by ascending key. `None`: no program says so.
    pub(crate) fn told(values: Vec<(String, String)>, rest: u64) -> Option<Configuration> {
        let ascend = values.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let values: BTreeMap<String, String> = values.into_iter().collect();
        (ascend && values.len() <= MAX_KEYS).then_some(Configuration { values, rest })
    }

    /// Where `theirs` is another one. Empty: they are equal.
    pub fn differences(&self, theirs: &Configuration) -> Vec<Difference> {
        let keys: BTreeSet<&String> = self.values.keys().chain(theirs.values.keys()).collect();
        let mut differences: Vec<Difference> = keys
            .into_iter()
            .map(|key| Difference {
                key: key.clone(),
                here: self.values.get(key).cloned(),
                there: theirs.values.get(key).cloned(),
            })
            .filter(|difference| difference.here != difference.there)
            .collect();
        if differences.is_empty() && self.rest != theirs.rest {
            let hash = |rest: u64| Some(format!("{rest:016x}"));
            differences.push(Difference {
                key: REST.into(),
                here: hash(self.rest),
                there: hash(theirs.rest),
            });
        }
        differences
    }
}

/// A value that is no longer than it may be, and differs from others as before.
fn bounded(value: String) -> String {
    if value.len() <= MAX_VALUE_BYTES {
        return value;
    }
    let beginning = &value[..value.floor_char_boundary(BEGINNING_BYTES)];
    format!("{beginning}{CUT}{:016x}", xxh3_64(value.as_bytes()))
}

/// One thing of which two hosts have not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// As it is called in the configuration.
    pub key: String,
    /// What this host has, if it knows of such a key.
    pub here: Option<String>,
    /// What the other one has, if it does.
    pub there: Option<String>,
}

impl Difference {
    /// As the other host sees it.
    #[must_use]
    pub fn from_there(&self) -> Difference {
        Difference {
            key: self.key.clone(),
            here: self.there.clone(),
            there: self.here.clone(),
        }
    }

    /// `memory: 512M here, 1G at hosta`.
    pub fn describe(&self, host: &str) -> String {
        let untold = UNTOLD.iter().find(|(key, _)| *key == self.key);
        let untold = untold.map_or("unknown", |(_, value)| value);
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| untold.into());
        let (here, there) = (value(&self.here), value(&self.there));
        format!("{}: {here} here, {there} at {host}", self.key)
    }
}

/// Where two hosts would boot a machine from something else: empty as well while one of both has not told from what.
pub fn boot_differences(ours: &Configuration, theirs: &Configuration) -> Vec<Difference> {
    if ours.is_empty() || theirs.is_empty() {
        return Vec::new();
    }
    let mut differences = ours.differences(theirs);
    // A program of before tells no pieces: they differ where the value does.
    differences.retain(|difference| !difference.key.contains(PIECE));
    for difference in &mut differences {
        let wholes = (ours.whole(&difference.key), theirs.whole(&difference.key));
        if let (Some(here), Some(there)) = wholes
            && here != there
        {
            (difference.here, difference.there) = excerpts(&here, &there);
        }
    }
    differences
}

/// Two values from the word on in which they begin to differ.
fn excerpts(here: &str, there: &str) -> (Option<String>, Option<String>) {
    let alike = here.chars().zip(there.chars());
    let alike = alike.take_while(|(here, there)| here == there);
    let alike: usize = alike.map(|(c, _)| c.len_utf8()).sum();
    let from = here[..alike].rfind(' ').map_or(0, |space| space + 1);
    let excerpt = |value: &str| {
        let before = if from > 0 { "…" } else { "" };
        let rest = &value[from..];
        let end = rest.floor_char_boundary(MAX_VALUE_BYTES);
        let after = if end < rest.len() { "…" } else { "" };
        Some(format!("{before}{}{after}", &rest[..end]))
    };
    (excerpt(here), excerpt(there))
}

/// `kernel: #12… here, #34… at hosta; …`, without what a peer may have put there for a terminal.
pub fn describe_differences(differences: &[Difference], host: &str) -> String {
    let described = differences
        .iter()
        .map(|difference| difference.describe(host));
    let described: Vec<String> = described.collect();
    crate::message::printable(&described.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(memory: &str, rest: u64) -> Configuration {
        let configuration = Configuration::new(rest).with("memory", memory);
        configuration.with("harts", 2)
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let (ours, theirs) = (configuration("512M", 1), configuration("1G", 2));
        let differences = ours.differences(&theirs);
        assert_eq!(differences.len(), 1, "{differences:?}");
        let told = differences[0].describe("hosta");
        assert_eq!(told, "memory: 512M here, 1G at hosta");
        let there = theirs.differences(&ours);
        assert_eq!(there[0], differences[0].from_there());
        assert_eq!(ours.differences(&configuration("512M", 1)), []);
    }

    #[test]
    fn a_key_that_only_one_side_knows_differs() {
        let ours = configuration("512M", 1).with("transport", "pci");
        let told = ours.differences(&configuration("512M", 1))[0].describe("hosta");
        assert_eq!(told, "transport: pci here, unknown at hosta");
        // The log has no key.
        let transfers = configuration("512M", 1).with("replication", "state-transfer");
        let told = configuration("512M", 1).differences(&transfers)[0].describe("hosta");
        assert_eq!(told, "replication: log here, state-transfer at hosta");
    }

    /// Finding: of two long command lines the same beginning was shown twice.
    #[test]
    fn long_values_are_shown_from_where_they_differ() {
        let line = |end: &str| {
            format!(
                "\"console=ttyS0 quiet {} {end}\"",
                "initcall_blacklist=some ".repeat(12)
            )
        };
        let told = |line: &str| configuration("512M", 1).with_long("command_line", line);
        let (ours, theirs) = (
            told(&line("root=/dev/vda rw")),
            told(&line("root=/dev/vdb rw")),
        );
        let differences = boot_differences(&ours, &theirs);
        let texts: Vec<String> = differences.iter().map(|it| it.describe("hosta")).collect();
        assert_eq!(
            texts,
            ["command_line: …root=/dev/vda rw\" here, …root=/dev/vdb rw\" at hosta"]
        );
        // With a host that tells no pieces it is as it was, and no more than one difference.
        let before = configuration("512M", 1).with("command_line", line("root=/dev/vdb rw"));
        let differences = boot_differences(&ours, &before);
        assert_eq!(differences.len(), 1);
        assert!(differences[0].describe("hosta").contains("… #"));
        let short = configuration("512M", 1).with_long("command_line", "quiet");
        let differences = boot_differences(&short, &ours);
        let text = differences[0].describe("hosta");
        assert!(
            text.starts_with("command_line: quiet here, \"console=ttyS0"),
            "{text}"
        );
        assert_eq!(
            boot_differences(&ours, &told(&line("root=/dev/vda rw"))),
            []
        );
    }

    /// What no key tells is a difference as well.
    #[test]
    fn a_hash_that_differs_alone_is_a_difference() {
        let differences = configuration("512M", 1).differences(&configuration("512M", 2));
        assert_eq!(differences.len(), 1);
        assert_eq!(differences[0].here.as_deref(), Some("0000000000000001"));
    }

    #[test]
    fn long_values_are_cut_and_differ_as_before() {
        let long = "ä".repeat(100);
        let one = configuration(&long, 0);
        let (_, value) = one.values().find(|(key, _)| *key == "memory").unwrap();
        assert!(value.len() <= MAX_VALUE_BYTES, "{value}");
        let other = configuration(&format!("{long}x"), 0);
        assert_eq!(one.differences(&other).len(), 1);
        let build = Build::new(&format!("\u{1b}{long}"));
        assert!(build.as_str().len() <= MAX_BUILD_BYTES);
        assert!(build.as_str().starts_with("?ä"));
    }
}
