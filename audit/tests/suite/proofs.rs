//! `prove`, `check` and `consistency`.

use tradewind_audit::{DirSource, Options, Verdict, check, consistency, prove};
use tradewind_ledger::note::KeyKind;
use tradewind_ledger::*;

use crate::common::{Ledger, packed_sample, sample, signers};

fn keys(ledger: &Ledger) -> Vec<VerifierKey> {
    let origin = ledger.genesis.origin();
    let key = |signer: &Ed25519Signer| {
        VerifierKey::new(&origin, KeyKind::Ed25519, signer.public_key()).unwrap()
    };
    signers().iter().map(key).collect()
}

#[test]
fn a_proof_is_made_from_the_public_face_and_checked_offline() {
    // A mirror's directory, and a node's.
    for (_temp, ledger) in [sample(), packed_sample()] {
        prove_and_check(&ledger);
    }
}

fn prove_and_check(ledger: &Ledger) {
    let source = DirSource::new(&ledger.dir);
    let size = ledger.replay.size().0 - 20;
    for version in [0, 1, 255, 256, 511, 512, size - 1] {
        let proof = prove(&source, Version(version)).unwrap();
        let report = check(&proof.to_text(), None, &keys(ledger), None);
        assert_eq!(report.verdict(), Verdict::Holds, "{:?}", report.problems);
        assert_eq!(report.version, Some(Version(version)));
        assert_eq!((report.signers.len(), report.threshold), (3, 2));
        let entry = ledger.opened.reader.entry(Version(version)).unwrap();
        assert_eq!(report.entry, Some(Entry::decode(&entry).unwrap()));
        let given = check(&proof.to_text(), Some(&entry), &keys(ledger), None);
        assert_eq!(given.verdict(), Verdict::Holds);
        let other = check(&proof.to_text(), Some(b"something else"), &keys(ledger), None);
        assert_eq!(other.verdict(), Verdict::DoesNotHold);
    }
    assert!(prove(&source, Version(size)).is_err());
}

#[test]
fn a_changed_proof_or_missing_keys_do_not_pass() {
    let (_temp, ledger) = sample();
    let proof = prove(&DirSource::new(&ledger.dir), Version(300)).unwrap();
    let text = proof.to_text();
    assert_eq!(check(&text, None, &[], None).verdict(), Verdict::CouldNotCheck);
    let one = &keys(&ledger)[..1];
    assert_eq!(check(&text, None, one, Some(2)).verdict(), Verdict::TooFewOrTooOld);
    for at in (0..text.len()).step_by(3).filter(|at| text.is_char_boundary(*at)) {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(damaged) = String::from_utf8(bytes) else { continue };
        // With all three wanted: a line by an unknown key is ignored, so two would still be left.
        let verdict = check(&damaged, None, &keys(&ledger), Some(3)).verdict();
        assert_ne!(verdict, Verdict::Holds, "byte {at}");
    }
}

#[test]
fn a_later_checkpoint_extends_an_earlier_one_or_convicts_its_signers() {
    let (_temp, ledger) = sample();
    let source = DirSource::new(&ledger.dir);
    let size = ledger.replay.size().0 - 20;
    let options = Options { keys: keys(&ledger), ..Options::default() };
    let new = ledger.signed(size, &signers());
    for old in [1, 100, 256, size] {
        let old = ledger.signed(old, &signers());
        let report = consistency(&source, &new, &old, &options);
        assert_eq!(report.verdict(), Verdict::Holds, "{:?}", report.problems);
    }
    let lie = Checkpoint { root: Digest::ZERO, ..ledger.checkpoint(100) };
    let lines = |signers: &[Ed25519Signer]| signers.iter().map(|signer| lie.sign(signer)).collect();
    let signed = lie.with_signatures(lines(&signers())).unwrap();
    let report = consistency(&source, &signed, &new, &options);
    assert_eq!(report.verdict(), Verdict::Equivocation);
    let evidence = report.evidence.unwrap();
    assert_eq!(evidence.committed_root, Some(ledger.roots[100]));
    let unsure = lie.with_signatures(lines(&signers()[..1])).unwrap();
    let report = consistency(&source, &unsure, &new, &options);
    assert_eq!(report.verdict(), Verdict::DoesNotHold);
    assert!(report.evidence.is_none());
}
