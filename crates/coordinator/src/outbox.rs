//! What a step of the coordinator asks its host to do.

use crate::{
    GenerationId, GroupError,
    record::OffsetsRecord,
    request::{CommittedTopic, Joined, Synced},
};

/// The host's name for somebody who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// The coordinator's name for records that it wants stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistToken(pub u64);

/// One answer of [`crate::Coordinator::delete_offsets`].
pub type DeletedOffset = (String, ottla_types::PartitionIndex, Result<(), GroupError>);

/// An answer that had to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a join.
    Join(Result<Joined, GroupError>),
    /// To a sync.
    Sync(Result<Synced, GroupError>),
    /// To an offset commit.
    Commit(Result<Vec<CommittedTopic>, GroupError>),
    /// To the deletion of a group.
    DeleteGroup(Result<(), GroupError>),
    /// To the deletion of offsets.
    DeleteOffsets(Result<Vec<DeletedOffset>, GroupError>),
}

/// One thing to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer.
    Reply(ReplyToken, Reply),
    /// Append these records and say with [`crate::Coordinator::on_persisted`] when they are
    /// committed, or that they may not be. The order of these effects is the order in the log.
    Persist(PersistToken, Vec<OffsetsRecord>),
}

/// What a stored record was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A new generation, before its members hear of it (G-4).
    Generation {
        group_id: String,
        generation: GenerationId,
    },
    /// The assignment of a generation, before anybody gets it.
    Assignment {
        group_id: String,
        generation: GenerationId,
    },
    /// A static member's new id.
    StaticMember { token: ReplyToken, joined: Joined },
    /// A generation without members; nobody waits.
    EmptyGeneration,
    /// An offset commit.
    Commit {
        group_id: String,
        token: ReplyToken,
        answer: Vec<CommittedTopic>,
    },
    /// A group's removal, by an administrator or because nothing of it is left.
    DeleteGroup {
        group_id: String,
        token: Option<ReplyToken>,
    },
    /// Removal of single offsets by an administrator.
    DeleteOffsets {
        token: ReplyToken,
        answer: Vec<DeletedOffset>,
    },
    /// Removal of offsets that expired or whose topic is gone; nobody waits.
    Housekeeping,
}

/// Collects effects, and remembers what each persist is for.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    effects: Vec<Effect>,
    pending: std::collections::BTreeMap<PersistToken, Purpose>,
    next_token: u64,
}

impl Outbox {
    pub(crate) fn reply(&mut self, token: ReplyToken, reply: Reply) {
        self.effects.push(Effect::Reply(token, reply));
    }

    pub(crate) fn join(&mut self, token: ReplyToken, result: Result<Joined, GroupError>) {
        self.reply(token, Reply::Join(result));
    }

    pub(crate) fn sync(&mut self, token: ReplyToken, result: Result<Synced, GroupError>) {
        self.reply(token, Reply::Sync(result));
    }

    pub(crate) fn persist(
        &mut self,
        records: Vec<OffsetsRecord>,
        purpose: Purpose,
    ) -> PersistToken {
        self.next_token += 1;
        let token = PersistToken(self.next_token);
        self.pending.insert(token, purpose);
        self.effects.push(Effect::Persist(token, records));
        token
    }

    pub(crate) fn take_pending(&mut self, token: PersistToken) -> Option<Purpose> {
        self.pending.remove(&token)
    }

    /// Everything pending, oldest first; nothing of it will be appended any more, and later
    /// outcomes of it will be ignored.
    pub(crate) fn drop_pending(&mut self) -> Vec<Purpose> {
        self.effects
            .retain(|effect| matches!(effect, Effect::Reply(..)));
        std::mem::take(&mut self.pending).into_values().collect()
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}
