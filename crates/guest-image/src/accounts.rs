//! The users and groups of a guest whose packages' scripts are not run: those that every Debian has
//! (base-passwd), and those that packages ask for.

use std::fmt::Write;

/// What Debian gives system users and groups that ask for no number (Debian Policy 9.2.2).
const SYSTEM_IDS: std::ops::RangeInclusive<u32> = 100..=999;
/// The group of users that have none of their own.
pub const NO_GROUP: &str = "nogroup";
const NO_SHELL: &str = "/usr/sbin/nologin";
const NO_HOME: &str = "/nonexistent";

/// A user that a package asks for. What is `None` is what Debian gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: Option<u32>,
    /// The name or number of its group; a group of its own name otherwise, if `own_group`.
    pub group: Option<String>,
    /// Whether it has a group of its own name.
    pub own_group: bool,
    /// What it stands for.
    pub comment: String,
    /// Its home directory.
    pub home: Option<String>,
    /// Its shell.
    pub shell: Option<String>,
    /// Whether the home directory is made.
    pub make_home: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    comment: String,
    home: String,
    shell: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// The accounts of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Those of base-passwd's `passwd.master` and `group.master`. Lines that are none are passed over.
    pub fn from_masters(passwd: &str, group: &str) -> Accounts {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let user = |line: &str| {
            let [name, _, uid, gid, comment, home, shell] = fields(line).try_into().ok()?;
            Some(User {
                name,
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                comment,
                home,
                shell,
            })
        };
        let group_of = |line: &str| {
            let [name, _, gid, members] = fields(line).try_into().ok()?;
            Some(Group {
                name,
                gid: gid.parse().ok()?,
                members: members
                    .split(',')
                    .filter(|member| !member.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        };
        Accounts {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    /// The number of a user.
    pub fn uid(&self, name: &str) -> Option<u32> {
        name.parse()
            .ok()
            .or_else(|| self.user(name).map(|user| user.uid))
    }

    /// The number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        let group = self.groups.iter().find(|group| group.name == name);
        name.parse().ok().or_else(|| group.map(|group| group.gid))
    }

    fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// Adds a user unless it is there, and the groups that it needs. Returns the home directory that is
    /// to be made, with its owner.
    pub fn add_user(&mut self, wanted: &Wanted) -> Option<(String, u32, u32)> {
        if self.user(&wanted.name).is_some() {
            return None;
        }
        let uid = wanted.uid.unwrap_or_else(|| self.free_id());
        let gid = match &wanted.group {
            Some(group) => self.add_group(group, None),
            None if wanted.own_group => self.add_group(&wanted.name, Some(uid)),
            None => self.add_group(NO_GROUP, Some(65_534)),
        };
        let home = wanted.home.clone().unwrap_or_else(|| NO_HOME.to_owned());
        self.users.push(User {
            name: wanted.name.clone(),
            uid,
            gid,
            comment: wanted.comment.clone(),
            home: home.clone(),
            shell: wanted.shell.clone().unwrap_or_else(|| NO_SHELL.to_owned()),
        });
        let made = wanted.make_home && home.starts_with('/') && !home.starts_with(NO_HOME);
        made.then_some((home, uid, gid))
    }

    /// Adds a group unless it is there; its number. A name that is a number is that number.
    pub fn add_group(&mut self, name: &str, gid: Option<u32>) -> u32 {
        if let Some(gid) = self.gid(name) {
            return gid;
        }
        let taken = |gid: &u32| self.groups.iter().any(|group| group.gid == *gid);
        let gid = gid
            .filter(|gid| !taken(gid))
            .unwrap_or_else(|| self.free_id());
        self.groups.push(Group {
            name: name.to_owned(),
            gid,
            members: Vec::new(),
        });
        gid
    }

    /// Puts a user into a group, if the group is there.
    pub fn add_member(&mut self, user: &str, group: &str) {
        if let Some(group) = self.groups.iter_mut().find(|one| one.name == group)
            && !group.members.iter().any(|member| member == user)
        {
            group.members.push(user.to_owned());
        }
    }

    /// A number that neither a user nor a group has.
    fn free_id(&self) -> u32 {
        let taken = |id: &u32| {
            self.users.iter().any(|user| user.uid == *id)
                || self.groups.iter().any(|group| group.gid == *id)
        };
        // No archive has 900 packages with users; whoever is beyond shares the last number.
        SYSTEM_IDS
            .clone()
            .find(|id| !taken(id))
            .unwrap_or(*SYSTEM_IDS.end())
    }

    /// `/etc/passwd`, with `password` in the second field (passwd(5)).
    pub fn passwd(&self, password: impl Fn(&str) -> &'static str) -> String {
        let mut text = String::new();
        for user in &self.users {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{}:{}:{}:{}:{}:{}:{}",
                user.name,
                password(&user.name),
                user.uid,
                user.gid,
                user.comment,
                user.home,
                user.shell
            );
        }
        text
    }

    /// `/etc/group` (group(5)).
    pub fn group(&self) -> String {
        let mut text = String::new();
        for group in &self.groups {
            let members = group.members.join(",");
            let _ = writeln!(text, "{}:x:{}:{members}", group.name, group.gid);
        }
        text
    }

    /// `/etc/shadow` and `/etc/gshadow` (shadow(5)): nobody has a password.
    pub fn shadow(&self) -> (String, String) {
        let users = self.users.iter();
        let users = users.map(|user| format!("{}:*::0:99999:7:::\n", user.name));
        let groups = self.groups.iter();
        let groups = groups.map(|group| format!("{}:*::\n", group.name));
        (users.collect(), groups.collect())
    }

    /// Takes the lines of a file of `sysusers.d` (sysusers.d(5)); the home directories that are to be
    /// made, with their owners, are none: systemd makes none either.
    pub fn add_sysusers(&mut self, text: &str) {
        for line in text.lines() {
            let fields = words(line);
            let field = |index: usize| {
                let field = fields.get(index).map(String::as_str);
                field.filter(|field| *field != "-" && !field.is_empty())
            };
            let (Some(kind), Some(name)) = (field(0), field(1)) else {
                continue;
            };
            match kind.trim_end_matches('!') {
                "u" => {
                    let (uid, group) =
                        match field(2).map(|id| id.split_once(':').unwrap_or((id, ""))) {
                            Some((uid, group)) => (uid.parse().ok(), Some(group)),
                            None => (None, None),
                        };
                    self.add_user(&Wanted {
                        name: name.to_owned(),
                        uid,
                        group: group.filter(|group| !group.is_empty()).map(str::to_owned),
                        own_group: true,
                        comment: field(3).unwrap_or_default().to_owned(),
                        home: Some(field(4).unwrap_or("/").to_owned()),
                        shell: field(5).map(str::to_owned),
                        make_home: false,
                    });
                }
                "g" => {
                    self.add_group(name, field(2).and_then(|gid| gid.parse().ok()));
                }
                "m" => {
                    if let Some(group) = field(2) {
                        self.add_group(group, None);
                        self.add_member(name, group);
                    }
                }
                // Ranges of numbers, and what later versions bring.
                _ => {}
            }
        }
    }
}

/// The words of a line of a configuration or of a simple shell command: quotes hold words together, `#`
/// at the begin of a word ends the line.
pub fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), inside) => word.get_or_insert_default().push(inside),
            (None, open @ ('"' | '\'')) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (None, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:*:0:0:root:/root:/bin/bash\nwww-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\nno line\n";
    const GROUP: &str = "root:*:0:\nadm:*:4:\nwww-data:*:33:\nnogroup:*:65534:\n";

    fn accounts() -> Accounts {
        Accounts::from_masters(PASSWD, GROUP)
    }

    #[test]
    fn policy_9_2_1_static_users_keep_their_numbers() {
        let accounts = accounts();
        assert_eq!(accounts.uid("www-data"), Some(33));
        assert_eq!(accounts.gid("nogroup"), Some(65_534));
        assert_eq!(accounts.gid("7"), Some(7));
        let passwd = accounts.passwd(|name| if name == "root" { "" } else { "*" });
        assert_eq!(
            passwd,
            "root::0:0:root:/root:/bin/bash\nwww-data:*:33:33:www-data:/var/www:/usr/sbin/nologin\n"
        );
        assert!(accounts.group().starts_with("root:x:0:\nadm:x:4:\n"));
        let (shadow, gshadow) = accounts.shadow();
        assert!(shadow.starts_with("root:*::0:99999:7:::\nwww-data:*"));
        assert!(gshadow.starts_with("root:*::\n"));
    }

    #[test]
    fn policy_9_2_2_system_users_get_the_first_free_number_for_user_and_group() {
        let mut accounts = accounts();
        let redis = Wanted {
            name: "redis".to_owned(),
            own_group: true,
            home: Some("/var/lib/redis".to_owned()),
            make_home: true,
            ..Wanted::default()
        };
        let home = accounts.add_user(&redis);
        assert_eq!(home, Some(("/var/lib/redis".to_owned(), 100, 100)));
        assert_eq!(accounts.add_user(&redis), None);
        accounts.add_group("bind", None);
        let bind = Wanted {
            name: "bind".to_owned(),
            group: Some("bind".to_owned()),
            ..Wanted::default()
        };
        assert_eq!(accounts.add_user(&bind), None);
        assert_eq!(
            (accounts.uid("bind"), accounts.gid("bind")),
            (Some(102), Some(101))
        );
        accounts.add_user(&Wanted {
            name: "loner".to_owned(),
            ..Wanted::default()
        });
        let line = "loner:x:103:65534::/nonexistent:/usr/sbin/nologin\n";
        assert!(accounts.passwd(|_| "x").ends_with(line));
    }

    #[test]
    fn sysusers_d_5_users_groups_and_members() {
        let mut accounts = accounts();
        accounts.add_sysusers(
            "# a comment\n\
             u sshd -:nogroup \"sshd user\" /run/sshd\n\
             u! _chrony 123 \"Chrony daemon\" /var/lib/chrony /bin/sh\n\
             g input - -\n\
             m _chrony adm\n\
             r - 500-900\n",
        );
        let passwd = accounts.passwd(|_| "x");
        assert!(passwd.contains("sshd:x:100:65534:sshd user:/run/sshd:/usr/sbin/nologin\n"));
        assert!(passwd.contains("_chrony:x:123:123:Chrony daemon:/var/lib/chrony:/bin/sh\n"));
        assert_eq!(accounts.gid("input"), Some(101));
        assert!(accounts.group().contains("adm:x:4:_chrony\n"));
    }

    #[test]
    fn quotes_hold_words_together() {
        assert_eq!(words("a \"b c\"'d' \"\" # e"), ["a", "b cd", ""]);
    }
}
