//! The `sifive,test0` finisher, by which a guest powers off, reboots or reports a result.

use machine::output::Finish;
use serde::{Deserialize, Serialize};

const FINISHER_FAIL: u64 = 0x3333;
const FINISHER_PASS: u64 = 0x5555;
const FINISHER_RESET: u64 = 0x7777;

/// The finisher: remembers how the guest ended the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finisher {
    finish: Option<Finish>,
}

impl Finisher {
    /// How the guest ended the machine, if it did.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// A write to the register: the end, if this write is the one that ends the machine.
    pub fn write(&mut self, offset: u64, value: u64) -> Option<Finish> {
        if offset != 0 || self.finish.is_some() {
            return None;
        }
        self.finish = match value & 0xffff {
            FINISHER_PASS => Some(Finish::PowerOff),
            FINISHER_FAIL => Some(Finish::Fail((value >> 16) as u16)),
            FINISHER_RESET => Some(Finish::Reset),
            _ => None,
        };
        self.finish
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_ends_the_machine_once() {
        assert_eq!(Finisher::default().write(0, 0x5555), Some(Finish::PowerOff));
        assert_eq!(Finisher::default().write(0, 0x7777), Some(Finish::Reset));
        let mut finisher = Finisher::default();
        assert_eq!(finisher.write(0, 0x1234), None);
        assert_eq!(finisher.write(4, 0x5555), None);
        assert_eq!(finisher.write(0, 0x0007_3333), Some(Finish::Fail(7)));
        assert_eq!(finisher.write(0, 0x5555), None);
        assert_eq!(finisher.finish(), Some(Finish::Fail(7)));
    }
}
