//! One follower's place in the log: what it was sent, what it holds, what is under way.

use crate::ConnectionId;
use crate::life_log::LifeLog;
use crate::message::Message;
use crate::record::{InstructionCount, RecordNumber};
use std::collections::VecDeque;
use std::time::Duration;

/// When records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Records wait at most so long while the guest works. A guest that works without making any is
    /// told of as often: the backup cannot execute beyond the last record, so this is how far it is
    /// behind a guest that only computes.
    pub delay: Duration,
    /// A batch of so many bytes is sent at once.
    pub bytes: usize,
    /// A guest that ran fewer instructions since the last batch idles: its records wait for the
    /// next heartbeat, which saves a frame.
    pub idle_instructions: u64,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig {
            delay: Duration::from_millis(8),
            bytes: 32 << 10,
            idle_instructions: 2_000_000,
        }
    }
}

/// What the world outside the cursor knows at the moment of sending.
#[derive(Clone, Copy)]
pub(crate) struct Sending {
    pub now: Duration,
    pub urgent: bool,
    pub released: u64,
}

/// A batch that was sent and is not acknowledged.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Number and instruction count of its last record.
    last: RecordNumber,
    count: InstructionCount,
    bytes: usize,
    sent: Duration,
}

/// Where one follower is in the log, and the messages that bring it further.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub connection: ConnectionId,
    pub pairing: u64,
    config: BatchConfig,
    /// Number of the last record of the log that it was sent.
    sent: RecordNumber,
    /// Bytes of the records after that, about, and since when there are any.
    unsent_bytes: usize,
    unsent_since: Option<Duration>,
    in_flight: VecDeque<InFlight>,
    bytes_in_flight: usize,
    acknowledged: RecordNumber,
    /// Count of the last record that the follower holds, and of the last that it held before the
    /// newest acknowledgement that brought something new.
    held_count: InstructionCount,
    held_before: InstructionCount,
    /// When the clock for the next acknowledgement began: the last time that one brought something
    /// new, or Begin.
    awaited_since: Duration,
    /// Count of the last record sent.
    sent_count: InstructionCount,
    last_sent: Duration,
    /// Bytes of records sent, about.
    pub bytes_sent: u64,
}

impl Cursor {
    /// At the beginning of a life; where it really is, is said by [`Cursor::starts_at`].
    pub fn new(
        now: Duration,
        connection: ConnectionId,
        pairing: u64,
        config: BatchConfig,
    ) -> Cursor {
        Cursor {
            connection,
            pairing,
            config,
            sent: RecordNumber::BEFORE_ALL,
            unsent_bytes: 0,
            unsent_since: None,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            acknowledged: RecordNumber::BEFORE_ALL,
            held_count: InstructionCount::POWER_ON,
            held_before: InstructionCount::POWER_ON,
            awaited_since: now,
            sent_count: InstructionCount::POWER_ON,
            last_sent: now,
            bytes_sent: 0,
        }
    }

    /// The log has grown by a record of so many bytes.
    pub fn grown(&mut self, now: Duration, bytes: usize) {
        self.unsent_bytes += bytes;
        self.unsent_since.get_or_insert(now);
    }

    /// Number of the last record sent.
    pub fn sent(&self) -> RecordNumber {
        self.sent
    }

    /// Whether everything up to number `last` was sent.
    pub fn has_sent_all(&self, last: RecordNumber) -> bool {
        assert!(self.sent <= last, "nothing is sent that is not in the log");
        self.sent == last
    }

    pub fn acknowledged(&self) -> RecordNumber {
        self.acknowledged
    }

    /// Instruction count of the last record sent: the backup cannot be beyond.
    pub fn sent_count(&self) -> InstructionCount {
        self.sent_count
    }

    /// The follower has everything up to here: a snapshot that is taken here, or its machine stands
    /// here. What the log has beyond is sent next.
    pub fn starts_at(
        &mut self,
        now: Duration,
        record: RecordNumber,
        count: InstructionCount,
        log: &LifeLog,
    ) {
        assert!(
            self.sent == RecordNumber::BEFORE_ALL && self.in_flight.is_empty(),
            "a cursor begins before its first record"
        );
        self.sent = record;
        self.acknowledged = record;
        self.sent_count = count;
        self.held_count = count;
        self.held_before = count;
        self.unsent_bytes = log.after(record).map(|(_, bytes)| bytes).sum();
        self.unsent_since = (self.unsent_bytes > 0).then_some(now);
    }

