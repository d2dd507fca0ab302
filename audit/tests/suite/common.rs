//! Builds real ledgers in a directory, as a node does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tradewind_audit::{DirSource, Options, Report, verify};
use tradewind_ledger::tree::value_digest;
use tradewind_ledger::*;
use tradewind_ledger_disk as disk;

/// A ledger and those who sign it.
pub(crate) struct Ledger {
    pub(crate) dir: PathBuf,
    pub(crate) opened: disk::Opened,
    pub(crate) replay: Replay,
    pub(crate) genesis: Genesis,
    keys: HashMap<Vec<u8>, (KeyVersion, Version)>,
    /// Roots of every size.
    pub(crate) roots: Vec<Digest>,
    pending: Vec<Vec<u8>>,
    /// After each SEAL.
    pub(crate) bases: Vec<Arc<Base>>,
}

pub(crate) fn signers() -> [Ed25519Signer; 3] {
    [1, 2, 3].map(|rank| Ed25519Signer::from_seed(&[rank; 32]))
}

pub(crate) fn genesis(shard: u32) -> Genesis {
    let member = |(rank, signer): (usize, Ed25519Signer)| Member {
        name: format!("a{}", rank + 1),
        public_key: signer.public_key(),
    };
    Genesis {
        deployment: "atlas".into(),
        site: "ams".into(),
        ledger: LedgerId::new("flights", shard).unwrap(),
        members: signers().into_iter().enumerate().map(member).collect(),
    }
}

impl Ledger {
    pub(crate) fn create(dir: &Path, shard: u32, face: disk::Face) -> Self {
        let options = disk::Options { preallocate: 1 << 15, face, ..disk::Options::default() };
        let opened = disk::open(dir, &options, |_, _| Ok(())).unwrap();
        let genesis = genesis(shard);
        let mut ledger = Self {
            dir: dir.to_owned(),
            opened,
            replay: Replay::new(),
            genesis: genesis.clone(),
            keys: HashMap::new(),
            roots: vec![tree::empty_root()],
            pending: Vec::new(),
            bases: Vec::new(),
        };
        ledger.push(&genesis.into_entry());
        ledger
    }

    fn stamp(&self) -> Hlc {
        Hlc::from_micros(1_700_000_000_000_000 + self.replay.size().0 * 1_000)
    }

    pub(crate) fn push(&mut self, entry: &Entry) {
        let bytes = entry.to_bytes().unwrap();
        self.replay.push(&bytes).unwrap();
        self.roots.push(self.replay.root());
        if matches!(entry.body, Body::Seal(_)) {
            self.bases.extend(self.replay.base().cloned());
        }
        self.pending.push(bytes);
    }

    fn body(&mut self, body: Body) {
        let entry = Entry { hlc: self.stamp(), view: self.replay.view(), body };
        self.push(&entry);
    }

    fn update(&mut self, key: &[u8], value: Option<Value>) -> Update {
        let before = self.keys.get(key).copied();
        let key_version = KeyVersion(before.map_or(1, |(version, _)| version.0 + 1));
        self.keys.insert(key.to_vec(), (key_version, self.replay.size()));
        Update { key: key.to_vec(), key_version, prev_version: before.map(|(_, at)| at), value }
    }

    fn request(&self) -> RequestId {
        RequestId { session: SessionId(7), number: RequestNumber(self.replay.size().0) }
    }

    pub(crate) fn put(&mut self, key: &[u8], value: &[u8]) {
        let request = self.request();
        let update = self.update(key, Some(Value::Inline(value.to_vec())));
        self.body(Body::Put(Write { request, update }));
    }

    pub(crate) fn put_detached(&mut self, key: &[u8], value: &[u8]) {
        let digest = value_digest(value);
        self.opened.writer.store_value(&digest, value).unwrap();
        let request = self.request();
        let detached = Value::Detached { len: value.len() as u64, digest };
        let update = self.update(key, Some(detached));
        self.body(Body::Put(Write { request, update }));
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        let request = self.request();
        let update = self.update(key, None);
        self.body(Body::Delete(Write { request, update }));
    }

    pub(crate) fn seal(&mut self) {
        let entry = self.replay.segment().make_seal(self.stamp(), self.replay.view());
        self.push(&entry);
    }

    pub(crate) fn sync(&mut self) {
        self.opened.writer.append(&self.pending).unwrap();
        self.pending.clear();
        self.opened.writer.sync().unwrap();
    }

    pub(crate) fn checkpoint(&self, size: u64) -> Checkpoint {
        let origin = self.genesis.origin();
        Checkpoint { origin, size: Version(size), root: self.roots[size as usize] }
    }

    pub(crate) fn signed(&self, size: u64, signers: &[Ed25519Signer]) -> SignedNote {
        let checkpoint = self.checkpoint(size);
        let lines = signers.iter().map(|signer| checkpoint.sign(signer)).collect();
        checkpoint.with_signatures(lines).unwrap()
    }

    pub(crate) fn publish(&mut self, size: u64) {
        let note = self.signed(size, &signers());
        self.opened.publisher.publish(&note).unwrap();
    }

    /// Removes what lies before the newest base that may be pruned; the first entry that is kept.
    pub(crate) fn prune(&mut self) -> Version {
        let limit = self.opened.publisher.published().0 / 256 * 256;
        let base = self.bases.iter().rfind(|base| base.size().0 <= limit).unwrap();
        self.opened.publisher.prune(base, |_| false).unwrap();
        base.size()
    }

    /// Adds `count` writes of all kinds, sealing after each `per_segment` entries.
    pub(crate) fn fill(&mut self, count: u64, per_segment: u32) {
        for n in 0..count {
            let key = format!("key {}", n * 7 % 50).into_bytes();
            match n % 40 {
                13 => self.put_detached(&key, &vec![n as u8; 40_000]),
                27 => self.delete(&key),
                _ => self.put(&key, format!("value {n}").repeat(3).as_bytes()),
            }
            if self.replay.segment().count() >= per_segment {
                self.seal();
            }
        }
        self.sync();
    }

    /// A ledger of about 800 entries in several segments, published twice, with a tail that is not.
    pub(crate) fn sample(dir: &Path, shard: u32, face: disk::Face) -> Self {
        let mut ledger = Self::create(dir, shard, face);
        let members = ledger.genesis.members.clone();
        let record = ViewRecord { view: ViewId(1), members };
        let hlc = ledger.stamp();
        ledger.push(&Entry { hlc, view: ViewId(1), body: Body::View(record) });
        ledger.fill(500, 150);
        let size = ledger.replay.size().0;
        ledger.publish(size);
        ledger.fill(230, 150);
        let size = ledger.replay.size().0 - 20;
        ledger.publish(size);
        ledger
    }
}

/// As a mirror has it.
pub(crate) fn sample() -> (TempDir, Ledger) {
    sample_with(disk::Face::Static)
}

/// As a node has it.
pub(crate) fn packed_sample() -> (TempDir, Ledger) {
    sample_with(disk::Face::Packed)
}

fn sample_with(face: disk::Face) -> (TempDir, Ledger) {
    let temp = TempDir::new().unwrap();
    let ledger = Ledger::sample(&temp.path().join("flights.0"), 0, face);
    (temp, ledger)
}

pub(crate) fn audit(dir: &Path) -> Report {
    verify(&DirSource::new(dir), &Options::default())
}

/// Every file of a ledger, without its lock.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().unwrap() != "LOCK" {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}
