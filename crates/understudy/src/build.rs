//! What this program was built from.

use replication::configuration::Build;

/// The commit; `unknown` where git did not know at the build.
pub const COMMIT: &str = env!("UNDERSTUDY_COMMIT");

/// Version and commit, as other hosts and people are told.
pub fn build() -> Build {
    Build::new(&format!("{}, commit {COMMIT}", env!("CARGO_PKG_VERSION")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All of it is told: nothing is cut off.
    #[test]
    fn a_build_names_its_version_and_its_commit() {
        let build = build();
        let (version, commit) = build.as_str().split_once(", commit ").unwrap();
        assert_eq!((version, commit), (env!("CARGO_PKG_VERSION"), COMMIT));
        let is_commit = commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit());
        assert!(is_commit || commit == "unknown", "{commit}");
    }
}
