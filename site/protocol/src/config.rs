//! What a node is told at its start.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};
use tradewind_ledger::{Genesis, Member, SealLimits};
use tradewind_store::SnapshotRule;

use crate::bulk::FIRST_HEAD;
use crate::error::ConfigError;
use crate::ids::{Incarnation, NodeId, ShardIndex};
use crate::roster::{Roster, RosterId, Seat};

/// A node of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeInfo {
    /// Its name in the topology.
    pub name: String,
    /// Its Ed25519 public key.
    pub public_key: [u8; 32],
}

/// A shard of the site: a ledger, and the nodes that replicate it.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// The first entry of the ledger; it names the ledger and its members. Byte-identical at all
    /// nodes.
    pub genesis: Genesis,
    /// The members that it begins with, in the order of their ranks and of `genesis.members`: those of the first roster.
    /// Strictly ascending.
    pub members: Vec<NodeId>,
}

/// Commands that are longer than this may well go by the bulk lane ([`crate::Submission::lighten`]): as long as a
/// message.
pub const BULK_ABOVE: usize = 256 << 10;

/// The bulk lane: how large values travel.
#[derive(Clone, Debug)]
pub struct BulkLimits {
    /// Bytes of the bulk ring of each (node, shard); a multiple of 64. The same at all nodes.
    pub ring_bytes: usize,
    /// Most bytes that a block carries; with its head at most a quarter of the ring. The same at all nodes.
    pub block_bytes: usize,
    /// About how many bytes of blocks a member publishes in one turn, and takes from each peer: what a small message
    /// may have to wait for.
    pub turn_bytes: usize,
    /// Bytes of own bodies that may be on their way, or wait to be delivered; one command's are in any case.
    pub window_bytes: usize,
    /// Bytes that were taken and are not written yet; beyond it no more blocks are taken.
    pub unstaged_bytes: usize,
    /// How blocks get to all members; who leads a formation decides for its view.
    pub schedule: Schedule,
}

/// How blocks get to all members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Schedule {
    /// From their sender to all: right where one write serves all readers.
    Direct,
    /// From each member to the next one, in the order of ranks: right where each reader costs a write of its own.
    Chain,
}

impl Default for BulkLimits {
    fn default() -> Self {
        Self {
            ring_bytes: 512 << 10,
            block_bytes: 64 << 10,
            turn_bytes: 128 << 10,
            window_bytes: 256 << 20,
            unstaged_bytes: 8 << 20,
            schedule: Schedule::Chain,
        }
    }
}

