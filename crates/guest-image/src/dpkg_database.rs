//! dpkg's database for a system whose packages are unpacked and not configured yet, so that
//! `dpkg --configure -a` in the guest can do the rest. The files are described in
//! deb-src-files(5)'s companions deb-control(5), deb-conffiles(5), deb-triggers(5) and in dpkg's
//! `lib/dpkg/dump.c` and `lib/dpkg/trigdeferred.c`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use md5::{Digest, Md5};

use crate::GuestImageError;
use crate::file_tree::{FileTree, Node, NodeKind};

const DATABASE: &str = "var/lib/dpkg";

/// The database as it grows, package by package.
#[derive(Default)]
pub struct DpkgDatabase {
    status: String,
    file_triggers: String,
    named_triggers: BTreeMap<String, String>,
}

impl DpkgDatabase {
    /// Notes a package whose files have been put into `tree`: its control files go to
    /// `/var/lib/dpkg/info`, and it is entered as unpacked.
    ///
    /// # Errors
    /// Those of [`FileTree::insert`].
    pub fn add(
        &mut self,
        tree: &mut FileTree,
        control_files: &BTreeMap<String, Node>,
        paths: &[String],
    ) -> Result<(), GuestImageError> {
        let text_of = |name: &str| match control_files.get(name).map(|node| &node.kind) {
            Some(NodeKind::File(content)) => String::from_utf8_lossy(content).into_owned(),
            _ => String::new(),
        };
        let control = text_of("control");
        let name = field(&control, "Package").unwrap_or_default();
        let architecture = field(&control, "Architecture").unwrap_or_default();
        let info_name = match field(&control, "Multi-Arch") {
            Some("same") => format!("{name}:{architecture}"),
            _ => name.to_owned(),
        };
        for (file, node) in control_files.iter().filter(|(file, _)| *file != "control") {
            tree.insert(&format!("{DATABASE}/info/{info_name}.{file}"), node.clone())?;
        }
        let list: String = paths
            .iter()
            .map(|path| {
                if path.is_empty() {
                    "/.\n".to_owned()
                } else {
                    format!("/{path}\n")
                }
            })
            .collect();
        let list = Node::file(list.into_bytes(), 0o644);
        tree.insert(&format!("{DATABASE}/info/{info_name}.list"), list)?;
        self.add_triggers(&info_name, &text_of("triggers"));
        self.add_status(tree, &control, &text_of("conffiles"));
        Ok(())
    }

    /// Writes what belongs to no single package.
    ///
    /// # Errors
    /// Those of [`FileTree::insert`].
    pub fn finish(self, tree: &mut FileTree) -> Result<(), GuestImageError> {
        for directory in ["alternatives", "parts", "updates"] {
            tree.insert(&format!("{DATABASE}/{directory}"), Node::directory())?;
        }
        let mut file = |name: &str, content: String| {
            tree.insert(
                &format!("{DATABASE}/{name}"),
                Node::file(content.into_bytes(), 0o644),
            )
        };
        file("status", self.status)?;
        file("available", String::new())?;
        file("info/format", "1\n".to_owned())?;
        file("triggers/File", self.file_triggers)?;
        file("triggers/Unincorp", String::new())?;
        for (trigger, packages) in self.named_triggers {
            file(&format!("triggers/{trigger}"), packages)?;
        }
        Ok(())
    }

