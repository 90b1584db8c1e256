//! Which engine executes the guest: how it is named, and what is said where there is no JIT.
//!
//! Every machine that the program makes or restores gets its engine here. The engine is this host's
//! own affair: it is in no hash, log or handshake, and a pair may run one on each side.

use crate::architecture::Architecture;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use machine::Machine;
use machine::engine::Engine;
use replica::status::engine_name;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Once;

/// What is said, once, on standard error where a JIT is asked for and there is none.
pub const NO_JIT: &str = "this host has no JIT (it takes x86-64, Linux and memory that may be executed): \
                          the interpreter runs, slower";

/// An engine, written `interpreter`, `jit` or `paranoid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineName(pub Engine);

impl EngineName {
    const ALL: [EngineName; 3] = [
        EngineName(Engine::Jit),
        EngineName(Engine::Interpreter),
        EngineName(Engine::Paranoid),
    ];

    fn text(self) -> &'static str {
        engine_name(self.0)
    }

    fn help(self) -> &'static str {
        match self.0 {
            Engine::Interpreter => "the reference, on every host",
            Engine::Jit => "hot code is compiled; the interpreter where the host has no JIT",
            Engine::Paranoid => "both, compared after every block; slow",
        }
    }

    /// Has the machine executed by this engine from here on, or by the interpreter where the host
    /// has no JIT, which is said on standard error the first time.
    pub fn drive(self, machine: &mut dyn Machine) {
        let runs = machine.set_engine(self.0);
        if runs == Engine::Interpreter && runs != self.0 {
            say_no_jit();
        }
    }

    /// Says that the host has no JIT, if this engine needs one: for a process that has its machines
    /// in others.
    pub fn say_if_missing(self) {
        let runs = Architecture::Riscv64.available(self).0;
        if runs == Engine::Interpreter && runs != self.0 {
            say_no_jit();
        }
    }
}

fn say_no_jit() {
    static SAID: Once = Once::new();
    // Standard error may be closed.
    SAID.call_once(|| drop(writeln!(io::stderr(), "understudy: {NO_JIT}")));
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text())
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineName, String> {
        EngineName::ALL
            .into_iter()
            .find(|engine| engine.text() == text)
            .ok_or_else(|| format!("{text:?} is not `jit`, `interpreter` or `paranoid`"))
    }
}

impl ValueEnum for EngineName {
    fn value_variants<'a>() -> &'a [EngineName] {
        &EngineName::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.text()).help(self.help()))
    }
}

impl Serialize for EngineName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text())
    }
}

impl<'de> Deserialize<'de> for EngineName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EngineName, D::Error> {
        let text = String::deserialize(deserializer)
            .map_err(|_| D::Error::custom("expected `jit`, `interpreter` or `paranoid`"))?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_engine_has_one_name_for_the_command_line_the_file_and_the_status() {
        assert_eq!(EngineName::ALL.len(), Engine::ALL.len());
        for engine in Engine::ALL {
            let name = EngineName(engine);
            assert_eq!(name.to_string().parse(), Ok(name));
            let json = serde_json::to_string(&name).unwrap();
            assert_eq!(json, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<EngineName>(&json).unwrap(), name);
            let value = name.to_possible_value().unwrap();
            assert_eq!(value.get_name(), name.to_string());
        }
    }

    #[test]
    fn the_engine_is_the_jit_unless_it_is_said() {
        assert_eq!(EngineName::default(), EngineName(Engine::Jit));
    }
}