/// Sizes, periods and bounds. [`Limits::default`] suits a node on a real machine.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the ring of each (node, shard); a multiple of 64.
    pub ring_bytes: usize,
    /// Most bytes of one message in a ring, its header not counted; at most a quarter of the ring.
    pub message_bytes: usize,
    /// The bulk lane.
    pub bulk: BulkLimits,
    /// Own messages of a shard that may be sent and not delivered: beyond it submissions wait and make
    /// the next message larger.
    pub outstanding_messages: usize,
    /// Most bytes of one submission's command.
    pub command_bytes: usize,
    /// Bytes of commands a shard may hold that are not yet delivered; beyond it submissions are refused.
    pub pending_bytes: usize,
    /// Submissions a shard may hold that are not yet delivered; beyond it submissions are refused.
    pub pending_submissions: usize,
    /// When segments are sealed. Bytes and entries count at delivery, on every replica alike; the times
    /// are watched by rank 0, which then sends an ordered seal request.
    pub seal: SealLimits,
    /// When the state is pinned for a snapshot, at the end of a segment. Each node makes its own.
    pub snapshots: SnapshotRule,
    /// Least time between two checkpoint marks of a shard, µs.
    pub mark_interval_us: u64,
    /// Period of the heartbeat counter, µs.
    pub heartbeat_us: u64,
    /// A peer whose heartbeat did not move for so long is disconnected and counts as missing, µs.
    pub silence_us: u64,
    /// A member that others of a shard have waited for so long, while it shows that it lives, is left out of the next view,
    /// if they are enough without it, µs. It is let in again after as long; twice as long each further time, until it
    /// stayed for sixteen times as long. At most sixteen times this.
    pub slow_us: u64,
    /// How long a node that starts waits for the others once a majority is there, µs; and how long a proposal may take
    /// before its leader goes on without those who are slow, if it can.
    pub formation_us: u64,
    /// A node that was left out of a view is let in again only after this long, µs; twice as long each further time,
    /// until it stayed for sixteen times as long. At most 64 times this. So a node that comes and goes stops views at a
    /// bounded rate.
    pub backoff_us: u64,
    /// What is known of other nodes is written down no more often than this while a view runs, µs.
    pub remember_us: u64,
    /// A sender whose stamp is ahead of the own wall clock by more than this is counted, µs.
    pub clock_skew_us: u64,
    /// Bytes delivered and not yet on the own disk; beyond it this node sends nothing and takes no more
    /// messages out of its peers' rings, which makes the senders wait in turn: a shard goes at the pace of its
    /// slowest disk. Heartbeats go on.
    pub backlog_bytes: usize,
    /// Bytes of one chunk of entries or of a detached value while catching up.
    pub chunk_bytes: usize,
    /// A node outside the running view is let in once it lacks no more than this of what was delivered, bytes of
    /// entries and detached values: so much is taken up while the view changes.
    pub lag_bytes: usize,
    /// And no more than an eighth of this, entries. A node that lacks more than all of it is left out of a view that
    /// can be made without it.
    pub lag_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            ring_bytes: 4 << 20,
            message_bytes: 256 << 10,
            bulk: BulkLimits::default(),
            outstanding_messages: 3,
            command_bytes: tradewind_store::MAX_COMMAND,
            pending_bytes: 256 << 20,
            pending_submissions: 65_536,
            seal: SealLimits::default(),
            snapshots: SnapshotRule::default(),
            mark_interval_us: 20_000,
            heartbeat_us: 100_000,
            silence_us: 3_000_000,
            slow_us: 5_000_000,
            formation_us: 3_000_000,
            backoff_us: 100_000,
            remember_us: 1_000_000,
            clock_skew_us: 500_000,
            backlog_bytes: 128 << 20,
            chunk_bytes: 512 << 10,
            lag_bytes: 512 << 10,
            lag_entries: 65_536,
        }
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let fault = |name, found: usize, allowed| {
            Err(ConfigError::Limit { name, found: found as u64, allowed })
        };
        if self.ring_bytes < 1024 || !self.ring_bytes.is_multiple_of(64) {
            return fault("ring_bytes", self.ring_bytes, "multiples of 64 from 1024");
        }
        if self.message_bytes < 64 || self.message_bytes > self.ring_bytes / 4 {
            return fault("message_bytes", self.message_bytes, "64 to a quarter of ring_bytes");
        }
        if self.outstanding_messages == 0 {
            return fault("outstanding_messages", 0, "1 or more");
        }
        if self.command_bytes > i32::MAX as usize {
            return fault("command_bytes", self.command_bytes, "less than 2 GiB");
        }
        let BulkLimits { ring_bytes, block_bytes, turn_bytes, .. } = self.bulk;
        if ring_bytes < 1024 || !ring_bytes.is_multiple_of(64) {
            return fault("bulk.ring_bytes", ring_bytes, "multiples of 64 from 1024");
        }
        if block_bytes == 0 || block_bytes + FIRST_HEAD > ring_bytes / 4 {
            return fault("bulk.block_bytes", block_bytes, "1 to a quarter of the ring, less 64");
        }
        if turn_bytes == 0 {
            return fault("bulk.turn_bytes", 0, "1 or more");
        }
        if self.chunk_bytes == 0 {
            return fault("chunk_bytes", 0, "1 or more");
        }
        Ok(())
    }
}

/// Everything that a node knows before it speaks to anybody.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This node.
    pub own: NodeId,
    /// All nodes that the site ever had or is to have, as far as the own topology file tells; `NodeId(i)` is the i-th.
    pub nodes: Vec<NodeInfo>,
    /// All shards of the site, also those that this node has no part in (their place in the rows is the
    /// same everywhere).
    pub shards: Vec<ShardConfig>,
    /// This start of the process.
    pub incarnation: Incarnation,
    /// Who of them is a member of the site, and of which shard: at its founding, and after each change that the own file
    /// tells of. Never empty. Peers whose file tells another story are refused.
    pub rosters: Vec<Roster>,
    /// Sizes, periods and bounds.
    pub limits: Limits,
}

