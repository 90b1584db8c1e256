//! Why a store across a network gives no answer, and how it is found out whether one can be the arbiter.

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answered, or whoever did cannot now. That may pass.
    Silent(String),
    /// The store says no, or is none that can be the arbiter. That does not pass by itself.
    Refused(String),
}

impl Trouble {
    /// What is told.
    pub fn text(self) -> String {
        match self {
            Trouble::Silent(text) | Trouble::Refused(text) => text,
        }
    }
}

/// The object that shows, at the start, what the store does. It is created once and stays.
pub(crate) const PROBE: &str = "probe";

/// Creates one key twice, by what creates all keys and says whether it did. A store that does so both
/// times lets everybody win.
pub(crate) fn create_twice(
    mut create: impl FnMut(&[u8]) -> Result<bool, Trouble>,
) -> Result<(), Trouble> {
    let mut is_created = false;
    for content in [b"1", b"2"] {
        is_created = create(content)?;
    }
    if is_created {
        return Err(Trouble::Refused(format!(
            "it created {PROBE:?} though that was there: it ignores the condition that a key is created once, \
             so it cannot decide who goes on"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_creates_a_key_twice_is_found_out() {
        let refused = create_twice(|_| Ok(true)).unwrap_err();
        assert!(
            matches!(&refused, Trouble::Refused(text) if text.contains("ignores the condition"))
        );
        let mut is_there = false;
        assert_eq!(
            create_twice(|_| Ok(!std::mem::replace(&mut is_there, true))),
            Ok(())
        );
        assert_eq!(create_twice(|_| Ok(false)), Ok(()), "it was there before");
        let silent = Trouble::Silent("no route".into());
        assert_eq!(create_twice(|_| Err(silent.clone())), Err(silent));
    }
}
