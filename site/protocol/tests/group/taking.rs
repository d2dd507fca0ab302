//! Nodes that lack what all others have pruned, and take a snapshot of them.

use std::sync::Arc;

use tradewind_ledger::tree::{MemoryTree, leaf_hash, root_of};
use tradewind_ledger::{Base, Body, Entry, Manifest, Replay, SignedNote, SnapshotRecord, Version};
use tradewind_site_protocol::{Action, Held, NodeConfig, NodeId, Part, RecoveredShard, State};
use tradewind_store::snapshot::{Chunk, Decoder, Encoder, Pin};
use tradewind_store::{SnapshotRule, Store};

use crate::harness::{self, Group, Ledger, SHARD, empty, recovered};

/// What a node's shell knows of the shard's past.
#[derive(Default)]
pub(crate) struct Past {
    /// The first snapshot that was due.
    pub(crate) due: Option<(Box<Pin>, Arc<Base>)>,
    /// The newest checkpoint.
    pub(crate) note: Option<SignedNote>,
    /// Entries before this one were pruned.
    pub(crate) first: Version,
    /// What it has, and what it is taking.
    has: Option<Given>,
    taking: Option<Given>,
    /// Whether it says nothing to those who ask for a part; and who asked.
    mute: bool,
    asked_by: Vec<NodeId>,
    /// Whether it is slow to begin; and what it has yet to begin with.
    slow: bool,
    to_begin: Vec<Manifest>,
    /// Whether it goes no further than to where a ledger is to be made of what it took, and which that is.
    waits: bool,
    to_plant: Option<Version>,
}

/// A snapshot as it travels.
#[derive(Clone)]
struct Given {
    manifest: Manifest,
    chunks: Vec<Chunk>,
}

impl Given {
    fn size(&self) -> Version {
        self.manifest.base.size()
    }

    fn part(&self, part: Part, ledger: &Ledger) -> Vec<u8> {
        match part {
            Part::Manifest => self.manifest.encode(),
            Part::Chunk(index) => self.chunks[index as usize].to_bytes(),
            Part::Block(index) => {
                assert_eq!(index, 0, "a short ledger");
                ledger[..self.size().0 as usize].iter().flat_map(|e| leaf_hash(e).0).collect()
            }
        }
    }
}

impl Group {
    /// What a shell does for snapshots.
    pub(crate) fn act_on_snapshots(&mut self, index: usize, action: Action) {
        let now = self.now();
        let longest = self.nodes.iter().map(|node| &node.ledgers[0]).max_by_key(|it| it.len());
        let history = longest.expect("a node").clone();
        let node = &mut self.nodes[index];
        match action {
            Action::ReadPart { reader, size, part, offset, max_bytes, .. } => {
                node.past.asked_by.push(reader.peer);
                if node.past.mute {
                    return;
                }
                let has = node.past.has.as_ref().filter(|has| has.size() == size);
                let bytes = has.map(|has| has.part(part, &history)).unwrap_or_default();
                let piece = bytes[offset as usize..].iter().take(max_bytes).copied().collect();
                let total = bytes.len() as u64;
                node.core.handle_part_read(reader, size, part, (offset, total, piece));
            }
            Action::Take { manifest, .. } if node.past.slow => node.past.to_begin.push(*manifest),
            Action::Take { shard, manifest } => {
                node.past.taking =
                    Some(Given { manifest: Manifest::clone(&manifest), chunks: Vec::new() });
                node.core.handle_taken(now, shard, manifest, Held::default());
            }
            Action::KeepPart { shard, size, part, bytes } => {
                if let (Part::Chunk(_), Some(taking)) = (part, &mut node.past.taking) {
                    taking.chunks.push(Chunk::from_bytes(&bytes).expect("a chunk"));
                }
                node.core.handle_part_kept(now, shard, (size, part), Vec::new());
            }
            Action::Plant { size, .. } if node.past.waits => node.past.to_plant = Some(size),
            Action::Plant { shard, size } => {
                let taken = node.past.taking.take().expect("it was taken");
                let mut decoder = Decoder::new();
                for chunk in &taken.chunks {
                    decoder.push(&chunk.committed, &chunk.values).expect("a chunk");
                }
                let store = decoder.finish().expect("a snapshot");
                let replay = Replay::from_base(&Arc::new(taken.manifest.base.clone()));
                // What is pruned is there for its hashes only.
                node.ledgers[0] = history[..size.0 as usize].to_vec();
                (node.past.first, node.past.has) = (size, Some(taken));
                node.core.handle_planted(now, shard, RecoveredShard { replay, store });
            }
            other => panic!("nothing of snapshots: {other:?}"),
        }
    }
}