impl NodeConfig {
    /// Finds what no node may start with.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let (own, nodes) = (self.own, self.nodes.len());
        if own.index() >= nodes {
            return Err(ConfigError::UnknownSelf { own, nodes });
        }
        self.shards.iter().try_for_each(|shard| self.check_shard(shard))?;
        let founding = self.rosters.first().map(|roster| &roster.shards);
        if !founding.is_some_and(|shards| shards.iter().eq(self.shards.iter().map(|s| &s.members)))
        {
            let problem = "the first one must have the shards' first members";
            return Err(ConfigError::Roster { roster: RosterId(0), problem });
        }
        for (roster, id) in self.rosters.iter().zip(0..) {
            if let Some(problem) = roster.fault(nodes, self.shards.len()) {
                return Err(ConfigError::Roster { roster: RosterId(id), problem });
            }
        }
        if !self.is_seated(self.last(), own) {
            let name = self.nodes[own.index()].name.clone();
            return Err(ConfigError::NotOnRoster { name, roster: self.last() });
        }
        self.limits.check()
    }

    /// The members of a shard on a roster, with the keys that they have there, as VIEW entries record them.
    pub(crate) fn records(&self, id: RosterId, shard: ShardIndex) -> Vec<Member> {
        let roster = self.roster(id);
        let seats = roster.seats.iter().filter(|seat| roster.shard(shard).contains(&seat.node));
        let member = |seat: &Seat| Member {
            name: self.nodes[seat.node.index()].name.clone(),
            public_key: seat.public_key,
        };
        seats.map(member).collect()
    }

    fn check_shard(&self, shard: &ShardConfig) -> Result<(), ConfigError> {
        let ledger = || shard.genesis.ledger.clone();
        let fault = |problem| ConfigError::Members { ledger: ledger(), problem };
        if shard.members.is_empty() || !shard.members.is_sorted_by(|a, b| a < b) {
            return Err(fault("there must be one at least, in strictly ascending order"));
        }
        if shard.members.len() != shard.genesis.members.len() {
            return Err(fault("the genesis names another number of them"));
        }
        for (node, member) in shard.members.iter().zip(&shard.genesis.members) {
            let Some(info) = self.nodes.get(node.index()) else {
                return Err(fault("one is not a node of the site"));
            };
            // Its key may be another one by now: the node was replaced.
            if info.name != member.name {
                return Err(fault("the genesis names others"));
            }
        }
        Ok(())
    }
}

/// Bugs that the simulator plants, to show that its checkers find them; only with the feature `mutations`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutation {
    /// Messages count as stable as soon as this node has them.
    OwnRowStability,
    /// Answers at level disk do not wait for any disk.
    AnswerBeforeSync,
    /// The own disk alone commits.
    OwnDiskCommits,
    /// An undecided round of a sender that is behind is taken for a null.
    NullsEarly,
    /// Rounds that others wait for are never given up.
    NullsForgotten,
    /// Each replica seals by its own clock.
    SealByLocalClock,
    /// A repeated request is executed again.
    RetryExecutedAgain,
    /// Marks are signed before they are durable anywhere.
    SignBeforeSync,
    /// Submissions that a stopped view did not deliver are forgotten.
    PendingForgotten,
    /// A node alone, or a few, install views.
    MinorityInstalls,
    /// The shortest log wins.
    ShortestLogWins,
    /// The longest log wins, whatever view it is of.
    LengthAloneWins,
    /// A member goes on delivering after it said what it has.
    DeliveryAfterStop,
    /// What a stopped view leaves is answered also where it made no entry.
    AnswersDrained,
    /// What is on disk at a majority is committed although the VIEW entry is not.
    CommitBeforeView,
    /// A lost peer is trusted again when it is back, and the view goes on.
    SuspicionTakenBack,
    /// A node that comes with less than it once had is taken for the one that it was.
    LostDiskTrusted,
    /// A node is let in before it learned, and waited for however much it lacks.
    AdmitsUnlearned,
    /// Nobody is told that somebody comes closer to a proposal.
    ProgressUntold,
    /// A ledger is cut one entry too far.
    RewindTooFar,
    /// A command is ordered when its sender alone holds its bodies.
    OrderedBeforeHeld,
    /// A barrier passes without any echo.
    BarrierUnechoed,
    /// The echo of the barrier before counts for one.
    BarrierOutrun,
    /// Who does not run the view any more echoes barriers.
    BarrierEchoedStopped,
    /// A read waits for what is delivered when its barrier is asked for, not for what is received.
    BarrierOfDelivered,
    /// A read does not wait for the committed state to cover what it waited for.
    BarrierUncommitted,
    /// A view of a new roster does not need a majority of the one before.
    NewRosterAlone,
    /// As many disks commit as are a majority of the founders.
    CommitOfFounders,
    /// A slow member is left out whether or not the others are enough without it.
    NeededLeftOut,
    /// Parts of a snapshot are kept as they come.
    PartsUnchecked,
}
