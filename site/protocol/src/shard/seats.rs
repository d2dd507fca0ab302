//! The members of a shard in the views of one roster.

use alloc::vec::Vec;

use tradewind_ledger::entry::quorum;
use tradewind_ledger::note::VerifierKeyError;
use tradewind_ledger::{Member, Policy};

use crate::config::NodeConfig;
use crate::ids::{NodeId, ShardIndex};
use crate::layout::{Layout, ShardLayout};
use crate::roster::RosterId;

/// Who they are, by rank, and what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    pub(crate) members: Vec<NodeId>,
    /// The own rank.
    pub(crate) own: usize,
    pub(crate) layout: ShardLayout,
    /// Whose signatures count.
    pub(crate) policy: Policy,
    /// The members on earlier rosters, where they were others: a mirror may be there yet.
    former: Vec<Vec<Member>>,
}

/// Members on an earlier roster, of which a checkpoint is to have a majority as well: their present ranks, and how many
/// of them make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Elders {
    pub(crate) ranks: Vec<usize>,
    pub(crate) threshold: usize,
}

impl Seats {
    /// Those on this roster, of which the own node is one.
    ///
    /// # Errors
    /// If a member's key is none.
    pub(crate) fn of(
        config: &NodeConfig,
        id: RosterId,
        shard: ShardIndex,
        layout: &Layout,
    ) -> Result<Self, VerifierKeyError> {
        let members = config.roster(id).shard(shard).to_vec();
        let own = members.iter().position(|node| *node == config.own).expect("a member");
        let records = config.records(id, shard);
        let mut former: Vec<_> = (0..id.0).map(|id| config.records(RosterId(id), shard)).collect();
        former.dedup();
        former.retain(|members| *members != records);
        let origin = config.shards[shard.index()].genesis.origin();
        let policy = Policy::majority(&origin, records)?;
        Ok(Self { members, own, layout: *layout.shard(shard), policy, former })
    }

    /// The earlier members that a view of these nodes has majorities of: whoever follows the ledger and has not come to
    /// the change yet needs their signatures too, and they are there to give them.
    pub(crate) fn elders(&self, present: &[NodeId]) -> Vec<Elders> {
        let here = |member: &Member| {
            let rank = self.policy.members().iter().position(|own| own == member)?;
            present.contains(&self.members[rank]).then_some(rank)
        };
        let elders = self.former.iter().map(|members| Elders {
            ranks: members.iter().filter_map(here).collect(),
            threshold: quorum(members.len()),
        });
        elders.filter(|elders| elders.ranks.len() >= elders.threshold).collect()
    }
}
