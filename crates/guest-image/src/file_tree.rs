//! The guest's files, held in memory while an image is put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::GuestImageError;

/// Symbolic links followed for one path before it is taken for a loop (Linux follows 40).
const MAX_LINKS: usize = 40;

/// One file, directory, link or device of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Permission bits, set-id and sticky bits included (0..=0o7777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last modification, seconds since 1970.
    pub mtime: u64,
    /// What it is.
    pub kind: NodeKind,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    /// A directory; its entries are the nodes whose path lies below.
    Directory,
    /// A regular file with its content. Hard links share it.
    File(Arc<[u8]>),
    /// A symbolic link with its target.
    SymbolicLink(String),
    /// A character device with major and minor number.
    CharacterDevice(u32, u32),
}

impl Node {
    /// A directory of root's with mode 0755.
    pub fn directory() -> Self {
        Self {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: NodeKind::Directory,
        }
    }

    /// A file of root's.
    pub fn file(content: impl Into<Arc<[u8]>>, mode: u32) -> Self {
        Self {
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: NodeKind::File(content.into()),
        }
    }

    /// A symbolic link of root's.
    pub fn symbolic_link(target: impl Into<String>) -> Self {
        Self {
            mode: 0o777,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: NodeKind::SymbolicLink(target.into()),
        }
    }

    /// A character device of root's with mode 0600.
    pub fn character_device(major: u32, minor: u32) -> Self {
        Self {
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: NodeKind::CharacterDevice(major, minor),
        }
    }
}

/// A file tree, ordered so that a directory comes before what is in it.
///
/// Every ancestor of a node is a directory: paths that lead through a symbolic link are put where
/// the link leads. So neither a package nor an added file can reach outside the tree when it is
/// written to the host's disk, and Debian's merged `/usr` needs no special case.
#[derive(Debug, Clone, Default)]
pub struct FileTree {
    nodes: BTreeMap<String, Node>,
}

impl FileTree {
    /// A tree with the directories and the links of merged `/usr` that every Debian system has.
    pub fn with_merged_usr() -> Self {
        let mut tree = Self::default();
        for directory in ["usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64"] {
            tree.nodes.insert(directory.to_owned(), Node::directory());
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            tree.nodes
                .insert(link.to_owned(), Node::symbolic_link(format!("usr/{link}")));
        }
        tree
    }

    /// All nodes with their paths (relative to the guest's root), parents first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The node at `path`, links in its parents followed, a link at its end not.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.resolve_parent(path).ok()?)
    }

    /// The content of the regular file at `path`, all links followed.
    pub fn file(&self, path: &str) -> Option<&Arc<[u8]>> {
        let mut path = self.resolve_parent(path).ok()?;
        for _ in 0..MAX_LINKS {
            match &self.nodes.get(&path)?.kind {
                NodeKind::File(content) => return Some(content),
                NodeKind::SymbolicLink(target) => {
                    path = self.resolve_parent(&link_destination(&path, target)).ok()?;
                }
                NodeKind::Directory | NodeKind::CharacterDevice(..) => return None,
            }
        }
        None
    }

    /// Whether something is at `path`, a dangling link included.
    pub fn contains(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// Puts `node` at `path` (with or without a leading `/` or `./`) as dpkg would: missing parents
    /// are made, a directory never replaces a directory or a link to one, anything else replaces
    /// what was there.
    ///
    /// # Errors
    /// [`GuestImageError::BadGuestPath`] if the path has `..`, leads through a file, or would put a
    /// file in a directory's place.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<(), GuestImageError> {
        let path = self.resolve_parent(path)?;
        if path.is_empty() {
            return Ok(()); // the root itself, which every package has
        }
        let is_directory = node.kind == NodeKind::Directory;
        match self.nodes.get(&path).map(|present| &present.kind) {
            Some(NodeKind::Directory | NodeKind::SymbolicLink(_)) if is_directory => return Ok(()),
            Some(NodeKind::Directory) => {
                return Err(bad_path(&path, "a directory is already there"));
            }
            Some(NodeKind::SymbolicLink(_))
                if !matches!(node.kind, NodeKind::SymbolicLink(_))
                    && self.leads_to_directory(&path) =>
            {
                return Err(bad_path(&path, "a link to a directory is already there"));
            }
            _ => {}
        }
        self.insert_parents(&path)?;
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Makes a directory, or gives the one that is there this mode and these owners.
    ///
    /// # Errors
    /// As [`insert`](FileTree::insert).
    pub fn make_directory(
        &mut self,
        path: &str,
        mode: u32,
        uid: u32,
        gid: u32,
    ) -> Result<(), GuestImageError> {
        self.insert(path, Node::directory())?;
        let path = self.resolve_parent(path)?;
        if let Some(node) = self.nodes.get_mut(&path)
            && node.kind == NodeKind::Directory
        {
            (node.mode, node.uid, node.gid) = (mode & 0o7777, uid, gid);
        }
        Ok(())
    }

    /// Takes away everything at or below a path for which `unwanted` says so.
    pub fn remove_where(&mut self, unwanted: impl Fn(&str) -> bool) {
        self.nodes.retain(|path, _| {
            let mut ancestors = path.match_indices('/').map(|(end, _)| &path[..end]);
            !unwanted(path) && !ancestors.any(&unwanted)
        });
    }

    fn leads_to_directory(&self, path: &str) -> bool {
        let below = self
            .resolve_parent(&format!("{path}/.x"))
            .unwrap_or_default();
        let target = below
            .strip_suffix("/.x")
            .and_then(|target| self.nodes.get(target));
        target.is_some_and(|node| node.kind == NodeKind::Directory)
    }

    fn insert_parents(&mut self, path: &str) -> Result<(), GuestImageError> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.nodes.get(parent).map(|node| &node.kind) {
                None => {
                    self.nodes.insert(parent.to_owned(), Node::directory());
                }
                Some(NodeKind::Directory) => {}
                Some(_) => {
                    return Err(bad_path(
                        path,
                        "it leads through something that is no directory",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Normalises a path and follows the links in all of its components but the last.
    fn resolve_parent(&self, path: &str) -> Result<String, GuestImageError> {
        let mut pending: Vec<String> = components(path)?;
        pending.reverse();
        let mut resolved = String::new();
        let mut links = 0;
        while let Some(component) = pending.pop() {
            let next = if resolved.is_empty() {
                component
            } else {
                format!("{resolved}/{component}")
            };
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(NodeKind::SymbolicLink(target)) if !pending.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(bad_path(path, "its links form a loop"));
                    }
                    let destination = components(&link_destination(&next, target))?;
                    pending.extend(destination.into_iter().rev());
                    resolved.clear();
                }
                _ => resolved = next,
            }
        }
        Ok(resolved)
    }
}

/// Where a link at `path` leads, as a path from the root with `..` already applied.
fn link_destination(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = match target.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => path
            .rsplit_once('/')
            .map_or(Vec::new(), |(parent, _)| parent.split('/').collect()),
    };
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn components(path: &str) -> Result<Vec<String>, GuestImageError> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(bad_path(path, "`..` is not allowed")),
            part if part.contains(['\0', '\n']) => {
                return Err(bad_path(path, "a NUL or a line end is not allowed"));
            }
            part => parts.push(part.to_owned()),
        }
    }
    Ok(parts)
}

