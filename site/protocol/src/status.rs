//! What a node says about itself.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use tradewind_ledger::{Hlc, LedgerId, Version, ViewId};

use crate::error::{Fatal, Refusal};
use crate::ids::{Instant, NodeId};
use crate::roster::RosterId;

/// What a node is doing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// No majority of the nodes can be reached: nothing is accepted or delivered until one is there.
    Minority {
        /// Who is not linked with this node, or with those that are.
        missing: Vec<NodeId>,
        /// Since when no view runs here.
        since: Instant,
    },
    /// A majority is there; logs are being compared and completed.
    Forming {
        /// Since when no view runs here.
        since: Instant,
    },
    /// A view runs without this node, which was away or too slow: it catches up and is admitted by the next one.
    Learning {
        /// The view that runs.
        view: ViewId,
        /// Since when no view runs here.
        since: Instant,
    },
    /// The view runs.
    Active,
    /// The node can not go on.
    Failed(Fatal),
}

/// One shard of the site, as this node sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStatus {
    /// Its ledger.
    pub ledger: LedgerId,
    /// Its members.
    pub members: Vec<NodeId>,
    /// The members that are not in the running view, if those that are hold no majority: the shard takes nothing
    /// until one of these is back. Empty otherwise.
    pub waiting_for: Vec<NodeId>,
    /// What this node has of it; absent when it is no member.
    pub replica: Option<ReplicaStatus>,
}

/// The replica of a shard at this node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplicaStatus {
    /// Entries executed.
    pub delivered: Version,
    /// Entries on the own disk.
    pub durable: Version,
    /// Entries on disk at a majority: what reads may show.
    pub committed: Version,
    /// Largest size that this node signed.
    pub signed: Version,
    /// Largest size that a majority signed.
    pub checkpoint: Version,
    /// Time of the last entry.
    pub hlc: Hlc,
    /// Messages received in this view from each member, by rank.
    pub received: Vec<u64>,
    /// How many of these were delivered, by rank.
    pub delivered_messages: Vec<u64>,
    /// Durable size of each member as last heard in this view, by rank.
    pub durable_at: Vec<Version>,
    /// Submissions not yet delivered.
    pub pending: usize,
    /// Bodies of each member that are whole and on the own disk, by rank, in this view.
    pub bodies_held: Vec<u64>,
    /// Bodies of each member that were named in its messages, by rank; of the own ones, that may be.
    pub bodies_named: Vec<u64>,
}

/// One other node of the site.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// Which.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether the link to it is up.
    pub connected: bool,
    /// Why its part in a view, or ours, is refused.
    pub refusal: Option<Refusal>,
    /// By how much the last stamp of it was ahead of the own clock, microseconds.
    pub clock_ahead_us: u64,
}

/// A node's view of the whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// The last installed view; zero before the first.
    pub view: ViewId,
    /// The roster of the site that it is of; before the first, of the last one promised.
    pub roster: RosterId,
    /// The last roster that the own topology file tells of.
    pub last_roster: RosterId,
    /// Its members.
    pub members: Vec<NodeId>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// All shards of the site.
    pub shards: Vec<ShardStatus>,
    /// Counters since the start.
    pub counters: Counters,
}

/// Declares counters: adding them up and listing them cannot forget one.
macro_rules! counters {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$doc:meta])* pub $field:ident: u64,)* }) => {
        $(#[$meta])*
        pub struct $name { $($(#[$doc])* pub $field: u64,)* }

        impl $name {
            /// Adds what another node, or another start, counted.
            pub fn add(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
            }

            /// All of them, by name.
            #[must_use]
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field),)*]
            }
        }
    };
}

