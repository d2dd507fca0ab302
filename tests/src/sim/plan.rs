//! What a seed stands for: the site, its shards, its limits, the kinds of faults.

use std::time::Duration;

use tradewind_ledger::{Digest, Ed25519Signer, Genesis, LedgerId, Member, SealLimits, Signer};
use tradewind_site_protocol::{
    Incarnation, Limits, Mutation, NodeConfig, NodeId, NodeInfo, ShardConfig,
};

use super::rng::Rng;

/// Milliseconds and seconds in the simulator's microseconds.
pub(crate) const MS: u64 = 1_000;

/// The scenario of one run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) nodes: Vec<NodeInfo>,
    pub(crate) signers: Vec<Ed25519Signer>,
    pub(crate) shards: Vec<ShardConfig>,
    pub(crate) limits: Limits,
    pub(crate) clients: usize,
    pub(crate) requests_per_client: u64,
    /// Faults happen until here.
    pub(crate) faults_until: u64,
    /// Mean time between two faults; zero: none.
    pub(crate) fault_every: u64,
    /// One-way delay of a link: usual, and longest.
    pub(crate) delay: (u64, u64),
    /// Time of an fsync: usual, and longest.
    pub(crate) fsync: (u64, u64),
    /// Percent of requests with a command that does not fit one message.
    pub(crate) big_percent: u64,
    /// Percent of requests at durability memory.
    pub(crate) memory_percent: u64,
    /// Whether a majority alone has to make progress before the others come back.
    pub(crate) majority_first: bool,
    pub(crate) mutation: Option<Mutation>,
}

impl Plan {
    pub(crate) fn of_seed(seed: u64, mutation: Option<Mutation>) -> Self {
        let mut rng = Rng::new(seed);
        let count = *rng.pick(&[3, 3, 3, 4, 5, 5, 6, 7]);
        let signers: Vec<_> =
            (0..count).map(|i| Ed25519Signer::from_seed(&[(i as u8) + 1; 32])).collect();
        let nodes: Vec<_> = signers
            .iter()
            .enumerate()
            .map(|(i, signer)| NodeInfo { name: format!("n{i}"), public_key: signer.public_key() })
            .collect();
        let shards =
            (0..rng.range(1..4)).map(|shard| shard_of(&mut rng, shard as u32, &nodes)).collect();
        let ring_bytes = *rng.pick(&[1024, 2048, 16_384, 16_384]);
        let limits = Limits {
            ring_bytes,
            message_bytes: ring_bytes / *rng.pick(&[4, 4, 8]),
            outstanding_messages: rng.range(1..5) as usize,
            seal: SealLimits {
                bytes: *rng.pick(&[1_000, 5_000, 50_000]),
                entries: *rng.pick(&[5, 20, 200]),
                age: Duration::from_millis(rng.range(50..600)),
                heartbeat: Duration::from_millis(rng.range(500..1500)),
            },
            mark_interval_us: rng.range(20..100) * MS,
            heartbeat_us: 30 * MS,
            silence_us: rng.range(100..300) * MS,
            backoff_us: *rng.pick(&[5, 20]) * MS,
            formation_us: rng.range(120..300) * MS,
            remember_us: 50 * MS,
            chunk_bytes: *rng.pick(&[5_000, 20_000]),
            backlog_bytes: *rng.pick(&[2_000, 100_000]),
            pending_submissions: 64,
            ..Limits::default()
        };
        let usual = rng.range(100..1500);
        let fsync = rng.range(100..3000);
        Self {
            nodes,
            signers,
            shards,
            limits,
            clients: rng.range(2..9) as usize,
            requests_per_client: rng.range(10..50),
            faults_until: rng.range(300..2000) * MS,
            fault_every: *rng.pick(&[0, 60, 150, 300]) * MS,
            delay: (usual, (usual * *rng.pick(&[2, 10, 40])).min(12 * MS)),
            fsync: (fsync, fsync * *rng.pick(&[2, 10, 50])),
            big_percent: *rng.pick(&[0, 5, 20]),
            memory_percent: *rng.pick(&[0, 10, 50]),
            majority_first: rng.percent(40),
            mutation,
        }
    }

    pub(crate) fn config(&self, own: NodeId, incarnation: u64) -> NodeConfig {
        NodeConfig {
            own,
            nodes: self.nodes.clone(),
            shards: self.shards.clone(),
            incarnation: Incarnation(incarnation),
            topology_digest: Digest([7; 32]),
            limits: self.limits.clone(),
        }
    }

    pub(crate) fn members(&self, shard: usize) -> &[NodeId] {
        &self.shards[shard].members
    }
}

/// A shard on a random subset of the nodes, mostly three or more of them.
fn shard_of(rng: &mut Rng, shard: u32, nodes: &[NodeInfo]) -> ShardConfig {
    let least = if rng.percent(85) { 3 } else { 1 };
    let size = rng.range(least..nodes.len() as u64 + 1) as usize;
    let mut members: Vec<NodeId> = (0..nodes.len()).map(|i| NodeId(i as u16)).collect();
    while members.len() > size {
        members.remove(rng.index(members.len()));
    }
    let record = |node: &NodeId| {
        let NodeInfo { name, public_key } = nodes[node.index()].clone();
        Member { name, public_key }
    };
    let genesis = Genesis {
        deployment: "sim".into(),
        site: "ams".into(),
        ledger: LedgerId::new("flights", shard).expect("a valid name"),
        members: members.iter().map(record).collect(),
    };
    ShardConfig { genesis, members }
}
