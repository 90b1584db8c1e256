//! The stream of records to one backup: numbers, batches, what is under way.

use crate::ConnectionId;
use crate::message::Message;
use crate::record::Record;
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

/// What the world outside the stream knows at the moment of sending.
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
    last: u64,
    count: u64,
    bytes: usize,
    sent: Duration,
}

/// Puts the log's records, from where the snapshot was taken, into messages.
#[derive(Debug)]
pub(crate) struct RecordStream {
    pub connection: ConnectionId,
    pub pairing: u64,
    config: BatchConfig,
    /// Number of the last record added.
    sequence: u64,
    batch: Vec<Record>,
    batch_bytes: usize,
    batch_since: Option<Duration>,
    in_flight: VecDeque<InFlight>,
    bytes_in_flight: usize,
    acknowledged: u64,
    /// Count of the last record that the backup holds, and of the last that it held before the
    /// newest acknowledgement that brought something new.
    held_count: u64,
    held_before: u64,
    /// When the clock for the next acknowledgement began: the last time that one brought something
    /// new, or Begin.
    awaited_since: Duration,
    /// Count of the last record sent.
    sent_count: u64,
    last_sent: Duration,
    /// Bytes of records sent, about.
    pub bytes_sent: u64,
}

impl RecordStream {
    pub fn new(
        now: Duration,
        connection: ConnectionId,
        pairing: u64,
        config: BatchConfig,
    ) -> RecordStream {
        RecordStream {
            connection,
            pairing,
            config,
            sequence: 0,
            batch: Vec::new(),
            batch_bytes: 0,
            batch_since: None,
            in_flight: VecDeque::new(),
            bytes_in_flight: 0,
            acknowledged: 0,
            held_count: 0,
            held_before: 0,
            awaited_since: now,
            sent_count: 0,
            last_sent: now,
            bytes_sent: 0,
        }
    }

    /// Adds a record and gives its number.
    pub fn push(&mut self, now: Duration, record: Record) -> u64 {
        self.sequence += 1;
        self.batch_bytes += record.encoded_size_bound();
        self.batch_since.get_or_insert(now);
        self.batch.push(record);
        self.sequence
    }

    /// Number of the last record added.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Number of the last record sent.
    pub fn sent_sequence(&self) -> u64 {
        self.sequence - self.batch.len() as u64
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Instruction count of the last record sent: the backup cannot be beyond.
    pub fn sent_count(&self) -> u64 {
        self.sent_count
    }

    /// The stream begins after record `sequence`, at `count`: where the snapshot was taken.
    pub fn starts_at(&mut self, sequence: u64, count: u64) {
        assert!(
            self.batch.is_empty() && self.in_flight.is_empty(),
            "a stream begins before its first record"
        );
        self.sequence = sequence;
        self.acknowledged = sequence;
        self.sent_count = count;
        self.held_count = count;
        self.held_before = count;
    }

    /// Instruction count of the last record that the backup held before the records that it
    /// acknowledged last: where it could be by now.
    pub fn held_before(&self) -> u64 {
        self.held_before
    }

    /// Bytes not yet sent or not yet acknowledged.
    pub fn bytes_under_way(&self) -> usize {
        self.bytes_in_flight + self.batch_bytes
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

    /// When the batch is to be sent although nothing waits for it.
    pub fn batch_deadline(&self, count: u64) -> Option<Duration> {
        let since = self.batch_since?;
        if self.batch_bytes >= self.config.bytes {
            return Some(since);
        }
        let ran = count.saturating_sub(self.sent_count);
        (ran >= self.config.idle_instructions).then_some(since + self.config.delay)
    }

    /// Whether the guest has come so far beyond the last record that the backup should be let come
    /// after it.
    pub fn is_behind(&self, now: Duration, count: u64) -> bool {
        let last = self.batch.last().map_or(self.sent_count, |last| last.count);
        let ran = count.saturating_sub(last);
        // Whoever tells how far the guest is does so about as often as this asks.
        let since = now.saturating_sub(self.last_sent) + self.config.delay / 4;
        ran >= self.config.idle_instructions.max(1) && since >= self.config.delay
    }

    /// Takes all that waits as messages, none much longer than the configured size unless a single
    /// record is.
    pub fn take(&mut self, sending: Sending) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut first_sequence = self.sent_sequence() + 1;
        let mut records = std::mem::take(&mut self.batch).into_iter().peekable();
        while records.peek().is_some() {
            let mut bytes = 0;
            let mut part = Vec::new();
            while let Some(record) = records.next_if(|_| bytes < self.config.bytes) {
                bytes += record.encoded_size_bound();
                self.sent_count = record.count;
                part.push(record);
            }
            let last = first_sequence + part.len() as u64 - 1;
            self.in_flight.push_back(InFlight {
                last,
                count: self.sent_count,
                bytes,
                sent: sending.now,
            });
            self.bytes_in_flight += bytes;
            self.bytes_sent += bytes as u64;
            messages.push(Message::Records {
                pairing: self.pairing,
                first_sequence,
                urgent: sending.urgent && records.peek().is_none(),
                released: sending.released,
                records: part,
            });
            first_sequence = last + 1;
        }
        self.batch_bytes = 0;
        self.batch_since = None;
        if !messages.is_empty() {
            self.last_sent = sending.now;
        }
        messages
    }

    /// The backup says that it holds everything up to `sequence`. False: that cannot be.
    #[must_use]
    pub fn acknowledge(&mut self, now: Duration, sequence: u64) -> bool {
        if sequence < self.acknowledged || sequence > self.sent_sequence() {
            return false;
        }
        if sequence > self.acknowledged {
            self.awaited_since = now;
            self.held_before = self.held_count;
        }
        self.acknowledged = sequence;
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.last <= sequence) {
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
