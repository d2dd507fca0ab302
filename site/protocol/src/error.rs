//! Everything that can be refused or go wrong, with what was found and what is allowed.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tradewind_ledger::{Digest, LedgerId, Lineage, Version, ViewId};

use crate::ids::{NodeId, ShardIndex};
use crate::roster::RosterId;

/// A configuration or recovered state that no node may start with.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The own id is not in the list of nodes.
    #[error("{own} is not one of the site's {nodes} nodes")]
    UnknownSelf {
        /// The own id.
        own: NodeId,
        /// Number of nodes.
        nodes: usize,
    },
    /// Members must be strictly ascending ids of the site's nodes and be those that the genesis names.
    #[error("members of {ledger}: {problem}")]
    Members {
        /// The ledger.
        ledger: LedgerId,
        /// What is wrong.
        problem: &'static str,
    },
    /// A limit is out of its range.
    #[error("limit {name} is {found}; allowed: {allowed}")]
    Limit {
        /// Its name.
        name: &'static str,
        /// Its value.
        found: u64,
        /// Its range in words.
        allowed: &'static str,
    },
    /// The genesis of a shard can not be encoded.
    #[error("genesis of {ledger}: {problem}")]
    Genesis {
        /// The ledger.
        ledger: LedgerId,
        /// What the encoder said.
        problem: String,
    },
    /// The ledger on disk began with another genesis.
    #[error(
        "{ledger} on disk is of lineage {found}, the topology's genesis gives {expected}: this is the data of another deployment, or its members' keys changed"
    )]
    Lineage {
        /// The ledger.
        ledger: LedgerId,
        /// On disk.
        found: Lineage,
        /// By the topology.
        expected: Lineage,
    },
    /// The topology's changes of the site's nodes cannot be followed.
    #[error("roster {}: {problem}", .roster.0)]
    Roster {
        /// Which.
        roster: RosterId,
        /// What is wrong.
        problem: &'static str,
    },
    /// The own node was removed, or is not yet added, or is there under another key.
    #[error(
        "{name} is not on the site's roster {}, the last one of the topology file: it was removed. Take the file of the site that it is of, or start it no more",
        .roster.0
    )]
    NotOnRoster {
        /// The own name.
        name: String,
        /// The last roster.
        roster: RosterId,
    },
    /// The node took part in what its topology file does not tell of, or tells otherwise.
    #[error(
        "this node took part in the site's roster {}, of which its topology file says {}: give it the file that the other nodes have",
        .roster.0,
        if *.is_known { "something else" } else { "nothing" }
    )]
    PromisedRoster {
        /// Which.
        roster: RosterId,
        /// Whether the file has one of that number.
        is_known: bool,
    },
    /// `recovered` must hold one item for each shard that the own node is a member of, in their order.
    #[error("{found} recovered shards were given, the node is a member of {expected}")]
    Recovered {
        /// Given.
        found: usize,
        /// Member of.
        expected: usize,
    },
}

/// A submission that was not accepted: definitely not executed, it may be tried again anywhere.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Refused {
    /// No view runs here, or not enough members of the shard are in it.
    #[error("unavailable: waiting for {}", Names(waiting_for))]
    Unavailable {
        /// Whom the group waits for; empty while all are connected and agree on a view.
        waiting_for: Vec<String>,
    },
    /// No such shard.
    #[error("{0} does not exist")]
    UnknownShard(ShardIndex),
    /// The own node does not replicate the shard.
    #[error("this node is no member of {ledger}; its members are {}", Names(members))]
    NotMember {
        /// The ledger.
        ledger: LedgerId,
        /// Who is.
        members: Vec<String>,
    },
    /// The command is too long.
    #[error("the command has {len} bytes; at most {allowed} are allowed")]
    TooLarge {
        /// Its length.
        len: usize,
        /// The bound.
        allowed: usize,
    },
    /// Too much is waiting; try again after some answers came.
    #[error("{submissions} submissions of {bytes} bytes are waiting; no more are taken for now")]
    Busy {
        /// Submissions waiting.
        submissions: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The node failed and waits for its end.
    #[error("the node failed: {0}")]
    Failed(Box<Fatal>),
}

/// A peer that does what no correct peer does, or is silent. Its connection is broken.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// Its heartbeat does not move.
    #[error("no heartbeat for {0} us")]
    Silent(u64),
    /// Its ring or counters make no sense.
    #[error("row of {shard}: {problem}")]
    Row {
        /// The shard.
        shard: ShardIndex,
        /// What is wrong.
        problem: &'static str,
    },
    /// A control message that can not be decoded or does not fit.
    #[error("control message: {0}")]
    Message(&'static str),
}

