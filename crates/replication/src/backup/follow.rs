//! Following one primary through one pairing: what is received, replayed, kept, acknowledged.

use super::{Backup, BackupAction, BackupStatus, BackupStop, State};
use crate::ConnectionId;
use crate::event::Event;
use crate::failure_detector::{DetectorConfig, SilenceDetector, Suspicion};
use crate::generation::COURTESY;
use crate::message::{LifeId, Message, Parting};
use crate::mutation::Mutation;
use crate::record::Record;
use std::collections::VecDeque;
use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Snapshot {
        chunks: u64,
    },
    Restoring,
    /// Ready was sent. The primary is still free to go on alone.
    Ready,
    /// Begin was read: the pairing is in force.
    Begun,
}

/// An acknowledgement for which no output waits may wait for the replay, so that it can say how
/// far that got.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// How often progress is told when nothing else is to be said.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(20);

/// What a primary says about how often it makes records counts up to a day.
const MAX_RECORD_INTERVAL_MS: u64 = 24 * 3600 * 1000;
/// How often the progress of the restore is told.
const RESTORE_PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// One pairing, as the backup sees it.
pub(super) struct Follow<O> {
    connection: ConnectionId,
    life: LifeId,
    generation: u64,
    phase: Phase,
    silence: SilenceDetector,
    /// Number of the last record received, and its instruction count.
    received: u64,
    /// Records that are missing before it: always 0, but for the mutation that does not look.
    overlooked: u64,
    received_count: u64,
    last_record: Duration,
    /// Number of the last record replayed, and where the machine is.
    replayed: u64,
    executed: u64,
    /// Visible outputs that the primary said are out.
    released: u64,
    kept: VecDeque<(u64, Vec<O>)>,
    /// Newest probe seen.
    echo: u64,
    ack_due: Option<Duration>,
    last_sent: Duration,
    told_executed: u64,
    /// Bytes of the snapshot restored, of how many; whether and when that was told.
    restored: Option<(u64, u64)>,
    restored_news: bool,
    restored_told: Duration,
    /// No record for so long makes the primary suspect. Begin says how often there is one.
    record_timeout: Option<Duration>,
}

impl<O> Follow<O> {
    pub fn new(
        now: Duration,
        connection: ConnectionId,
        life: LifeId,
        generation: u64,
        detector: &DetectorConfig,
    ) -> Follow<O> {
        Follow {
            connection,
            life,
            generation,
            phase: Phase::Snapshot { chunks: 0 },
            silence: SilenceDetector::new(now, detector.join_timeout),
            received: 0,
            overlooked: 0,
            received_count: 0,
            last_record: now,
            replayed: 0,
            executed: 0,
            released: 0,
            kept: VecDeque::new(),
            echo: 0,
            ack_due: None,
            last_sent: now,
            told_executed: 0,
            restored: None,
            restored_news: false,
            restored_told: now,
            record_timeout: detector.record_timeout,
        }
    }

    pub fn restoring(&mut self, done: u64, total: u64) {
        if self.phase == Phase::Restoring {
            self.restored_news |= self.restored != Some((done, total));
            self.restored = Some((done, total));
        }
    }

    pub fn progress_if_due(&mut self, now: Duration) -> Option<Message> {
        let is_due = self.restored_news && now >= self.restored_told + RESTORE_PROGRESS_INTERVAL;
        let (done, total) = self.restored.filter(|_| is_due)?;
        self.restored_news = false;
        self.restored_told = now;
        self.last_sent = now;
        Some(Message::Restoring {
            generation: self.generation,
            done,
            total,
        })
    }

    pub fn connection(&self) -> ConnectionId {
        self.connection
    }

    pub fn life(&self) -> LifeId {
        self.life
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn has_begun(&self) -> bool {
        self.phase == Phase::Begun
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready | Phase::Begun)
    }

    pub fn backlog(&self) -> u64 {
        self.received - self.replayed
    }

    pub fn is_drained(&self) -> bool {
        self.replayed == self.received
    }

    pub fn forgive(&mut self, pause: Duration) {
        self.silence.forgive(pause);
        self.last_record += pause;
    }

