//! A raw disk image with an ext4 file system, made by e2fsprogs without root: `mke2fs -d` copies a
//! directory, and `debugfs` then sets the owners that an ordinary user cannot give to files.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, UNIX_EPOCH};

use crate::GuestImageError;
use crate::file_tree::{FileTree, Node, NodeKind};
use crate::output;
use crate::package::program_error;
use crate::progress::Progress;

const BLOCK_BYTES: u64 = 4096;
/// Journal, inode tables and the reserve that e2fsprogs sets aside, at the most.
const OVERHEAD_BYTES: u64 = 160 << 20;

/// Makes `image`, a file system of `bytes` bytes that holds `tree`. It gets its name only when it is
/// whole.
///
/// # Errors
/// If the tree does not fit, e2fsprogs is missing or fails, or the host's disk is full.
pub fn create(
    tree: &FileTree,
    image: &Path,
    bytes: u64,
    progress: &mut dyn Progress,
) -> Result<(), GuestImageError> {
    let needed = bytes_needed(tree);
    if needed > bytes {
        return Err(GuestImageError::BadOptions(format!(
            "the guest's files do not fit on a disk of {bytes} bytes: give it at least {needed}"
        )));
    }
    let directory = output::directory_of(image);
    output::remove_partials(directory);
    let failed = |action| move |error| GuestImageError::file(action, directory, error);
    let workspace = tempfile::Builder::new()
        .prefix(output::PARTIAL_PREFIX)
        .tempdir_in(directory)
        .map_err(failed("creating a directory"))?;
    let (root, partial) = (workspace.path().join("root"), workspace.path().join("disk"));
    let mut owners = Staging::new(root.clone());
    let total = tree.iter().count() as u64;
    fs::create_dir(&root).map_err(failed("creating a directory"))?;
    for ((path, node), done) in tree.iter().zip(0..) {
        if done % 256 == 0 {
            progress.on_step("writing the guest's files", done, total);
        }
        owners.add(path, node)?;
    }
    owners.set_directory_modes(tree)?;
    progress.on_step("making the file system", 0, 3);
    File::create(&partial)
        .and_then(|file| file.set_len(bytes))
        .map_err(|error| GuestImageError::file("creating the disk image", &partial, error))?;
    make_file_system(&root, &partial)?;
    progress.on_step("making the file system", 1, 3);
    set_inode_fields(&owners.debugfs_script, workspace.path(), &partial)?;
    progress.on_step("making the file system", 2, 3);
    File::open(&partial)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&partial, image))
        .map_err(|error| GuestImageError::file("writing the disk image", image, error))?;
    progress.on_step("making the file system", 3, 3);
    Ok(())
}

fn bytes_needed(tree: &FileTree) -> u64 {
    let content: u64 = tree
        .iter()
        .map(|(_, node)| match &node.kind {
            NodeKind::File(content) => (content.len() as u64).next_multiple_of(BLOCK_BYTES),
            NodeKind::Directory => BLOCK_BYTES,
            NodeKind::SymbolicLink(_) | NodeKind::CharacterDevice(..) => 0,
        })
        .sum();
    content + content / 20 + OVERHEAD_BYTES
}

/// A copy of the tree on the host's disk, and what it could not say.
struct Staging {
    root: PathBuf,
    /// Commands for debugfs that set owners, and the modes of files that the user must keep readable.
    debugfs_script: String,
    uid: u32,
    gid: u32,
}

impl Staging {
    fn new(root: PathBuf) -> Self {
        let (uid, gid) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        Self {
            root,
            debugfs_script: String::new(),
            uid,
            gid,
        }
    }

    /// The tree has no node below anything but a directory, so nothing is written outside the root.
    fn add(&mut self, path: &str, node: &Node) -> Result<(), GuestImageError> {
        let target = self.root.join(path);
        let written = match &node.kind {
            NodeKind::Directory => fs::create_dir(&target),
            NodeKind::File(content) => fs::write(&target, content).and_then(|()| {
                let readable = node.mode | 0o600;
                fs::set_permissions(&target, PermissionsExt::from_mode(readable))?;
                let time = UNIX_EPOCH + Duration::from_secs(node.mtime.min(u32::MAX.into()));
                File::open(&target)?.set_modified(time)
            }),
            NodeKind::SymbolicLink(link) => symlink(link, &target),
            // The kernel fills /dev; a package's own device would need root here.
            NodeKind::CharacterDevice(..) => return Ok(()),
        };
        written.map_err(|error| {
            GuestImageError::file("writing a file of the guest", &target, error)
        })?;
        self.note_owner(path, node, &target)
    }

    fn note_owner(
        &mut self,
        path: &str,
        node: &Node,
        target: &Path,
    ) -> Result<(), GuestImageError> {
        let staged = fs::symlink_metadata(target)
            .map_err(|error| GuestImageError::file("looking at a file", target, error))?;
        // A directory with the set-group-id bit hands its group down: ask what the file really got.
        let (uid, gid) = (staged.uid(), staged.gid());
        let quoted = format!("\"/{}\"", path.replace('"', "\"\""));
        let script = &mut self.debugfs_script;
        if node.uid != uid {
            let _ = writeln!(script, "set_inode_field {quoted} uid {}", node.uid);
        }
        if node.gid != gid {
            let _ = writeln!(script, "set_inode_field {quoted} gid {}", node.gid);
        }
        if matches!(node.kind, NodeKind::File(_)) && node.mode & 0o600 != 0o600 {
            let _ = writeln!(
                script,
                "set_inode_field {quoted} mode 0{:o}",
                0o100_000 | node.mode
            );
        }
        Ok(())
    }

