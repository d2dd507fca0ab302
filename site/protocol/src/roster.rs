//! Who the nodes of a site are, and how one roster follows another while views go on (docs/protocol.md, section 7,
//! "Rosters").

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::Digest;

use crate::action::Promise;
use crate::config::{NodeConfig, NodeInfo, ShardConfig};
use crate::error::ConfigError;
use crate::ids::{NodeId, ShardIndex};
use crate::layout::Layout;

/// Which roster of a site: 0 is the founders', and each change of the nodes makes the next.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize,
)]
pub struct RosterId(pub u32);

impl RosterId {
    /// The index as `usize`.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A node on a roster, under the key that it has there. Under another key it is not the same member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// The node.
    pub node: NodeId,
    /// Its key on this roster.
    pub public_key: [u8; 32],
}

/// The nodes of a site between two changes, and which of them hold which shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Roster {
    /// Of everything in the topology that the nodes of a site must agree on, up to this roster.
    pub digest: Digest,
    /// Strictly ascending by node.
    pub seats: Vec<Seat>,
    /// By shard: its members, strictly ascending, each of them on a seat.
    pub shards: Vec<Vec<NodeId>>,
}

impl Roster {
    /// The roster of a site that never changed: all nodes.
    #[must_use]
    pub fn founding(digest: Digest, nodes: &[NodeInfo], shards: &[ShardConfig]) -> Self {
        let seat = |(info, node): (&NodeInfo, u16)| Seat {
            node: NodeId(node),
            public_key: info.public_key,
        };
        Self {
            digest,
            seats: nodes.iter().zip(0..).map(seat).collect(),
            shards: shards.iter().map(|shard| shard.members.clone()).collect(),
        }
    }

    /// The members of a shard.
    pub(crate) fn shard(&self, shard: ShardIndex) -> &[NodeId] {
        &self.shards[shard.index()]
    }

    /// How many nodes a row has to have places for: those up to the last one that is seated. Later nodes of a longer topology
    /// file make no difference, for rows are laid out alike by all who run a view.
    pub(crate) fn places(&self) -> usize {
        self.seats.last().map_or(0, |seat| seat.node.index() + 1)
    }

    fn key(&self, node: NodeId) -> Option<&[u8; 32]> {
        let at = self.seats.binary_search_by_key(&node, |seat| seat.node).ok()?;
        Some(&self.seats[at].public_key)
    }

    /// Why it cannot be one.
    pub(crate) fn fault(&self, nodes: usize, shards: usize) -> Option<&'static str> {
        let seated = |node: &NodeId| self.key(*node).is_some();
        if self.seats.is_empty() || !self.seats.is_sorted_by(|a, b| a.node < b.node) {
            Some("its nodes must be one at least, in strictly ascending order")
        } else if self.seats.iter().any(|seat| seat.node.index() >= nodes) {
            Some("it has a node that is none of the site")
        } else if self.shards.len() != shards {
            Some("it has another number of shards")
        } else if self
            .shards
            .iter()
            .any(|shard| shard.is_empty() || !shard.is_sorted_by(|a, b| a < b))
        {
            Some("a shard must have one member at least, in strictly ascending order")
        } else if !self.shards.iter().flatten().all(seated) {
            Some("a member of a shard is not on it")
        } else {
            None
        }
    }
}

/// From which roster a view may come, and which it is of: it has majorities of all between the two, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) established: RosterId,
    pub(crate) roster: RosterId,
}

impl NodeConfig {
    pub(crate) fn roster(&self, id: RosterId) -> &Roster {
        &self.rosters[id.index()]
    }

    /// The last roster that the own topology file tells of.
    pub(crate) fn last(&self) -> RosterId {
        RosterId(self.rosters.len() as u32 - 1)
    }

    /// Whether a node is on a roster as the one that it is today: not removed, not to be added, not under another key.
    pub(crate) fn is_seated(&self, id: RosterId, node: NodeId) -> bool {
        let today = self.nodes.get(node.index()).map(|info| &info.public_key);
        today.is_some() && self.roster(id).key(node) == today
    }

    /// Whether these nodes are a majority of a roster.
    fn is_majority(&self, id: RosterId, of: &[NodeId]) -> bool {
        let there = of.iter().filter(|node| self.is_seated(id, **node)).count();
        there > self.roster(id).seats.len() / 2
    }

    /// Whether these nodes hold a majority of a shard, as a roster says.
    pub(crate) fn holds(&self, id: RosterId, shard: ShardIndex, of: &[NodeId]) -> bool {
        let members = self.roster(id).shard(shard);
        let here = members.iter().filter(|node| of.contains(node) && self.is_seated(id, **node));
        here.count() > members.len() / 2
    }

    /// Whether a shard runs in a view of these members: they hold a majority of it on each roster of the span.
    pub(crate) fn runs(&self, span: Span, shard: ShardIndex, members: &[NodeId]) -> bool {
        span.rosters().all(|id| self.holds(id, shard, members))
    }

    /// Whether these may be the members of a view: all on its roster, a majority of each roster of the span, and of
    /// each shard whose members are not the same on all of these.
    pub(crate) fn carries(&self, span: Span, members: &[NodeId]) -> bool {
        let known = span.established <= span.roster && span.roster <= self.last();
        known
            && members.iter().all(|node| self.is_seated(span.roster, *node))
            && span.rosters().all(|id| self.is_majority(id, members))
            && self
                .shard_indexes()
                .all(|shard| !self.is_changed(span, shard) || self.runs(span, shard, members))
    }

    /// Whether a shard has not the same members on all rosters of the span.
    fn is_changed(&self, span: Span, shard: ShardIndex) -> bool {
        let first = self.roster(span.established);
        span.rosters().any(|id| {
            let roster = self.roster(id);
            let (one, other) = (first.shard(shard), roster.shard(shard));
            one != other || one.iter().any(|node| first.key(*node) != roster.key(*node))
        })
    }

    /// Finds a promise that was made by a topology file which tells more than the present one, or something else.
    pub(crate) fn check_promise(&self, promise: &Promise) -> Result<(), ConfigError> {
        let (roster, digest) = (promise.roster, promise.digest);
        let known = self.rosters.get(roster.index()).map(|known| known.digest);
        // By a file without changes a key may have become another one: what is the same then is checked by peers.
        let same = known == Some(digest) || roster == RosterId(0);
        match same {
            true => Ok(()),
            false => Err(ConfigError::PromisedRoster { roster, is_known: known.is_some() }),
        }
    }

    /// The layout of the rows of views of a roster.
    pub(crate) fn layout(&self, id: RosterId) -> Layout {
        let (roster, limits) = (self.roster(id), &self.limits);
        let members = roster.shards.iter().map(|members| &members[..]);
        Layout::new(roster.places(), members, limits.ring_bytes, limits.bulk.ring_bytes)
    }

    pub(crate) fn shard_indexes(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..self.shards.len() as u16).map(ShardIndex)
    }
}

impl Span {
    fn rosters(self) -> impl Iterator<Item = RosterId> {
        (self.established.0..=self.roster.0).map(RosterId)
    }
}
