//! Which host's disk is the right one to start the machine from. `docs/protocol.md`, "Which disk".

use crate::marker::{DiskState, Role, Worth};
use crate::message::LifeId;
use crate::succession::{Durability, Generation, HostId, LifeNumber, Membership};

/// The open generation, as the newest key says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open<'a> {
    pub life: LifeNumber,
    pub life_id: LifeId,
    pub generation: Generation,
    pub membership: &'a Membership,
}

/// Why a host may start the machine from its disk in the open generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// It is the primary's: the reign goes on.
    Reign,
    /// It is a member's whose disk had every flush before the guest knew that it was complete: a
    /// new reign.
    Member,
    /// It is that of the primary before, if the present one's host says that its own disk was
    /// never settled: the reign before goes on.
    Before,
    /// It may be older.
    None,
}

impl Open<'_> {
    /// Whether `worth` is of this life: another one of the same number is of another arbiter.
    fn is_of_this_life(&self, worth: &Worth) -> bool {
        worth
            .marker()
            .is_some_and(|marker| marker.life == self.life && marker.life_id == self.life_id)
    }

    /// Whether this is the worth of a primary that never settled: since its reign began no flush
    /// was complete.
    pub fn never_settled(&self, primary: &Worth) -> bool {
        match primary {
            Worth::Fresh => true,
            Worth::Nothing(_) => false,
            Worth::Known(marker) => {
                let before = marker.life < self.life
                    || (self.is_of_this_life(primary) && marker.generation < self.membership.since);
                before || (self.is_of_this_life(primary) && marker.role != Role::Primary)
            }
        }
    }

    /// What `host` may do with disks of this worth. A machine without writable disks
    /// (`has_disks` false) has nothing durable: its primary may always start it.
    pub fn right(&self, host: HostId, worth: &Worth, has_disks: bool) -> Right {
        let Membership {
            primary,
            since,
            durability,
            origin,
            ..
        } = self.membership;
        let is_primary = primary.id == host;
        if !has_disks {
            return if is_primary {
                Right::Reign
            } else {
                Right::None
            };
        }
        let is_whole = match worth {
            Worth::Fresh => true,
            Worth::Known(marker) => marker.disk == DiskState::Whole,
            Worth::Nothing(_) => false,
        };
        if !is_whole {
            return Right::None;
        }
        if let Worth::Known(marker) = worth
            && self.is_of_this_life(worth)
        {
            if is_primary && marker.role == Role::Primary && marker.generation >= *since {
                return Right::Reign;
            }
            // A member's disk that had every flush, and took over.
            if *durability == Durability::Both
                && is_primary
                && marker.role == Role::Member
                && marker.generation.next() == *since
            {
                return Right::Reign;
            }
            if *durability == Durability::Both
                && self.membership.has_member(host)
                && marker.role == Role::Member
                && marker.generation == self.generation
            {
                return Right::Member;
            }
        }
        let is_origin = origin.host.id == host
            && worth.place() >= (origin.life, origin.generation)
            && worth.place() < (self.life, *since);
        match (is_origin, is_primary) {
            (true, true) => Right::Reign,
            (true, false) => Right::Before,
            (false, _) => Right::None,
        }
    }
}
