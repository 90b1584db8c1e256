//! How messages are spelt. `docs/protocol.md`, "Messages".

mod fetching;
mod greeting;

pub(super) use fetching::{decode_fetched, encode_chunk_head};

use super::{
    Button, Continuation, DivergenceReport, LifeId, MAX_ANSWER_BYTES, MAX_GREETING_BYTES, Message,
    Parting, Standpoint, speaks, tells_boot, tells_facts,
};
use crate::capacity::HostFacts;
use crate::configuration::Configuration;
use crate::life_log::{LogMark, Place};
use crate::links::{LinkId, MAX_LINKS};
use crate::marker::{Marker, Worth};
use crate::record::{InstructionCount, RecordNumber, decode_batch, encode_batch};
use crate::startup::{Stance, Standing};
use crate::succession::{
    ArrivalId, Destination, Generation, LifeNumber, MAX_ADDRESS_BYTES, MAX_ENTRY_BYTES, RunId,
};
use crate::watch::Agreement;
use crate::wire::{Fields, WireError, put_bytes, put_varint};
use fetching::{get_blocks, get_chunk, get_device, get_disks, get_zeros, put_blocks};
pub(crate) use greeting::{get_configuration, put_configuration};
use greeting::{
    get_facts, get_greeting, get_host, get_machine, get_needs, get_refusal, get_u32, put_facts,
    put_greeting, put_host, put_needs, put_refusal,
};

mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REFUSE: u8 = 3;
    pub const SNAPSHOT: u8 = 4;
    pub const SNAPSHOT_END: u8 = 5;
    pub const READY: u8 = 6;
    pub const BEGIN: u8 = 7;
    pub const RECORDS: u8 = 8;
    pub const HEARTBEAT: u8 = 9;
    pub const ACK: u8 = 10;
    pub const DIVERGED: u8 = 11;
    pub const GOODBYE: u8 = 12;
    pub const ACCEPT: u8 = 13;
    pub const JOINED: u8 = 14;
    pub const CONFIRMED: u8 = 15;
    pub const HANDOVER: u8 = 16;
    pub const TAKEN_OVER: u8 = 17;
    pub const CHALLENGE: u8 = 18;
    pub const CHALLENGED: u8 = 19;
    pub const ASK: u8 = 20;
    pub const STANDING: u8 = 21;
    pub const RESTORING: u8 = 22;
    pub const SNAPSHOT_TAKEN: u8 = 23;
    pub const FETCH: u8 = 24;
    pub const PRESS: u8 = 25;
    pub const SWITCH_OVER: u8 = 26;
    pub const GENERATION: u8 = 27;
    pub const ANSWER: u8 = 28;
    pub const COMPARE: u8 = 29;
    pub const COMPARED: u8 = 30;
    pub const MAJORITY: u8 = 31;
    pub const DISKS: u8 = 32;
    pub const BLOCKS: u8 = 33;
    pub const ZEROS: u8 = 34;
    pub const ALIKE: u8 = 35;
    pub const MOVE_TO: u8 = 36;
    pub const SEES: u8 = 37;
    pub const SNAPSHOT_ROUND: u8 = 38;
    pub const LINKS: u8 = 39;
    pub const LINK: u8 = 40;
    pub const PACKED: u8 = 41;
    pub const DISKS_FIRST: u8 = 42;
}

fn get_link(fields: &mut Fields<'_>) -> Result<LinkId, WireError> {
    let link = fields.byte()?;
    if usize::from(link) >= MAX_LINKS {
        return Err(WireError::TooLarge {
            what: "a link's number",
            value: link.into(),
            limit: MAX_LINKS as u64 - 1,
        });
    }
    Ok(LinkId(link))
}

fn get_standpoint(fields: &mut Fields<'_>) -> Result<Standpoint, WireError> {
    Ok(Standpoint {
        life_id: LifeId(u128::from_le_bytes(fields.array()?)),
        place: Place {
            record: RecordNumber(fields.varint()?),
            count: InstructionCount(fields.varint()?),
            mark: LogMark(u128::from_le_bytes(fields.array()?)),
        },
    })
}

