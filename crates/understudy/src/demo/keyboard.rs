//! What the keys of the demonstration are for.

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// The replica in this role dies.
    Kill(&'static str),
    /// The demonstration ends.
    End,
    /// Nothing.
    None,
}

/// The keys so far, as far as they matter for the next one.
#[derive(Debug, Default)]
pub struct Keyboard {
    /// A kill would end the machine: the next key says whether it is meant.
    asks: bool,
}

impl Keyboard {
    /// Whether a kill waits for its confirmation.
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// What this key is for; `is_protected` says whether the primary may die now.
    pub fn pressed(&mut self, key: u8, is_protected: impl FnOnce() -> bool) -> Deed {
        let asked = std::mem::take(&mut self.asks);
        match key {
            b'k' if is_protected() => Deed::Kill("primary"),
            // The last one that has the machine dies only if that is really meant.
            b'k' => {
                self.asks = true;
                Deed::None
            }
            b'y' if asked => Deed::Kill("primary"),
            b'b' => Deed::Kill("backup"),
            b'q' | 0x03 => Deed::End,
            _ => Deed::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Finding 23: the second of two within 70 ms ended the machine.
    #[test]
    fn a_second_kill_before_a_new_backup_has_joined_is_asked_about() {
        let mut keys = Keyboard::default();
        assert_eq!(keys.pressed(b'k', || true), Deed::Kill("primary"));
        assert!(!keys.asks());
        assert_eq!(keys.pressed(b'k', || false), Deed::None);
        assert!(keys.asks());
        assert_eq!(keys.pressed(b'k', || false), Deed::None, "no word for yes");
        assert_eq!(keys.pressed(b'y', || false), Deed::Kill("primary"));
        assert!(!keys.asks());
    }

    #[test]
    fn any_key_but_yes_takes_the_question_back() {
        let mut keys = Keyboard::default();
        assert_eq!(keys.pressed(b'y', || false), Deed::None, "nobody asked");
        for other in [b'n', b'b', b'x'] {
            assert_eq!(keys.pressed(b'k', || false), Deed::None);
            assert_ne!(keys.pressed(other, || false), Deed::Kill("primary"));
            assert!(!keys.asks());
            assert_eq!(keys.pressed(b'y', || false), Deed::None);
        }
        // It has a backup by now.
        assert_eq!(keys.pressed(b'k', || false), Deed::None);
        assert_eq!(keys.pressed(b'k', || true), Deed::Kill("primary"));
    }
}
