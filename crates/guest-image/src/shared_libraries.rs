//! Takes programs out of unpacked packages together with the shared libraries that they need, and
//! nothing else.

use crate::elf;
use crate::file_tree::{FileTree, Node};
use crate::{Architecture, GuestImageError};

/// Copies the program at `path` and all libraries that it needs, directly or not, from `packages`
/// to `guest`, to the same paths.
///
/// # Errors
/// [`GuestImageError::FileNotInPackages`] for the first that is missing.
pub fn copy_program(
    packages: &FileTree,
    architecture: Architecture,
    path: &str,
    guest: &mut FileTree,
) -> Result<(), GuestImageError> {
    let content = packages
        .file(path)
        .ok_or_else(|| GuestImageError::FileNotInPackages {
            file: path.to_owned(),
            hint: "Debian's package may have changed; build with --package instead",
        })?;
    guest.insert(path, Node::file(content.clone(), 0o755))?;
    if let Some(loader) = elf::interpreter(content) {
        let content = packages
            .file(&loader)
            .ok_or_else(|| GuestImageError::FileNotInPackages {
                file: loader.clone(),
                hint: "it is what loads the program's shared libraries",
            })?;
        guest.insert(&loader, Node::file(content.clone(), 0o755))?;
    }
    let mut pending = elf::needed_libraries(content);
    while let Some(library) = pending.pop() {
        let candidates = architecture
            .library_directories()
            .iter()
            .map(|directory| format!("{directory}/{library}"));
        let found = candidates
            .into_iter()
            .find(|candidate| packages.file(candidate).is_some());
        let missing = || GuestImageError::FileNotInPackages {
            file: library.clone(),
            hint: "a library that a program asks for lies in no lib* package that it depends on",
        };
        let found = found.ok_or_else(missing)?;
        if guest.contains(&found) {
            continue;
        }
        let content = packages.file(&found).ok_or_else(missing)?;
        guest.insert(&found, Node::file(content.clone(), 0o755))?;
        pending.extend(elf::needed_libraries(content));
    }
    Ok(())
}
