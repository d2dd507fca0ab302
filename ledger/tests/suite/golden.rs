//! Golden files of format version 1: the encoder must go on making these bytes, and the decoder must go
//! on reading them, for ever. To add files for a *new* format, run with `TRADEWIND_BLESS=1`; the existing
//! ones never change.

use crate::common;
use std::fs;
use std::path::PathBuf;

use tradewind_ledger::note::VerifierKey;
use tradewind_ledger::tile::{self, TileKind};
use tradewind_ledger::tlog_proof::TlogProof;
use tradewind_ledger::tree::{MemoryTree, inclusion_proof, leaf_hash, verify_inclusion};
use tradewind_ledger::*;

/// The bytes of a golden file; writes `made` to it first when asked to.
fn golden(name: &str, made: &[u8]) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name);
    if std::env::var_os("TRADEWIND_BLESS").is_some() && !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn check(name: &str, made: &[u8]) -> Vec<u8> {
    let kept = golden(name, made);
    assert!(kept == made, "{name}: the encoder makes other bytes than format version 1 has");
    kept
}

#[test]
fn entries_keep_their_bytes_and_are_read_back() {
    let entries = common::golden_entries();
    let bundle = tile::encode_bundle(entries.iter().map(Vec::as_slice)).unwrap();
    let kept = check("entries.bundle", &bundle);
    let read = tile::decode_bundle(&kept, entries.len() as u16).unwrap();
    let mut replay = Replay::new();
    for bytes in read {
        let entry = replay.push(bytes).unwrap();
        assert_eq!(entry.to_bytes().unwrap(), bytes);
    }
    assert_eq!(replay.genesis(), Some(&common::golden_genesis()));
    assert_eq!(replay.last_seal().unwrap().1.segment, 1);
    // The same for the eye, to compare with docs/formats/entry.md: one entry a line.
    let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let listing: String = entries.iter().map(|bytes| hex(bytes) + "\n").collect();
    check("entries.hex", listing.as_bytes());
}

#[test]
fn a_snapshot_entry_keeps_its_bytes_and_is_read_back() {
    let entry = Entry {
        hlc: Hlc::from_micros(1_700_000_000_002_000),
        view: ViewId(1),
        body: Body::Snapshot(SnapshotRecord {
            size: Version(8),
            root: Digest([0xAB; 32]),
            chunks: 3,
            bytes: 2_100_000,
        }),
    };
    let kept = check("snapshot.entry", &entry.to_bytes().unwrap());
    assert_eq!(Entry::decode(&kept), Ok(entry));
}

#[test]
fn a_base_keeps_its_bytes_and_is_read_back() {
    let mut replay = Replay::new();
    common::golden_entries().iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let base = replay.base().unwrap();
    let kept = check("base", &base.encode());
    assert_eq!(&Base::decode(&kept).unwrap(), &**base);
}

#[test]
fn a_manifest_keeps_its_bytes() {
    let (policy, manifest) = crate::manifest::manifest();
    let kept = check("manifest", &manifest.encode());
    assert!(Manifest::decode(&kept).unwrap().verify(&policy).is_ok());
}

fn tree() -> (Vec<Vec<u8>>, MemoryTree) {
    let entries = common::golden_entries();
    let tree = entries.iter().map(|bytes| leaf_hash(bytes)).collect();
    (entries, tree)
}

fn checkpoint() -> SignedNote {
    let (_, tree) = tree();
    let origin = common::golden_genesis().origin();
    let checkpoint = Checkpoint { origin, size: tree.size(), root: tree.root() };
    let mut lines: Vec<_> =
        common::signers().iter().map(|signer| checkpoint.sign(signer)).collect();
    lines.push(checkpoint.cosign("witness.example/w1", 1_700_000_100, &common::signers()[0]));
    checkpoint.with_signatures(lines).unwrap()
}

#[test]
fn checkpoints_keep_their_bytes_and_verify() {
    let kept = check("checkpoint", checkpoint().to_string().as_bytes());
    let note = SignedNote::parse(&kept).unwrap();
    let policy = Policy::of_genesis(&common::golden_genesis()).unwrap();
    let verified = policy.verify(&note).unwrap();
    assert_eq!(verified.signers, [0, 1, 2]);
    assert_eq!(verified.checkpoint.size, Version(8));
    let vkeys: String = policy.keys().iter().map(|key| format!("{key}\n")).collect();
    let kept = String::from_utf8(check("vkeys", vkeys.as_bytes())).unwrap();
    for (line, key) in kept.lines().zip(policy.keys()) {
        assert_eq!(&line.parse::<VerifierKey>().unwrap(), key);
    }
}

#[test]
fn tiles_keep_their_bytes() {
    let (_, tree) = tree();
    let name = tile::TileId::of_entry(TileKind::Hashes { level: 0 }, Version(0), tree.size());
    let bytes = tile::encode_hashes(&tile::hashes_of(&name, &tree).unwrap());
    let kept = check("hashes.tile", &bytes);
    let hashes = tile::decode_hashes(&kept, name.width).unwrap();
    assert_eq!(tree::root_of(hashes), tree.root());
}

#[test]
fn proofs_keep_their_bytes_and_hold() {
    let (entries, tree) = tree();
    let proof = TlogProof {
        extra: Some(entries[2].clone()),
        index: Version(2),
        hashes: inclusion_proof(&tree, Version(2), tree.size()).unwrap(),
        checkpoint: checkpoint(),
    };
    let kept = check("entry-2.tlog-proof", proof.to_text().as_bytes());
    let read: TlogProof = String::from_utf8(kept).unwrap().parse().unwrap();
    let checkpoint = read.checkpoint.checkpoint().unwrap();
    let leaf = leaf_hash(&read.extra.unwrap());
    verify_inclusion(&leaf, read.index, checkpoint.size, &read.hashes, &checkpoint.root).unwrap();
}