counters! {
/// What happened since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Views installed.
    pub views: u64,
    /// Times a running view stopped because a node was lost, or to admit one.
    pub stalls: u64,
    /// Views proposed.
    pub proposals: u64,
    /// Views proposed by a node other than the lowest of the site.
    pub takeovers: u64,
    /// Views installed without all nodes.
    pub partial_views: u64,
    /// Proposals given up because they did not get through in time.
    pub abandoned: u64,
    /// Proposals refused because their number was used.
    pub outbid: u64,
    /// Proposals of an older roster than their members could have a view of.
    pub outdated: u64,
    /// Own proposals given up because two of their members lost the link to each other.
    pub parted: u64,
    /// Rosters of which a view was installed first, as far as this node knew.
    pub rosters: u64,
    /// Running views stopped to admit a node.
    pub admissions: u64,
    /// Times this node began to learn beside a view that ran without it.
    pub lessons: u64,
    /// Times it had learned all there was.
    pub learned: u64,
    /// Times it went on with another source, because one was lost or silent.
    pub sources_lost: u64,
    /// Proposals that got more time because somebody catches up for them.
    pub prolonged: u64,
    /// Times a node was left out of a view because it lacked much, or a proposal was given up for that.
    pub laggards: u64,
    /// Times a node was not let in yet because it had been left out a short while ago.
    pub backoffs: u64,
    /// Members that held a shard up in a view which ended, and could be spared.
    pub slow: u64,
    /// Messages delivered after their view stopped, because a majority went on.
    pub drained: u64,
    /// Ledgers compared with a peer's to find where they part.
    pub compared: u64,
    /// Ledgers that lost unacknowledged entries.
    pub rewinds: u64,
    /// Shards that a view left out for want of a majority of their members.
    pub suspended: u64,
    /// Starts that found a promise.
    pub promises_recovered: u64,
    /// Times what is known of other nodes was written down.
    pub remembered: u64,
    /// Reads that took a barrier.
    pub reads: u64,
    /// Barriers asked for.
    pub barriers: u64,
    /// Barriers of others echoed.
    pub echoes: u64,
    /// Messages sent.
    pub messages: u64,
    /// Commands delivered.
    pub commands: u64,
    /// Commands sent again in a later view.
    pub resent: u64,
    /// Null rounds delivered.
    pub nulls: u64,
    /// Times a ring wrapped.
    pub wraps: u64,
    /// Messages sent that hold a fragment of a command.
    pub fragments: u64,
    /// Own bodies that were begun to be sent by the bulk lane.
    pub bodies: u64,
    /// Bodies that were given up with their view, or because no entry came to name them.
    pub bodies_dropped: u64,
    /// Blocks published.
    pub blocks: u64,
    /// Of these, blocks of other members' bodies that were passed on.
    pub blocks_passed: u64,
    /// Blocks taken.
    pub blocks_taken: u64,
    /// Times a block had to wait for room in the own bulk ring.
    pub bulk_no_credit: u64,
    /// Times an own body had to wait for earlier ones to be delivered.
    pub bulk_window_waits: u64,
    /// Times a message had to wait for room in the own ring.
    pub no_credit: u64,
    /// Entries received from a peer while catching up.
    pub caught_up: u64,
    /// Detached values received while catching up.
    pub values_caught_up: u64,
    /// Segments sealed.
    pub seals: u64,
    /// Checkpoint marks delivered.
    pub marks: u64,
    /// Checkpoints with a majority of signatures.
    pub checkpoints: u64,
    /// Snapshots that the ledger was committed to.
    pub snapshots: u64,
    /// Parts of snapshots taken from peers, instead of entries that they pruned.
    pub parts_taken: u64,
    /// Parts that were refused: they were not what the ledger commits to.
    pub wrong_parts: u64,
    /// Ledgers that were begun anew with a peer's snapshot, without a restart of the process.
    pub planted: u64,
    /// Snapshots of peers that differed from the own ones of the same entries.
    pub snapshots_differ: u64,
    /// Messages whose stamp was too far ahead of the own clock.
    pub clock_ahead: u64,
    /// Signatures of peers that did not verify for the size they were published with.
    pub bad_signatures: u64,
    /// Control messages of an old view or incarnation, ignored.
    pub stale_messages: u64,
}
}
