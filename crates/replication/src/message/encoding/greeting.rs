//! How greetings and refusals are spelt.

use super::super::{BUSY, Busy, Greeting, MAX_NAME_BYTES, Refusal};
use crate::capacity::{HostFacts, Needs, Shortfall};
use crate::configuration::{
    Build, Configuration, Difference, MAX_BUILD_BYTES, MAX_KEY_BYTES, MAX_KEYS, MAX_VALUE_BYTES,
};
use crate::message::MAX_DIFFERENCES;
use crate::succession::{Host, HostId, MachineName, RunId};
use crate::wire::{Fields, WireError, put_bytes, put_varint};

pub(super) fn put_greeting(out: &mut Vec<u8>, greeting: &Greeting) {
    put_bytes(out, greeting.build.as_str().as_bytes());
    put_varint(out, greeting.semantics_version.into());
    put_configuration(out, &greeting.configuration);
    put_bytes(out, greeting.machine.as_str().as_bytes());
    put_host(out, &greeting.host);
    out.extend_from_slice(&greeting.run.0.to_le_bytes());
    out.extend_from_slice(&greeting.listen_port.to_le_bytes());
}

pub(super) fn get_greeting(fields: &mut Fields<'_>) -> Result<Greeting, WireError> {
    Ok(Greeting {
        build: get_build(fields)?,
        semantics_version: get_u32(fields, "the semantics version")?,
        configuration: get_configuration(fields)?,
        machine: get_machine(fields)?,
        host: get_host(fields)?,
        run: RunId(u128::from_le_bytes(fields.array()?)),
        listen_port: u16::from_le_bytes(fields.array()?),
    })
}

pub(super) fn put_facts(out: &mut Vec<u8>, facts: &HostFacts) {
    for number in [facts.memory, facts.cores.into(), facts.speed] {
        put_varint(out, number);
    }
}

pub(super) fn get_facts(fields: &mut Fields<'_>) -> Result<HostFacts, WireError> {
    Ok(HostFacts {
        memory: fields.varint()?,
        cores: get_u32(fields, "the cores of a host")?,
        speed: fields.varint()?,
    })
}

pub(super) fn put_needs(out: &mut Vec<u8>, needs: &Needs) {
    put_varint(out, needs.memory);
    put_varint(out, needs.speed);
}

pub(super) fn get_needs(fields: &mut Fields<'_>) -> Result<Needs, WireError> {
    Ok(Needs {
        memory: fields.varint()?,
        speed: fields.varint()?,
    })
}

fn put_shortfall(out: &mut Vec<u8>, shortfall: &Shortfall) {
    put_varint(out, shortfall.needed);
    put_varint(out, shortfall.there);
}

fn get_shortfall(fields: &mut Fields<'_>) -> Result<Shortfall, WireError> {
    Ok(Shortfall {
        needed: fields.varint()?,
        there: fields.varint()?,
    })
}

fn get_build(fields: &mut Fields<'_>) -> Result<Build, WireError> {
    let what = "the build";
    let text = fields.string(what, MAX_BUILD_BYTES)?;
    let build = Build::new(&text);
    if build.as_str() == text {
        Ok(build)
    } else {
        Err(WireError::Unprintable(what))
    }
}

pub(crate) fn put_configuration(out: &mut Vec<u8>, configuration: &Configuration) {
    let values = configuration.values();
    put_varint(out, values.len() as u64);
    for (key, value) in values {
        put_bytes(out, key.as_bytes());
        put_bytes(out, value.as_bytes());
    }
    out.extend_from_slice(&configuration.rest().to_le_bytes());
}

pub(crate) fn get_configuration(fields: &mut Fields<'_>) -> Result<Configuration, WireError> {
    let count = get_count(fields, "the keys of a configuration", MAX_KEYS)?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push((get_key(fields)?, get_value(fields)?));
    }
    let rest = u64::from_le_bytes(fields.array()?);
    Configuration::told(values, rest).ok_or(WireError::Order("a key of a configuration"))
}

fn get_key(fields: &mut Fields<'_>) -> Result<String, WireError> {
    fields.string("a configuration's key", MAX_KEY_BYTES)
}

fn get_value(fields: &mut Fields<'_>) -> Result<String, WireError> {
    fields.string("a configuration's value", MAX_VALUE_BYTES)
}

fn get_count(
    fields: &mut Fields<'_>,
    what: &'static str,
    limit: usize,
) -> Result<usize, WireError> {
    let value = fields.varint()?;
    if value > limit as u64 {
        let limit = limit as u64;
        return Err(WireError::TooLarge { what, value, limit });
    }
    Ok(value as usize)
}

