//! How far a node, and each of its shards, has come: what tests watch to see that every transition was taken.

use super::Stage;
use crate::access::StoreAccess;
use crate::ids::ShardIndex;
use crate::node::{NodeCore, Phase};
use crate::shard::Replica;

/// How far a node is on its way from one view to the next.
///
/// ```text
///  Gathering ---> CatchingUp ---> Promising ---> Accepted ---> Active
///   ^  |  ^           |               |             |            |
///   |  v  +-----------+---------------+-------------+------------+     Failed: from anywhere, for ever
///  Learning                 given up, outdated, stopped
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Nothing is proposed.
    Gathering,
    /// A view runs without this node, which completes its ledgers beside it.
    Learning,
    /// Completing ledgers for a proposal.
    CatchingUp,
    /// The promise is being written.
    Promising,
    /// Ready for the view that is proposed.
    Accepted,
    /// The view runs.
    Active,
    /// The end.
    Failed,
}

/// What a shard does at one of its members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ShardStep {
    /// No view ran since the start, or what is left of the last one was thrown away.
    Idle,
    /// It runs.
    Running,
    /// Its view stopped, and what was received in it may yet be delivered.
    Stopped,
    /// That was delivered.
    Drained,
    /// Its ledger is being cut, or replaced.
    Rewinding,
}

impl<S: StoreAccess> NodeCore<S> {
    /// How far this node is.
    #[must_use]
    pub fn step(&self) -> Step {
        match &self.phase {
            Phase::Active => Step::Active,
            Phase::Failed(_) => Step::Failed,
            Phase::Forming(forming) => match forming.stage {
                Stage::Gathering => Step::Gathering,
                Stage::Learning(_) => Step::Learning,
                Stage::CatchingUp(..) => Step::CatchingUp,
                Stage::Promising(_) => Step::Promising,
                Stage::Accepted(_) => Step::Accepted,
            },
        }
    }

    /// How far a shard is here; `None` if the own node is no member.
    #[must_use]
    pub fn shard_step(&self, shard: ShardIndex) -> Option<ShardStep> {
        self.replicas.get(shard.index())?.as_ref().map(Replica::step)
    }
}
