//! Where another host listens: at one address, or at one in each network by which it is reached.

use std::fmt;

/// A host has at most so many: two cards, each with two families of addresses.
pub const MAX_ADDRESSES: usize = 4;

/// The addresses of one host, in the order in which they are tried: from one to [`MAX_ADDRESSES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddresses(Vec<String>);

impl PeerAddresses {
    /// Of one host, the one that is tried first in front. `None`: there are none, or more than a host has.
    pub fn new(addresses: Vec<String>) -> Option<PeerAddresses> {
        let is_allowed = (1..=MAX_ADDRESSES).contains(&addresses.len());
        is_allowed.then_some(PeerAddresses(addresses))
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether the host is reached in one way only.
    pub fn is_one(&self) -> bool {
        self.0.len() == 1
    }

    /// The one that is tried first.
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// The same, but the one of this index is tried first.
    ///
    /// # Panics
    /// There is no such one.
    #[must_use]
    pub fn beginning_with(mut self, index: usize) -> PeerAddresses {
        let first = self.0.remove(index);
        self.0.insert(0, first);
        self
    }

    /// Whether this is one of them.
    pub fn contains(&self, address: &str) -> bool {
        self.iter().any(|own| own == address)
    }
}

impl From<String> for PeerAddresses {
    fn from(address: String) -> PeerAddresses {
        PeerAddresses(vec![address])
    }
}

impl fmt::Display for PeerAddresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_an_address_at_least_and_no_more_than_its_cards() {
        assert_eq!(PeerAddresses::new(Vec::new()), None);
        let many = |count| vec!["192.0.2.7:7400".to_owned(); count];
        assert_eq!(PeerAddresses::new(many(MAX_ADDRESSES + 1)), None);
        assert!(PeerAddresses::new(many(MAX_ADDRESSES)).is_some());
    }

    #[test]
    fn the_address_that_answered_is_tried_first_and_the_others_in_their_order() {
        let all = ["a:1", "b:1", "c:1"].map(str::to_owned).to_vec();
        let all = PeerAddresses::new(all).unwrap().beginning_with(1);
        assert_eq!(all.iter().collect::<Vec<_>>(), ["b:1", "a:1", "c:1"]);
        assert_eq!((all.first(), all.is_one()), ("b:1", false));
        assert_eq!(all.to_string(), "b:1, a:1, c:1");
    }
}
