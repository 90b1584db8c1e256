//! The buttons of a live machine: what a person presses at the control socket of either host.

use super::primary::PrimaryLoop;
use crate::control::Answer;
use machine::input::Input;
use replication::message::Button;
use std::sync::atomic::Ordering;

impl PrimaryLoop {
    /// Presses it, or says why not.
    pub(super) fn press(&mut self, button: Button) -> Answer {
        if self.is_standing_still() || self.disk_failed.is_some() {
            return Answer::Refused(
                "the machine is being handed over: ask again when it is live".into(),
            );
        }
        let thread = self.vcpu.thread();
        let is_paused = thread.gauges().paused.load(Ordering::Relaxed);
        let (event, said, input) = match button {
            Button::Power => {
                let when = if is_paused {
                    ", once it is resumed"
                } else {
                    ""
                };
                let said = format!("the guest is asked to power off{when}");
                ("power_button", said, Input::PowerButton)
            }
            Button::Reset => {
                let said = "the machine is reset".to_owned();
                ("reset_button", said, Input::ResetButton)
            }
            Button::Pause if is_paused => return Answer::Done("it is paused already".into()),
            Button::Pause => {
                let said = "the machine stands still until it is resumed".to_owned();
                ("machine_paused", said, Input::Pause)
            }
            Button::Resume if !is_paused => return Answer::Done("it is not paused".into()),
            Button::Resume => (
                "machine_resumed",
                "the machine goes on".into(),
                Input::Resume,
            ),
        };
        self.vcpu.input(input);
        let generation = self.core.status().generation.0;
        self.host
            .events
            .add(event, generation, self.count(), &*said);
        Answer::Done(said)
    }
}
