//! What a seed stands for: the site, its shards, its limits, the kinds of faults.

use std::collections::BTreeSet;
use std::time::Duration;

use tradewind_ledger::{Digest, Ed25519Signer, Genesis, LedgerId, Member, SealLimits, Signer};
use tradewind_site_protocol::{
    BulkLimits, Incarnation, Limits, NodeConfig, NodeId, NodeInfo, Roster, Schedule, ShardConfig,
};
use tradewind_store::snapshot::SnapshotRule;

use super::points::Injection;
use super::rng::Rng;
use super::script::{Scene, Script, stalls};
use super::{Late, Planted};

/// Milliseconds and seconds in the simulator's microseconds.
pub(crate) const MS: u64 = 1_000;

/// Commands beyond this go by the bulk lane.
pub(crate) const BULK_ABOVE: usize = 33_000;

/// A node does not keep up for a while: it gets little of its processor, or its disk stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    pub(crate) node: NodeId,
    pub(crate) at: u64,
    pub(crate) until: u64,
    pub(crate) disk: bool,
}

/// The scenario of one run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// All that there ever are, each with its first key.
    pub(crate) nodes: Vec<NodeInfo>,
    /// The founders', then one for each change of the nodes; and when each change is made.
    pub(crate) rosters: Vec<Roster>,
    pub(crate) changes_at: Vec<u64>,
    pub(crate) signers: Vec<Ed25519Signer>,
    pub(crate) shards: Vec<ShardConfig>,
    pub(crate) limits: Limits,
    pub(crate) clients: usize,
    pub(crate) requests_per_client: u64,
    pub(crate) readers: usize,
    pub(crate) reads_per_reader: u64,
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
    /// Percent of requests with a value that goes by the bulk lane; and how long it is at most.
    pub(crate) bulk_percent: u64,
    pub(crate) bulk_bytes: u64,
    /// Percent of requests at durability memory.
    pub(crate) memory_percent: u64,
    /// Whether a majority alone has to make progress before the others come back.
    pub(crate) majority_first: bool,
    /// Whether all faults are veils.
    pub(crate) veiled: bool,
    /// Whether the last node starts late.
    pub(crate) late: Option<Late>,
    /// Who does not keep up, and when.
    pub(crate) slow: Vec<Slow>,
    /// Whether what lies before the older of two snapshots is pruned, and how many parts of snapshots are damaged on
    /// their way, percent.
    pub(crate) prunes: bool,
    pub(crate) damage_percent: u64,
    /// What is laid down.
    pub(crate) scenes: Vec<Scene>,
    /// Where nodes crash.
    pub(crate) injections: Vec<Injection>,
    /// Whether nothing that is not synced is on a disk after a crash; otherwise any part of it may be.
    pub(crate) crashes_keep_least: bool,
    /// How long a client waits at most before its next request.
    pub(crate) think_us: u64,
    pub(crate) planted: Option<Planted>,
}

