//! What a primary says to a backup through one pairing, and what the backup says to it.

use super::{Follow, KeyRead, Phase};
use crate::ConnectionId;
use crate::backup::{Backup, BackupAction, State};
use crate::event::Event;
use crate::failure_detector::{SilenceDetector, Suspicion};
use crate::life_log::{LifeLog, Place};
use crate::marker::{DiskState, Role};
use crate::message::{Continuation, Message, OF_PARTING, Parting, printable};
use crate::mutation::Mutation;
use crate::record::{InstructionCount, Record, RecordNumber};
use crate::succession::{Entry, Kind};
use std::time::Duration;

/// An acknowledgement for which no output waits may wait for the replay, so that it can say how
/// far that got.
const ACK_DELAY: Duration = Duration::from_millis(5);

/// What a primary says about how often it makes records counts up to a day.
const MAX_RECORD_INTERVAL_MS: u64 = 24 * 3600 * 1000;
/// No record has a number beyond.
const LAST_NUMBER: RecordNumber = RecordNumber(1 << 62);

/// So long a backup waits with its claim when the primary says that it is claiming. Were it to ask
/// at once, a primary that is well could be ended by a backup that had been stopped for a while.
const COURTESY: Duration = Duration::from_secs(2);

impl<O> Backup<O> {
    /// The other end of a connection shows that it is there, though no message of it has arrived whole: on another link
    /// of the channel, say.
    pub fn heard(&mut self, now: Duration, connection: ConnectionId) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.connection() == connection
        {
            follow.silence.heard(now);
        }
    }

    pub(in crate::backup) fn primary_said(&mut self, now: Duration, message: Message) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        follow.silence.heard(now);
        let expected = follow.pairing;
        let result = match message {
            Message::SnapshotTaken {
                pairing,
                record,
                count,
                visible_outputs,
                mark,
            } if pairing == expected => {
                let place = Place {
                    record,
                    count,
                    mark,
                };
                self.snapshot_taken(place, visible_outputs)
            }
            Message::Generation { pairing, key } if pairing == expected => {
                self.generation_changed(now, &key)
            }
            Message::Joined { pairing, key } if pairing == expected => self.joined(now, key),
            Message::MoveTo { pairing, to, nonce } if pairing == expected => {
                self.asked_to_look(to, nonce)
            }
            Message::Answer {
                pairing,
                request: OF_PARTING,
                text,
                ..
            } if pairing == expected => {
                follow.let_go_for = Some(printable(&text));
                Ok(())
            }
            Message::Answer {
                pairing,
                request,
                done,
                text,
            } if pairing == expected => {
                self.actions.push_back(BackupAction::Answered {
                    request,
                    done,
                    text,
                });
                Ok(())
            }
            Message::Handover {
                pairing,
                record,
                released,
            } if pairing == expected && follow.differs.is_none() => {
                follow.release(released);
                return self.handed_over(now, record);
            }
            Message::Challenged { pairing, nonce } if pairing == expected => {
                if let Some(request) = follow.beacon.met(nonce) {
                    self.actions.push_back(BackupAction::Ask(request));
                }
                Ok(())
            }
            Message::Records {
                pairing,
                first_record,
                urgent,
                released,
                records,
            } if pairing == expected => {
                self.records_came(now, first_record, urgent, released, records)
            }
            Message::Begin {
                pairing,
                record,
                released,
                record_interval_ms,
            } if pairing == expected => self.begun(now, record, released, record_interval_ms),
            Message::Heartbeat {
                pairing,
                record,
                released,
                probe,
            } if pairing == expected => {
                follow.release(released);
                let look = !self.config.mutations.active(Mutation::GapUnnoticed);
                // Where the records begin is known when the snapshot is taken.
                let knows_place = !matches!(follow.phase, Phase::Marking | Phase::Fetching);
                if record != follow.received() && knows_place && look {
                    Err("records are missing")
                } else {
                    if probe > follow.echo {
                        follow.echo = probe;
                        follow.ack_due = Some(now);
                    }
                    Ok(())
                }
            }
            Message::Compare { pairing, record } if pairing == expected => {
                follow.compares_at = Some(record);
                Ok(())
            }
            Message::Majority { pairing } if pairing == expected => self.is_majority(),
            Message::Goodbye {
                pairing,
                parting: Parting::Finished,
            } if pairing == expected && follow.differs.is_none() => {
                return self.primary_finished();
            }
            Message::Goodbye {
                pairing,
                parting: Parting::Suspected,
            } if pairing == expected => {
                return self.lost_primary_for(now, Suspicion::SuspectsUs, COURTESY);
            }
            Message::Goodbye {
                pairing,
                parting: Parting::LetGo,
            } if pairing == expected => {
                let why = match follow.let_go_for.take() {
                    Some(why) => Suspicion::LetGoFor(why),
                    None => Suspicion::LetGo,
                };
                return self.lost_primary(now, why);
            }
            _ => Err("an unexpected message, or one of another pairing"),
        };
        if let Err(what) = result {
            self.lost_primary(now, Suspicion::Protocol(what.to_owned()));
        }
    }

    fn snapshot_taken(&mut self, place: Place, visible_outputs: u64) -> Result<(), &'static str> {
        let log_bytes = self.config.log_bytes;
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        if follow.phase != Phase::Fetching {
            return Err("a snapshot that nobody asked for");
        }
        let (record, count) = (place.record, place.count);
        if record > LAST_NUMBER {
            return Err("a number that no record has");
        }
        follow.phase = Phase::Restoring;
        follow.log = LifeLog::from(place, log_bytes);
        follow.replayed = record;
        follow.executed = count;
        follow.released = visible_outputs;
        let pairing = follow.pairing;
        self.actions.push_back(BackupAction::Place {
            pairing,
            record,
            count,
            visible_outputs,
        });
        Ok(())
    }

    /// The primary says that the key is there which makes this host a member.
    fn joined(&mut self, now: Duration, key: Vec<u8>) -> Result<(), &'static str> {
        let pacing = self.config.claim_pacing;
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        if follow.phase != Phase::Ready {
            return Err("a key before we are ready");
        }
        let Ok(entry) = Entry::parse(&follow.opened.next_key(), &key) else {
            return Err("what it says that the key holds makes no sense");
        };
        let me = &self.config.greeting.host;
        let is_right = entry.kind == Kind::Joined
            && entry.membership().primary == follow.opened.membership().primary
            && entry.membership().has_member(me.id);
        if !is_right {
            return Err("the key makes nobody here a member");
        }
        if self.config.mutations.active(Mutation::KeyNotReadBack) {
            follow.opened = entry;
            follow.phase = Phase::Confirmed;
            let (connection, pairing) = (follow.connection, follow.pairing);
            self.send(connection, Message::Confirmed { pairing });
            return Ok(());
        }
        follow.phase = Phase::Confirming;
        follow.reading = Some(KeyRead::new(now, entry, pacing));
        Ok(())
    }

    /// The primary says that another generation began, in which this replica is a member, too, or may
    /// become one.
    fn generation_changed(&mut self, now: Duration, key: &[u8]) -> Result<(), &'static str> {
        let me = self.config.greeting.host.id;
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        let Ok(by) = Entry::parse(&follow.opened.next_key(), key) else {
            return Err("what it says that the key holds makes no sense");
        };
        let is_its = matches!(by.kind, Kind::Joined | Kind::Dropped | Kind::Moved)
            && by.membership().primary == follow.opened.membership().primary;
        if !is_its || follow.has_begun() && !follow.stays_member(&by, me) {
            return Err("the generation is not the primary's and this replica's");
        }
        follow.adopt(by.clone());
        self.arbiter_may_be_another(now, &by);
        self.report(Event::Generation { by: Box::new(by) });
        Ok(())
    }

    /// The machine that this replica has goes on from where it stands, in a pairing of its own.
    pub(in crate::backup) fn go_on(&mut self, now: Duration, held: Follow<O>, welcomed: Follow<O>) {
        let mut follow = held.goes_on_in(welcomed);
        follow.last_sent = now;
        let (connection, pairing) = (follow.connection, follow.pairing);
        self.report(Event::Continues {
            pairing,
            continuation: Continuation::Continues,
        });
        self.state = State::Following(Box::new(follow));
        self.actions.push_back(BackupAction::GoOn { pairing });
        self.send(connection, Message::Ready { pairing });
    }

    fn handed_over(&mut self, now: Duration, record: RecordNumber) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        if !follow.has_begun() || record != follow.received() {
            let what = "it hands over what we do not hold";
            return self.lost_primary(now, Suspicion::Protocol(what.to_owned()));
        }
        follow.handed_over = true;
        let connection = follow.connection;
        let ack = follow.ack(now);
        self.send(connection, ack);
        self.claim(now, Kind::HandedOver);
        self.maintain(now);
    }

    /// What time brings while the primary is heard: acknowledgements, the key, the beacon, settling.
    pub(in crate::backup) fn talk(&mut self, now: Duration) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        let (connection, pairing) = (follow.connection, follow.pairing);
        let mut messages = Vec::new();
        messages.extend(follow.ack_if_due(now, &self.config.detector));
        let challenge = match follow.has_begun() {
            true => follow.beacon.poll(now, pairing),
            false => None,
        };
        let looks = challenge.is_some();
        messages.extend(challenge);
        if follow.has_begun() {
            messages.extend(follow.compared());
            messages.extend(follow.tell_trouble(self.trouble.as_ref()));
        }
        let request = follow.reading.as_mut().and_then(|read| read.poll(now));
        let agreement = follow.beacon.agreement;
        let told = std::mem::replace(&mut follow.told_agreement, agreement);
        let may_settle = follow.has_begun() && follow.differs.is_none();
        let settles = may_settle && !follow.settling && follow.replayed >= follow.begun_at;
        follow.settling |= settles;
        follow.settles_open += u32::from(settles);
        let replayed = follow.replayed;
        for message in messages {
            self.send(connection, message);
        }
        if let Some(request) = request {
            self.actions.push_back(BackupAction::Ask(request));
        }
        if looks {
            self.read_move();
        }
        if told != agreement {
            self.report(Event::Arbiter { agreement });
        }
        if settles && let State::Following(follow) = &self.state {
            let marker = self.marker(follow.opened(), Role::Member, DiskState::Whole, replayed);
            self.actions
                .push_back(BackupAction::Settle { pairing, marker });
        }
    }

    /// [`BackupAction::Mark`] was done.
    pub fn marked(&mut self, now: Duration) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.phase == Phase::Marking
        {
            follow.phase = Phase::Fetching;
            let (connection, pairing) = (follow.connection, follow.pairing);
            self.send(connection, Message::Accept { pairing });
            self.actions.push_back(BackupAction::Fetch { pairing });
        }
        self.maintain(now);
    }

    /// [`BackupAction::Settle`] of this pairing was done.
    pub fn settled(&mut self, now: Duration, pairing: u64) {
        self.enter(now);
        if let Some(follow) = self.follow_mut(pairing) {
            assert!(follow.settling, "settling was asked for");
            assert!(follow.settles_open > 0, "each settling is done once");
            follow.settles_open -= 1;
            follow.settled = true;
        }
        self.maintain(now);
    }

    /// This host's disks have everything that the guest had written up to instruction `count`, for
    /// good: the guest's own flush, replayed here, was done. Says nothing before the disk is settled.
    pub fn flushed(&mut self, now: Duration, pairing: u64, count: InstructionCount) {
        self.enter(now);
        if let State::Following(follow) = &mut self.state
            && follow.pairing == pairing
            && follow.settled
            && count > follow.durable
        {
            follow.durable = count;
            follow.ack_due = Some(now);
        }
        self.maintain(now);
    }

    pub(in crate::backup) fn ready(&mut self, now: Duration) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        if follow.phase == Phase::Restoring {
            follow.phase = Phase::Ready;
            follow.restored = None;
            follow.restored_news = false;
            follow.last_sent = now;
            let (connection, pairing) = (follow.connection, follow.pairing);
            self.send(connection, Message::Ready { pairing });
        }
    }

    fn begun(
        &mut self,
        now: Duration,
        record: RecordNumber,
        released: u64,
        record_interval_ms: u64,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        let look = !self.config.mutations.active(Mutation::GapUnnoticed);
        if follow.phase != Phase::Confirmed {
            return Err("it begins before we confirmed the key");
        }
        if record != follow.received() && look {
            return Err("records before Begin are missing");
        }
        follow.phase = Phase::Begun;
        follow.begun_at = record;
        follow.silence = SilenceDetector::new(now, self.config.detector.silence_timeout);
        follow.last_record = now;
        if !self.config.mutations.active(Mutation::RecordTimeoutIsFixed) {
            let interval = Duration::from_millis(record_interval_ms.min(MAX_RECORD_INTERVAL_MS));
            follow.record_timeout = follow.record_timeout.map(|timeout| timeout + 3 * interval);
        }
        follow.echo = 1;
        follow.release(released);
        let (connection, pairing) = (follow.connection, follow.pairing);
        let ack = follow.ack(now);
        self.send(connection, ack);
        self.report(Event::Protected { pairing });
        Ok(())
    }

    fn records_came(
        &mut self,
        now: Duration,
        first_record: RecordNumber,
        urgent: bool,
        released: u64,
        records: Vec<Record>,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        follow.take_records(now, first_record, &records, &self.config.mutations)?;
        follow.release(released);
        if urgent {
            let connection = follow.connection;
            let ack = follow.ack(now);
            self.send(connection, ack);
        } else {
            follow.ack_due.get_or_insert(now + ACK_DELAY);
        }
        let State::Following(follow) = &self.state else {
            return Ok(());
        };
        let pairing = follow.pairing;
        self.actions
            .push_back(BackupAction::Replay { pairing, records });
        Ok(())
    }
}
