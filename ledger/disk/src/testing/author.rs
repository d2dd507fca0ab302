//! Writes valid histories.

use std::sync::Arc;

use tradewind_ledger::base::Base;
use tradewind_ledger::entry::{Body, Entry, Genesis, Member, Update, Value, Write};
use tradewind_ledger::ids::{Digest, Hlc, KeyVersion, LedgerId, RequestId, Version};
use tradewind_ledger::note::{Checkpoint, Ed25519Signer, SignedNote, Signer as _};
use tradewind_ledger::replay::Replay;
use tradewind_ledger::tree::{MemoryTree, leaf_hash, root_at, value_digest};

/// Makes entries one after another, and remembers them.
pub(crate) struct Author {
    replay: Replay,
    pub(crate) entries: Vec<Vec<u8>>,
    pub(crate) values: Vec<(Version, Digest, Vec<u8>)>,
    /// After each SEAL.
    pub(crate) bases: Vec<Arc<Base>>,
    origin: String,
}

impl Author {
    /// Begins a ledger with its genesis.
    pub(crate) fn new(pool: &str) -> Self {
        Self::of_member(pool, [7; 32])
    }

    /// Begins a ledger whose checkpoints, as they are made here, are signed by its only member.
    pub(crate) fn signing(pool: &str) -> Self {
        Self::of_member(pool, Ed25519Signer::from_seed(&[7; 32]).public_key())
    }

    fn of_member(pool: &str, public_key: [u8; 32]) -> Self {
        let genesis = Genesis {
            deployment: "test".into(),
            site: "here".into(),
            ledger: LedgerId::new(pool, 0).expect("a pool's name"),
            members: vec![Member { name: "node".into(), public_key }],
        };
        let origin = genesis.origin();
        let mut author = Self {
            replay: Replay::new(),
            entries: Vec::new(),
            values: Vec::new(),
            bases: Vec::new(),
            origin,
        };
        author.push(&genesis.into_entry());
        author
    }

    fn push(&mut self, entry: &Entry) {
        let bytes = entry.to_bytes().expect("an entry that can be encoded");
        self.replay.observe(&bytes, entry).expect("an entry that may follow");
        self.entries.push(bytes);
    }

    fn next_hlc(&self) -> Hlc {
        Hlc(self.replay.last_hlc().0 + 1)
    }

    /// A put of an inline value of so many bytes.
    pub(crate) fn put(&mut self, len: usize) {
        let byte = self.entries.len() as u8;
        self.write(Value::Inline(vec![byte; len]));
    }

    /// A put of a detached value of so many bytes.
    pub(crate) fn put_detached(&mut self, len: usize) {
        let value = vec![self.entries.len() as u8; len];
        let digest = value_digest(&value);
        self.values.push((Version(self.entries.len() as u64), digest, value));
        self.write(Value::Detached { len: len as u64, digest });
    }

    /// A put of this value, detached.
    pub(crate) fn put_value(&mut self, value: &[u8]) {
        let digest = value_digest(value);
        self.write(Value::Detached { len: value.len() as u64, digest });
    }

    fn write(&mut self, value: Value) {
        let update = Update {
            key: format!("key-{}", self.entries.len()).into(),
            key_version: KeyVersion(1),
            prev_version: None,
            value: Some(value),
        };
        let body = Body::Put(Write { request: RequestId::default(), update });
        let entry = Entry { hlc: self.next_hlc(), view: self.replay.view(), body };
        self.push(&entry);
    }

    /// Ends the segment.
    pub(crate) fn seal(&mut self) {
        let seal = self.replay.segment().make_seal(self.next_hlc(), self.replay.view());
        self.push(&seal);
        self.bases.extend(self.replay.base().cloned());
    }

    /// The newest base that is not beyond `size`.
    pub(crate) fn base_at(&self, size: Version) -> Option<Arc<Base>> {
        self.bases.iter().rfind(|base| base.size() <= size).cloned()
    }

    /// The state after all entries.
    pub(crate) fn replay(&self) -> &Replay {
        &self.replay
    }

    pub(crate) fn size(&self) -> Version {
        self.replay.size()
    }

    /// The tree over all entries so far.
    pub(crate) fn tree(&self) -> MemoryTree {
        self.entries.iter().map(|entry| leaf_hash(entry)).collect()
    }

    /// A signed checkpoint of the first `size` entries.
    pub(crate) fn checkpoint(&self, size: Version) -> SignedNote {
        let root = root_at(&self.tree(), size).expect("a size that was reached");
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let signature = checkpoint.sign(&Ed25519Signer::from_seed(&[7; 32]));
        checkpoint.with_signatures(vec![signature]).expect("a valid note")
    }
}
