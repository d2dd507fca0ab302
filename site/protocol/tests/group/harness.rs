//! Three nodes in one thread: links and memory work at once, disks when told. The simulator does the rest.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use tradewind_ledger::tree::{CompactRange, leaf_hash, value_digest};
use tradewind_ledger::{
    Digest, Ed25519Signer, Genesis, LedgerId, Member, Replay, RequestId, RequestNumber, SessionId,
    Signer, Version,
};
use tradewind_site_protocol::{
    Action, Adopted, Answer, Barrier, BodyId, ConfigError, Durability, Fatal, Incarnation, Instant,
    Limits, Memory, NodeConfig, NodeCore, NodeId, NodeInfo, Now, PeerFault, Promise, Recollection,
    RecoveredShard, Refused, Roster, ShardConfig, ShardIndex, Staged, Submission, Ticket,
};
use tradewind_store::{Command, Condition, Store};

use crate::taking::Past;

pub(crate) const SHARD: ShardIndex = ShardIndex(0);
/// Commands beyond this go by the bulk lane.
const LIGHT: usize = 40_000;

/// All rows, as one node sees them.
struct Rows<'a>(NodeId, &'a mut Vec<Vec<u8>>);

impl Memory for Rows<'_> {
    fn store(&mut self, offset: usize, bytes: &[u8]) {
        self.1[self.0.index()][offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fn publish(&mut self, _: Range<usize>, _: &[NodeId]) {}
    fn load(&self, peer: NodeId, offset: usize) -> u64 {
        let word = &self.1[peer.index()][offset..offset + 8];
        u64::from_le_bytes(word.try_into().expect("eight bytes"))
    }
    fn copy(&self, peer: NodeId, offset: usize, out: &mut [u8]) {
        out.copy_from_slice(&self.1[peer.index()][offset..offset + out.len()]);
    }
}

pub(crate) fn signer(node: usize) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[node as u8 + 1; 32])
}

/// Node `own` of a site of so many nodes, with shards on these of them.
pub(crate) fn site(own: u16, nodes: u16, shards: &[&[u16]]) -> NodeConfig {
    let nodes: Vec<_> = (0..usize::from(nodes))
        .map(|i| NodeInfo { name: format!("a{}", i + 1), public_key: signer(i).public_key() })
        .collect();
    let shard = |(index, members): (u32, &&[u16])| {
        let record = |i: &u16| {
            let NodeInfo { name, public_key } = nodes[usize::from(*i)].clone();
            Member { name, public_key }
        };
        let genesis = Genesis {
            deployment: "test".into(),
            site: "ams".into(),
            ledger: LedgerId::new("flights", index).expect("a name"),
            members: members.iter().map(record).collect(),
        };
        ShardConfig { genesis, members: members.iter().copied().map(NodeId).collect() }
    };
    let shards: Vec<_> = (0..).zip(shards).map(shard).collect();
    NodeConfig {
        own: NodeId(own),
        rosters: vec![Roster::founding(Digest([1; 32]), &nodes, &shards)],
        shards,
        nodes,
        incarnation: Incarnation(1),
        limits: Limits { ring_bytes: 64 << 10, message_bytes: 8 << 10, ..Limits::default() },
    }
}

/// Node `own` of a site of three with one shard on the nodes 0 and 1 and one on all.
pub(crate) fn config(own: u16) -> NodeConfig {
    site(own, 3, &[&[0, 1, 2], &[0, 1]])
}

/// The same with the shard on all nodes alone.
pub(crate) fn of_one_shard(own: u16) -> NodeConfig {
    site(own, 3, &[&[0, 1, 2]])
}

/// What a node gets from an empty disk.
pub(crate) fn empty(shards: usize) -> Vec<RecoveredShard<Store>> {
    (0..shards).map(|_| RecoveredShard { replay: Replay::new(), store: Store::new() }).collect()
}