    /// Last, because a directory without write permission could not be filled.
    fn set_directory_modes(&mut self, tree: &FileTree) -> Result<(), GuestImageError> {
        for (path, node) in tree
            .iter()
            .filter(|(_, node)| node.kind == NodeKind::Directory)
        {
            let target = self.root.join(path);
            fs::set_permissions(&target, PermissionsExt::from_mode(node.mode | 0o700)).map_err(
                |error| GuestImageError::file("setting the mode of a directory", &target, error),
            )?;
        }
        if (self.uid, self.gid) != (0, 0) {
            self.debugfs_script
                .push_str("set_inode_field / uid 0\nset_inode_field / gid 0\n");
        }
        fs::set_permissions(&self.root, PermissionsExt::from_mode(0o755))
            .map_err(|error| GuestImageError::file("setting the root's mode", &self.root, error))
    }
}

fn make_file_system(root: &Path, image: &Path) -> Result<(), GuestImageError> {
    let mut command = Command::new(program("mke2fs"));
    command
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1"])
        // The guest need not zero the inode tables in the background: the image's file is new.
        .args([
            "-E",
            "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0",
        ])
        .arg("-d")
        .arg(root)
        .arg(image);
    run(command, "mke2fs", image).map(drop)
}

fn set_inode_fields(script: &str, directory: &Path, image: &Path) -> Result<(), GuestImageError> {
    let path = directory.join("owners");
    fs::write(&path, script)
        .map_err(|error| GuestImageError::file("writing a script for debugfs", &path, error))?;
    let mut command = Command::new(program("debugfs"));
    command.arg("-w").arg("-f").arg(&path).arg(image);
    let errors = run(command, "debugfs", image)?;
    // debugfs ends well even if a command failed; besides failures it only says its version.
    match errors.lines().find(|line| !line.starts_with("debugfs ")) {
        None => Ok(()),
        Some(line) => Err(GuestImageError::ProgramFailed {
            program: "debugfs",
            message: line.to_owned(),
        }),
    }
}

/// Runs a program of e2fsprogs; returns what it said on standard error.
fn run(
    mut command: Command,
    program: &'static str,
    image: &Path,
) -> Result<String, GuestImageError> {
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| program_error(error, program, "e2fsprogs", image))?;
    let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        return Ok(errors);
    }
    if errors.contains("No space left") {
        return Err(GuestImageError::NoSpace {
            path: image.to_owned(),
        });
    }
    Err(GuestImageError::ProgramFailed {
        program,
        message: errors,
    })
}

/// The program's path: `/usr/sbin` is not in every user's PATH.
fn program(name: &str) -> PathBuf {
    let in_sbin = ["/usr/sbin", "/sbin"].map(|directory| Path::new(directory).join(name));
    in_sbin
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::NoProgress;

    fn debugfs(image: &Path, request: &str) -> String {
        let output = Command::new(program("debugfs"))
            .args(["-R", request])
            .arg(image)
            .output()
            .expect("e2fsprogs is needed for this test");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn owners_modes_and_links_reach_the_file_system_whoever_builds_it() {
        let mut tree = FileTree::default();
        let shadow = Node {
            gid: 42,
            ..Node::file(*b"root:*\n", 0o640)
        };
        tree.insert("etc/shadow", shadow).unwrap();
        tree.insert(
            "etc/no access",
            Node {
                uid: 7,
                ..Node::file(*b"x", 0)
            },
        )
        .unwrap();
        tree.insert("usr/bin/su", Node::file(*b"elf", 0o4755))
            .unwrap();
        tree.insert("locked/file", Node::file(*b"x", 0o600))
            .unwrap();
        tree.insert(
            "tmp",
            Node {
                mode: 0o1777,
                ..Node::directory()
            },
        )
        .unwrap();
        tree.insert("bin", Node::symbolic_link("usr/bin")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        create(&tree, &image, 256 << 20, &mut NoProgress).unwrap();

        let status = |path: &str| {
            let text = debugfs(&image, &format!("stat \"{path}\""));
            let words: Vec<&str> = text.split_whitespace().collect();
            let after = |label: &str| {
                let at = words.iter().position(|word| *word == label).unwrap();
                words[at + 1].to_owned()
            };
            (after("User:"), after("Group:"), after("Mode:"))
        };
        let expect = |uid: &str, gid: &str, mode: &str| (uid.into(), gid.into(), mode.into());
        assert_eq!(status("/"), expect("0", "0", "0755"));
        assert_eq!(status("/etc/shadow"), expect("0", "42", "0640"));
        assert_eq!(status("/etc/no access"), expect("7", "0", "0000"));
        assert_eq!(status("/usr/bin/su"), expect("0", "0", "04755"));
        assert_eq!(status("/tmp"), expect("0", "0", "01777"));
        assert_eq!(status("/bin"), expect("0", "0", "0777"));
        assert!(debugfs(&image, "stat /bin").contains("usr/bin"));
        assert_eq!(debugfs(&image, "cat /etc/shadow"), "root:*\n");
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the image is left: {left:?}");
    }

    #[test]
    fn a_tree_that_does_not_fit_is_refused_before_anything_is_written() {
        let mut tree = FileTree::default();
        tree.insert("big", Node::file(vec![0; 1 << 20], 0o644))
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk");
        let error = create(&tree, &image, 64 << 20, &mut NoProgress).unwrap_err();
        assert!(error.to_string().contains("at least"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
