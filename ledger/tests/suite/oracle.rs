//! Tree, proofs, notes and tiles against implementations written elsewhere.

use crate::common;
use base64ct::Encoding as _;
use ct_merkle::mem_backed_tree::MemoryBackedTree;
use ct_merkle::{ConsistencyProof, InclusionProof, RootHash};
use proptest::prelude::*;
use sha2::Sha256;
use tlog_tiles::HashReader;
use tradewind_ledger::note::{Ed25519Signer, KeyKind, Signer, VerifierKey, key_id};
use tradewind_ledger::tile::{self, TileId, TileKind, TileReader};
use tradewind_ledger::tree::{
    CompactRange, HashSource, MemoryTree, compact_range_at, consistency_proof, inclusion_proof,
    leaf_hash, root_at, verify_consistency, verify_inclusion,
};
use tradewind_ledger::{Checkpoint, Digest, SignedNote, Version};

type Oracle = MemoryBackedTree<Sha256, Vec<u8>>;

fn leaf(n: u64) -> Vec<u8> {
    format!("entry {n}").into_bytes()
}

fn grow(size: u64) -> (MemoryTree, Oracle) {
    let mut oracle = Oracle::new();
    (0..size).for_each(|n| oracle.push(leaf(n)));
    ((0..size).map(|n| leaf_hash(&leaf(n))).collect(), oracle)
}

fn bytes(proof: &[Digest]) -> Vec<u8> {
    proof.iter().flat_map(|hash| hash.0).collect()
}

