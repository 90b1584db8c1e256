//! The reservation of `lr` (unprivileged specification, 14.2).

use serde::{Deserialize, Serialize};
use std::fmt;

/// The physical address that is reserved, or none. Compiled code reads and writes it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<u64>", into = "Option<u64>")]
#[repr(transparent)]
pub struct Reservation(u64);

impl Reservation {
    /// Nothing is reserved: no data lies at the last address.
    pub const NONE: Reservation = Reservation(u64::MAX);

    /// Of data at a physical address.
    pub fn at(address: u64) -> Reservation {
        Reservation(address)
    }

    /// Ends it, if there is one. True if it was of data at `address`.
    pub fn end(&mut self, address: u64) -> bool {
        std::mem::replace(self, Reservation::NONE) == Reservation::at(address)
    }
}

impl From<Option<u64>> for Reservation {
    fn from(address: Option<u64>) -> Reservation {
        address.map_or(Reservation::NONE, Reservation)
    }
}

impl From<Reservation> for Option<u64> {
    fn from(reservation: Reservation) -> Option<u64> {
        (reservation != Reservation::NONE).then_some(reservation.0)
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        Option::<u64>::from(*self).fmt(formatter)
    }
}