pub(crate) fn recovered(entries: &[Vec<u8>]) -> RecoveredShard<Store> {
    let (mut replay, mut store) = (Replay::new(), Store::new());
    for bytes in entries {
        let version = replay.size();
        let entry = replay.push(bytes).expect("replays");
        store.apply(version, &entry).expect("applies");
    }
    RecoveredShard { replay, store }
}

pub(crate) struct Node {
    pub(crate) core: NodeCore<Store>,
    /// By shard.
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) unknown: Vec<Ticket>,
    pub(crate) remembered: Vec<Recollection>,
    pub(crate) disconnected: Vec<PeerFault>,
    pub(crate) failed: Option<Fatal>,
    pub(crate) differ: usize,
    pub(crate) agreed: Vec<Version>,
    pub(crate) signs: bool,
    pub(crate) syncs: bool,
    pub(crate) promises: bool,
    pub(crate) checkpoints: Vec<(ShardIndex, Version)>,
    /// Bodies beside the ledgers; and how many became theirs.
    pub(crate) staged: BTreeMap<(ShardIndex, BodyId), Vec<u8>>,
    pub(crate) adopted: usize,
    /// Whether its memory flips bits of what is staged.
    pub(crate) corrupts: bool,
    pub(crate) passed: Vec<(ShardIndex, Barrier)>,
    /// Of shard 0.
    pub(crate) past: Past,
}

/// What a node starts with: its shards as recovered, and the entries of its ledgers.
pub(crate) type Parts = (NodeConfig, Vec<RecoveredShard<Store>>, Vec<Ledger>);
/// Encoded entries.
pub(crate) type Ledger = Vec<Vec<u8>>;

pub(crate) struct Group {
    pub(crate) nodes: Vec<Node>,
    rows: Vec<Vec<u8>>,
    messages: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    pub(crate) now_us: u64,
}

impl Group {
    /// Nodes with these configurations and ledgers; not yet linked.
    pub(crate) fn new(parts: Vec<Parts>) -> Result<Self, ConfigError> {
        let now = Now { instant: Instant(0), wall_us: 1 };
        let mut group =
            Self { nodes: Vec::new(), rows: Vec::new(), messages: VecDeque::new(), now_us: 0 };
        for (config, recovered, ledgers) in parts {
            let core = NodeCore::new(config, recovered, Promise::default(), now)?;
            group.nodes.push(Node {
                core,
                ledgers,
                answers: Vec::new(),
                unknown: Vec::new(),
                remembered: Vec::new(),
                disconnected: Vec::new(),
                failed: None,
                differ: 0,
                agreed: Vec::new(),
                signs: true,
                syncs: true,
                promises: true,
                checkpoints: Vec::new(),
                staged: BTreeMap::new(),
                adopted: 0,
                corrupts: false,
                passed: Vec::new(),
                past: Past::default(),
            });
            group.rows.push(Vec::new());
        }
        Ok(group)
    }

    /// Three nodes with empty disks, linked and in their first view.
    pub(crate) fn fresh() -> Self {
        Self::with_limits(&config(0).limits)
    }

    /// As [`Group::fresh`], with other limits.
    pub(crate) fn with_limits(limits: &Limits) -> Self {
        let part = |(node, shards)| {
            let config = NodeConfig { limits: limits.clone(), ..config(node) };
            (config, empty(shards), vec![Vec::new(); 2])
        };
        let parts = [(0, 2), (1, 2), (2, 1)].map(part).into();
        let mut group = Self::new(parts).expect("valid");
        group.link_all();
        group.settle();
        group
    }

    pub(crate) fn now(&self) -> Now {
        let wall_us = 1_700_000_000_000_000 + self.now_us;
        Now { instant: Instant(self.now_us), wall_us }
    }

    pub(crate) fn link_all(&mut self) {
        self.link_among(3);
    }

    /// Links the first so many nodes with each other.
    pub(crate) fn link_among(&mut self, nodes: u16) {
        for (a, b) in (0..nodes).flat_map(|a| (a + 1..nodes).map(move |b| (a, b))) {
            self.link(a, b);
        }
    }

