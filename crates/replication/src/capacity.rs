//! What a joiner's host has, and what the machine needs: who is too small, or too slow, is told before it
//! is relied on. `docs/protocol.md`, "What a host has".

use std::fmt;
use std::time::Duration;

/// What a joiner tells of its host, measured when it greets. 0 stands for what is not known, also of a host that
/// speaks a protocol from before these were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Bytes of memory that its process may have altogether, those that it has among them.
    pub memory: u64,
    /// Cores that its process may use.
    pub cores: u32,
    /// Instructions of the test program that its engine executes in a second of a core's time.
    pub speed: u64,
}

/// What the machine needs of a host that is to follow it. 0 stands for what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes of memory for a process that has the machine.
    pub memory: u64,
    /// Instructions of the test program a second: what a host has to execute of those to keep up with what the
    /// machine has done lately, at its busiest.
    pub speed: u64,
}

/// Not enough of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// What is needed.
    pub needed: u64,
    /// What is there.
    pub there: u64,
}

impl Shortfall {
    /// Unless enough is there, or one of both is not known.
    fn of(needed: u64, there: u64) -> Option<Shortfall> {
        let is_known = needed > 0 && there > 0;
        (is_known && there < needed).then_some(Shortfall { needed, there })
    }

    /// Of memory, for people.
    pub fn of_memory(self) -> impl fmt::Display {
        const MIB: u64 = 1 << 20;
        let (needed, there) = (self.needed.div_ceil(MIB), self.there / MIB);
        format!("it may have {there} MiB of memory, and the machine needs {needed} MiB")
    }

    /// Of speed, for people.
    pub fn of_speed(self) -> impl fmt::Display {
        let millions = |speed: u64| speed as f64 / 1e6;
        format!(
            "its engine does {:.0} million instructions of a test program a second, and what the machine \
             did lately takes {:.0}",
            millions(self.there),
            millions(self.needed)
        )
    }
}

impl Needs {
    /// How much memory the host lacks.
    pub fn lacks_memory(&self, host: &HostFacts) -> Option<Shortfall> {
        Shortfall::of(self.memory, host.memory)
    }

    /// How much too slow the host is.
    pub fn lacks_speed(&self, host: &HostFacts) -> Option<Shortfall> {
        Shortfall::of(self.speed, host.speed)
    }
}

/// A spare that is too slow waits so many times as long for its place as one that is not: somebody faster may
/// come.
pub(crate) const SLOW_SPARE_WAITS: u32 = 2;

/// How long a spare of a host with so much has to wait for its place.
pub(crate) fn spare_patience(spare_after: Duration, needs: &Needs, host: &HostFacts) -> Duration {
    match needs.lacks_speed(host) {
        None => spare_after,
        Some(_) => spare_after.saturating_mul(SLOW_SPARE_WAITS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_short_only_of_what_is_known_on_both_sides() {
        let needs = Needs {
            memory: 300 << 20,
            speed: 500_000_000,
        };
        let host = HostFacts {
            memory: 200 << 20,
            cores: 1,
            speed: 31_400_000,
        };
        let memory = needs.lacks_memory(&host).unwrap().of_memory().to_string();
        assert!(
            memory.contains("200 MiB") && memory.contains("300 MiB"),
            "{memory}"
        );
        let speed = needs.lacks_speed(&host).unwrap().of_speed().to_string();
        assert!(
            speed.contains("does 31 million") && speed.contains("takes 500"),
            "{speed}"
        );
        let unknown = (Needs::default(), HostFacts::default());
        for (needs, host) in [(needs, unknown.1), (unknown.0, host)] {
            assert_eq!(needs.lacks_memory(&host), None);
            assert_eq!(needs.lacks_speed(&host), None);
        }
        let equal = HostFacts {
            memory: needs.memory,
            speed: needs.speed,
            ..host
        };
        assert_eq!(needs.lacks_memory(&equal), None);
        assert_eq!(needs.lacks_speed(&equal), None);
    }

    #[test]
    fn a_slow_spare_waits_for_a_faster_one() {
        let second = Duration::from_secs(1);
        let needs = Needs {
            memory: 0,
            speed: 500,
        };
        let of_speed = |speed| HostFacts {
            speed,
            ..HostFacts::default()
        };
        assert_eq!(spare_patience(second, &needs, &of_speed(500)), second);
        assert_eq!(spare_patience(second, &needs, &of_speed(0)), second);
        assert_eq!(spare_patience(second, &needs, &of_speed(499)), second * 2);
    }
}
