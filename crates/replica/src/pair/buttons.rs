//! The buttons of a live machine: what a person presses at the control socket of either host.
//!
//! What a person is told of it is seen outside, as what the guest says is: so it is told when those have it
//! who have to, and whoever goes on with the machine after this host died goes on with the button pressed.

use super::primary::PrimaryLoop;
use super::requests::Asker;
use crate::control::Answer;
use machine::input::Input;
use replication::message::Button;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Presses that the machine got and others perhaps not yet, by number.
#[derive(Debug, Default)]
pub(super) struct Presses {
    waiting: BTreeMap<u64, Press>,
    last: u64,
}

#[derive(Debug)]
struct Press {
    asker: Asker,
    /// What happens, if it does not happen already.
    event: Option<&'static str>,
    said: String,
}

impl PrimaryLoop {
    /// Presses it, or says why not.
    pub(super) fn press(&mut self, asker: Asker, button: Button) {
        if self.is_standing_still() || self.disk_failed.is_some() {
            let why = "the machine is being handed over: ask again when it is live".to_owned();
            if let Asker::Backup(_) = asker {
                let count = self.count();
                self.host.events.add("button_refused", 0, count.0, &*why);
            }
            return self.reply(asker, &Answer::Refused(why));
        }
        let gauges = self.vcpu.thread().gauges();
        let (event, said, input) = meaning(button, gauges.paused.load(Ordering::Relaxed));
        let said = said.into();
        self.presses.last += 1;
        let press = self.presses.last;
        let waiting = Press { asker, event, said };
        self.presses.waiting.insert(press, waiting);
        self.vcpu.press(input, press);
    }

    /// Whatever happens to this host, the button is pressed.
    pub(super) fn pressed(&mut self, press: u64) {
        let Some(press) = self.presses.waiting.remove(&press) else {
            return;
        };
        if let Some(event) = press.event {
            let (generation, count) = (self.core.status().generation.0, self.count());
            self.host
                .events
                .add(event, generation, count.0, &*press.said);
        }
        self.reply(press.asker, &Answer::Done(press.said));
    }

    /// The machine ends here, or goes on elsewhere, perhaps without what was pressed last.
    pub(super) fn forget_presses(&mut self) {
        for (_, press) in std::mem::take(&mut self.presses.waiting) {
            let why = "the machine has left this host, and it is not certain whether it was pressed before: \
                       look at `understudy status`, and ask again";
            self.reply(press.asker, &Answer::Refused(why.into()));
        }
    }
}

/// What a button does: which event it is, what is told, and the machine's input. Neither event nor input: it
/// was pressed before.
fn meaning(button: Button, is_paused: bool) -> (Option<&'static str>, &'static str, Option<Input>) {
    let (event, said, input) = match (button, is_paused) {
        (Button::Power, true) => (
            "power_button",
            "the guest is asked to power off, once it is resumed",
            Input::PowerButton,
        ),
        (Button::Power, false) => (
            "power_button",
            "the guest is asked to power off",
            Input::PowerButton,
        ),
        (Button::Reset, _) => ("reset_button", "the machine is reset", Input::ResetButton),
        (Button::Pause, true) => return (None, "it is paused already", None),
        (Button::Pause, false) => (
            "machine_paused",
            "the machine stands still until it is resumed",
            Input::Pause,
        ),
        (Button::Resume, true) => ("machine_resumed", "the machine goes on", Input::Resume),
        (Button::Resume, false) => return (None, "it is not paused", None),
    };
    (Some(event), said, Some(input))
}