/// Appends the payload and says its kind.
pub(super) fn encode(out: &mut Vec<u8>, message: &Message) -> u8 {
    let numbers = |out: &mut Vec<u8>, numbers: &[u64]| {
        for number in numbers {
            put_varint(out, *number);
        }
    };
    match message {
        Message::Hello {
            protocol,
            greeting,
            is_spare,
            stands_at,
            facts,
            boot,
        } => {
            put_varint(out, (*protocol).into());
            put_greeting(out, greeting);
            out.push(u8::from(*is_spare));
            if tells_facts(*protocol) {
                put_facts(out, facts);
            }
            if tells_boot(*protocol) {
                put_configuration(out, boot);
            }
            if let Some(Standpoint { life_id, place }) = stands_at {
                out.extend_from_slice(&life_id.0.to_le_bytes());
                numbers(out, &[place.record.0, place.count.0]);
                out.extend_from_slice(&place.mark.0.to_le_bytes());
            }
            kind::HELLO
        }
        Message::Welcome {
            greeting,
            life,
            life_id,
            generation,
            pairing,
            continuation,
            needs,
            boot,
        } => {
            put_greeting(out, greeting);
            out.extend_from_slice(&life_id.0.to_le_bytes());
            numbers(out, &[life.0, generation.0, *pairing]);
            out.push(tag_of(&CONTINUATIONS, continuation));
            if let Some(needs) = needs {
                put_needs(out, needs);
                if !boot.is_empty() {
                    put_configuration(out, boot);
                }
            }
            kind::WELCOME
        }
        Message::Refuse(refusal) => {
            put_refusal(out, refusal);
            kind::REFUSE
        }
        Message::Snapshot(chunk) => {
            let kind = encode_chunk_head(out, chunk);
            out.extend_from_slice(&chunk.bytes);
            kind
        }
        Message::Disks {
            pairing,
            seed,
            lengths,
        } => {
            numbers(out, &[*pairing, *seed]);
            numbers(out, lengths);
            kind::DISKS
        }
        Message::Blocks(blocks) => {
            put_blocks(out, blocks);
            kind::BLOCKS
        }
        Message::Zeros {
            pairing,
            device,
            offset,
            length,
        } => {
            numbers(out, &[*pairing, u64::from(*device), *offset, *length]);
            kind::ZEROS
        }
        Message::Alike {
            pairing,
            device,
            end,
        } => {
            numbers(out, &[*pairing, u64::from(*device), *end]);
            kind::ALIKE
        }
        Message::SnapshotEnd { pairing, chunks } => {
            numbers(out, &[*pairing, *chunks]);
            kind::SNAPSHOT_END
        }
        Message::SnapshotRound { pairing } => {
            numbers(out, &[*pairing]);
            kind::SNAPSHOT_ROUND
        }
        Message::Fetch { pairing, run } => {
            numbers(out, &[*pairing]);
            out.extend_from_slice(&run.0.to_le_bytes());
            kind::FETCH
        }
        Message::Packed => kind::PACKED,
        Message::DisksFirst { pairing } => {
            numbers(out, &[*pairing]);
            kind::DISKS_FIRST
        }
        Message::Links { token } => {
            out.extend_from_slice(&token.to_le_bytes());
            kind::LINKS
        }
        Message::Link { token, link } => {
            out.extend_from_slice(&token.to_le_bytes());
            out.push(link.0);
            kind::LINK
        }
        Message::SnapshotTaken {
            pairing,
            record,
            count,
            visible_outputs,
            mark,
        } => {
            numbers(out, &[*pairing, record.0, count.0, *visible_outputs]);
            out.extend_from_slice(&mark.0.to_le_bytes());
            kind::SNAPSHOT_TAKEN
        }
        Message::Ready { pairing } => {
            numbers(out, &[*pairing]);
            kind::READY
        }
        Message::Accept { pairing } => {
            numbers(out, &[*pairing]);
            kind::ACCEPT
        }
        Message::Joined { pairing, key } => {
            assert!(key.len() <= MAX_ENTRY_BYTES, "no key holds so much");
            numbers(out, &[*pairing]);
            put_bytes(out, key);
            kind::JOINED
        }
        Message::Generation { pairing, key } => {
            assert!(key.len() <= MAX_ENTRY_BYTES, "no key holds so much");
            numbers(out, &[*pairing]);
            put_bytes(out, key);
            kind::GENERATION
        }
        Message::Confirmed { pairing } => {
            numbers(out, &[*pairing]);
            kind::CONFIRMED
        }
        Message::Handover {
            pairing,
            record,
            released,
        } => {
            numbers(out, &[*pairing, record.0, *released]);
            kind::HANDOVER
        }
        Message::TakenOver { pairing } => {
            numbers(out, &[*pairing]);
            kind::TAKEN_OVER
        }
        Message::Challenge {
            pairing,
            nonce,
            agreement,
        } => {
            numbers(out, &[*pairing]);
            out.extend_from_slice(&nonce.to_le_bytes());
            out.push(put_agreement(*agreement));
            kind::CHALLENGE
        }
        Message::Challenged { pairing, nonce } => {
            numbers(out, &[*pairing]);
            out.extend_from_slice(&nonce.to_le_bytes());
            kind::CHALLENGED
        }
        Message::Ask { protocol, greeting } => {
            put_varint(out, (*protocol).into());
            put_greeting(out, greeting);
            kind::ASK
        }
        Message::Foreign { protocol } => {
            put_varint(out, (*protocol).into());
            kind::HELLO
        }
        Message::Standing(standing) => {
            put_standing(out, standing);
            kind::STANDING
        }
        Message::Restoring {
            pairing,
            done,
            total,
        } => {
            numbers(out, &[*pairing, *done, *total]);
            kind::RESTORING
        }
        Message::SwitchOver { pairing, request } => {
            numbers(out, &[*pairing, *request]);
            kind::SWITCH_OVER
        }
        Message::Answer {
            pairing,
            request,
            done,
            text,
        } => {
            numbers(out, &[*pairing, *request]);
            out.push((*done).into());
            let end = text.floor_char_boundary(MAX_ANSWER_BYTES);
            put_bytes(out, &text.as_bytes()[..end]);
            kind::ANSWER
        }
        Message::MoveTo { pairing, to, nonce } => {
            assert!(
                Destination::is_address(&to.address),
                "such an address has no arbiter"
            );
            numbers(out, &[*pairing]);
            out.extend_from_slice(&to.arrival.0.to_le_bytes());
            out.extend_from_slice(&nonce.to_le_bytes());
            put_bytes(out, to.address.as_bytes());
            kind::MOVE_TO
        }
        Message::Sees {
            pairing,
            nonce,
            trouble,
        } => {
            numbers(out, &[*pairing]);
            out.extend_from_slice(&nonce.to_le_bytes());
            let end = trouble.floor_char_boundary(MAX_ANSWER_BYTES);
            put_bytes(out, &trouble.as_bytes()[..end]);
            kind::SEES
        }
        Message::Press {
            pairing,
            button,
            request,
        } => {
            numbers(out, &[*pairing, *request]);
            out.push(match button {
                Button::Power => 0,
                Button::Reset => 1,
                Button::Pause => 2,
                Button::Resume => 3,
            });
            kind::PRESS
        }
        Message::Begin {
            pairing,
            record,
            released,
            record_interval_ms,
        } => {
            numbers(out, &[*pairing, record.0, *released, *record_interval_ms]);
            kind::BEGIN
        }
        Message::Records {
            pairing,
            first_record,
            urgent,
            released,
            records,
        } => {
            numbers(out, &[*pairing, first_record.0, *released]);
            out.push((*urgent).into());
            encode_batch(out, records);
            kind::RECORDS
        }
        Message::Heartbeat {
            pairing,
            record,
            released,
            probe,
        } => {
            numbers(out, &[*pairing, record.0, *released, *probe]);
            kind::HEARTBEAT
        }
        Message::Ack {
            pairing,
            record,
            executed,
            echo,
            durable,
        } => {
            numbers(out, &[*pairing, record.0, executed.0, *echo, durable.0]);
            kind::ACK
        }
        Message::Diverged { pairing, report } => {
            numbers(out, &[*pairing, report.record.0, report.count.0]);
            out.extend_from_slice(&report.digest.to_le_bytes());
            let end = report.what.floor_char_boundary(MAX_GREETING_BYTES / 2);
            put_bytes(out, &report.what.as_bytes()[..end]);
            kind::DIVERGED
        }
        Message::Compare { pairing, record } => {
            numbers(out, &[*pairing, record.0]);
            kind::COMPARE
        }
        Message::Compared { pairing, record } => {
            numbers(out, &[*pairing, record.0]);
            kind::COMPARED
        }
        Message::Majority { pairing } => {
            numbers(out, &[*pairing]);
            kind::MAJORITY
        }
        Message::Goodbye { pairing, parting } => {
            numbers(out, &[*pairing]);
            out.push(match parting {
                Parting::Finished => 0,
                Parting::Leaving => 1,
                Parting::Suspected => 2,
                Parting::DiskFailed => 3,
                Parting::LetGo => 4,
            });
            kind::GOODBYE
        }
    }
}

