//! Looks after this host's keys: takes new ones when they are there, and says in time that they expire.

use environment::mpsc::{self, RecvTimeoutError, Sender};
use keys::{Date, Keys, UnixTime, whole_days};
use std::io;
use std::time::Duration;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);
/// A certificate that expires within so many days is told.
pub const WARNED_DAYS: i64 = 30;

/// Something about this host's keys: an event's name, and what to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyNews {
    /// `keys_changed`, `keys_unusable`, `key_expires` or `key_expired`.
    pub event: &'static str,
    /// For people.
    pub detail: String,
}

/// The thread that looks. It ends when this is dropped.
#[derive(Debug)]
pub struct KeyWatch {
    _alive: Sender<()>,
}

impl KeyWatch {
    /// Begins to look; what there is to say is told on the thread. Of `others`, which are the same
    /// keys for other purposes, nothing is said.
    ///
    /// # Errors
    /// The host gives no thread.
    pub fn start(
        keys: Keys,
        others: Vec<Keys>,
        mut tell: impl FnMut(KeyNews) + Send + 'static,
    ) -> io::Result<KeyWatch> {
        let (alive, ended) = mpsc::channel();
        let mut look = Look {
            keys,
            told_days: None,
            told_trouble: None,
        };
        let turn = move || {
            loop {
                for other in &others {
                    // What is wrong with the files is said once.
                    let _changed = other.reload();
                }
                look.look(UnixTime::now()).into_iter().for_each(&mut tell);
                match ended.recv_timeout(INTERVAL) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        environment::thread::Builder::new()
            .name("keys".into())
            .spawn(turn)?;
        Ok(KeyWatch { _alive: alive })
    }
}

/// What was said already.
struct Look {
    keys: Keys,
    /// With how many days left the certificate was told of last.
    told_days: Option<i64>,
    told_trouble: Option<String>,
}

impl Look {
    fn look(&mut self, now: UnixTime) -> Vec<KeyNews> {
        let mut news = Vec::new();
        match self.keys.reload() {
            Ok(changed) => {
                self.told_trouble = None;
                if changed {
                    self.told_days = None;
                    news.push(self.changed());
                }
            }
            Err(error) => {
                let detail = format!("{error}; the keys read before stay in force");
                if self.told_trouble.as_ref() != Some(&detail) {
                    news.push(KeyNews {
                        event: "keys_unusable",
                        detail: detail.clone(),
                    });
                    self.told_trouble = Some(detail);
                }
            }
        }
        news.extend(self.expiry(now));
        news
    }

    fn changed(&self) -> KeyNews {
        let certificate = self.keys.certificate();
        let authorities = match self.keys.authority_count() {
            1 => String::new(),
            more => format!("; {more} authorities are believed"),
        };
        KeyNews {
            event: "keys_changed",
            detail: format!(
                "the certificate of {} holds until {}{authorities}",
                certificate.name,
                Date(certificate.not_after)
            ),
        }
    }

    /// Told once a day.
    fn expiry(&mut self, now: UnixTime) -> Option<KeyNews> {
        let certificate = self.keys.certificate();
        let days = whole_days(now, certificate.not_after);
        if days >= WARNED_DAYS || self.told_days == Some(days) {
            return None;
        }
        self.told_days = Some(days);
        let what = format!(
            "{} of {}, in {}: `understudy keys rotate` issues another, copy it here",
            Date(certificate.not_after),
            certificate.name,
            self.keys.directory().display()
        );
        Some(if days < 0 {
            KeyNews {
                event: "key_expired",
                detail: format!(
                    "hosts that start from now on refuse this host: its certificate expired on {what}"
                ),
            }
        } else {
            KeyNews {
                event: "key_expires",
                detail: format!("in {days} days, the certificate that holds until {what}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keys::{LetIn, Purpose, Site, Validity};

    fn in_days(days: i64) -> UnixTime {
        let now = UnixTime::now().as_secs() as i64;
        UnixTime::since_unix_epoch(Duration::from_secs((now + days * 86_400) as u64))
    }

    fn look(directory: &std::path::Path) -> Look {
        let site = Site::init(&directory.join("site")).unwrap();
        let hosta = "hosta".parse().unwrap();
        let keys = site.issue(&hosta, Validity::days(100)).unwrap();
        Look {
            keys: Keys::open(&keys, Purpose::Replica, LetIn::Site).unwrap(),
            told_days: None,
            told_trouble: None,
        }
    }

    fn names(news: &[KeyNews]) -> Vec<&str> {
        news.iter().map(|news| news.event).collect()
    }

    #[test]
    fn what_expires_within_a_month_is_told_once_a_day_and_an_expired_one_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut look = look(directory.path());
        assert_eq!(names(&look.look(in_days(60))), [""; 0]);
        let news = look.look(in_days(71));
        assert_eq!(names(&news), ["key_expires"]);
        assert!(news[0].detail.contains("keys rotate"), "{}", news[0].detail);
        assert_eq!(names(&look.look(in_days(71))), [""; 0]);
        assert_eq!(names(&look.look(in_days(72))), ["key_expires"]);
        assert_eq!(names(&look.look(in_days(102))), ["key_expired"]);
    }

    #[test]
    fn new_keys_are_taken_and_unusable_ones_are_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let mut look = look(directory.path());
        let site = Site::open(&directory.path().join("site")).unwrap();
        let hosta: keys::HostName = "hosta".parse().unwrap();
        let before = look.keys.certificate();
        site.rotate(std::slice::from_ref(&hosta), Validity::days(200))
            .unwrap();
        assert_eq!(names(&look.look(UnixTime::now())), ["keys_changed"]);
        assert_ne!(look.keys.certificate(), before);
        let file = site.host_directory(&hosta).join(keys::HOST_FILE);
        std::fs::write(&file, "nothing of the kind").unwrap();
        assert_eq!(names(&look.look(UnixTime::now())), ["keys_unusable"]);
        assert_eq!(names(&look.look(UnixTime::now())), [""; 0]);
        assert_ne!(look.keys.certificate(), before);
    }
}
