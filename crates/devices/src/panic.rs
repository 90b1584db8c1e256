//! A guest's panic: told once, and then what the user wants of it.

use crate::finisher::Finisher;
use machine::config::PanicPolicy;
use machine::output::{Finish, Output, Outputs, Trouble};
use serde::{Deserialize, Serialize};

/// What a board remembers of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PanicNotice {
    policy: PanicPolicy,
    panicked: bool,
}

impl PanicNotice {
    /// As after a reset: the policy stays.
    pub fn after_reset(&self) -> PanicNotice {
        PanicNotice {
            policy: self.policy,
            panicked: false,
        }
    }

    /// What is done from here on.
    pub fn set_policy(&mut self, policy: PanicPolicy) {
        self.policy = policy;
    }

    /// Whether the guest's kernel panicked since the machine was powered on or reset.
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// The guest says that its kernel panicked. Drivers say so again and again.
    pub fn panic(&mut self, finisher: &mut Finisher, outputs: &mut Outputs) {
        if std::mem::replace(&mut self.panicked, true) {
            return;
        }
        outputs.other(Output::Trouble(Trouble::Panicked));
        let asked = match self.policy {
            PanicPolicy::Report => None,
            PanicPolicy::Reboot => finisher.ask(Finish::Reset),
            PanicPolicy::Stop => finisher.ask(Finish::Panicked),
        };
        if let Some(output) = asked {
            outputs.other(output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outputs_of(policy: PanicPolicy) -> (Vec<Output>, Finisher) {
        let (mut notice, mut finisher) = (PanicNotice::default(), Finisher::default());
        let mut outputs = Outputs::default();
        notice.set_policy(policy);
        for _ in 0..3 {
            notice.panic(&mut finisher, &mut outputs);
        }
        assert!(notice.panicked());
        assert!(!notice.after_reset().panicked());
        (outputs.take(), finisher)
    }

    #[test]
    fn a_panic_is_told_once_and_the_policy_is_carried_out() {
        let told = Output::Trouble(Trouble::Panicked);
        let (outputs, finisher) = outputs_of(PanicPolicy::Report);
        assert_eq!((outputs, finisher.finish()), (vec![told.clone()], None));
        let (outputs, finisher) = outputs_of(PanicPolicy::Reboot);
        assert_eq!(outputs, [told.clone(), Output::Reboot]);
        assert!(finisher.asks_for_reset());
        let (outputs, finisher) = outputs_of(PanicPolicy::Stop);
        assert_eq!(outputs, [told, Output::Finish(Finish::Panicked)]);
        assert_eq!(finisher.finish(), Some(Finish::Panicked));
    }
}