pub(super) fn decode(kind: u8, payload: &[u8]) -> Result<Message, WireError> {
    let mut f = Fields::new(payload);
    let message = match kind {
        kind::HELLO => {
            let protocol = get_u32(&mut f, "the protocol version")?;
            if !speaks(protocol) {
                return Ok(Message::Foreign { protocol });
            }
            let greeting = get_greeting(&mut f)?;
            let is_spare = from_tag(&[false, true], "spare", f.byte()?)?;
            let facts = if tells_facts(protocol) {
                get_facts(&mut f)?
            } else {
                HostFacts::default()
            };
            let boot = if tells_boot(protocol) {
                get_configuration(&mut f)?
            } else {
                Configuration::default()
            };
            let stands_at = if f.is_empty() {
                None
            } else {
                Some(get_standpoint(&mut f)?)
            };
            Message::Hello {
                protocol,
                greeting,
                is_spare,
                stands_at,
                facts,
                boot,
            }
        }
        kind::WELCOME => Message::Welcome {
            greeting: get_greeting(&mut f)?,
            life_id: LifeId(u128::from_le_bytes(f.array()?)),
            life: LifeNumber(f.varint()?),
            generation: Generation(f.varint()?),
            pairing: f.varint()?,
            continuation: from_tag(&CONTINUATIONS, "continuation", f.byte()?)?,
            needs: if f.is_empty() {
                None
            } else {
                Some(get_needs(&mut f)?)
            },
            boot: if f.is_empty() {
                Configuration::default()
            } else {
                get_configuration(&mut f)?
            },
        },
        kind::REFUSE => Message::Refuse(get_refusal(&mut f)?),
        kind::SNAPSHOT => get_chunk(&mut f)?,
        kind::DISKS => {
            let (pairing, seed, lengths) = get_disks(&mut f)?;
            Message::Disks {
                pairing,
                seed,
                lengths,
            }
        }
        kind::BLOCKS => Message::Blocks(get_blocks(&mut f)?),
        kind::ZEROS => {
            let (pairing, device, offset, length) = get_zeros(&mut f)?;
            Message::Zeros {
                pairing,
                device,
                offset,
                length,
            }
        }
        kind::ALIKE => Message::Alike {
            pairing: f.varint()?,
            device: get_device(&mut f)?,
            end: f.varint()?,
        },
        kind::SNAPSHOT_END => {
            let (pairing, chunks) = (f.varint()?, f.varint()?);
            Message::SnapshotEnd { pairing, chunks }
        }
        kind::SNAPSHOT_ROUND => Message::SnapshotRound {
            pairing: f.varint()?,
        },
        kind::FETCH => Message::Fetch {
            pairing: f.varint()?,
            run: RunId(u128::from_le_bytes(f.array()?)),
        },
        kind::PACKED => Message::Packed,
        kind::DISKS_FIRST => Message::DisksFirst {
            pairing: f.varint()?,
        },
        kind::LINKS => Message::Links {
            token: u128::from_le_bytes(f.array()?),
        },
        kind::LINK => Message::Link {
            token: u128::from_le_bytes(f.array()?),
            link: get_link(&mut f)?,
        },
        kind::SNAPSHOT_TAKEN => Message::SnapshotTaken {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
            count: InstructionCount(f.varint()?),
            visible_outputs: f.varint()?,
            mark: LogMark(u128::from_le_bytes(f.array()?)),
        },
        kind::READY => Message::Ready {
            pairing: f.varint()?,
        },
        kind::ACCEPT => Message::Accept {
            pairing: f.varint()?,
        },
        kind::JOINED => Message::Joined {
            pairing: f.varint()?,
            key: f.bytes("a key's content", MAX_ENTRY_BYTES)?.to_vec(),
        },
        kind::GENERATION => Message::Generation {
            pairing: f.varint()?,
            key: f.bytes("a key's content", MAX_ENTRY_BYTES)?.to_vec(),
        },
        kind::CONFIRMED => Message::Confirmed {
            pairing: f.varint()?,
        },
        kind::HANDOVER => Message::Handover {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
            released: f.varint()?,
        },
        kind::TAKEN_OVER => Message::TakenOver {
            pairing: f.varint()?,
        },
        kind::CHALLENGE => Message::Challenge {
            pairing: f.varint()?,
            nonce: u128::from_le_bytes(f.array()?),
            agreement: get_agreement(&mut f)?,
        },
        kind::CHALLENGED => Message::Challenged {
            pairing: f.varint()?,
            nonce: u128::from_le_bytes(f.array()?),
        },
        kind::ASK => {
            let protocol = get_u32(&mut f, "the protocol version")?;
            if !speaks(protocol) {
                return Ok(Message::Foreign { protocol });
            }
            let greeting = get_greeting(&mut f)?;
            Message::Ask { protocol, greeting }
        }
        kind::STANDING => Message::Standing(get_standing(&mut f)?),
        kind::RESTORING => Message::Restoring {
            pairing: f.varint()?,
            done: f.varint()?,
            total: f.varint()?,
        },
        kind::SWITCH_OVER => Message::SwitchOver {
            pairing: f.varint()?,
            request: f.varint()?,
        },
        kind::ANSWER => Message::Answer {
            pairing: f.varint()?,
            request: f.varint()?,
            done: match f.byte()? {
                0 => false,
                1 => true,
                tag => {
                    return Err(WireError::UnknownTag {
                        what: "answer",
                        tag,
                    });
                }
            },
            text: f.string("an answer", MAX_ANSWER_BYTES)?,
        },
        kind::MOVE_TO => {
            let pairing = f.varint()?;
            let arrival = ArrivalId(u128::from_le_bytes(f.array()?));
            let nonce = u128::from_le_bytes(f.array()?);
            let address = f.string("an arbiter's address", MAX_ADDRESS_BYTES)?;
            if !Destination::is_address(&address) {
                return Err(WireError::Unprintable("an arbiter's address"));
            }
            let to = Destination { address, arrival };
            Message::MoveTo { pairing, to, nonce }
        }
        kind::SEES => Message::Sees {
            pairing: f.varint()?,
            nonce: u128::from_le_bytes(f.array()?),
            trouble: f.string("what is wrong with an arbiter", MAX_ANSWER_BYTES)?,
        },
        kind::PRESS => Message::Press {
            pairing: f.varint()?,
            request: f.varint()?,
            button: match f.byte()? {
                0 => Button::Power,
                1 => Button::Reset,
                2 => Button::Pause,
                3 => Button::Resume,
                tag => {
                    return Err(WireError::UnknownTag {
                        what: "button",
                        tag,
                    });
                }
            },
        },
        kind::BEGIN => Message::Begin {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
            released: f.varint()?,
            record_interval_ms: f.varint()?,
        },
        kind::RECORDS => get_records(&mut f)?,
        kind::HEARTBEAT => Message::Heartbeat {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
            released: f.varint()?,
            probe: f.varint()?,
        },
        kind::ACK => Message::Ack {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
            executed: InstructionCount(f.varint()?),
            echo: f.varint()?,
            durable: InstructionCount(f.varint()?),
        },
        kind::DIVERGED => Message::Diverged {
            pairing: f.varint()?,
            report: DivergenceReport {
                record: RecordNumber(f.varint()?),
                count: InstructionCount(f.varint()?),
                digest: u128::from_le_bytes(f.array()?),
                what: f.string("the divergence", MAX_GREETING_BYTES / 2)?,
            },
        },
        kind::COMPARE => Message::Compare {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
        },
        kind::COMPARED => Message::Compared {
            pairing: f.varint()?,
            record: RecordNumber(f.varint()?),
        },
        kind::MAJORITY => Message::Majority {
            pairing: f.varint()?,
        },
        kind::GOODBYE => Message::Goodbye {
            pairing: f.varint()?,
            parting: match f.byte()? {
                0 => Parting::Finished,
                1 => Parting::Leaving,
                2 => Parting::Suspected,
                3 => Parting::DiskFailed,
                4 => Parting::LetGo,
                tag => {
                    return Err(WireError::UnknownTag {
                        what: "parting",
                        tag,
                    });
                }
            },
        },
        tag => {
            return Err(WireError::UnknownTag {
                what: "message",
                tag,
            });
        }
    };
    f.end()?;
    Ok(message)
}