pub(super) fn put_host(out: &mut Vec<u8>, host: &Host) {
    out.extend_from_slice(&host.id.0.to_le_bytes());
    put_bytes(out, host.node().as_bytes());
}

pub(super) fn get_host(fields: &mut Fields<'_>) -> Result<Host, WireError> {
    let id = HostId(u128::from_le_bytes(fields.array()?));
    Ok(Host::new(id, &get_node(fields)?))
}

fn get_node(fields: &mut Fields<'_>) -> Result<String, WireError> {
    fields.string("the node's name", MAX_NAME_BYTES)
}

pub(super) fn get_machine(fields: &mut Fields<'_>) -> Result<MachineName, WireError> {
    let name = fields.string("the machine's name", MAX_NAME_BYTES)?;
    MachineName::new(&name).map_err(|_| WireError::Name)
}

pub(super) fn get_u32(fields: &mut Fields<'_>, what: &'static str) -> Result<u32, WireError> {
    let value = fields.varint()?;
    u32::try_from(value).map_err(|_| WireError::TooLarge {
        what,
        value,
        limit: u32::MAX.into(),
    })
}

pub(super) fn put_refusal(out: &mut Vec<u8>, refusal: &Refusal) {
    match refusal {
        Refusal::NotNow(busy) => match BUSY.iter().position(|told| told == busy) {
            None => out.push(0),
            Some(tag) => out.extend([13, tag as u8]),
        },
        Refusal::ProtocolVersion { ours } => {
            out.push(1);
            put_varint(out, (*ours).into());
        }
        Refusal::Machine { ours } => {
            out.push(4);
            put_bytes(out, ours.as_str().as_bytes());
        }
        Refusal::SameHost => out.push(5),
        Refusal::Lagged => out.push(9),
        Refusal::NotNeeded => out.push(10),
        Refusal::NoRoom(shortfall) => {
            out.push(11);
            put_shortfall(out, shortfall);
        }
        Refusal::TooSlow(shortfall) => {
            out.push(12);
            put_shortfall(out, shortfall);
        }
        Refusal::SameName { name } => {
            out.push(7);
            put_bytes(out, name.as_bytes());
        }
        Refusal::NameInUse { name } => {
            out.push(8);
            put_bytes(out, name.as_bytes());
        }
        Refusal::Differs { host, differences } => {
            out.push(6);
            put_bytes(out, host.as_bytes());
            put_varint(out, differences.len() as u64);
            for Difference { key, here, there } in differences {
                put_bytes(out, key.as_bytes());
                put_side(out, here.as_deref());
                put_side(out, there.as_deref());
            }
        }
    }
}

pub(super) fn get_refusal(fields: &mut Fields<'_>) -> Result<Refusal, WireError> {
    Ok(match fields.byte()? {
        0 => Refusal::NotNow(Busy::Untold),
        13 => {
            let tag = fields.byte()?;
            let what = "what a primary does";
            let told = BUSY.get(usize::from(tag)).copied();
            Refusal::NotNow(told.ok_or(WireError::UnknownTag { what, tag })?)
        }
        1 => Refusal::ProtocolVersion {
            ours: get_u32(fields, "the protocol version")?,
        },
        4 => Refusal::Machine {
            ours: get_machine(fields)?,
        },
        5 => Refusal::SameHost,
        9 => Refusal::Lagged,
        10 => Refusal::NotNeeded,
        11 => Refusal::NoRoom(get_shortfall(fields)?),
        12 => Refusal::TooSlow(get_shortfall(fields)?),
        6 => {
            let host = get_node(fields)?;
            let count = get_count(fields, "the differences", MAX_DIFFERENCES)?;
            let mut differences = Vec::with_capacity(count);
            for _ in 0..count {
                differences.push(Difference {
                    key: get_key(fields)?,
                    here: get_side(fields)?,
                    there: get_side(fields)?,
                });
            }
            Refusal::Differs { host, differences }
        }
        7 => Refusal::SameName {
            name: get_node(fields)?,
        },
        8 => Refusal::NameInUse {
            name: get_node(fields)?,
        },
        tag => {
            return Err(WireError::UnknownTag {
                what: "refusal",
                tag,
            });
        }
    })
}

fn put_side(out: &mut Vec<u8>, value: Option<&str>) {
    out.push(value.is_some().into());
    if let Some(value) = value {
        put_bytes(out, value.as_bytes());
    }
}

fn get_side(fields: &mut Fields<'_>) -> Result<Option<String>, WireError> {
    match fields.byte()? {
        0 => Ok(None),
        1 => get_value(fields).map(Some),
        tag => Err(WireError::UnknownTag {
            what: "side of a difference",
            tag,
        }),
    }
}
