//! How far a member would be behind if nobody waited for it.

use crate::lag::{FULL_SPEED, JOINED_SHARE, Pressure, RELIEVED, RunShare};
use std::time::Duration;

/// The time that the primary has lost for one member, which slowing it hides from the lag.
///
/// It grows by what the harts were not let run while this member was a reason for it, and is forgotten
/// as fast as time passes while it is none.
#[derive(Debug)]
pub(crate) struct Arrears {
    waited: Duration,
    since: Duration,
}

impl Arrears {
    /// Nobody waited yet.
    pub fn new(now: Duration) -> Arrears {
        Arrears {
            waited: Duration::ZERO,
            since: now,
        }
    }

    /// Until now the harts had this share, and this member pressed so: by its lag, by what is under way
    /// to it, by the queue on its channel. While it catches up with what its restore took, it is
    /// charged with what goes beyond the speed that every new member is let catch up at.
    pub fn pass(&mut self, now: Duration, share: RunShare, own: Pressure) {
        let passed = now.saturating_sub(self.since);
        self.since = now;
        let full = if own.catching_up {
            (JOINED_SHARE / 1000) as u32
        } else {
            u32::from(FULL_SPEED)
        };
        let presses = own.catching_up || own.lag.max(own.memory) >= RELIEVED as u64;
        let lost = full.saturating_sub(share.into());
        if presses && lost > 0 {
            self.waited += passed * lost / u32::from(FULL_SPEED);
        } else {
            self.waited = self.waited.saturating_sub(passed);
        }
    }

    /// Time stood still here: nobody waited for it meanwhile.
    pub fn forgive(&mut self, pause: Duration) {
        self.since += pause;
    }

    /// So much the primary has lost.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressing(lag: u64) -> Pressure {
        Pressure {
            lag,
            ..Pressure::default()
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_member_owes_what_the_primary_lost_while_it_pressed() {
        let mut arrears = Arrears::new(seconds(0));
        arrears.pass(seconds(10), 500, pressing(60));
        assert_eq!(arrears.waited(), seconds(5));
        arrears.pass(seconds(11), 0, pressing(400));
        assert_eq!(arrears.waited(), seconds(6));
        arrears.pass(seconds(12), 500, pressing(19));
        assert_eq!(arrears.waited(), seconds(5), "another is the reason");
        arrears.pass(seconds(20), FULL_SPEED, pressing(80));
        assert_eq!(arrears.waited(), Duration::ZERO, "nothing is lost");
    }

    #[test]
    fn a_new_member_is_let_catch_up_at_three_quarters() {
        let catching_up = Pressure {
            catching_up: true,
            ..pressing(1000)
        };
        let mut arrears = Arrears::new(seconds(0));
        arrears.pass(seconds(60), 750, catching_up);
        assert_eq!(arrears.waited(), Duration::ZERO);
        arrears.pass(seconds(64), 250, catching_up);
        assert_eq!(arrears.waited(), seconds(2));
    }

    #[test]
    fn what_this_process_slept_is_not_owed() {
        let mut arrears = Arrears::new(seconds(0));
        arrears.forgive(seconds(50));
        arrears.pass(seconds(52), 500, pressing(100));
        assert_eq!(arrears.waited(), seconds(1));
    }
}