fn bad_path(path: &str, reason: &'static str) -> GuestImageError {
    GuestImageError::BadGuestPath {
        path: path.to_owned(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &FileTree) -> Vec<&str> {
        tree.iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn a_parent_comes_before_what_is_in_it_even_where_sorting_by_bytes_would_differ() {
        let mut tree = FileTree::default();
        tree.insert("a/b", Node::file(*b"x", 0o644)).unwrap();
        tree.insert("a-b", Node::file(*b"x", 0o644)).unwrap();
        let paths = paths(&tree);
        for (index, path) in paths.iter().enumerate() {
            if let Some((parent, _)) = path.rsplit_once('/') {
                assert!(paths[..index].contains(&parent), "{path} before {parent}");
            }
        }
    }

    #[test]
    fn files_under_lib_land_in_usr_lib() {
        let mut tree = FileTree::with_merged_usr();
        tree.insert("./lib/x/y.so", Node::file(*b"elf", 0o644))
            .unwrap();
        assert!(paths(&tree).contains(&"usr/lib/x/y.so"));
        assert_eq!(
            tree.file("/lib/x/y.so").map(|content| &content[..]),
            Some(&b"elf"[..])
        );
    }

    #[test]
    fn a_package_that_brings_the_directory_lib_does_not_undo_merged_usr() {
        let mut tree = FileTree::with_merged_usr();
        tree.insert("lib", Node::directory()).unwrap();
        assert_eq!(
            tree.get("lib").unwrap().kind,
            NodeKind::SymbolicLink("usr/lib".into())
        );
    }

    #[test]
    fn a_file_cannot_take_the_place_of_a_directory_or_a_link_to_one() {
        let mut tree = FileTree::with_merged_usr();
        assert!(tree.insert("bin", Node::file(*b"", 0o644)).is_err());
        assert!(tree.insert("usr/bin", Node::file(*b"", 0o644)).is_err());
        assert!(tree.insert("bin/sh", Node::file(*b"", 0o755)).is_ok());
        assert!(
            tree.insert("dangling", Node::symbolic_link("nowhere"))
                .is_ok()
        );
        assert!(tree.insert("dangling", Node::file(*b"", 0o644)).is_ok());
    }

    #[test]
    fn links_to_files_are_followed_for_their_content() {
        let mut tree = FileTree::default();
        tree.insert("usr/bin/redis-check-rdb", Node::file(*b"elf", 0o755))
            .unwrap();
        tree.insert(
            "usr/bin/redis-server",
            Node::symbolic_link("redis-check-rdb"),
        )
        .unwrap();
        tree.insert(
            "server",
            Node::symbolic_link("/usr/bin/../bin/redis-server"),
        )
        .unwrap();
        assert_eq!(
            tree.file("server").map(|content| &content[..]),
            Some(&b"elf"[..])
        );
    }

    #[test]
    fn a_path_cannot_leave_the_tree() {
        let mut tree = FileTree::default();
        assert!(
            tree.insert("../etc/passwd", Node::file(*b"", 0o644))
                .is_err()
        );
        tree.insert("out", Node::symbolic_link("../../..")).unwrap();
        tree.insert("out/etc/passwd", Node::file(*b"", 0o644))
            .unwrap();
        assert!(paths(&tree).contains(&"etc/passwd"));
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let mut tree = FileTree::default();
        tree.insert("a", Node::symbolic_link("b")).unwrap();
        tree.insert("b", Node::symbolic_link("a")).unwrap();
        assert!(tree.insert("a/x", Node::file(*b"", 0o644)).is_err());
        assert!(tree.file("a").is_none());
    }

    #[test]
    fn a_removed_directory_takes_what_is_in_it_along() {
        let mut tree = FileTree::default();
        tree.insert("usr/share/doc/a/b", Node::file(*b"", 0o644))
            .unwrap();
        tree.insert("usr/share/docs", Node::file(*b"", 0o644))
            .unwrap();
        tree.remove_where(|path| path == "usr/share/doc");
        assert_eq!(paths(&tree), ["usr", "usr/share", "usr/share/docs"]);
    }
}
