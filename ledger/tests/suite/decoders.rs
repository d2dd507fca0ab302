//! Every decoder: it never panics on any bytes, whatever it accepts is written back the same, and
//! whatever the encoder makes is read. The targets in `fuzz/` run the same functions without end.

use crate::common;
use proptest::prelude::*;
use tradewind_ledger::note::{NoteSignature, VerifierKey};
use tradewind_ledger::tile::{self, TileId};
use tradewind_ledger::tlog_proof::TlogProof;
use tradewind_ledger::*;

/// Valid bytes with a few of them changed, cut off or added: gets deeper than arbitrary bytes do.
fn damaged(valid: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = valid.len();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (Just(valid), changes, 0..=len, prop::collection::vec(any::<u8>(), 0..3)).prop_map(
        |(mut bytes, changes, cut, more)| {
            changes.into_iter().for_each(|(at, to)| {
                let at = at.index(bytes.len());
                bytes[at] = to;
            });
            if cut % 3 == 0 {
                bytes.truncate(cut);
            }
            bytes.extend(more);
            bytes
        },
    )
}

fn any_entry_bytes() -> impl Strategy<Value = Vec<u8>> {
    let near = common::entry().prop_flat_map(|entry| damaged(entry.to_bytes().unwrap()));
    prop_oneof![prop::collection::vec(any::<u8>(), 0..200), near]
}

fn signature() -> impl Strategy<Value = NoteSignature> {
    ("[a-z./]{1,20}", any::<[u8; 4]>(), prop::collection::vec(any::<u8>(), 1..80))
        .prop_map(|(name, id, bytes)| NoteSignature { name, key_id: note::KeyId(id), bytes })
}

fn signed_note() -> impl Strategy<Value = SignedNote> {
    let lines = prop::collection::vec(signature(), 1..5);
    ("([a-z/]{0,10}\n){1,6}", lines)
        .prop_filter_map("not a note", |(text, lines)| SignedNote::new(text, lines).ok())
}

fn proof() -> impl Strategy<Value = TlogProof> {
    let extra = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
    let hashes = prop::collection::vec(common::digest(), 0..65);
    (extra, any::<u64>(), hashes, signed_note()).prop_map(|(extra, index, hashes, checkpoint)| {
        TlogProof { extra, index: Version(index), hashes, checkpoint }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn an_entry_is_read_as_it_was_written(entry in common::entry()) {
        let bytes = entry.to_bytes().unwrap();
        prop_assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        for len in 0..bytes.len() {
            prop_assert!(Entry::decode(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn accepted_entries_are_canonical(bytes in any_entry_bytes()) {
        if let Ok(entry) = Entry::decode(&bytes) {
            prop_assert_eq!(entry.to_bytes().unwrap(), bytes);
        }
    }

    #[test]
    fn replay_never_panics_and_a_refused_entry_changes_nothing(
        bytes in any_entry_bytes(), after in 0_usize..8,
    ) {
        let mut replay = Replay::new();
        for entry in &common::golden_entries()[..after] {
            replay.push(entry).unwrap();
        }
        let before = (replay.size(), replay.root());
        if replay.push(&bytes).is_err() {
            prop_assert_eq!((replay.size(), replay.root()), before);
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written(note in signed_note()) {
        prop_assert_eq!(SignedNote::parse(note.to_string().as_bytes()).unwrap(), note);
    }

    #[test]
    fn accepted_notes_are_canonical(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            signed_note().prop_flat_map(|note| damaged(note.to_string().into_bytes())),
        ]
    ) {
        if let Ok(note) = SignedNote::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes);
            if let Ok(checkpoint) = note.checkpoint() {
                prop_assert_eq!(checkpoint.to_string(), note.text());
            }
        }
    }

    #[test]
    fn accepted_checkpoints_are_canonical(text in "[a/]{0,2}\n(0|[0-9]{1,21})\n[A-Za-z0-9+/]{43}=\n{0,2}") {
        if let Ok(checkpoint) = text.parse::<Checkpoint>() {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }

    #[test]
    fn accepted_vkeys_are_canonical(
        bytes in damaged(
            b"atlas/ams/flights/0+1bb9c9ba+AYqI4918DjtKWWMoMBnHWoLPLyQvbOpOiwUBoEQaq9dc".to_vec()
        )
    ) {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(key) = text.parse::<VerifierKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn a_proof_is_read_as_it_was_written(proof in proof()) {
        prop_assert_eq!(proof.to_text().parse::<TlogProof>().unwrap(), proof);
    }

    #[test]
    fn accepted_proofs_are_canonical(
        bytes in proof().prop_flat_map(|proof| damaged(proof.to_text().into_bytes()))
    ) {
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(proof) = text.parse::<TlogProof>()
        {
            prop_assert_eq!(proof.to_text(), text);
        }
    }

    #[test]
    fn accepted_tile_paths_are_canonical(
        path in "tile/([0-9]{1,2}|entries)/(x?[0-9]{3}/){0,8}[0-9]{3}(\\.p/[0-9]{1,3})?"
    ) {
        if let Ok(tile) = path.parse::<TileId>() {
            prop_assert_eq!(tile.to_string(), path);
        }
    }

    #[test]
    fn bundles_and_tiles_never_panic_and_are_canonical(
        bytes in prop::collection::vec(any::<u8>(), 0..600), width in 0_u16..20,
        entries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20),
    ) {
        let bundle = tile::encode_bundle(entries.iter().map(Vec::as_slice)).unwrap();
        prop_assert_eq!(tile::decode_bundle(&bundle, entries.len() as u16).unwrap(), entries);
        if let Ok(entries) = tile::decode_bundle(&bytes, width) {
            prop_assert_eq!(tile::encode_bundle(entries).unwrap(), &bytes[..]);
        }
        if let Ok(hashes) = tile::decode_hashes(&bytes, width) {
            prop_assert_eq!(tile::encode_hashes(&hashes), bytes);
        }
    }

    #[test]
    fn names_are_canonical(text in "[a-z0-9.-]{0,6}(\\.[0-9]{1,11})?", digest in "[0-9a-fA-F]{63,65}") {
        if let Ok(id) = text.parse::<LedgerId>() {
            prop_assert_eq!(id.to_string(), text);
        }
        if let Ok(id) = digest.parse::<Digest>() {
            prop_assert_eq!(id.to_string(), digest);
        }
    }
}