impl Plan {
    pub(crate) fn of_seed(seed: u64, planted: Option<Planted>) -> Self {
        let mut rng = Rng::new(seed);
        let count = *rng.pick(&[3, 3, 3, 4, 5, 5, 6, 7]);
        let signers: Vec<_> = (0..count).map(signer).collect();
        let nodes: Vec<_> = signers.iter().enumerate().map(info).collect();
        let shards: Vec<_> =
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
            snapshots: SnapshotRule::every(*rng.pick(&[2_000, 20_000, 1 << 30])),
            mark_interval_us: rng.range(20..100) * MS,
            heartbeat_us: 30 * MS,
            silence_us: rng.range(100..300) * MS,
            backoff_us: *rng.pick(&[5, 20]) * MS,
            formation_us: rng.range(20..300) * MS,
            remember_us: 50 * MS,
            chunk_bytes: *rng.pick(&[100, 300, 1_000, 5_000, 20_000]),
            lag_bytes: *rng.pick(&[300, 3_000, 100_000]),
            lag_entries: *rng.pick(&[16, 80, 4_000]),
            backlog_bytes: *rng.pick(&[2_000, 100_000]),
            pending_submissions: 64,
            ..Limits::default()
        };
        let mut limits = limits;
        let block_bytes = *rng.pick(&[1_500, 4_000, 12_000]);
        limits.bulk = BulkLimits {
            ring_bytes: (block_bytes + 64) * *rng.pick(&[5, 8]) / 64 * 64,
            block_bytes,
            turn_bytes: block_bytes * *rng.pick(&[1, 4]),
            window_bytes: *rng.pick(&[50_000, 200_000]),
            unstaged_bytes: *rng.pick(&[2_000, 50_000]),
            schedule: *rng.pick(&[Schedule::Direct, Schedule::Chain]),
        };
        // What goes by the lane in one piece may have to be fetched in many.
        let small_chunks = limits.chunk_bytes < 1_000;
        // Of its own, so that seeds keep their other faults.
        let mut of_snapshots = Rng::new(seed ^ 0x5eed_54a9);
        // In the others snapshots are made now and then, and nothing is pruned.
        let often = of_snapshots.percent(60).then(|| *of_snapshots.pick(&[100, 500, 3_000]));
        let limits = match often {
            None => limits,
            Some(bytes) => {
                Limits { snapshots: SnapshotRule { bytes, entries: (bytes / 50).max(1) }, ..limits }
            }
        };
        let prunes = often.is_some() && of_snapshots.percent(80);
        // So that who was away for long comes back, and lacks what is gone, while things go wrong.
        let longer = if prunes { 1_500 * MS } else { 0 };
        let usual = rng.range(100..1500);
        let fsync = rng.range(100..3000);
        Self {
            rosters: vec![founding(&nodes, &shards)],
            changes_at: Vec::new(),
            nodes,
            signers,
            shards,
            limits,
            clients: rng.range(2..9) as usize,
            requests_per_client: rng.range(10..50),
            readers: 1 + seed as usize % 3,
            reads_per_reader: 20 + seed / 3 % 60,
            faults_until: rng.range(300..2000) * MS + longer,
            fault_every: *rng.pick(&[0, 60, 150, 300]) * MS,
            delay: (usual, (usual * *rng.pick(&[2, 10, 40])).min(12 * MS)),
            fsync: (fsync, fsync * *rng.pick(&[2, 10, 50])),
            big_percent: *rng.pick(&[0, 5, 20]),
            bulk_percent: *rng.pick(if small_chunks { &[0, 2] } else { &[0, 2, 10] }),
            bulk_bytes: if small_chunks { 34_000 } else { *rng.pick(&[34_000, 90_000]) },
            memory_percent: *rng.pick(&[0, 10, 50]),
            majority_first: rng.percent(40),
            veiled: false,
            late: None,
            slow: Vec::new(),
            prunes,
            damage_percent: *of_snapshots.pick(&[0, 10, 30]),
            scenes: Vec::new(),
            injections: Vec::new(),
            crashes_keep_least: false,
            think_us: 3 * MS,
            planted,
        }
    }

    /// Three nodes with one shard, no faults, and small chunks; clients are at work until some time after the last node
    /// started.
    pub(crate) fn with_late(seed: u64, late: Late, planted: Option<Planted>) -> Self {
        let mut plan = Self::of_seed(seed, planted);
        let mut rng = Rng::new(seed);
        plan.of_three(&mut rng);
        (plan.limits.snapshots, plan.prunes) =
            (SnapshotRule { bytes: u64::MAX, entries: u64::MAX }, false);
        plan.limits.chunk_bytes = 100;
        plan.limits.lag_entries = 4_000;
        plan.limits.lag_bytes = 3_000;
        plan.limits.formation_us = 20 * MS;
        // So that the silence ends no link, and hellos come often enough.
        plan.limits.silence_us = 200 * MS;
        (plan.delay, plan.fsync) = ((300, 1_500), (500, 3_000));
        (plan.clients, plan.big_percent, plan.memory_percent) = (8, 0, 0);
        plan.bulk_percent = 0;
        plan.readers = 0;
        plan.requests_per_client = late.after_us / (4 * MS) + 300;
        (plan.faults_until, plan.fault_every, plan.majority_first) = (0, 0, false);
        plan.late = Some(late);
        plan
    }

    /// Three or five nodes, one shard on three of them, quick disks, many reads; what goes wrong is that nodes do not hear
    /// of what others do.
    pub(crate) fn with_veils(seed: u64, planted: Option<Planted>) -> Self {
        let mut plan = Self::of_seed(seed, planted);
        let mut rng = Rng::new(seed);
        let count = *rng.pick(&[3, 5]);
        plan.signers = (0..count).map(signer).collect();
        plan.nodes = plan.signers.iter().enumerate().map(info).collect();
        plan.shard_of_three(&mut rng);
        plan.limits.formation_us = 20 * MS;
        plan.limits.silence_us = 300 * MS;
        plan.limits.backoff_us = 5 * MS;
        (plan.delay, plan.fsync) = ((200, 1_000), (100, 500));
        (plan.clients, plan.requests_per_client) = (8, 150);
        (plan.big_percent, plan.memory_percent, plan.majority_first) = (0, 0, false);
        (plan.readers, plan.reads_per_reader) = (8, 200);
        (plan.bulk_percent, plan.limits.snapshots) = (0, SnapshotRule::default());
        (plan.faults_until, plan.fault_every, plan.veiled) = (2_000 * MS, 100 * MS, true);
        plan
    }

    /// The same, where members are found slow after a short time; in some runs there are such, too.
    pub(crate) fn with_slow_ones(mut self, seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed_9ace);
        self.limits.slow_us = *rng.pick(&[300, 300, 1_000, 5_000]) * MS;
        if self.fault_every == 0 || self.veiled || !rng.percent(40) {
            return self;
        }
        // Who is behind with what it reads has not fallen silent, nor have the others at it.
        self.limits.silence_us = 400 * MS;
        self.limits.backlog_bytes = 2_000;
        let slow = |_| {
            let (node, disk) = (NodeId(rng.index(self.nodes.len()) as u16), rng.percent(50));
            let at = rng.range(50 * MS..self.faults_until);
            Slow { node, at, until: at + rng.range(500 * MS..3_000 * MS), disk }
        };
        self.slow = (0..3).map(slow).collect();
        self
    }

    /// Three nodes with one shard and no fault but this: the disk of the last one stands still again and again. `needed`:
    /// there is another shard, on the first and the last node alone.
    pub(crate) fn with_stalls(
        seed: u64,
        times: usize,
        needed: bool,
        planted: Option<Planted>,
    ) -> Self {
        let late = Late { after_us: 0, needed: false };
        let mut plan = Self::with_late(seed, late, planted);
        plan.late = None;
        plan.limits.slow_us = 300 * MS;
        plan.limits.chunk_bytes = 5_000;
        plan.limits.backlog_bytes = 2_000;
        let (for_us, every_us) = (600 * MS, 750 * MS);
        plan.scenes = stalls(NodeId(2), (times, for_us, every_us));
        plan.faults_until = times as u64 * every_us;
        (plan.clients, plan.think_us) = (3, 20 * MS);
        plan.requests_per_client = plan.faults_until / (25 * MS);
        if needed {
            // So that the first shard has much to do although the other waits for that disk.
            (plan.clients, plan.limits.backlog_bytes) = (12, 100);
            plan.shards.push(shard_on(1, &[NodeId(0), NodeId(2)], &plan.nodes));
            plan.rosters = vec![founding(&plan.nodes, &plan.shards)];
        }
        plan
    }

    /// Three nodes with one shard, no faults but those that the script lays down, and as little as possible of anything else.
    pub(crate) fn of_script(script: Script, seed: u64, planted: Option<Planted>) -> Self {
        let mut plan = Self::of_seed(seed, planted);
        plan.of_three(&mut Rng::new(seed));
        plan.limits.chunk_bytes = 300;
        plan.limits.lag_entries = 16;
        plan.limits.lag_bytes = 300;
        plan.limits.formation_us = 40 * MS;
        plan.limits.silence_us = 200 * MS;
        (plan.delay, plan.fsync) = ((300, 1_500), (500, 3_000));
        (plan.clients, plan.big_percent, plan.memory_percent) = (6, 0, 0);
        (plan.readers, plan.bulk_percent) = (0, 0);
        (plan.requests_per_client, plan.think_us) = (6, 40 * MS);
        (plan.fault_every, plan.majority_first, plan.crashes_keep_least) = (0, false, true);
        // Their history stays whole, whatever a seed prunes.
        (plan.limits.snapshots, plan.prunes) = (SnapshotRule::every(2_000), false);
        let (scenes, until) = script.scenes();
        (plan.scenes, plan.faults_until) = (scenes, until);
        plan
    }

    fn of_three(&mut self, rng: &mut Rng) {
        self.nodes.truncate(3);
        self.signers.truncate(3);
        self.shard_of_three(rng);
    }

    fn shard_of_three(&mut self, rng: &mut Rng) {
        self.shards = vec![loop {
            let shard = shard_of(rng, 0, &self.nodes);
            if shard.members.len() == 3 {
                break shard;
            }
        }];
        self.rosters = vec![founding(&self.nodes, &self.shards)];
    }

    /// What a node is told by a topology file that ends with a roster.
    pub(crate) fn config(&self, own: NodeId, file: usize, incarnation: u64) -> NodeConfig {
        let rosters = self.rosters[..=file].to_vec();
        let known = rosters.iter().flat_map(|r| &r.seats).map(|seat| seat.node.index() + 1);
        let known = (0..known.max().expect("a node") as u16).map(NodeId);
        let info = |node: NodeId| NodeInfo {
            public_key: self.key(node, file).expect("it is on a roster by then"),
            ..self.nodes[node.index()].clone()
        };
        NodeConfig {
            own,
            nodes: known.map(info).collect(),
            rosters,
            shards: self.shards.clone(),
            incarnation: Incarnation(incarnation),
            limits: self.limits.clone(),
        }
    }

    /// How long it may take to fetch so many entries of so many bytes, values included, chunk by chunk.
    pub(crate) fn transfer_us(&self, entries: u64, bytes: u64) -> u64 {
        let pieces = entries + bytes / self.limits.chunk_bytes as u64;
        let (usual, longest) = self.delay;
        // Mostly there and back, a read, and the own disk now and then.
        pieces * (4 * usual + longest / 4 + 3 * MS) + longest + 4 * self.fsync.1
    }

    /// How long the change of a view that lets a node in may take while nothing goes wrong. There is nothing of the
    /// state's size in it: only what a node may lack when it is let in, and what may be under way.
    pub(crate) fn join_pause_us(&self) -> u64 {
        let limits = &self.limits;
        // Each client has one request, perhaps sent again; some entries come by themselves.
        let under_way = 2 * self.clients as u64 + 10;
        let largest = match (self.bulk_percent, self.big_percent) {
            (0, 0) => 500,
            (0, _) => 33_500.max(4 * limits.message_bytes as u64),
            _ => self.bulk_bytes.max(4 * limits.message_bytes as u64),
        };
        // What is told to be near is told at the end of a batch.
        let bytes = limits.lag_bytes as u64 + under_way * largest;
        let entries = limits.lag_entries / 8 + under_way;
        // Hello, proposal, acceptance and commit, each with the wait of a turn; the disks twice, the promise.
        let rounds = 6 * (self.delay.1 + MS) + 4 * self.fsync.1;
        rounds + limits.formation_us + self.transfer_us(entries, bytes)
    }

    /// The members of a shard on a roster.
    pub(crate) fn members(&self, shard: usize, roster: usize) -> &[NodeId] {
        &self.rosters[roster].shards[shard]
    }

    /// Who is a member of a shard at any time.
    pub(crate) fn ever(&self, shard: usize) -> Vec<NodeId> {
        let all: BTreeSet<_> = self.rosters.iter().flat_map(|r| &r.shards[shard]).collect();
        all.into_iter().copied().collect()
    }

    /// Whether a shard has one member alone at any time.
    pub(crate) fn is_ever_alone(&self, shard: usize) -> bool {
        self.rosters.iter().any(|roster| roster.shards[shard].len() == 1)
    }

    pub(crate) fn last_roster(&self) -> usize {
        self.rosters.len() - 1
    }

    /// The key under which a node is known by a topology file that ends with this roster.
    pub(crate) fn key(&self, node: NodeId, file: usize) -> Option<[u8; 32]> {
        let mut seats = self.rosters[..=file].iter().rev().flat_map(|roster| &roster.seats);
        seats.find(|seat| seat.node == node).map(|seat| seat.public_key)
    }

    /// What a node signs with by such a file.
    pub(crate) fn signer(&self, node: NodeId, file: usize) -> &Ed25519Signer {
        let key = self.key(node, file);
        let own = self.signers.iter().find(|signer| Some(signer.public_key()) == key);
        own.expect("each key has its signer")
    }

    /// Whether a node is on a roster.
    pub(crate) fn is_seated(&self, node: NodeId, roster: usize) -> bool {
        self.rosters[roster].seats.iter().any(|seat| seat.node == node)
    }
}

pub(super) fn signer(index: usize) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[(index as u8) + 1; 32])
}

pub(super) fn info((index, signer): (usize, &Ed25519Signer)) -> NodeInfo {
    NodeInfo { name: format!("n{index}"), public_key: signer.public_key() }
}

fn founding(nodes: &[NodeInfo], shards: &[ShardConfig]) -> Roster {
    Roster::founding(Digest([7; 32]), nodes, shards)
}

/// A shard on a random subset of the nodes, mostly three or more of them.
fn shard_of(rng: &mut Rng, shard: u32, nodes: &[NodeInfo]) -> ShardConfig {
    let least = if rng.percent(85) { 3 } else { 1 };
    let size = rng.range(least..nodes.len() as u64 + 1) as usize;
    let mut members: Vec<NodeId> = (0..nodes.len()).map(|i| NodeId(i as u16)).collect();
    while members.len() > size {
        members.remove(rng.index(members.len()));
    }
    shard_on(shard, &members, nodes)
}

fn shard_on(shard: u32, members: &[NodeId], nodes: &[NodeInfo]) -> ShardConfig {
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
    ShardConfig { genesis, members: members.to_vec() }
}