fn get_records(f: &mut Fields<'_>) -> Result<Message, WireError> {
    let (pairing, first_record) = (f.varint()?, RecordNumber(f.varint()?));
    let released = f.varint()?;
    let urgent = match f.byte()? {
        0 => false,
        1 => true,
        tag => {
            return Err(WireError::UnknownTag {
                what: "urgency",
                tag,
            });
        }
    };
    let records = decode_batch(f)?;
    if records.is_empty() {
        return Err(WireError::Truncated);
    }
    if first_record.checked_plus(records.len() as u64).is_none() {
        return Err(WireError::Overflow);
    }
    Ok(Message::Records {
        pairing,
        first_record,
        urgent,
        released,
        records,
    })
}

const AGREEMENTS: [Agreement; 4] = [
    Agreement::Unknown,
    Agreement::Agreed,
    Agreement::Differs,
    Agreement::Unreachable,
];
/// The tag of [`Stance::Recovering`]; the others' are their places here.
const RECOVERING: u8 = STANCES.len() as u8;
const STANCES: [Stance; 5] = [
    Stance::NoMachine,
    Stance::Joining,
    Stance::Following,
    Stance::Claiming,
    Stance::Live,
];

const CONTINUATIONS: [Continuation; 4] = [
    Continuation::NoMachine,
    Continuation::Continues,
    Continuation::Forgotten,
    Continuation::Differs,
];

