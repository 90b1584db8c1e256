//! The directories that packages want to be there at every boot (tmpfiles.d(5)): a guest in RAM has them in
//! its image, since no systemd makes them.

use crate::GuestImageError;
use crate::accounts::{Accounts, words};
use crate::file_tree::FileTree;

/// Makes the directories of one file of `tmpfiles.d`. Other kinds of lines, specifiers, and owners that do
/// not exist are passed over.
///
/// # Errors
/// [`GuestImageError::BadGuestPath`] for a path that leads through a file.
pub fn make_directories(
    text: &str,
    accounts: &Accounts,
    tree: &mut FileTree,
) -> Result<(), GuestImageError> {
    for line in text.lines() {
        let fields = words(line);
        let [kind, path, rest @ ..] = fields.as_slice() else {
            continue;
        };
        let kind = kind.trim_end_matches(['!', '+', '-', '=', '~', '^', '$']);
        if !matches!(kind, "d" | "D" | "v" | "q" | "Q") || path.contains('%') {
            continue;
        }
        let field = |index: usize| {
            let field = rest
                .get(index)
                .map(|field| field.trim_start_matches(['~', ':']));
            field.filter(|field| *field != "-" && !field.is_empty())
        };
        let mode = field(0).and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let uid = field(1).map_or(Some(0), |user| accounts.uid(user));
        let gid = field(2).map_or(Some(0), |group| accounts.gid(group));
        if let (Some(uid), Some(gid)) = (uid, gid) {
            tree.make_directory(path, mode.unwrap_or(0o755), uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tmpfiles_d_5_directories_have_their_modes_and_owners() {
        let accounts =
            Accounts::from_masters("postgres:*:100:100::/:/bin/sh\n", "postgres:*:100:\n");
        let mut tree = FileTree::default();
        make_directories(
            "# comment\n\
             d /run/postgresql 2775 postgres postgres - -\n\
             D! /var/log/x - - - -\n\
             d /run/nobodys 0755 missing - -\n\
             d /run/%v 0755 - - -\n\
             x /tmp/sshauth.*\n",
            &accounts,
            &mut tree,
        )
        .unwrap();
        let node = tree.get("run/postgresql").unwrap();
        assert_eq!((node.mode, node.uid, node.gid), (0o2775, 100, 100));
        assert_eq!(tree.get("var/log/x").unwrap().mode, 0o755);
        assert!(!tree.contains("run/nobodys") && !tree.contains("run/%v"));
        assert!(!tree.contains("tmp"));
    }
}