    /// False: the machine is beyond the log.
    #[must_use]
    pub fn replayed(&mut self, sequence: u64, executed: u64) -> bool {
        if executed > self.received_count {
            return false;
        }
        assert!(
            sequence <= self.received,
            "records are received before they are replayed"
        );
        assert!(sequence >= self.replayed, "replay goes forward");
        self.replayed = sequence;
        self.executed = executed;
        true
    }

    pub fn keep(&mut self, visible_outputs: u64, outputs: Vec<O>) {
        if visible_outputs > self.released {
            self.kept.push_back((visible_outputs, outputs));
        }
    }

    pub fn into_kept_outputs(self) -> Vec<O> {
        self.kept
            .into_iter()
            .flat_map(|(_, outputs)| outputs)
            .collect()
    }

    pub fn describe(&self, status: &mut BackupStatus) {
        status.generation = self.generation;
        status.executed = self.executed;
        status.received_count = self.received_count;
        status.backlog_records = self.backlog();
        status.restored = self.restored;
        status.kept_outputs = self.kept.iter().map(|(_, outputs)| outputs.len()).sum();
    }

    pub fn deadline(&self, detector: &DetectorConfig) -> Duration {
        let heartbeat = self.last_sent + detector.heartbeat_interval;
        let ack = self.ack_due.map_or(heartbeat, |due| due.min(heartbeat));
        ack.min(self.silence.deadline())
    }

    pub fn suspicion(&self, now: Duration) -> Option<Suspicion> {
        let records_stopped = self.has_begun()
            && self
                .record_timeout
                .is_some_and(|timeout| now >= self.last_record + timeout);
        if self.silence.is_silent(now) {
            Some(Suspicion::Silent)
        } else if records_stopped {
            Some(Suspicion::NoRecords)
        } else {
            None
        }
    }

    pub fn ack_if_due(&mut self, now: Duration, detector: &DetectorConfig) -> Option<Message> {
        let since = now.saturating_sub(self.last_sent);
        let due = self
            .ack_due
            .is_some_and(|due| now >= due || self.is_drained())
            || since >= detector.heartbeat_interval
            || (self.executed > self.told_executed && since >= PROGRESS_INTERVAL);
        due.then(|| self.ack(now))
    }

    fn ack(&mut self, now: Duration) -> Message {
        self.ack_due = None;
        self.last_sent = now;
        self.told_executed = self.executed;
        Message::Ack {
            generation: self.generation,
            sequence: self.received + self.overlooked,
            executed: self.executed,
            echo: self.echo,
        }
    }

    fn release(&mut self, released: u64) {
        self.released = self.released.max(released);
        while self
            .kept
            .front()
            .is_some_and(|(visible, _)| *visible <= self.released)
        {
            self.kept.pop_front();
        }
    }

    /// Checks that nothing is missing and nothing comes twice.
    fn take_records(
        &mut self,
        now: Duration,
        first_sequence: u64,
        records: &[Record],
        look: bool,
    ) -> Result<(), &'static str> {
        if matches!(self.phase, Phase::Snapshot { .. }) {
            return Err("records before the snapshot");
        }
        if first_sequence != self.received + 1 && look {
            return Err("records are missing or come twice");
        }
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Err("a batch without records");
        };
        let falls = first.count < self.received_count
            || records.windows(2).any(|pair| pair[0].count > pair[1].count);
        if falls && look {
            return Err("instruction counts fall");
        }
        self.received += records.len() as u64;
        self.overlooked = first_sequence + records.len() as u64 - 1 - self.received;
        self.received_count = last.count;
        self.last_record = now;
        Ok(())
    }
}

