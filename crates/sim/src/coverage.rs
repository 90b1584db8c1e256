//! Situations that the simulator is meant to reach. A run of many seeds fails if one never occurred.

use std::collections::BTreeMap;
use std::fmt;

macro_rules! situations {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Something that must happen in some seed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Situation { $($(#[$doc])* $name,)* }
        /// All of them.
        pub const ALL: &[Situation] = &[$(Situation::$name,)*];
    };
}

situations! {
    /// A backup went live.
    Failover,
    /// A backup went live twice or more in one life.
    RepeatedFailover,
    /// Records were left to replay when the generation was won.
    DrainedBeforeLive,
    /// Outputs were sent again.
    OutputsRepeated,
    /// The outside really saw an output twice.
    DuplicateSeen,
    /// A primary lost its backup and won.
    PrimaryWentOnAlone,
    /// A new backup joined a machine that had been through a failover.
    Reprotected,
    /// Both sides asked the arbiter for the same generation.
    ClaimRace,
    /// A primary lost its claim.
    PrimaryLostClaim,
    /// A backup lost its claim.
    BackupLostClaim,
    /// A claim landed, but its answer was lost.
    ArbiterAnswerLost,
    /// A claim landed long after the claimant had given up waiting.
    ArbiterLandedLate,
    /// A claim was won by reading the key back.
    WonByReadBack,
    /// The key was absent when it was read back, and asked for again.
    AskedAgain,
    /// Outputs waited for an arbiter out of reach.
    OutputsWaitedForArbiter,
    /// A primary slept, another went live, it woke.
    FrozenPrimaryWoke,
    /// A primary noticed that it had slept, and made sure that its backup still listens.
    PauseNoticed,
    /// Joining ended while the snapshot was being sent.
    SnapshotInterrupted,
    /// Joining ended after the snapshot, before the pairing was in force.
    JoinInterruptedLate,
    /// The primary had begun, the backup never knew.
    BeginLost,
    /// Two replicas were made to differ, and it was found.
    DivergenceFound,
    /// A primary of three was made to differ, and a backup that has what the majority has went on.
    MajorityWentOn,
    /// Another one of them followed it without a copy.
    MajorityFollowed,
    /// A message was lost within a connection, and it was noticed.
    GapNoticed,
    /// A bit was flipped on the wire, and it was noticed.
    DamageNoticed,
    /// The primary was slowed to bound the lag.
    Slowed,
    /// The guest ended the machine, and both sides knew.
    OrderlyEnd,
    /// A connection of a dead or confused peer asked to join.
    GhostConnection,
    /// A backup was told to come later.
    RefusedNotNow,
    /// The machine was started again from the disk of the host that was its primary.
    StartedFromDisk,
    /// It was started from a member's disk.
    StartedFromMembersDisk,
    /// It was started from the disk of the reign before, whose successor had never settled.
    StartedFromDiskBefore,
    /// A start waited for a host with the right disk.
    WaitedForRightDisk,
    /// A start waited for hosts that may hold the running machine.
    WaitedForSilentHost,
    /// A host lost writes that it had not synced.
    UnsyncedWritesLost,
    /// A host died with a half-copied disk.
    CopyCutOff,
    /// A primary handed its machine over.
    HandedOver,
    /// Nobody took over, and the machine ran on.
    HandoverFailed,
    /// The primary died between the key of joining and Begin, or the joiner did.
    JoinerDropped,
    /// Somebody saw another arbiter, and it was said while all was well.
    ArbitersDiffered,
    /// A claim was held back because the store did not have the key before.
    WrongStoreNoticed,
    /// A start met an arbiter that did not know what its marker names.
    ArbiterForgot,
    /// A start was refused after the end.
    RefusedAfterEnd,
    /// A replica that lost its claim joined again by itself.
    LoserBecameBackup,
    /// Somebody pressed a button at a backup, and the primary was told.
    PressedAtTheBackup,
    /// Somebody asked at a backup that the machine goes over to it, and the primary was told.
    SwitchoverAsked,
    /// A backup went live with a machine that was paused.
    LiveAndPaused,
    /// A person declared a life lost that was not.
    DeclaredLost,
    /// A flush completed on both hosts.
    FlushedOnBoth,
    /// A restore lasted for longer than any timeout but the one for joining.
    LongRestore,
    /// A restore stopped everything else.
    BlockingRestore,
    /// An event loop did nothing for a while, and the vcpu ran on.
    EventLoopStalled,
    /// A pair far from each other was protected, and its speed looked at.
    FarAway,
    /// A protected pair idled for longer than any timeout.
    Quiet,
    /// A backup that had been away let the primary ask first.
    SuspectedBackupWaited,
    /// A primary whose disk failed handed over, and the backup took over.
    DiskHandedOver,
    /// A guest was told of a disk error, for nobody could take over.
    DiskErrorTold,
    /// A key was read while it was being written.
    TornKeyRead,
    /// Somebody greeted, accepted a snapshot and went away before it was taken.
    SnapshotNotWanted,
    /// A backup replayed the rest of the log after the end of the life.
    DrainedAtTheEnd,
    /// A backup whose own disk failed said so and left.
    OwnDiskFailed,
    /// A replay waited for this host's disk.
    ReplayBlocked,
    /// A host that had lost its place came back and went on without a copy.
    ReturnedWithoutCopy,
    /// A member went on in another generation of its primary.
    GenerationFollowed,
    /// A spare became a member.
    SpareTaken,
    /// A host was told that its place is taken, or not yet free.
    NotNeeded,
    /// A member that lagged was let go.
    LaggardLetGo,
    /// It came back too early.
    LaggardKeptOut,
    /// A host without the memory for the machine was refused.
    RefusedForMemory,
    /// People were told that who joins is slow.
    SlowJoinerTold,
    /// A host spoke the protocol of another one's older program.
    OlderProtocolSpoken,
    /// One came back with a machine that could not go on, and was copied.
    ReturnedInVain,
}

/// How often each situation occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<Situation, u64>);

impl Coverage {
    /// It occurred.
    pub fn reached(&mut self, situation: Situation) {
        *self.0.entry(situation).or_default() += 1;
    }

    /// How often.
    pub fn count(&self, situation: Situation) -> u64 {
        self.0.get(&situation).copied().unwrap_or(0)
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Coverage) {
        for (situation, count) in &other.0 {
            *self.0.entry(*situation).or_default() += count;
        }
    }

    /// Those that never occurred.
    pub fn missing(&self) -> Vec<Situation> {
        ALL.iter()
            .copied()
            .filter(|situation| self.count(*situation) == 0)
            .collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for situation in ALL {
            writeln!(f, "{:>10}  {situation:?}", self.count(*situation))?;
        }
        Ok(())
    }
}
