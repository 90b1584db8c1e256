//! What a switch tells its operator: each kind of event is counted, and written to standard error at
//! most once in ten seconds, since strangers can cause them as often as they like.

use crate::status::NoticeStatus;
use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, Instant};

/// Between two lines of the same kind.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Told {
    count: u64,
    /// What is not yet in a line.
    untold: u64,
    at: Instant,
    detail: String,
}

/// The events of one switch, by kind.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    kinds: BTreeMap<&'static str, Told>,
}

impl Notices {
    /// Counts an event of this kind; true when it is written now.
    pub(crate) fn add(
        &mut self,
        kind: &'static str,
        now: Instant,
        detail: impl FnOnce() -> String,
    ) -> bool {
        let first = !self.kinds.contains_key(kind);
        let told = self.kinds.entry(kind).or_insert_with(|| Told {
            count: 0,
            untold: 0,
            at: now,
            detail: String::new(),
        });
        told.count += 1;
        told.untold += 1;
        let due = first || now.saturating_duration_since(told.at) >= INTERVAL;
        if due {
            told.detail = detail();
            let others = match told.untold {
                1 => String::new(),
                untold => format!(" ({} more like it before)", untold - 1),
            };
            // Whoever closed standard error does not want to know.
            let _written = writeln!(
                std::io::stderr().lock(),
                "warning: {kind}: {}{others}",
                told.detail
            );
            told.untold = 0;
            told.at = now;
        }
        due
    }

    /// All kinds that ever happened.
    pub(crate) fn status(&self) -> Vec<NoticeStatus> {
        let status = |(kind, told): (&&'static str, &Told)| NoticeStatus {
            event: (*kind).to_owned(),
            count: told.count,
            detail: told.detail.clone(),
        };
        self.kinds.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_once_in_ten_seconds() {
        let mut notices = Notices::default();
        let now = Instant::now();
        let mut told = 0;
        for step in 0..1000 {
            let now = now + Duration::from_millis(step);
            told += u32::from(notices.add("flood", now, || step.to_string()));
        }
        assert_eq!(told, 1);
        assert!(notices.add("flood", now + INTERVAL, || "last".to_owned()));
        assert_eq!(notices.status()[0].count, 1001);
        assert_eq!(notices.status()[0].detail, "last");
    }
}
