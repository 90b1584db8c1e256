//! The users and groups that packages' maintainer scripts make, read off the scripts: nothing of a package
//! is run on the host, and running `dpkg --configure` at every boot of a guest in RAM would take longer
//! than the boot.
//!
//! Debian's scripts call `adduser`, `addgroup`, `useradd` or `groupadd` with words, or with variables that
//! they set to words before. What is more than that is not understood, and said.

use std::collections::BTreeMap;

use crate::accounts::{Accounts, Wanted, words};

/// What separates two commands in a line.
const SEPARATORS: &[&str] = &["||", "&&", ";", "|", "&", "(", ")", "{", "}"];
/// Words that stand before a command.
const BEFORE_COMMANDS: &[&str] = &["if", "elif", "then", "else", "do", "!", "while", "until"];

/// What a script's accounts come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Home directories to make, with the numbers of their owner.
    pub homes: Vec<(String, u32, u32)>,
    /// Commands that were not understood.
    pub unclear: Vec<String>,
}

/// Adds the users and groups that `script` makes.
pub fn add_accounts(script: &str, accounts: &mut Accounts) -> Found {
    let mut found = Found::default();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for line in script.replace("\\\n", " ").lines() {
        let line = line.trim();
        if let Some((name, value)) = assignment(line) {
            if let Some(value) = substitute(&value, &variables) {
                variables.insert(name, value);
            }
            continue;
        }
        for command in commands(line) {
            let Some((program, arguments)) = command.split_first() else {
                continue;
            };
            let Some(program) = program.rsplit('/').next().and_then(Program::of) else {
                continue;
            };
            match Call::parse(program, arguments, &variables) {
                Some(call) => found.homes.extend(call.carry_out(accounts)),
                None => found.unclear.push(command.join(" ")),
            }
        }
    }
    found
}

/// `NAME=VALUE` and nothing else.
fn assignment(line: &str) -> Option<(String, String)> {
    let [word] = <[String; 1]>::try_from(words(line.trim_end_matches(';'))).ok()?;
    let (name, value) = word.split_once('=')?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then(|| (name.to_owned(), value.to_owned()))
}

/// The commands of a line, each as its words, without what stands before them and without redirections.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut spaced = line.to_owned();
    for separator in ["&&", "||", ";"] {
        spaced = spaced.replace(separator, &format!(" {separator} "));
    }
    let words = words(&spaced);
    let mut commands = vec![Vec::new()];
    let mut skip = false;
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        let last = commands.len() - 1;
        if SEPARATORS.contains(&word.as_str()) {
            commands.push(Vec::new());
        } else if word.contains(['<', '>']) {
            skip = word.ends_with(['<', '>']);
        } else if !(commands[last].is_empty() && BEFORE_COMMANDS.contains(&word.as_str())) {
            commands[last].push(word);
        }
    }
    commands
}

/// `text` with its variables replaced; `None` where one is not known, or where a command is run for it.
fn substitute(text: &str, variables: &BTreeMap<String, String>) -> Option<String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let braced = after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'));
        let (name, after) = match braced {
            Some(parts) => parts,
            None => {
                let end = after
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        result.push_str(variables.get(name)?);
        rest = after;
    }
    result.push_str(rest);
    (!result.contains('`')).then_some(result)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    AddUser,
    AddGroup,
    UserAdd,
    GroupAdd,
}

impl Program {
    fn of(name: &str) -> Option<Program> {
        match name {
            "adduser" => Some(Program::AddUser),
            "addgroup" => Some(Program::AddGroup),
            "useradd" => Some(Program::UserAdd),
            "groupadd" => Some(Program::GroupAdd),
            _ => None,
        }
    }

    /// Whether an option has its value in the next word (adduser(8), useradd(8), groupadd(8)).
    fn has_value(self, option: &str) -> bool {
        let own: &[&str] = match self {
            Program::AddUser | Program::AddGroup => &[
                "--home",
                "--shell",
                "--ingroup",
                "--gid",
                "--uid",
                "--gecos",
                "--comment",
                "--conf",
                "--firstuid",
                "--lastuid",
                "--firstgid",
                "--lastgid",
                "--add_extra_groups",
            ],
            Program::UserAdd | Program::GroupAdd => &[
                "--gid",
                "-g",
                "--uid",
                "-u",
                "--home-dir",
                "--home",
                "-d",
                "--shell",
                "-s",
                "--comment",
                "-c",
                "--groups",
                "-G",
                "--base-dir",
                "-b",
                "--password",
                "-p",
                "--key",
                "-K",
                "--root",
                "-R",
                "--expiredate",
                "-e",
                "--inactive",
                "-f",
                "--skel",
                "-k",
            ],
        };
        own.contains(&option)
    }
}

/// A call of one of the programs.
struct Call {
    program: Program,
    options: BTreeMap<String, String>,
    names: Vec<String>,
}

