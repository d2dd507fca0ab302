//! The sites that are explored: who the nodes are, and sizes and periods that keep states few.

use std::time::Duration;

use tradewind_ledger::{Digest, Ed25519Signer, Genesis, LedgerId, Member, SealLimits, Signer};
use tradewind_site_protocol::{
    BulkLimits, Incarnation, Limits, NodeConfig, NodeId, NodeInfo, Roster, Schedule, Seat,
    ShardConfig,
};

/// Far beyond what any path takes, and the time between a GENESIS entry and the next, microseconds.
const NEVER: u64 = 1 << 56;
/// How long a peer may be silent. Heartbeats and hellos come each quarter of it.
const SILENCE_US: u64 = 3_000_000;

/// A site with one shard on all its nodes.
#[derive(Clone, Debug)]
pub(super) struct Site {
    nodes: Vec<NodeInfo>,
    shard: ShardConfig,
    rosters: Vec<Roster>,
}

impl Site {
    /// The nodes of each roster in turn, the first ones from 0 on.
    pub(super) fn new(rosters: &[&[u16]]) -> Self {
        let all = rosters.iter().flat_map(|roster| *roster).max().expect("a node") + 1;
        let info = |node: u16| {
            let seed = [node as u8 + 1; 32];
            let public_key = Ed25519Signer::from_seed(&seed).public_key();
            NodeInfo { name: format!("a{}", node + 1), public_key }
        };
        let nodes: Vec<NodeInfo> = (0..all).map(info).collect();
        let founders: Vec<NodeId> = rosters[0].iter().copied().map(NodeId).collect();
        let record = |node: &NodeId| {
            let NodeInfo { name, public_key } = nodes[node.index()].clone();
            Member { name, public_key }
        };
        let genesis = Genesis {
            deployment: "explored".into(),
            site: "ams".into(),
            ledger: LedgerId::new("flights", 0).expect("a name"),
            members: founders.iter().map(record).collect(),
        };
        let shard = ShardConfig { genesis, members: founders };
        let roster = |(members, number): (&&[u16], u8)| Roster {
            digest: Digest([number + 1; 32]),
            seats: members
                .iter()
                .map(|node| Seat {
                    node: NodeId(*node),
                    public_key: nodes[usize::from(*node)].public_key,
                })
                .collect(),
            shards: vec![members.iter().copied().map(NodeId).collect()],
        };
        let rosters = rosters.iter().zip(0..).map(roster).collect();
        Self { nodes, shard, rosters }
    }

    /// How many nodes there ever are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The nodes of a roster, which all hold the shard.
    pub(super) fn members(&self, roster: usize) -> &[NodeId] {
        &self.rosters[roster].shards[0]
    }

    /// The last roster.
    pub(super) fn last(&self) -> usize {
        self.rosters.len() - 1
    }

    /// What a node starts with whose topology file tells of the rosters up to `file`.
    pub(super) fn config(&self, own: NodeId, file: usize, incarnation: u64) -> NodeConfig {
        let rosters = self.rosters[..=file].to_vec();
        let seats = rosters.iter().flat_map(|roster| &roster.seats);
        let known = seats.map(|seat| seat.node.index() + 1).max().expect("a node");
        NodeConfig {
            own,
            nodes: self.nodes[..known].to_vec(),
            rosters,
            shards: vec![self.shard.clone()],
            incarnation: Incarnation(incarnation),
            limits: limits(),
        }
    }
}

/// Small rows, and nothing that comes by time alone but hellos, heartbeats and the ends of proposals.
fn limits() -> Limits {
    let never = Duration::from_micros(NEVER);
    let bulk = BulkLimits {
        ring_bytes: 1024,
        block_bytes: 128,
        schedule: Schedule::Direct,
        ..BulkLimits::default()
    };
    Limits {
        ring_bytes: 1024,
        message_bytes: 256,
        bulk,
        seal: SealLimits { age: never, heartbeat: never, ..SealLimits::default() },
        mark_interval_us: NEVER,
        heartbeat_us: SILENCE_US / 4,
        silence_us: SILENCE_US,
        formation_us: SILENCE_US,
        backoff_us: 0,
        remember_us: 0,
        ..Limits::default()
    }
}
