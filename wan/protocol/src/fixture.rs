//! A ledger in memory, grown and signed by its site, for the tests of this crate.

use alloc::{format, string::String, vec, vec::Vec};
use std::collections::BTreeMap;

use tradewind_ledger::entry::{Body, Entry, Genesis, Member, Update, Value, ViewRecord, Write};
use tradewind_ledger::ids::{
    Digest, Hlc, KeyVersion, LedgerId, RequestId, RequestNumber, SessionId, Version, ViewId,
};
use tradewind_ledger::note::{Checkpoint, Ed25519Signer, Signer as _};
use tradewind_ledger::replay::Replay;
use tradewind_ledger::tree::{MemoryTree, consistency_proof, leaf_hash, root_at, value_digest};

use crate::claim::{Claim, Head};
use crate::feeder::{Located, ReadDone};
use crate::follower::Local;
use crate::wire::{Batch, Position};

/// The site's history of one ledger.
#[derive(Clone)]
pub(crate) struct History {
    pub(crate) genesis: Genesis,
    pub(crate) replay: Replay,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) values: BTreeMap<Digest, Vec<u8>>,
    tree: MemoryTree,
    chain: BTreeMap<Vec<u8>, (KeyVersion, Version)>,
}

pub(crate) fn signer(node: usize) -> Ed25519Signer {
    Ed25519Signer::from_seed(&[u8::try_from(node).unwrap() + 1; 32])
}

impl History {
    /// Genesis and first view, of three nodes.
    pub(crate) fn new(ledger: &str) -> Self {
        let member =
            |node| Member { name: format!("a{node}"), public_key: signer(node).public_key() };
        let members: Vec<Member> = (0..3).map(member).collect();
        let ledger: LedgerId = ledger.parse().unwrap();
        let (deployment, site) = (String::from("atlas"), String::from("ams"));
        let genesis = Genesis { deployment, site, ledger, members: members.clone() };
        let mut history = Self {
            genesis: genesis.clone(),
            replay: Replay::new(),
            entries: Vec::new(),
            values: BTreeMap::new(),
            tree: MemoryTree::new(),
            chain: BTreeMap::new(),
        };
        history.push(&genesis.into_entry());
        let view = ViewId(1);
        let body = Body::View(ViewRecord { view, members });
        history.push(&Entry { hlc: history.hlc(), view, body });
        history
    }

    /// A history with `count` puts, some seals and some detached values.
    pub(crate) fn grown(ledger: &str, count: usize) -> Self {
        let mut history = Self::new(ledger);
        (0..count).for_each(|index| history.put(index, b"value"));
        history
    }

    fn hlc(&self) -> Hlc {
        Hlc::from_micros(1_000).after(self.replay.last_hlc())
    }

    fn push(&mut self, entry: &Entry) {
        let bytes = entry.to_bytes().unwrap();
        self.replay.push(&bytes).unwrap();
        self.tree.push(leaf_hash(&bytes));
        self.entries.push(bytes);
    }

    pub(crate) fn put(&mut self, index: usize, value: &[u8]) {
        let key = format!("key-{}", index % 7).into_bytes();
        let version = self.size();
        let last = self.chain.get(&key).copied();
        let key_version = KeyVersion(last.map_or(0, |(count, _)| count.0) + 1);
        self.chain.insert(key.clone(), (key_version, version));
        let value = if index % 11 == 10 {
            let value = [value, b"-detached"].concat();
            let digest = value_digest(&value);
            let len = value.len() as u64;
            self.values.insert(digest, value);
            Value::Detached { len, digest }
        } else {
            Value::Inline(value.to_vec())
        };
        let prev_version = last.map(|(_, version)| version);
        let update = Update { key, key_version, prev_version, value: Some(value) };
        let request = RequestId { session: SessionId(1), number: RequestNumber(version.0) };
        let (hlc, view) = (self.hlc(), self.replay.view());
        self.push(&Entry { hlc, view, body: Body::Put(Write { request, update }) });
        if index % 13 == 12 {
            self.push(&self.replay.segment().make_seal(self.hlc(), view));
        }
    }