#[test]
fn roots_and_all_proofs_of_small_trees_are_the_oracles() {
    for size in 1..=40 {
        let (tree, oracle) = grow(size);
        let root = oracle.root();
        assert_eq!(tree.root().0, <[u8; 32]>::from(*root.as_bytes()), "size {size}");
        for index in 0..size {
            let proof = inclusion_proof(&tree, Version(index), Version(size)).unwrap();
            assert_eq!(bytes(&proof), oracle.prove_inclusion(index as usize).as_bytes());
            let leaf = leaf_hash(&leaf(index));
            verify_inclusion(&leaf, Version(index), Version(size), &proof, &tree.root()).unwrap();
        }
        for old in 1..size {
            let proof = consistency_proof(&tree, Version(old), Version(size)).unwrap();
            let theirs = oracle.prove_consistency((size - old) as usize);
            assert_eq!(bytes(&proof), theirs.as_bytes(), "{old} -> {size}");
            let old_root = root_at(&tree, Version(old)).unwrap();
            let (old, new) = (Version(old), Version(size));
            verify_consistency(old, new, &old_root, &tree.root(), &proof).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn proofs_of_large_trees_are_the_oracles(size in 1_u64..3000, a in any::<u64>(), b in any::<u64>()) {
        let (tree, oracle) = grow(size);
        let (index, old) = (a % size, b % size + 1);
        let proof = inclusion_proof(&tree, Version(index), Version(size)).unwrap();
        let theirs = InclusionProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        prop_assert!(oracle.root().verify_inclusion(&leaf(index), index, &theirs).is_ok());
        let hash = leaf_hash(&leaf(index));
        prop_assert!(verify_inclusion(&hash, Version(index), Version(size), &proof, &tree.root()).is_ok());

        let old_root = root_at(&tree, Version(old)).unwrap();
        let proof = consistency_proof(&tree, Version(old), Version(size)).unwrap();
        let theirs = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        let old_of_theirs = RootHash::<Sha256>::new(old_root.0.into(), old);
        prop_assert!(oracle.root().verify_consistency(&old_of_theirs, &theirs).is_ok());
        prop_assert!(
            verify_consistency(Version(old), Version(size), &old_root, &tree.root(), &proof).is_ok()
        );
    }

    #[test]
    fn a_changed_proof_never_holds(
        size in 2_u64..300, a in any::<u64>(), b in any::<u64>(), at in any::<usize>(), bit in 0_u8..8,
    ) {
        let (tree, _) = grow(size);
        let (index, old) = (Version(a % size), Version(b % (size - 1) + 1));
        let leaf = leaf_hash(&leaf(index.0));
        let proof = inclusion_proof(&tree, index, Version(size)).unwrap();
        for other in 0..size {
            let holds = verify_inclusion(&leaf, Version(other), Version(size), &proof, &tree.root());
            prop_assert_eq!(holds.is_ok(), other == index.0);
        }
        let flip = |mut proof: Vec<Digest>| {
            let at = at % (proof.len() * 32);
            proof[at / 32].0[at % 32] ^= 1 << bit;
            proof
        };
        let damaged = flip(proof.clone());
        prop_assert!(verify_inclusion(&leaf, index, Version(size), &damaged, &tree.root()).is_err());
        prop_assert!(verify_inclusion(&leaf, index, Version(size), &proof[1..], &tree.root()).is_err());

        let old_root = root_at(&tree, old).unwrap();
        let proof = consistency_proof(&tree, old, Version(size)).unwrap();
        let damaged = flip(proof.clone());
        let root = tree.root();
        prop_assert!(verify_consistency(old, Version(size), &old_root, &root, &damaged).is_err());
        prop_assert!(verify_consistency(old, Version(size), &root, &old_root, &proof).is_err());
    }

    #[test]
    fn verifying_never_panics(
        leaf in common::digest(), index in any::<u64>(), size in any::<u64>(),
        proof in prop::collection::vec(common::digest(), 0..70),
    ) {
        let (index, size) = (Version(index), Version(size));
        prop_assert!(verify_inclusion(&leaf, index, size, &proof, &Digest::ZERO).is_err());
        let _ = verify_consistency(index, size, &leaf, &Digest::ZERO, &proof);
    }

    #[test]
    fn a_compact_range_goes_on_from_any_size(size in 0_u64..600, more in 0_u64..300) {
        let (tree, _) = grow(size + more);
        let mut range = compact_range_at(&tree, Version(size)).unwrap();
        prop_assert_eq!(range.root(), root_at(&tree, Version(size)).unwrap());
        let parts = CompactRange::from_parts(Version(size), range.parts().to_vec()).unwrap();
        prop_assert_eq!(&parts, &range);
        (size..size + more).for_each(|n| range.push(leaf_hash(&leaf(n))));
        prop_assert_eq!(range.root(), tree.root());
    }

    #[test]
    fn tile_names_and_contents_are_the_oracles(old in 0_u64..70_000, more in 0_u64..70_000) {
        let (old, new) = (Version(old), Version(old + more));
        let ours: Vec<_> = tile::tiles_between(old, new).collect();
        let theirs = tlog_tiles::Tile::new_tiles(8, old.0, new.0);
        let (bundles, hashes): (Vec<TileId>, Vec<TileId>) =
            ours.iter().partition(|tile| tile.kind == TileKind::Entries);
        // Theirs has the paths of the Go checksum database, which name the height 8 too.
        let c2sp = |tile: &tlog_tiles::Tile| tile.path().replacen("tile/8/", "tile/", 1);
        let expected: Vec<_> = theirs.iter().map(c2sp).collect();
        let names: Vec<_> = hashes.iter().map(ToString::to_string).collect();
        prop_assert_eq!(&names, &expected);
        let level_0 = expected.iter().filter_map(|name| name.strip_prefix("tile/0/"));
        let bundles: Vec<_> = bundles.iter().map(ToString::to_string).collect();
        let expected: Vec<_> = level_0.map(|name| format!("tile/entries/{name}")).collect();
        prop_assert_eq!(bundles, expected);
        for tile in ours {
            prop_assert_eq!(tile.to_string().parse(), Ok(tile));
        }
    }

    #[test]
    fn tile_names_hold_at_any_index(index in 0..=u64::MAX >> 8, width in 1_u16..=256) {
        let tile = TileId { kind: TileKind::Hashes { level: 0 }, index, width };
        let theirs = tlog_tiles::Tile::new(8, 0, index, u32::from(width), false);
        prop_assert_eq!(tile.to_string(), theirs.path().replacen("tile/8/", "tile/", 1));
        prop_assert_eq!(tile.to_string().parse(), Ok(tile));
    }
}

/// Gives their code our stored hashes.
struct Theirs<'a>(&'a MemoryTree);

impl HashReader for Theirs<'_> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<tlog_tiles::Hash>, tlog_tiles::Error> {
        let hash = |index: &u64| {
            let (level, n) = tlog_tiles::split_stored_hash_index(*index);
            tlog_tiles::Hash(self.0.node(level, n).unwrap().0)
        };
        Ok(indexes.iter().map(hash).collect())
    }
}