    pub(crate) fn link(&mut self, a: u16, b: u16) {
        let now = self.now();
        self.nodes[usize::from(a)].core.handle_connected(now, NodeId(b));
        self.nodes[usize::from(b)].core.handle_connected(now, NodeId(a));
    }

    pub(crate) fn cut(&mut self, a: u16, b: u16) {
        let now = self.now();
        self.messages.retain(|(from, to, _)| {
            (*from, *to) != (NodeId(a), NodeId(b)) && (*from, *to) != (NodeId(b), NodeId(a))
        });
        self.nodes[usize::from(a)].core.handle_lost(now, NodeId(b));
        self.nodes[usize::from(b)].core.handle_lost(now, NodeId(a));
    }

    /// Turns and messages until nothing more comes of them. Time stands still.
    pub(crate) fn settle(&mut self) {
        for _ in 0..50 {
            for index in 0..self.nodes.len() {
                self.act(index);
                let (now, node) = (self.now(), NodeId(index as u16));
                self.nodes[index].core.handle_rows(now, &mut Rows(node, &mut self.rows));
                self.act(index);
            }
            while let Some((from, to, message)) = self.messages.pop_front() {
                let now = self.now();
                self.nodes[to.index()].core.handle_message(now, from, &message);
                self.act(to.index());
            }
        }
    }

    /// Lets time pass in steps of the timers.
    pub(crate) fn pass(&mut self, us: u64) {
        let end = self.now_us + us;
        while self.now_us < end {
            let due = self.nodes.iter().filter_map(|node| node.core.poll_timeout()).min();
            let next = due.map_or(end, |due| due.0);
            assert!(next > self.now_us || self.now_us == 0, "nobody asks for the past");
            self.now_us = next.min(end);
            self.settle();
        }
    }

    pub(crate) fn submit(&mut self, node: usize, number: u64, len: usize) -> Result<(), Refused> {
        let key = format!("key-{number}").into_bytes();
        let command = Command::Put { key, value: vec![7; len], condition: Condition::Always };
        self.submit_bytes(node, number, command.encode())
    }

    /// As [`Group::submit`], to any shard.
    pub(crate) fn submit_to(
        &mut self,
        node: usize,
        shard: u16,
        number: u64,
        len: usize,
    ) -> Result<(), Refused> {
        let key = format!("key-{number}").into_bytes();
        let command = Command::Put { key, value: vec![7; len], condition: Condition::Always };
        self.submit_command(node, ShardIndex(shard), number, command.encode())
    }

    pub(crate) fn submit_bytes(
        &mut self,
        node: usize,
        number: u64,
        command: Vec<u8>,
    ) -> Result<(), Refused> {
        self.submit_command(node, SHARD, number, command)
    }

    fn submit_command(
        &mut self,
        node: usize,
        shard: ShardIndex,
        number: u64,
        command: Vec<u8>,
    ) -> Result<(), Refused> {
        let number = RequestNumber(number);
        let request = RequestId { session: SessionId(9), number };
        let ticket = Ticket(number.0);
        let durability = Durability::Disk;
        let submission = Submission { ticket, request, durability, command, bodies: Vec::new() };
        let submission = submission.lighten(LIGHT);
        self.nodes[node].core.handle_submit(shard, submission)
    }