/// One shard on all of so many nodes, of which snapshots are due at each SEAL.
fn config(own: u16, nodes: u16) -> NodeConfig {
    let all: Vec<u16> = (0..nodes).collect();
    let mut config = harness::site(own, nodes, &[&all]);
    config.limits.snapshots = SnapshotRule { bytes: 1, entries: 1 };
    config
}

/// The ledger of a site of so many nodes that holds a snapshot of its beginning, and that snapshot, with what a majority
/// signed.
fn history(nodes: u16) -> (Ledger, Given) {
    let parts = (0..nodes).map(|own| (config(own, nodes), empty(1), vec![Vec::new()])).collect();
    let mut group = Group::new(parts).unwrap();
    group.link_among(nodes);
    group.settle();
    (1..5).for_each(|number| group.submit(0, number, 1_000).unwrap());
    group.pass(3_100_000);
    let (pin, base) = group.nodes[0].past.due.take().expect("a SEAL by its age");
    let mut store = Store::new();
    for (version, bytes) in (0..).zip(&group.nodes[0].ledgers[0][..base.size().0 as usize]) {
        store.apply(Version(version), &Entry::decode(bytes).unwrap()).unwrap();
    }
    let mut encoder = Encoder::new(*pin);
    store.slice(base.size(), None, usize::MAX).0.iter().for_each(|state| encoder.push(state));
    let chunks: Vec<Chunk> = encoder.finish().collect();
    let leaves: Vec<_> = chunks.iter().map(Chunk::leaf).collect();
    let record = SnapshotRecord {
        size: base.size(),
        root: root_of(leaves.iter().copied()),
        chunks: chunks.len() as u32,
        bytes: chunks.iter().map(|chunk| chunk.size() as u64).sum(),
    };
    for node in 0..usize::from(nodes) {
        let now = group.now();
        group.nodes[node].core.handle_snapshot_made(now, SHARD, record);
    }
    group.settle();
    group.pass(3_100_000);
    assert_eq!(group.nodes[0].agreed, [record.size]);
    let ledger = group.nodes[0].ledgers[0].clone();
    let is_it = |bytes: &Vec<u8>| Entry::decode(bytes).unwrap().body == Body::Snapshot(record);
    let at = ledger.iter().position(is_it).expect("the ledger holds it");
    let note = group.nodes[0].past.note.take().expect("signed");
    let signed = note.checkpoint().unwrap().size.0 as usize;
    let tree: MemoryTree = ledger[..signed].iter().map(|bytes| leaf_hash(bytes)).collect();
    let entry = (Version(at as u64), ledger[at].clone());
    let manifest = Manifest::make(&tree, note, entry, Base::clone(&base), leaves).unwrap();
    (ledger, Given { manifest, chunks })
}

/// So many nodes, of which these have all, but for what was pruned behind the snapshot that they have instead; the others
/// have no more than a beginning.
fn group(nodes: u16, rich: &[u16]) -> Group {
    let (ledger, given) = history(nodes);
    let entries = |own: u16| if rich.contains(&own) { &ledger[..] } else { &ledger[..2] };
    let part =
        |own: u16| (config(own, nodes), vec![recovered(entries(own))], vec![entries(own).to_vec()]);
    let mut group = Group::new((0..nodes).map(part).collect()).unwrap();
    let Body::Snapshot(record) = Entry::decode(&given.manifest.entry).unwrap().body else {
        panic!("a SNAPSHOT entry");
    };
    for node in rich {
        let node = &mut group.nodes[usize::from(*node)];
        node.core.recall_offer(SHARD, given.manifest.version, record);
        (node.past.first, node.past.has) = (given.size(), Some(given.clone()));
    }
    group
}

