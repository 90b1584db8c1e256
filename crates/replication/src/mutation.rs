//! Old bugs that can be brought back, to prove that the simulator would find them.
//!
//! Without the feature `mutation` [`active`](Mutations::active) is always false and costs nothing.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Outputs leave at once, acknowledged or not.
    NoOutputRule,
    /// Outputs leave when their records were handed to the journal, durable or not.
    JournalNotWaitedFor,
    /// The primary goes on alone without asking the arbiter.
    DropBackupWithoutAsking,
    /// The backup goes live on suspicion without asking the arbiter.
    GoLiveWithoutAsking,
    /// The backup goes live before it has replayed all it acknowledged.
    NotDrained,
    /// Anything but a plain success of a claim is taken as defeat.
    LostAnswerIsDefeat,
    /// The backup does not look at record numbers.
    GapUnnoticed,
    /// The backup may claim as soon as it is ready, before the primary has begun to wait for it.
    ClaimBeforeBegin,
    /// The backup forgets the outputs that it may have to send again.
    OutputsNotRepeated,
    /// Outputs leave when the checkpoint that contains them was sent, held or not.
    CheckpointSentIsHeld,
    /// A backup makes of a checkpoint what it can before all of it has come.
    HalfCheckpointApplied,
    /// A primary that slept trusts the acknowledgements that came before it fell asleep.
    NoDoubtAfterSleep,
    /// Records sent while a backup restored count as unacknowledged since they were sent.
    RestoreCountsAsSilence,
    /// The channel's round trip counts as lag.
    RoundTripIsLag,
    /// A primary has to send records more often than it was configured to make them.
    RecordTimeoutIsFixed,
    /// A start from the disk does not ask the members whether they hold the running machine.
    MembersNotAsked,
    /// A start from the disk does not look at what the disk is worth.
    AnyDiskStarts,
    /// A disk that was being copied counts as whole.
    HalfCopiedDiskStarts,
    /// What is written to a disk while it is copied ahead of the machine is not copied again.
    DiskChangesForgotten,
    /// The disk of the reign before starts without asking whether its successor's was settled.
    NeverSettledNotAsked,
    /// A member that does not answer is taken for one without a machine.
    SilentPeersAreGone,
    /// Whoever differs from the primary is dropped, however many there are.
    MajorityNotLookedAt,
    /// The primary does not look whether somebody left its generation.
    OwnKeyNotLookedAt,
    /// Flushes complete before the disk of a new primary is settled.
    FlushBeforeSettled,
    /// A flush completes when the primary's disk has it, though both should.
    FlushOnOneDiskOnly,
    /// The guest of a primary is told of a disk error though its backup's disk is good.
    DiskErrorTold,
    /// A backup goes on without what its own disk failed to write (a bug of the program).
    OwnDiskFailureIgnored,
    /// A snapshot for a backup that went away is taken all the same.
    SnapshotNotCancelled,
    /// A key whose content makes no sense is taken for somebody else's claim.
    TornKeyIsDefeat,
    /// A backup ends before it has replayed what it acknowledged, and synced its disk.
    EndsUndrained,
    /// A primary that hands over still lets out what is acknowledged.
    EmitsAfterHandover,
    /// A backup lets its disk be overwritten before its marker says so.
    OverwrittenBeforeMarked,
    /// A guest's end leaves the life open.
    EndWithoutKey,
    /// A backup becomes a member without reading the key at its own arbiter.
    KeyNotReadBack,
    /// The log lets records go that a follower was not sent yet.
    LogForgetsWhatIsNeeded,
    /// A host that returns goes on though its log is not proven to be a prefix.
    ReturnsUnproven,
    /// A follower that returns goes on with the newest records, without those that it lacks.
    SkipsWhatItLacks,
    /// Outputs wait for a member that was dropped.
    DroppedMemberCounts,
    /// A member that is lost while another is being dropped is forgotten.
    SecondDropForgotten,
    /// Outputs leave when any member holds them.
    AnyMemberIsEnough,
    /// Whoever was dropped goes on asking for keys as if it were a member.
    ClaimByNonMember,
    /// A member that lags does not count any more when the key is asked for that drops it.
    LetGoBeforeTheKey,
    /// The only member is let go for its lag, though the policy does not say so.
    LastMemberLetGo,
    /// A host that has not the memory for the machine is taken all the same.
    TakesTheTooSmall,
    /// A spare begins the machine's first life.
    SparePowersOn,
    /// A claim does not care whether the store has the key of the generation before.
    KeyBeforeNotRequired,
    /// A block in which a joiner's disk differs is not copied.
    ChangedBlockNotCopied,
    /// The machine is handed over to a host that has said that it could not go on with it.
    HandsOverToTheUnable,
    /// A write to a shared disk leaves at once, acknowledged or not.
    SharedWriteNotGated,
    /// Whoever has won goes live though another process may still write to the shared disk.
    SharedDiskNotFenced,
    /// The guest is told of the end of a write that is only in its host's memory.
    SharedWriteInMemory,
    /// Whoever goes live does not ask the shared disk again for what was asked of it and may not have been done.
    SharedWriteNotRepeated,
    /// The pages that a journal's snapshot holds are those that changed since a copy was made for somebody who joined.
    JournalSharesAnEpoch,
    /// A snapshot goes from a journal though a newer one builds on it.
    BaseSnapshotGoes,
    /// Of snapshots that build on each other some in the middle are passed over.
    IncrementPassedOver,
    /// A journal's snapshot counts before everything that was said before it has left.
    SnapshotAheadOfOutputs,
}

/// Which bug is brought back, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutations {
    #[cfg(feature = "mutation")]
    only: Option<Mutation>,
}

impl Mutations {
    /// Brings back one bug.
    #[cfg(feature = "mutation")]
    pub fn only(mutation: Mutation) -> Mutations {
        Mutations {
            only: Some(mutation),
        }
    }

    /// Whether this bug is to be shown.
    #[cfg(feature = "mutation")]
    pub fn active(&self, mutation: Mutation) -> bool {
        self.only == Some(mutation)
    }

    /// Whether this bug is to be shown: never.
    #[cfg(not(feature = "mutation"))]
    pub fn active(&self, _: Mutation) -> bool {
        false
    }
}