    pub(crate) fn act(&mut self, index: usize) {
        let (now, own) = (self.now(), NodeId(index as u16));
        while let Some(action) = self.nodes[index].core.poll_action() {
            let node = &mut self.nodes[index];
            match action {
                Action::Prepare { row_len, .. } => self.rows[index] = vec![0; row_len],
                Action::Send { to, message } => self.messages.push_back((own, to, message)),
                Action::Disconnect { reason, .. } => node.disconnected.push(reason),
                Action::Append { shard, first, entries, bodies, .. } => {
                    for Adopted { body, digest, len } in bodies {
                        let value = node.staged.remove(&(shard, body)).expect("it was staged");
                        assert_eq!((value.len() as u64, value_digest(&value)), (len, digest));
                        node.adopted += 1;
                    }
                    let ledger = &mut node.ledgers[shard.index()];
                    assert_eq!(first.0, ledger.len() as u64, "no gap");
                    ledger.extend(entries.iter().map(<[u8]>::to_vec));
                    if node.syncs {
                        let size = Version(ledger.len() as u64);
                        node.core.handle_durable(now, shard, size);
                    }
                }
                Action::ReadLog { reader, first, .. } if first < node.past.first => {
                    node.core.handle_log_pruned(reader);
                }
                Action::ReadLog { reader, first, end, .. } => {
                    let ledger = &node.ledgers[reader.shard.index()];
                    let mut tree = CompactRange::new();
                    ledger[..first.0 as usize].iter().for_each(|e| tree.push(leaf_hash(e)));
                    let entries = ledger[first.0 as usize..end.0 as usize].iter().collect();
                    node.core.handle_log_read(reader, first, tree.root(), entries);
                }
                Action::Promise(promise) if node.promises => {
                    node.core.handle_promised(now, promise.view);
                }
                Action::Promise(_) => {}
                Action::Remember(peers) => node.remembered = peers,
                Action::Sign { shard, checkpoint } if node.signs => {
                    let signature = signer(index).sign(checkpoint.to_string().as_bytes());
                    node.core.handle_signature(shard, checkpoint.size, signature);
                }
                Action::Answers(answers) => node.answers.extend(answers),
                Action::Checkpoint { shard, size, note } => {
                    node.checkpoints.push((shard, size));
                    node.past.note = Some(note);
                }
                Action::Snapshot { pin, base, .. } => _ = node.past.due.get_or_insert((pin, base)),
                Action::Failed(fatal) => node.failed = Some(fatal),
                Action::Sign { .. } | Action::Committed { .. } => {}
                Action::BarrierPassed { shard, barrier } => node.passed.push((shard, barrier)),
                Action::Stopped { .. } | Action::Installed { .. } => {}
                Action::ReadRoots { reader, sizes } => {
                    let ledger = &node.ledgers[reader.shard.index()];
                    let root = |size: Version| {
                        let mut tree = CompactRange::new();
                        ledger[..size.0 as usize].iter().for_each(|e| tree.push(leaf_hash(e)));
                        (size, tree.root())
                    };
                    let roots = sizes.into_iter().map(root).collect();
                    node.core.handle_roots(now, reader, roots);
                }
                Action::Rewind { shard, to, dropped } => {
                    let ledger = &mut node.ledgers[shard.index()];
                    assert_eq!(ledger.len() as u64, to.0 + dropped);
                    ledger.truncate(to.0 as usize);
                    let left = recovered(ledger);
                    node.core.handle_rewound(now, shard, left);
                }
                Action::Unknown(tickets) => node.unknown.extend(tickets),
                Action::SnapshotsDiffer { .. } => node.differ += 1,
                Action::Agreed { size, .. } => node.agreed.push(size),
                of_snapshots @ (Action::ReadPart { .. }
                | Action::Take { .. }
                | Action::KeepPart { .. }
                | Action::KeepValue { .. }
                | Action::Plant { .. }) => self.act_on_snapshots(index, of_snapshots),
                Action::ReadValue { .. } => panic!("no detached values are fetched here"),
                Action::Stage { shard, body, bytes, last, check } => {
                    let staged = node.staged.entry((shard, body)).or_default();
                    staged.extend_from_slice(&bytes);
                    node.core.handle_staged(now, shard, body, Staged::Part(bytes.len()));
                    if last && node.syncs {
                        staged[0] ^= u8::from(node.corrupts);
                        let found = value_digest(staged);
                        let whole = check.is_none_or(|check| check == found);
                        let staged = if whole { Staged::Whole } else { Staged::Wrong(found) };
                        node.core.handle_staged(now, shard, body, staged);
                    }
                }
                Action::Unstage { shard, body } => {
                    assert!(node.staged.remove(&(shard, body)).is_some(), "it was staged");
                }
            }
        }
    }
}