/// The place of `value` in `table`, as a tag.
fn tag_of<T: PartialEq>(table: &[T], value: &T) -> u8 {
    let place = table.iter().position(|known| known == value);
    assert!(place.is_some(), "the table names every value");
    place.unwrap_or_default() as u8
}

fn from_tag<T: Copy>(table: &[T], what: &'static str, tag: u8) -> Result<T, WireError> {
    let found = table.get(usize::from(tag)).copied();
    found.ok_or(WireError::UnknownTag { what, tag })
}

fn put_agreement(agreement: Agreement) -> u8 {
    tag_of(&AGREEMENTS, &agreement)
}

fn get_agreement(f: &mut Fields<'_>) -> Result<Agreement, WireError> {
    from_tag(&AGREEMENTS, "agreement", f.byte()?)
}

/// A marker's line is far shorter; a reason may be cut.
const MAX_WORTH_BYTES: usize = 1024;

fn put_standing(out: &mut Vec<u8>, standing: &Standing) {
    put_bytes(out, standing.machine.as_str().as_bytes());
    put_host(out, &standing.host);
    match standing.stance {
        Stance::Recovering { percent } => out.extend([RECOVERING, percent.min(100)]),
        stance => out.push(tag_of(&STANCES, &stance)),
    }
    put_varint(out, standing.life.0);
    out.extend_from_slice(&standing.life_id.0.to_le_bytes());
    put_varint(out, standing.generation.0);
    match &standing.worth {
        Worth::Fresh => out.push(0),
        Worth::Known(marker) => {
            out.push(1);
            put_bytes(out, &marker.content());
        }
        Worth::Nothing(why) => {
            out.push(2);
            put_bytes(
                out,
                &why.as_bytes()[..why.floor_char_boundary(MAX_WORTH_BYTES)],
            );
        }
    }
}

fn get_stance(f: &mut Fields<'_>) -> Result<Stance, WireError> {
    match f.byte()? {
        RECOVERING => Ok(Stance::Recovering {
            percent: f.byte()?.min(100),
        }),
        tag => from_tag(&STANCES, "stance", tag),
    }
}

fn get_standing(f: &mut Fields<'_>) -> Result<Standing, WireError> {
    let machine = get_machine(f)?;
    Ok(Standing {
        host: get_host(f)?,
        stance: get_stance(f)?,
        life: LifeNumber(f.varint()?),
        life_id: LifeId(u128::from_le_bytes(f.array()?)),
        generation: Generation(f.varint()?),
        worth: match f.byte()? {
            0 => Worth::Fresh,
            1 => {
                let content = f.bytes("a marker", MAX_WORTH_BYTES)?;
                let marker = Marker::parse(&machine, content);
                Worth::Known(marker.map_err(|_| WireError::Marker)?)
            }
            2 => Worth::Nothing(f.string("a worth", MAX_WORTH_BYTES)?),
            tag => return Err(WireError::UnknownTag { what: "worth", tag }),
        },
        machine,
    })
}