/// Why a peer's or the own part in a view is refused; sent to the peer, shown in status.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Refusal {
    /// The topologies differ.
    #[error(
        "topology digest {theirs} differs from {ours}: give all nodes of the site the same topology file"
    )]
    Topology {
        /// Of the node that refuses.
        ours: Digest,
        /// Of the node that is refused.
        theirs: Digest,
    },
    /// A ledger of another lineage.
    #[error("{ledger} is of lineage {theirs}, here it is {ours}: data of another deployment")]
    Lineage {
        /// The ledger.
        ledger: LedgerId,
        /// Of the node that refuses.
        ours: Lineage,
        /// Of the node that is refused.
        theirs: Lineage,
    },
    /// The ledgers of two nodes differ.
    #[error("{0}")]
    Divergence(Box<Divergence>),
    /// The sender has less than it once had.
    #[error("{0}")]
    LostData(Box<LostData>),
    /// The sender's topology file ends before the roster that views are made of by now.
    #[error(
        "the site goes by roster {}, this node's topology file ends with roster {}: give it the newer file and restart it",
        .ours.0, .theirs.0
    )]
    OldRoster {
        /// That the refusing node has promised a view of.
        ours: RosterId,
        /// The last one of the node that is refused.
        theirs: RosterId,
    },
    /// The sender was removed.
    #[error(
        "{name} is no node of the site any more, since roster {}: start it no more; to have it again, add it under another name with `tradewind node add`",
        .roster.0
    )]
    Removed {
        /// The node.
        name: String,
        /// A roster in force without it.
        roster: RosterId,
    },
}

impl Refusal {
    /// Whether it says that the node of this name was removed.
    pub(crate) fn is_of(&self, own: &str) -> bool {
        matches!(self, Self::Removed { name, .. } if name == own)
    }
}

/// A node that comes with less than it once had on its disk: what it promised and acknowledged does not count any more.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
#[error(
    "{name} {loss}: its data was lost, or is a copy from before. Give it the right data directory back, or a new identity with `tradewind node replace {name}`"
)]
pub struct LostData {
    /// The node.
    pub name: String,
    /// What it lacks.
    pub loss: Loss,
}

/// What a node lacks that it once had.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
pub enum Loss {
    /// Starts of its process.
    #[error("is at its start number {found}, but was at number {known} already")]
    Incarnation {
        /// Told now.
        found: u64,
        /// Told before.
        known: u64,
    },
    /// Views that it promised.
    #[error("knows of view {found} at most, but was in view {known}")]
    View {
        /// Told now.
        found: ViewId,
        /// Of a view that was installed.
        known: ViewId,
    },
    /// Acknowledged entries.
    #[error("has {found} entries of {ledger}, but had {known} acknowledged ones on its disk")]
    Entries {
        /// The ledger.
        ledger: LedgerId,
        /// Told now.
        found: Version,
        /// Told before.
        known: Version,
    },
}

/// Two replicas hold different histories. Never resolved by guessing.
#[derive(Clone, PartialEq, Eq, Debug, Error, Serialize, Deserialize)]
#[error(
    "{ledger} diverged at size {size}: root {root} at {name}, root {other_root} at {other_name}; find the node that lost or changed data with `audit verify`, and restore it from a peer"
)]
pub struct Divergence {
    /// The ledger.
    pub ledger: LedgerId,
    /// The size that was compared.
    pub size: Version,
    /// One node.
    pub name: String,
    /// Its root.
    pub root: Digest,
    /// The other node.
    pub other_name: String,
    /// Its root.
    pub other_root: Digest,
}

/// Two snapshots of the same entries that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotsDiffer {
    /// Entries that both are of.
    pub size: Version,
    /// The root of the one made here.
    pub root: Digest,
    /// The root that was agreed on, or that a peer told.
    pub agreed: Digest,
}

/// The node can not go on.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum Fatal {
    /// Replicas differ.
    #[error("{0}")]
    Divergence(Box<Divergence>),
    /// Another node remembers more of this one than it has.
    #[error("{by} refuses this node: {lost}")]
    LostData {
        /// Who remembers.
        by: String,
        /// What is missing.
        lost: Box<LostData>,
    },
    /// The node was removed from the site.
    #[error("{by} refuses this node: {refusal}")]
    Removed {
        /// Who says so.
        by: String,
        /// In words.
        refusal: Box<Refusal>,
    },
    /// A ledger would have to be cut below what is acknowledged.
    #[error(
        "{ledger} parts at {common} from what the others agreed on, but {committed} entries of it are acknowledged; some node lost or changed data: find it with `audit verify`, and restore it from a peer"
    )]
    Rewind {
        /// The ledger.
        ledger: LedgerId,
        /// The size of the common beginning.
        common: Version,
        /// What was on disk at a majority.
        committed: Version,
    },
    /// The own state is not what a majority made of the same entries.
    #[error(
        "the state of {ledger} after {} entries has root {} here, but a majority of its members agreed on {}: this node computed or kept it wrongly. \
         Remove its snapshots of that ledger from {} on and start it again, so that it computes the state anew; if that does not help, its memory or disk is faulty: replace the machine, with `tradewind node replace`",
        .differ.size, .differ.root, .differ.agreed, .differ.size
    )]
    State {
        /// The ledger.
        ledger: LedgerId,
        /// What differs.
        differ: SnapshotsDiffer,
    },
    /// A peer's entries do not continue the own ledger.
    #[error("entries from {peer} do not continue {ledger} at {at}: {problem}")]
    CatchUp {
        /// The peer.
        peer: String,
        /// The ledger.
        ledger: LedgerId,
        /// Where.
        at: Version,
        /// What the check said.
        problem: String,
    },
}

/// Shows a list of names.
struct Names<'a>(&'a [String]);

impl core::fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("agreement on the next view");
        }
        for (i, name) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}