    fn add_status(&mut self, tree: &FileTree, control: &str, conffiles: &str) {
        for line in control.lines().filter(|line| !line.trim().is_empty()) {
            let _ = writeln!(self.status, "{line}");
            if line.starts_with("Package:") {
                self.status.push_str("Status: install ok unpacked\n");
            }
        }
        let mut heading = "Conffiles:\n";
        for path in conffiles
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with('/'))
        {
            if let Some(content) = tree.file(path) {
                let _ = write!(self.status, "{heading} {path} ");
                heading = "";
                for byte in Md5::digest(content) {
                    let _ = write!(self.status, "{byte:02x}");
                }
                self.status.push('\n');
            }
        }
        self.status.push('\n');
    }

    fn add_triggers(&mut self, package: &str, triggers: &str) {
        for line in triggers.lines() {
            let mut words = line
                .split('#')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let (Some(directive), Some(trigger)) = (words.next(), words.next()) else {
                continue;
            };
            let package = match directive {
                "interest" | "interest-await" => package.to_owned(),
                "interest-noawait" => format!("{package}/noawait"),
                _ => continue,
            };
            if trigger.starts_with('/') {
                let _ = writeln!(self.file_triggers, "{trigger} {package}");
            } else {
                let packages = self.named_triggers.entry(trigger.to_owned()).or_default();
                let _ = writeln!(packages, "{package}");
            }
        }
    }
}

/// The value of a one-line field.
fn field<'a>(control: &'a str, name: &str) -> Option<&'a str> {
    control
        .lines()
        .find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control_files(files: &[(&str, &str)]) -> BTreeMap<String, Node> {
        let node = |content: &str| Node::file(content.as_bytes(), 0o644);
        files
            .iter()
            .map(|(name, content)| ((*name).to_owned(), node(content)))
            .collect()
    }

    fn text(tree: &FileTree, path: &str) -> String {
        String::from_utf8(tree.file(path).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_package_is_entered_as_unpacked_with_its_conffiles_and_lists() {
        let mut tree = FileTree::default();
        tree.insert("etc/a.conf", Node::file(*b"hello\n", 0o644))
            .unwrap();
        let mut database = DpkgDatabase::default();
        let files = control_files(&[
            (
                "control",
                "Package: a\nVersion: 1\nArchitecture: riscv64\nMulti-Arch: same\nDescription: x\n .\n more\n",
            ),
            ("conffiles", "/etc/a.conf\nremove-on-upgrade /etc/old\n"),
            ("postinst", "#!/bin/sh\n"),
        ]);
        let paths = [String::new(), "etc".to_owned(), "etc/a.conf".to_owned()];
        database.add(&mut tree, &files, &paths).unwrap();
        database.finish(&mut tree).unwrap();
        assert_eq!(
            text(&tree, "var/lib/dpkg/status"),
            "Package: a\nStatus: install ok unpacked\nVersion: 1\nArchitecture: riscv64\n\
             Multi-Arch: same\nDescription: x\n .\n more\nConffiles:\n \
             /etc/a.conf b1946ac92492d2347c6235b4d2611184\n\n"
        );
        assert_eq!(
            text(&tree, "var/lib/dpkg/info/a:riscv64.list"),
            "/.\n/etc\n/etc/a.conf\n"
        );
        assert_eq!(
            text(&tree, "var/lib/dpkg/info/a:riscv64.postinst"),
            "#!/bin/sh\n"
        );
        assert!(!tree.contains("var/lib/dpkg/info/a:riscv64.control"));
    }

    #[test]
    fn deb_triggers_5_interests_are_filed_by_path_and_by_name() {
        let mut tree = FileTree::default();
        let mut database = DpkgDatabase::default();
        let files = control_files(&[
            ("control", "Package: libc-bin\n"),
            (
                "triggers",
                "# c\ninterest-noawait ldconfig\ninterest /usr/lib/x\nactivate y\n",
            ),
        ]);
        database.add(&mut tree, &files, &[]).unwrap();
        database.finish(&mut tree).unwrap();
        assert_eq!(
            text(&tree, "var/lib/dpkg/triggers/File"),
            "/usr/lib/x libc-bin\n"
        );
        assert_eq!(
            text(&tree, "var/lib/dpkg/triggers/ldconfig"),
            "libc-bin/noawait\n"
        );
        assert!(!tree.contains("var/lib/dpkg/triggers/y"));
    }
}
