//! Why the demonstration is over when no replica is left.

use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

/// Of the replica that ended last: how, what it said last, and where its events are.
pub fn describe(status: ExitStatus, last_words: &str, directory: &Path) -> String {
    let events = format!("its events are in {}", directory.display());
    if status.signal() == Some(Signal::KILL.as_raw()) {
        return format!(
            "both replicas have ended, and the machine with them: the last one was killed before a new \
             backup had joined ({events})"
        );
    }
    match last_words.trim() {
        "" => format!("both replicas have ended; the last one said nothing ({status}; {events})"),
        words => format!("both replicas have ended; the last one said: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding 23: `the last one said:`, and nothing after it.
    #[test]
    fn whatever_the_last_one_said_the_reason_is_told() {
        let told =
            |status, words| describe(ExitStatus::from_raw(status), words, Path::new("/tmp/demo"));
        let killed = told(Signal::KILL.as_raw(), "");
        assert!(
            killed.contains("killed before a new backup had joined"),
            "{killed}"
        );
        let exited = told(3 << 8, " \n");
        assert!(exited.contains("exit status: 3"), "{exited}");
        for silent in [killed, exited] {
            assert!(silent.contains("/tmp/demo"), "{silent}");
            assert!(!silent.trim_end().ends_with(':'), "{silent}");
        }
        let spoke = told(3 << 8, "no disk\n");
        assert!(spoke.ends_with("the last one said: no disk"), "{spoke}");
    }
}
