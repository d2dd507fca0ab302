//! One flipped byte anywhere in a ledger's files is found.

use std::fs;

use proptest::prelude::*;
use tradewind_audit::Verdict;

use crate::common::{Ledger, audit, files, packed_sample, sample};

#[test]
fn one_flipped_byte_in_any_file_is_found() {
    flip_each_of(&sample().1, STATIC);
}

/// A node's directory has no bundles, and hash tiles are packed.
#[test]
fn one_flipped_byte_in_any_file_of_a_nodes_directory_is_found() {
    flip_each_of(&packed_sample().1, PACKED);
}

#[test]
fn one_flipped_byte_in_any_file_of_a_pruned_directory_is_found() {
    let (_temp, mut ledger) = sample();
    ledger.prune();
    flip_each_of(&ledger, &[STATIC, &["base"]].concat());
}

#[test]
fn one_flipped_byte_in_any_file_of_a_nodes_pruned_directory_is_found() {
    let (_temp, mut ledger) = packed_sample();
    ledger.prune();
    flip_each_of(&ledger, &[PACKED, &["base"]].concat());
}

/// What is beside segments and values.
const STATIC: &[&str] = &["tile/0/", "tile/1/", ".p/", "tile/entries"];
const PACKED: &[&str] = &["tile/0.hashes", "tile/1.hashes"];

fn flip_each_of(ledger: &Ledger, more: &[&str]) {
    let files = files(&ledger.dir);
    let kinds = ["segments/", ".open", "values/", "checkpoint"];
    for kind in kinds.iter().chain(more) {
        let has = files.iter().any(|file| file.to_str().unwrap().contains(kind));
        assert!(has, "the sample has no file of kind {kind}");
    }
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::Holds);
    // Every file in turn, at a random place.
    proptest!(ProptestConfig::with_cases(6), |(seeds in prop::collection::vec(
        (any::<prop::sample::Index>(), 1..=255_u8), files.len()
    ))| {
        for (file, (at, mask)) in files.iter().zip(seeds) {
            let whole = fs::read(file).unwrap();
            let at = at.index(whole.len());
            let mut bytes = whole.clone();
            bytes[at] ^= mask;
            fs::write(file, bytes).unwrap();
            let report = audit(&ledger.dir);
            fs::write(file, whole).unwrap();
            prop_assert_eq!(report.verdict(), Verdict::DoesNotHold, "{:?} at {} ^ {}", file, at, mask);
        }
    });
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::Holds);
}

/// The places where a flip could most easily slip through: all bytes of the checkpoint, the beginning of
/// segment files (magic, lineage, watermarks), and the first unused bytes after the last record.
#[test]
fn one_flipped_byte_at_the_tender_places_is_found() {
    let (_temp, ledger) = sample();
    let check = |file: &std::path::Path, places: &mut dyn Iterator<Item = usize>| {
        let whole = fs::read(file).unwrap();
        for at in places.filter(|at| *at < whole.len()) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(file, bytes).unwrap();
            let report = audit(&ledger.dir);
            assert_eq!(report.verdict(), Verdict::DoesNotHold, "{} at {at}", file.display());
        }
        fs::write(file, whole).unwrap();
    };
    check(&ledger.dir.join("checkpoint"), &mut (0..).step_by(1).take(700));
    for file in files(&ledger.dir.join("segments")) {
        let whole = fs::read(&file).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
        check(&file, &mut (0..60).step_by(7));
        check(&file, &mut (500..1_060).step_by(13));
        check(&file, &mut (4_096..4_104));
        check(&file, &mut (used..used + 20));
        check(&file, &mut (whole.len() - 2..whole.len()));
    }
}

#[test]
fn any_flipped_byte_of_a_base_and_any_missing_tile_before_it_is_found() {
    let (_temp, mut ledger) = sample();
    ledger.prune();
    let base = ledger.dir.join("base");
    let whole = fs::read(&base).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&base, bytes).unwrap();
        assert_eq!(audit(&ledger.dir).verdict(), Verdict::DoesNotHold, "the base at {at}");
    }
    // Pruned by hand: entries are missing and nothing says why.
    fs::remove_file(&base).unwrap();
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::DoesNotHold);
    fs::write(&base, whole).unwrap();
    let tile = ledger.dir.join("tile/0/000");
    fs::rename(&tile, ledger.dir.join("aside")).unwrap();
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::DoesNotHold);
    fs::rename(ledger.dir.join("aside"), &tile).unwrap();
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::Holds);
}

#[test]
fn a_damaged_packed_tile_is_named_with_its_place_and_one_that_is_cut_off_is_missed() {
    let (_temp, ledger) = packed_sample();
    let path = ledger.dir.join("tile/0.hashes");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[8_192 + 40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let report = audit(&ledger.dir);
    let places: Vec<_> =
        report.ledgers[0].problems.iter().map(|it| (it.file.clone(), it.offset)).collect();
    assert!(places.contains(&(Some("tile/0.hashes".into()), Some(8_192 + 40))), "{places:?}");
    fs::write(&path, &whole[..8_192 + 33]).unwrap();
    let report = audit(&ledger.dir);
    let messages: Vec<_> = report.ledgers[0].problems.iter().map(|it| it.message.clone()).collect();
    assert!(messages.iter().any(|it| it.contains("1 bytes after the last hash")), "{messages:?}");
    assert!(messages.iter().any(|it| it.contains("missing")), "{messages:?}");
}