    /// Instruction count of the last record that the backup held before the records that it
    /// acknowledged last: where it could be by now.
    pub fn held_before(&self) -> InstructionCount {
        self.held_before
    }

    /// Bytes not yet sent or not yet acknowledged.
    pub fn bytes_under_way(&self) -> usize {
        self.bytes_in_flight + self.unsent_bytes
    }

    /// Since when an acknowledgement is due: since the oldest batch that is not acknowledged was
    /// sent, but not since before the last acknowledgement that brought something new. What takes
    /// its time on a slow link is not late as long as it proceeds.
    pub fn awaited_since(&self) -> Option<Duration> {
        let oldest = self.in_flight.front()?;
        Some(oldest.sent.max(self.awaited_since))
    }

    /// How long the oldest batch that is not acknowledged has been under way.
    pub fn oldest_age(&self, now: Duration) -> Duration {
        self.in_flight
            .front()
            .map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest.sent))
    }

    /// The pairing begins: what was sent before, while the backup restored, is due from now on.
    pub fn begin(&mut self, now: Duration) {
        self.awaited_since = now;
    }

    pub fn last_sent(&self) -> Duration {
        self.last_sent
    }

    /// Notes that something else was sent.
    pub fn touched(&mut self, now: Duration) {
        self.last_sent = now;
    }

    /// When records are to be sent although nothing waits for it.
    pub fn batch_deadline(&self, count: InstructionCount) -> Option<Duration> {
        let since = self.unsent_since?;
        if self.unsent_bytes >= self.config.bytes {
            return Some(since);
        }
        let ran = count.beyond(self.sent_count);
        (ran >= self.config.idle_instructions).then_some(since + self.config.delay)
    }

    /// Whether the guest, at `count`, has come so far beyond the last record of the log, at `last`, that
    /// the follower should be let come after it.
    pub fn is_behind(
        &self,
        now: Duration,
        last: InstructionCount,
        count: InstructionCount,
    ) -> bool {
        let ran = count.beyond(last.max(self.sent_count));
        // Whoever tells how far the guest is does so about as often as this asks.
        let since = now.saturating_sub(self.last_sent) + self.config.delay / 4;
        ran >= self.config.idle_instructions.max(1) && since >= self.config.delay
    }

    /// All of the log that was not sent yet, as messages, none much longer than the configured size
    /// unless a single record is.
    pub fn take(&mut self, log: &LifeLog, sending: Sending) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut unsent = log.after(self.sent).peekable();
        while unsent.peek().is_some() {
            let first_record = self.sent.next();
            let mut bytes = 0;
            let mut records = Vec::new();
            while let Some((record, size)) = unsent.next_if(|_| bytes < self.config.bytes) {
                bytes += size;
                self.sent_count = record.count;
                records.push(record.clone());
            }
            self.sent = self.sent.plus(records.len() as u64);
            self.in_flight.push_back(InFlight {
                last: self.sent,
                count: self.sent_count,
                bytes,
                sent: sending.now,
            });
            self.bytes_in_flight += bytes;
            self.bytes_sent += bytes as u64;
            messages.push(Message::Records {
                pairing: self.pairing,
                first_record,
                urgent: sending.urgent && unsent.peek().is_none(),
                released: sending.released,
                records,
            });
        }
        assert!(self.has_sent_all(log.last()), "all of the log was sent");
        self.unsent_bytes = 0;
        self.unsent_since = None;
        if !messages.is_empty() {
            self.last_sent = sending.now;
        }
        messages
    }

    /// The follower says that it holds everything up to `record`. False: that cannot be.
    #[must_use]
    pub fn acknowledge(&mut self, now: Duration, record: RecordNumber) -> bool {
        if record < self.acknowledged || record > self.sent {
            return false;
        }
        if record > self.acknowledged {
            self.awaited_since = now;
            self.held_before = self.held_count;
        }
        self.acknowledged = record;
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.last <= record) {
            assert!(
                batch.count >= self.held_count && batch.bytes <= self.bytes_in_flight,
                "batches are in order, and their bytes were counted"
            );
            self.bytes_in_flight -= batch.bytes;
            self.held_count = batch.count;
        }
        true
    }

    /// Time stood still here: what is under way is not late.
    pub fn forgive(&mut self, pause: Duration) {
        self.awaited_since += pause;
        for batch in &mut self.in_flight {
            batch.sent += pause;
        }
    }
}