impl Call {
    /// `None` when a word of it is not known.
    fn parse(
        program: Program,
        arguments: &[String],
        variables: &BTreeMap<String, String>,
    ) -> Option<Call> {
        let mut call = Call {
            program,
            options: BTreeMap::new(),
            names: Vec::new(),
        };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            // `$quiet` and its like hold options, if anything, unless they are set to something.
            let Some(word) = substitute(argument, variables) else {
                let whole = argument.starts_with('$') && !argument.contains(['`', '(']);
                if whole
                    && argument
                        .chars()
                        .skip(1)
                        .all(|c| c.is_ascii_lowercase() || c == '_')
                {
                    continue;
                }
                return None;
            };
            if let Some((option, value)) = word.split_once('=').filter(|_| word.starts_with("--")) {
                call.options.insert(option.to_owned(), value.to_owned());
            } else if word.starts_with('-') {
                let value = if program.has_value(&word) {
                    substitute(arguments.next()?, variables)?
                } else {
                    String::new()
                };
                call.options.insert(word, value);
            } else {
                call.names.push(word);
            }
        }
        let good = |name: &String| {
            let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !name.is_empty() && name.chars().all(inside)
        };
        (matches!(call.names.len(), 1 | 2) && call.names.iter().all(good)).then_some(call)
    }

    fn option(&self, names: &[&str]) -> Option<String> {
        names
            .iter()
            .find_map(|name| self.options.get(*name))
            .cloned()
    }

    fn has(&self, names: &[&str]) -> bool {
        self.option(names).is_some()
    }

    /// Returns the home directory to make, with its owner.
    fn carry_out(self, accounts: &mut Accounts) -> Option<(String, u32, u32)> {
        let name = self.names.first()?.clone();
        if let Some(group) = self.names.get(1) {
            // `adduser USER GROUP`.
            accounts.add_member(&name, group);
            return None;
        }
        let gid = self.option(&["--gid", "-g"]);
        if matches!(self.program, Program::AddGroup | Program::GroupAdd) {
            accounts.add_group(&name, gid.and_then(|gid| gid.parse().ok()));
            return None;
        }
        let by_adduser = self.program == Program::AddUser;
        accounts.add_user(&Wanted {
            name,
            uid: self
                .option(&["--uid", "-u"])
                .and_then(|uid| uid.parse().ok()),
            group: self.option(&["--ingroup"]).or(gid),
            // useradd makes one unless it is told not to, adduser --system if it is told to.
            own_group: self.has(&["--group", "--user-group", "-U"])
                || !(by_adduser || self.has(&["-N", "--no-user-group"])),
            comment: self
                .option(&["--gecos", "--comment", "-c"])
                .unwrap_or_default(),
            home: self.option(&["--home", "--home-dir", "-d"]),
            shell: self.option(&["--shell", "-s"]),
            make_home: if by_adduser {
                !self.has(&["--no-create-home"])
            } else {
                self.has(&["--create-home", "-m"])
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(script: &str) -> (Accounts, Found) {
        let mut accounts = Accounts::from_masters("", "adm:*:4:\nnogroup:*:65534:\n");
        let found = add_accounts(script, &mut accounts);
        (accounts, found)
    }

    /// As in the scripts of Debian 13: with variables, over several lines, behind conditions.
    #[test]
    fn adduser_8_system_users_of_debians_scripts_are_found() {
        let script = "\
            USER=\"redis\"\n\
            GROUP=\"$USER\"\n\
            if ! getent passwd $USER > /dev/null; then adduser --system --home /var/lib/redis \\\n\
            \t--quiet --group ${GROUP} || true; fi\n\
            getent group bind >/dev/null 2>&1 || addgroup --system bind\n\
            getent passwd bind >/dev/null 2>&1 ||\n\
            \tadduser --system --home /var/cache/bind --no-create-home \\\n\
            \t\t--disabled-password --ingroup bind bind > /dev/null\n\
            adduser --system $quiet --home /var/lib/postgresql --no-create-home \\\n\
            \t--shell /bin/bash --group --gecos \"PostgreSQL administrator\" postgres\n\
            adduser $quiet postgres adm\n\
            # adduser --system commented\n\
            echo \"adduser --system --group printed\"\n";
        let (accounts, found) = found(script);
        assert_eq!(
            accounts.passwd(|_| "*"),
            "redis:*:100:100::/var/lib/redis:/usr/sbin/nologin\n\
             bind:*:102:101::/var/cache/bind:/usr/sbin/nologin\n\
             postgres:*:103:103:PostgreSQL administrator:/var/lib/postgresql:/bin/bash\n"
        );
        assert!(accounts.group().contains("adm:x:4:postgres\n"));
        let homes = [("/var/lib/redis".to_owned(), 100, 100)];
        assert_eq!((found.homes, found.unclear), (homes.into(), Vec::new()));
    }

    #[test]
    fn useradd_8_has_options_of_its_own() {
        let (accounts, found) = found(
            "useradd --system \\\n --gid nogroup \\\n --comment dnsmasq \\\n --home-dir /var/lib/misc \
             --no-create-home \\\n --shell=/usr/sbin/nologin dnsmasq\n/usr/sbin/groupadd -r -g 77 seven\n",
        );
        assert_eq!(
            accounts.passwd(|_| "*"),
            "dnsmasq:*:100:65534:dnsmasq:/var/lib/misc:/usr/sbin/nologin\n"
        );
        assert_eq!(accounts.gid("seven"), Some(77));
        assert_eq!(found, Found::default());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let (accounts, found) =
            found("db_get x; adduser --system $RET\nadduser --system `cat name`\n");
        assert_eq!(accounts.passwd(|_| "*"), "");
        assert_eq!(
            found.unclear,
            ["adduser --system $RET", "adduser --system `cat name`"]
        );
    }
}