impl<O> Backup<O> {
    pub(super) fn primary_said(&mut self, now: Duration, message: Message) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        follow.silence.heard(now);
        let expected = follow.generation;
        let result = match message {
            Message::Snapshot(chunk) if chunk.generation == expected => match &mut follow.phase {
                Phase::Snapshot { chunks } => {
                    *chunks += 1;
                    self.actions.push_back(BackupAction::Store(chunk));
                    Ok(())
                }
                _ => Err("a piece of a snapshot after its end"),
            },
            Message::SnapshotEnd {
                generation,
                chunks,
                count,
                visible_outputs,
            } if generation == expected => self.snapshot_ended(chunks, count, visible_outputs),
            Message::Records {
                generation,
                first_sequence,
                urgent,
                released,
                records,
            } if generation == expected => {
                self.records_came(now, first_sequence, urgent, released, records)
            }
            Message::Begin {
                generation,
                sequence,
                released,
                record_interval_ms,
            } if generation == expected => self.begun(now, sequence, released, record_interval_ms),
            Message::Heartbeat {
                generation,
                sequence,
                released,
                probe,
            } if generation == expected => {
                follow.release(released);
                let look = !self.config.mutations.active(Mutation::GapUnnoticed);
                if sequence != follow.received && look {
                    Err("records are missing")
                } else {
                    if probe > follow.echo {
                        follow.echo = probe;
                        follow.ack_due = Some(now);
                    }
                    Ok(())
                }
            }
            Message::Goodbye {
                generation,
                parting: Parting::Finished,
            } if generation == expected => {
                return self.primary_finished();
            }
            Message::Handover {
                generation,
                sequence,
            } if generation == expected => {
                if follow.phase == Phase::Begun && sequence == follow.received {
                    return self.lost_primary(now, Suspicion::HandedOver);
                }
                Err("what is handed over is not what we have")
            }
            Message::Goodbye {
                generation,
                parting: Parting::Suspected,
            } if generation == expected => {
                return self.lost_primary_for(now, Suspicion::SuspectsUs, COURTESY);
            }
            _ => Err("an unexpected message, or one of another pairing"),
        };
        if let Err(what) = result {
            self.lost_primary(now, Suspicion::Protocol(what.to_owned()));
        }
    }

    fn snapshot_ended(
        &mut self,
        chunks: u64,
        count: u64,
        visible_outputs: u64,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        if follow.phase != (Phase::Snapshot { chunks }) {
            return Err("the snapshot is not whole");
        }
        follow.phase = Phase::Restoring;
        follow.received_count = count;
        follow.executed = count;
        follow.released = visible_outputs;
        let generation = follow.generation;
        self.actions.push_back(BackupAction::Restore {
            generation,
            count,
            visible_outputs,
        });
        Ok(())
    }

    pub(super) fn ready(&mut self, now: Duration) {
        let State::Following(follow) = &mut self.state else {
            return;
        };
        if follow.phase == Phase::Restoring {
            follow.phase = Phase::Ready;
            follow.restored = None;
            follow.restored_news = false;
            follow.last_sent = now;
            let (connection, generation) = (follow.connection, follow.generation);
            self.send(connection, Message::Ready { generation });
        }
    }

    fn begun(
        &mut self,
        now: Duration,
        sequence: u64,
        released: u64,
        record_interval_ms: u64,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        let look = !self.config.mutations.active(Mutation::GapUnnoticed);
        if follow.phase != Phase::Ready {
            return Err("it begins before we are ready");
        }
        if sequence != follow.received && look {
            return Err("records before Begin are missing");
        }
        follow.phase = Phase::Begun;
        follow.silence = SilenceDetector::new(now, self.config.detector.silence_timeout);
        follow.last_record = now;
        if !self.config.mutations.active(Mutation::RecordTimeoutIsFixed) {
            let interval = Duration::from_millis(record_interval_ms.min(MAX_RECORD_INTERVAL_MS));
            follow.record_timeout = follow.record_timeout.map(|timeout| timeout + 3 * interval);
        }
        follow.echo = 1;
        follow.release(released);
        let (connection, generation) = (follow.connection, follow.generation);
        let ack = follow.ack(now);
        self.send(connection, ack);
        self.report(Event::Protected { generation });
        Ok(())
    }

    fn records_came(
        &mut self,
        now: Duration,
        first_sequence: u64,
        urgent: bool,
        released: u64,
        records: Vec<Record>,
    ) -> Result<(), &'static str> {
        let State::Following(follow) = &mut self.state else {
            return Ok(());
        };
        let look = !self.config.mutations.active(Mutation::GapUnnoticed);
        follow.take_records(now, first_sequence, &records, look)?;
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
        let generation = follow.generation;
        self.actions.push_back(BackupAction::Replay {
            generation,
            records,
        });
        Ok(())
    }

    fn primary_finished(&mut self) {
        let State::Following(follow) = &self.state else {
            return;
        };
        let (connection, generation) = (follow.connection, follow.generation);
        self.send(
            connection,
            Message::Goodbye {
                generation,
                parting: Parting::Finished,
            },
        );
        self.actions.push_back(BackupAction::Close(connection));
        self.stop(BackupStop::Finished);
    }
}
