//! What shows that a snapshot is of a ledger: it holds when made of the ledger, and nothing else does.

use crate::common;
use proptest::prelude::*;
use tradewind_ledger::manifest::{BLOCK_LEAVES, Manifest, ManifestError};
use tradewind_ledger::tree::{MemoryTree, leaf_hash, root_of};
use tradewind_ledger::*;

/// Leaves of chunks that nobody made.
fn chunks() -> Vec<Digest> {
    [1, 2, 3].map(|n| Digest([n; 32])).to_vec()
}

/// The golden ledger with a SNAPSHOT of its first 8 entries, signed by two; and the manifest of that.
pub(crate) fn manifest() -> (Policy, Manifest) {
    let mut entries = common::golden_entries();
    let mut replay = Replay::new();
    entries.iter().for_each(|bytes| drop(replay.push(bytes).unwrap()));
    let base = Base::clone(replay.base().unwrap());
    let record =
        SnapshotRecord { size: base.size(), root: root_of(chunks()), chunks: 3, bytes: 2_100_000 };
    let hlc = replay.last_hlc().after(replay.last_hlc());
    let entry = Entry { hlc, view: replay.view(), body: Body::Snapshot(record) };
    let at = (Version(entries.len() as u64), entry.to_bytes().unwrap());
    entries.push(at.1.clone());
    let tree: MemoryTree = entries.iter().map(|bytes| leaf_hash(bytes)).collect();
    let origin = common::golden_genesis().origin();
    let checkpoint = Checkpoint { origin, size: tree.size(), root: tree.root() };
    let lines = common::signers()[..2].iter().map(|signer| checkpoint.sign(signer)).collect();
    let note = checkpoint.with_signatures(lines).unwrap();
    let policy = Policy::of_genesis(&common::golden_genesis()).unwrap();
    (policy, Manifest::make(&tree, note, at, base, chunks()).unwrap())
}

#[test]
fn a_manifest_is_believed_for_what_a_majority_signed() {
    let (policy, manifest) = manifest();
    let record = manifest.verify(&policy).unwrap();
    assert_eq!((record.size, record.chunks), (Version(8), 3));
    let bytes = manifest.encode();
    assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
    (0..bytes.len()).for_each(|len| drop(Manifest::decode(&bytes[..len]).unwrap_err()));
    let more = [&bytes[..], b"x"].concat();
    assert!(matches!(Manifest::decode(&more), Err(ManifestError::Length { .. })));

    let refused = |spoil: &dyn Fn(&mut Manifest)| {
        let mut spoiled = manifest.clone();
        spoil(&mut spoiled);
        spoiled.verify(&policy).unwrap_err().to_string()
    };
    assert!(refused(&|it| it.chunks[1].0[0] ^= 1).contains("list of chunks"));
    assert!(refused(&|it| it.chunks.truncate(2)).contains("number of chunks"));
    assert!(refused(&|it| it.blocks[0].0[0] ^= 1).contains("list of blocks"));
    assert!(refused(&|it| it.blocks.push(Digest::ZERO)).contains("number of blocks"));
    assert!(refused(&|it| it.version = Version(7)).contains("SNAPSHOT entry"));
    assert!(refused(&|it| it.entry = common::golden_entries()[2].clone()).contains("no SNAPSHOT"));
    assert!(refused(&|it| it.consistency[0].0[0] ^= 1).contains("its base"));
    let stranger = Policy::of_genesis(&Genesis {
        members: vec![Member { name: "x".into(), public_key: [9; 32] }],
        ..common::golden_genesis()
    });
    assert!(manifest.verify(&stranger.unwrap()).unwrap_err().to_string().contains("checkpoint"));
}

#[test]
fn the_blocks_of_a_long_ledger_are_subtrees_of_it() {
    for size in [1, BLOCK_LEAVES - 1, BLOCK_LEAVES, BLOCK_LEAVES + 1, 5 * BLOCK_LEAVES + 77] {
        let leaf = |n: u64| leaf_hash(&n.to_be_bytes());
        let tree: MemoryTree = (0..size + 9).map(leaf).collect();
        let blocks = (0..size.div_ceil(BLOCK_LEAVES))
            .map(|block| root_of(Manifest::block_of(&tree, Version(size), block).unwrap()));
        assert_eq!(root_of(blocks), root_of((0..size).map(leaf)), "{size} entries");
    }
}

proptest! {
    #[test]
    fn any_change_of_a_manifest_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (policy, manifest) = manifest();
        let mut bytes = manifest.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        if let Ok(changed) = Manifest::decode(&bytes) {
            prop_assert_eq!(changed.encode(), bytes);
            // The names in signature lines may be others'; then it is theirs, and counts for nothing.
            prop_assert!(changed.verify(&policy).is_err() || changed.base == manifest.base);
        }
    }

    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let head = [&tradewind_ledger::manifest::MAGIC[..], &[0, 0, 0, 1]].concat();
        let _ = Manifest::decode(&bytes);
        let _ = Manifest::decode(&[head, bytes].concat());
    }
}
