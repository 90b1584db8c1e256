//! Arbiters by their addresses: a machine may be moved from one to another, and the key that says so has an
//! address alone.

use super::{ArbiterSection, VmConfig};
use arbiter::{OpenStore, Store};
use std::path::{Path, PathBuf};

/// Opens arbiters by what the configuration at `path` says about them when they are opened: in `[arbiter]`,
/// in `[next_arbiter]`, or nothing.
pub fn open_by_address(path: &Path) -> OpenStore {
    let path: PathBuf = path.into();
    Box::new(move |address| open(&path, address))
}

fn open(path: &Path, address: &str) -> Result<Box<dyn Store>, String> {
    // A configuration that cannot be read now is no reason to stay where the life is no more.
    let config = VmConfig::load(path).ok();
    let sections = config.iter().flat_map(|config| {
        let own = config.arbiter.iter();
        own.chain(&config.next_arbiter)
    });
    let mut sections = sections.filter(|section| section.is_at(address));
    let section = sections.next().cloned();
    let section = section.unwrap_or_else(|| ArbiterSection::at(address));
    let wrong = |(key, why): (&str, String)| {
        let key = key.replace("arbiter.", "next_arbiter.");
        format!("{address}: {key}: {why}")
    };
    section.check().map_err(wrong)?;
    let settings = section.settings(&environment).map_err(wrong)?;
    settings.open().map_err(|error| error.to_string())
}

/// A variable of the environment that says something.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_it_takes_is_in_the_section_of_that_address_and_read_when_it_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vm.toml");
        let write = |next: &str| {
            let text = format!(
                "name = \"m\"\nmemory = \"8M\"\nkernel = \"k\"\nstate_directory = \"s\"\n\
                 arbiter = \"{}\"\n{next}",
                directory.path().display()
            );
            fs::write(&path, text).unwrap();
        };
        write("");
        let mut open = open_by_address(&path);
        let mut error = |address: &str| open(address).err().unwrap();
        let told = error("s3://bucket/p");
        assert!(
            told.contains("s3://bucket/p: next_arbiter.region: "),
            "{told}"
        );
        write("[next_arbiter]\nurl = \"s3://bucket/p\"\nregion = \"eu\"\n");
        let told = error("s3://bucket/p");
        assert!(told.contains("next_arbiter.access_key_id: "), "{told}");
        // Another address is not meant by it.
        let told = error("s3://bucket/other");
        assert!(told.contains("next_arbiter.region: "), "{told}");
        let file = path.display().to_string();
        let told = error(&file);
        assert!(told.contains(&file), "{told}");
        let own = directory.path().display().to_string();
        assert_eq!(open(&own).unwrap().name(), own);
    }
}