fn planted(group: &Group, node: usize) -> u64 {
    group.nodes[node].core.status().counters.planted
}

#[test]
fn within_a_formation_others_are_asked_than_a_source_that_refuses_or_is_silent() {
    // Node 2 is needed for a majority: it cannot learn beside a view of the others.
    for (broken, mute) in [(0, false), (1, false), (0, true), (1, true)] {
        let mut group = group(5, &[0, 1]);
        match mute {
            true => group.nodes[broken].past.mute = true,
            false => group.nodes[broken].past.has = None,
        }
        group.nodes[2].past.waits = true;
        group.link_among(3);
        group.pass(12_000_000);
        let size = group.nodes[1 - broken].past.first;
        assert_eq!(group.nodes[2].past.to_plant, Some(size), "{broken} {mute}");
    }
}

#[test]
fn nodes_that_take_a_snapshot_at_a_time_ask_different_members() {
    let mut group = group(5, &[0, 1, 2]);
    group.link_among(3);
    group.pass(3_100_000);
    assert_eq!(group.nodes[0].core.state(), State::Active);
    for taker in [3, 4] {
        (0..3).for_each(|member| group.link(member, taker));
    }
    group.pass(3_100_000);
    assert_eq!((planted(&group, 3), planted(&group, 4)), (1, 1));
    let asked = |taker: u16| {
        let asked = (0..3).filter(|node| group.nodes[*node].past.asked_by.contains(&NodeId(taker)));
        asked.collect::<Vec<_>>()
    };
    assert_eq!((asked(3).len(), asked(4).len()), (1, 1), "all parts from one of them");
    assert_ne!(asked(3), asked(4));
}

#[test]
fn one_snapshot_is_begun_at_a_time_however_long_that_takes() {
    let mut group = group(3, &[1]);
    group.nodes[2].past.slow = true;
    group.link(1, 2);
    group.pass(4_000_000);
    for _ in 0..2 {
        group.cut(1, 2);
        group.link(1, 2);
        group.pass(4_000_000);
    }
    assert_eq!(group.nodes[2].past.to_begin.len(), 1);
    // All of it was there: only now may a ledger be made of it.
    let manifest = group.nodes[2].past.to_begin.remove(0);
    let given = group.nodes[1].past.has.clone().expect("it has one");
    let held = Held { blocks: 1, chunks: given.chunks.len() as u32, missing: Vec::new() };
    group.nodes[2].past.taking = Some(given);
    let now = group.now();
    group.nodes[2].core.handle_taken(now, SHARD, Box::new(manifest), held);
    group.pass(6_200_000);
    assert_eq!((planted(&group, 2), group.nodes[2].core.state()), (1, State::Active));
}

#[test]
fn who_has_taken_a_snapshot_gives_it_on() {
    let mut group = group(3, &[1]);

    // Node 2 is needed for a majority, and takes the snapshot from node 1.
    group.link(1, 2);
    group.pass(6_200_000);
    assert_eq!((planted(&group, 2), group.nodes[2].core.state()), (1, State::Active));
    assert_eq!(group.nodes[2].ledgers[0], group.nodes[1].ledgers[0]);

    // Then it is the only one that has anything, and has nothing of what was pruned.
    group.cut(1, 2);
    group.link(0, 2);
    group.pass(6_200_000);
    assert_eq!((planted(&group, 0), group.nodes[0].core.state()), (1, State::Active));
    assert_eq!(group.nodes[0].core.status().members, [NodeId(0), NodeId(2)]);
    assert_eq!(group.nodes[0].ledgers[0], group.nodes[2].ledgers[0]);
    group.submit(0, 9, 10).unwrap();
    group.settle();
    assert_eq!(group.nodes[0].answers.len(), 1);
}