#[test]
fn tiles_carry_what_the_oracle_puts_into_them_and_give_back_the_tree() {
    let size = 70_000;
    let tree: MemoryTree = (0..size).map(|n| leaf_hash(&leaf(n))).collect();
    let root = tlog_tiles::tree_hash(size, &Theirs(&tree)).unwrap();
    assert_eq!(tree.root().0, root.0);
    let mut stored = std::collections::HashMap::new();
    for id in tile::tiles(Version(size)) {
        let TileKind::Hashes { level } = id.kind else { continue };
        let hashes = tile::hashes_of(&id, &tree).unwrap();
        let theirs = tlog_tiles::Tile::new(8, level, id.index, u32::from(id.width), false);
        let bytes = tile::encode_hashes(&hashes);
        assert_eq!(bytes, theirs.read_data(&Theirs(&tree)).unwrap(), "{id}");
        assert_eq!(tile::decode_hashes(&bytes, id.width).unwrap(), hashes);
        stored.insert(id, hashes);
    }
    let reader = TileReader::new(Version(size), |id: &TileId| stored.get(id).cloned());
    assert_eq!(root_at(&reader, Version(size)).unwrap(), tree.root());
    for index in [0, 255, 256, 65_535, 65_536, 69_999] {
        let proof = inclusion_proof(&reader, Version(index), Version(size)).unwrap();
        assert_eq!(proof, inclusion_proof(&tree, Version(index), Version(size)).unwrap());
    }
    let old = Version(12_345);
    let proof = consistency_proof(&reader, old, Version(size)).unwrap();
    assert_eq!(proof, consistency_proof(&tree, old, Version(size)).unwrap());
    assert_eq!(reader.node(0, size), None);
    assert_eq!(reader.node(63, u64::MAX), None);
}

proptest! {
    #[test]
    fn notes_are_read_and_verified_by_the_oracle_and_back(
        seed in any::<[u8; 32]>(), size in any::<u64>(), root in common::digest(),
    ) {
        let origin = "atlas/ams/flights/0";
        let signer = Ed25519Signer::from_seed(&seed);
        let checkpoint = Checkpoint { origin: origin.into(), size: Version(size), root };
        let note = checkpoint.with_signatures(vec![checkpoint.sign(&signer)]).unwrap();
        let key = VerifierKey::new(origin, KeyKind::Ed25519, signer.public_key()).unwrap();

        let theirs = signed_note::Note::from_bytes(note.to_string().as_bytes()).unwrap();
        let verifier = signed_note::StandardVerifier::new(&key.to_string()).unwrap();
        let (verified, unknown) =
            theirs.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).unwrap();
        prop_assert_eq!((verified.len(), unknown.len()), (1, 0));
        let text = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
        prop_assert_eq!((text.origin(), text.size(), text.hash().0), (origin, size, root.0));

        // The other way round: their key and their signature.
        let id = u32::from_be_bytes(key_id(origin, KeyKind::Ed25519, &signer.public_key()).0);
        let secret = [&[1][..], &seed].concat();
        let base64 = base64ct::Base64::encode_string(&secret);
        let skey = format!("PRIVATE+KEY+{origin}+{id:08x}+{base64}");
        let their_signer = signed_note::StandardSigner::new(&skey).unwrap();
        let mut their_note = signed_note::Note::new(checkpoint.to_string().as_bytes(), &[]).unwrap();
        their_note.add_sigs(&[&their_signer]).unwrap();
        let read = SignedNote::parse(&their_note.to_bytes()).unwrap();
        prop_assert_eq!(&read, &note);
        prop_assert!(key.verify(read.text(), &read.signatures()[0]));
    }
}
