//! The names by which events of the replication core stand in the log of events.

use replication::event::Event;
use replication::message::Continuation;
use replication::succession::Kind;

/// An event's short name.
pub(super) fn name_event(event: &Event) -> &'static str {
    match event {
        Event::RefusedBackup { .. } => "refused",
        Event::Joining { .. } => "joining",
        Event::JoinerIsSlow { .. } => "slow_joiner",
        Event::BootsOtherwise { differences, .. } if differences.is_empty() => "boots_alike",
        Event::BootsOtherwise { .. } => "boots_otherwise",
        Event::JoinFailed { .. } => "join_failed",
        Event::Protected { .. } => "protected",
        Event::Suspected { .. } => "suspected",
        Event::LetsGo { .. } => "lets_go",
        Event::ArbiterUnanswered { .. } => "arbiter_unanswered",
        Event::ArbiterAnswers { .. } => "arbiter_answers",
        Event::Arbiter { .. } => "arbiter",
        Event::Claimed { .. } => "claimed",
        Event::Continues {
            continuation: Continuation::Continues,
            ..
        } => "goes_on",
        Event::Continues { .. } => "copied_anew",
        Event::Generation { .. } => "generation",
        Event::Superseded { by } if by.kind == Kind::HandedOver => "handed_over",
        Event::Superseded { .. } => "claim_lost",
        Event::DiskFailed { .. } => "disk_failed",
        Event::DiskErrorTold => "disk_error",
        Event::HandingOver { .. } => "handing_over",
        Event::MayGoOn { trouble: None, .. } => "can_take_over",
        Event::MayGoOn { .. } => "cannot_take_over",
        Event::Live { .. } => "live",
        Event::Diverged { .. } => "diverged",
        Event::Outvoted { .. } => "outvoted",
        Event::IsMajority { .. } => "majority",
        Event::JournalBegun { .. } => "journal_begun",
        Event::JournalInForce { .. } => "journal_in_force",
        Event::JournalKept { .. } => "journal_kept",
        Event::JournalFailed { .. } => "journal_failed",
        Event::Paused { .. } => "paused",
    }
}