    pub(crate) fn size(&self) -> Version {
        self.replay.size()
    }

    pub(crate) fn root_at(&self, size: Version) -> Digest {
        root_at(&self.tree, size).unwrap()
    }

    /// A checkpoint of the first `size` entries, signed by these nodes.
    pub(crate) fn note(&self, size: Version, signers: &[usize]) -> String {
        let checkpoint =
            Checkpoint { origin: self.genesis.origin(), size, root: self.root_at(size) };
        let signatures = signers.iter().map(|node| checkpoint.sign(&signer(*node))).collect();
        format!("{}", checkpoint.with_signatures(signatures).unwrap())
    }

    /// The head at `size`, signed by a majority.
    pub(crate) fn head(&self, size: Version) -> Head {
        let hlc = Entry::decode(&self.entries[size.0 as usize - 1]).unwrap().hlc;
        Head::signed(size, self.root_at(size), hlc, &self.note(size, &[0, 2]))
    }

    pub(crate) fn claim(&self, size: Version, head: &Head) -> Claim {
        head.claim(size, consistency_proof(&self.tree, size, head.size).unwrap())
    }

    /// The entries `first .. end` with the proof that they lie under `head`.
    pub(crate) fn batch(&self, first: Version, end: Version, head: &Head) -> Batch {
        let entries = &self.entries[first.0 as usize..end.0 as usize];
        Batch::pack(self.genesis.ledger.clone(), first, entries, self.claim(end, head))
    }

    /// The replay of the first `size` entries.
    pub(crate) fn replay_at(&self, size: Version) -> Replay {
        let mut replay = Replay::new();
        for entry in &self.entries[..size.0 as usize] {
            replay.push(entry).unwrap();
        }
        replay
    }

    pub(crate) fn position(&self, size: Version) -> Position {
        let (ledger, root) = (self.genesis.ledger.clone(), self.root_at(size));
        Position { ledger, lineage: self.genesis.lineage().unwrap(), size, root }
    }

    pub(crate) fn located(&self, size: Version, head: &Head) -> Located {
        let proof = consistency_proof(&self.tree, size, head.size).unwrap();
        Located { root: self.root_at(size), proof, first: Version::ZERO }
    }

    /// What a parent's shell reads: as many entries as fit, and the answer for the feeder.
    pub(crate) fn read(&self, first: Version, max_bytes: u64, head: &Head) -> (Batch, ReadDone) {
        let mut end = first;
        let mut bytes = 0;
        while end < head.size {
            let length = self.entries[end.0 as usize].len() as u64 + 2;
            if end > first && bytes + length > max_bytes {
                break;
            }
            bytes += length;
            end = end.next();
        }
        (self.batch(first, end, head), ReadDone { end, bytes })
    }
}

/// A mirror's disk: some ledgers as far as they are durable, and values.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) ledgers: BTreeMap<LedgerId, MemoryTree>,
    pub(crate) values: BTreeMap<Digest, Vec<u8>>,
}

impl Disk {
    /// The disk of a mirror that has the first `size` entries.
    pub(crate) fn of(history: &History, size: Version) -> Self {
        let mut tree = MemoryTree::new();
        history.entries[..size.0 as usize].iter().for_each(|entry| tree.push(leaf_hash(entry)));
        let ledgers = BTreeMap::from([(history.genesis.ledger.clone(), tree)]);
        Self { ledgers, values: BTreeMap::new() }
    }
}

impl Local for Disk {
    fn root_at(&self, ledger: &LedgerId, size: Version) -> Option<Digest> {
        root_at(self.ledgers.get(ledger)?, size).ok()
    }

    fn proof(&self, ledger: &LedgerId, from: Version, to: Version) -> Option<Vec<Digest>> {
        consistency_proof(self.ledgers.get(ledger)?, from, to).ok()
    }

    fn has_value(&self, _: &LedgerId, digest: &Digest) -> bool {
        self.values.contains_key(digest)
    }
}

/// Names of a path.
pub(crate) fn path(names: &[&str]) -> Option<Vec<String>> {
    let mut path = vec![];
    path.extend(names.iter().map(|name| String::from(*name)));
    Some(path)
}
