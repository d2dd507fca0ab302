//! What `verify` says of ledgers that are right, and of many that are not.

use std::fs;
use std::time::Duration;

use tempfile::TempDir;
use tradewind_audit::{
    DirSource, Options, ProblemKind, Report, Source, SourceError, Trust, Verdict, verify,
};
use tradewind_ledger::note::KeyKind;
use tradewind_ledger::*;
use tradewind_ledger_disk as disk;

use crate::common::{Ledger, audit, genesis, sample, signers};

fn messages(report: &Report) -> String {
    let of_ledgers = report.ledgers.iter().flat_map(|ledger| &ledger.problems);
    report.problems.iter().chain(of_ledgers).map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_whole_ledger_holds_and_its_proven_range_is_the_published_one() {
    let (temp, ledger) = sample();
    let report = audit(&ledger.dir);
    assert_eq!(messages(&report), "");
    assert_eq!(report.verdict(), Verdict::Holds);
    let [found] = &report.ledgers[..] else { panic!("one ledger") };
    let size = ledger.replay.size();
    assert_eq!(found.ledger, "flights.0");
    assert_eq!(found.size, size);
    assert_eq!(found.verified_through, Version(size.0 - 20));
    assert_eq!(found.root, Some(ledger.roots[size.0 as usize - 20]));
    assert_eq!((found.signers.len(), found.threshold), (3, 2));
    assert_eq!(found.trust, Trust::OwnGenesis);
    assert_eq!(found.lineage, ledger.replay.lineage());
    assert!(found.segments >= 4 && found.values > 10);
    drop(temp);
}

#[test]
fn all_ledgers_of_a_data_directory_are_checked() {
    let temp = TempDir::new().unwrap();
    let ledgers: Vec<_> = (0..3)
        .map(|shard| {
            Ledger::sample(
                &temp.path().join(format!("ledgers/flights.{shard}")),
                shard,
                disk::Face::Static,
            )
        })
        .collect();
    let report = audit(temp.path());
    assert_eq!(messages(&report), "");
    let names: Vec<_> = report.ledgers.iter().map(|ledger| &ledger.ledger[..]).collect();
    assert_eq!(names, ["flights.0", "flights.1", "flights.2"]);
    drop(ledgers);
}

#[test]
fn nothing_at_all_cannot_be_checked() {
    let temp = TempDir::new().unwrap();
    assert_eq!(audit(temp.path()).verdict(), Verdict::CouldNotCheck);
    assert_eq!(audit(&temp.path().join("missing")).verdict(), Verdict::CouldNotCheck);
}

/// The public face as HTTP shows it: no listing.
struct Face(DirSource);

impl Source for Face {
    fn name(&self) -> String {
        "http://example/log/flights.0".into()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        assert!(!path.starts_with("segments"), "segments are not served");
        self.0.read(path, limit)
    }

    fn list(&self, _: &str) -> Result<Option<Vec<String>>, SourceError> {
        Ok(None)
    }
}

#[test]
fn the_public_face_alone_proves_the_published_range() {
    let (_temp, ledger) = sample();
    let report = verify(&Face(DirSource::new(&ledger.dir)), &Options::default());
    assert_eq!(messages(&report), "");
    let size = Version(ledger.replay.size().0 - 20);
    assert_eq!(report.ledgers[0].verified_through, size);
    assert_eq!(report.ledgers[0].size, size);
}

#[test]
fn a_missing_tile_or_bundle_is_found_with_and_without_a_listing() {
    for path in ["tile/0/001", "tile/entries/001", "tile/1/000.p/2"] {
        let (_temp, ledger) = sample();
        fs::remove_file(ledger.dir.join(path)).unwrap();
        let listed = audit(&ledger.dir);
        assert!(messages(&listed).contains(path), "{}", messages(&listed));
        let face = verify(&Face(DirSource::new(&ledger.dir)), &Options::default());
        assert_eq!(face.verdict(), Verdict::DoesNotHold);
        assert!(messages(&face).contains(path), "{}", messages(&face));
    }
}

#[test]
fn a_missing_segment_is_found_and_the_rest_is_still_proven_by_the_bundles() {
    let (_temp, ledger) = sample();
    let segments = ledger.dir.join("segments");
    let mut names: Vec<_> = fs::read_dir(&segments).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    fs::remove_file(&names[1]).unwrap();
    let report = audit(&ledger.dir);
    assert_eq!(report.verdict(), Verdict::DoesNotHold);
    assert!(messages(&report).contains("entries are missing"), "{}", messages(&report));
    assert_eq!(report.ledgers[0].verified_through.0, ledger.replay.size().0 - 20);
}

/// A server that breaks down at some files.
struct Broken(DirSource, &'static str);

impl Source for Broken {
    fn name(&self) -> String {
        "broken".into()
    }

    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if path.starts_with(self.1) {
            return Err(SourceError::Io { path: path.into(), reason: "connection reset".into() });
        }
        self.0.read(path, limit)
    }

    fn list(&self, _: &str) -> Result<Option<Vec<String>>, SourceError> {
        Ok(None)
    }
}

#[test]
fn what_cannot_be_read_or_is_not_served_is_unknown_not_wrong() {
    let (_temp, ledger) = sample();
    for path in ["checkpoint", "tile/entries/001", "tile/0/000", "tile/entries", "values"] {
        let report = verify(&Broken(DirSource::new(&ledger.dir), path), &Options::default());
        assert_eq!(report.verdict(), Verdict::CouldNotCheck, "{path}: {}", messages(&report));
    }
    let empty = TempDir::new().unwrap();
    let report = verify(&Face(DirSource::new(empty.path())), &Options::default());
    assert_eq!(report.verdict(), Verdict::CouldNotCheck);
    let value = crate::common::files(&ledger.dir.join("values")).remove(0);
    fs::remove_file(value).unwrap();
    let report = verify(&Face(DirSource::new(&ledger.dir)), &Options::default());
    assert_eq!(report.verdict(), Verdict::CouldNotCheck);
    assert_eq!(report.ledgers[0].verified_through.0, ledger.replay.size().0 - 20);
}

#[test]
fn a_missing_value_is_found() {
    let (_temp, ledger) = sample();
    let value = crate::common::files(&ledger.dir.join("values")).remove(0);
    fs::remove_file(value).unwrap();
    let report = audit(&ledger.dir);
    assert!(messages(&report).contains("missing"), "{}", messages(&report));
    assert_eq!(report.verdict(), Verdict::DoesNotHold);
}

#[test]
fn too_few_signatures_and_too_old_are_told_apart_from_damage() {
    let (_temp, mut ledger) = sample();
    let size = ledger.replay.size().0;
    let note = ledger.signed(size, &signers()[..1]);
    ledger.opened.publisher.publish(&note).unwrap();
    let report = audit(&ledger.dir);
    assert_eq!(report.verdict(), Verdict::TooFewOrTooOld);
    assert_eq!(report.ledgers[0].signers, ["a1"]);
    assert_eq!(report.ledgers[0].verified_through, Version::ZERO);
    assert_eq!(report.verdict().exit_code(), 4);
    let one = Options { threshold: Some(1), ..Options::default() };
    assert_eq!(verify(&DirSource::new(&ledger.dir), &one).verdict(), Verdict::Holds);

    ledger.publish(size);
    let now = Hlc::from_micros(ledger.replay.last_hlc().micros() + 3_600_000_000);
    let max_age = Some(Duration::from_secs(60));
    let options = Options { now: Some(now), max_age, ..Options::default() };
    let report = verify(&DirSource::new(&ledger.dir), &options);
    assert_eq!(report.verdict(), Verdict::TooFewOrTooOld);
    assert_eq!(report.ledgers[0].age_seconds, Some(3_600));
    assert_eq!(report.ledgers[0].verified_through, Version(size));
}

#[test]
fn given_keys_and_lineages_decide_whom_to_believe() {
    let (_temp, ledger) = sample();
    let source = DirSource::new(&ledger.dir);
    let origin = ledger.genesis.origin();
    let key = |origin: &str, signer: &Ed25519Signer| {
        VerifierKey::new(origin, KeyKind::Ed25519, signer.public_key()).unwrap()
    };
    let given = |keys: Vec<VerifierKey>| Options { keys, ..Options::default() };
    let report = verify(&source, &given(vec![key(&origin, &signers()[1])]));
    assert_eq!(messages(&report), "");
    assert_eq!(report.ledgers[0].signers, ["a2"]);
    assert_eq!(report.ledgers[0].trust, Trust::Keys);

    let stranger = Ed25519Signer::from_seed(&[9; 32]);
    let report = verify(&source, &given(vec![key(&origin, &stranger)]));
    assert_eq!(report.verdict(), Verdict::TooFewOrTooOld);
    let report = verify(&source, &given(vec![key("atlas/ams/other/0", &stranger)]));
    assert_eq!(report.verdict(), Verdict::CouldNotCheck);

    let lineages = vec![ledger.replay.lineage().unwrap()];
    let report = verify(&source, &Options { lineages, ..Options::default() });
    assert_eq!(report.ledgers[0].trust, Trust::Lineage);
    assert_eq!(report.verdict(), Verdict::Holds);
    let lineages = vec![Lineage(Digest::ZERO)];
    let report = verify(&source, &Options { lineages, ..Options::default() });
    assert_eq!(report.verdict(), Verdict::DoesNotHold);
}

#[test]
fn a_key_history_with_a_gap_is_found() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("flights.0");
    let mut ledger = Ledger::create(&dir, 0, disk::Face::Static);
    ledger.put(b"AMS", b"1");
    let hlc = Hlc(ledger.replay.last_hlc().0 + 1);
    let update = Update {
        key: b"AMS".to_vec(),
        key_version: KeyVersion(3),
        prev_version: Some(Version(1)),
        value: Some(Value::Inline(b"3".to_vec())),
    };
    let request = RequestId { session: SessionId(1), number: RequestNumber(1) };
    ledger.push(&Entry { hlc, view: ViewId(0), body: Body::Put(Write { request, update }) });
    ledger.seal();
    ledger.sync();
    ledger.publish(4);
    let report = audit(&dir);
    assert_eq!(report.problem_count(), 1, "{}", messages(&report));
    let problem = &report.ledgers[0].problems[0];
    assert_eq!(problem.version, Some(Version(2)));
    assert!(problem.message.contains("`AMS` has key version 3"), "{problem}");
    assert!(problem.file.as_deref().is_some_and(|file| file.starts_with("segments/")));
    assert!(problem.offset > Some(4_096));
}

#[test]
fn every_fault_is_listed_not_only_the_first() {
    let (_temp, ledger) = sample();
    let flip = |path: &str, at: usize| {
        let path = ledger.dir.join(path);
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    flip("tile/0/000", 77);
    flip("tile/entries/001", 3);
    flip("tile/1/000.p/2", 0);
    let value = crate::common::files(&ledger.dir.join("values")).remove(0);
    let value = value.strip_prefix(&ledger.dir).unwrap().to_str().unwrap().to_owned();
    flip(&value, 100);
    let first = "segments/00000000000000000000-00000000000000000150.seg";
    flip(first, 4_096 + 300);
    let report = audit(&ledger.dir);
    let problems = messages(&report);
    for file in ["tile/0/000:77", "tile/entries/001", "tile/1/000.p/2", &value, first] {
        assert!(problems.contains(file), "{file} is not in:\n{problems}");
    }
    assert_eq!(report.verdict().exit_code(), 1);
}

#[test]
fn two_signed_histories_are_an_equivocation_with_evidence() {
    let (_temp, ledger) = sample();
    let size = ledger.replay.size().0;
    let lie = |size: u64| {
        let root = tree::leaf_hash(b"another history");
        let checkpoint = Checkpoint { root, ..ledger.checkpoint(size) };
        let lines = signers().iter().map(|signer| checkpoint.sign(signer)).collect();
        checkpoint.with_signatures(lines).unwrap()
    };
    for at in [size - 20, size - 100] {
        let options = Options { known: vec![lie(at)], ..Options::default() };
        let report = verify(&DirSource::new(&ledger.dir), &options);
        assert_eq!(report.verdict(), Verdict::Equivocation, "{}", messages(&report));
        assert_eq!(report.verdict().exit_code(), 3);
        let [evidence] = &report.ledgers[0].evidence[..] else { panic!("one piece of evidence") };
        // It stands on its own: two signed notes and a proof that they contradict each other.
        let read = |note: &str| SignedNote::parse(note.as_bytes()).unwrap();
        let (first, second) = (read(&evidence.first), read(&evidence.second));
        let policy = Policy::of_genesis(&genesis(0)).unwrap();
        let first = policy.verify(&first).unwrap().checkpoint;
        let second = policy.verify(&second).unwrap().checkpoint;
        let committed = evidence.committed_root.unwrap_or(second.root);
        assert_ne!(committed, first.root);
        let proof = &evidence.proof;
        tree::verify_consistency(first.size, second.size, &committed, &second.root, proof).unwrap();
    }
    let honest =
        Options { known: vec![ledger.signed(size - 100, &signers())], ..Options::default() };
    assert_eq!(verify(&DirSource::new(&ledger.dir), &honest).verdict(), Verdict::Holds);
    // A lie that nobody signed proves nothing against the signers.
    let origin = ledger.genesis.origin();
    let unsigned = Checkpoint { origin, size: Version(9), root: Digest::ZERO };
    let unsigned = unsigned.with_signatures(vec![unsigned.sign(&signers()[0])]).unwrap();
    let options = Options { known: vec![unsigned], ..Options::default() };
    let report = verify(&DirSource::new(&ledger.dir), &options);
    assert_eq!(report.verdict(), Verdict::DoesNotHold);
    assert!(report.ledgers[0].problems.iter().all(|p| p.kind != ProblemKind::Equivocation));
}

#[test]
fn a_forged_size_does_not_keep_the_auditor_busy() {
    let (_temp, ledger) = sample();
    let checkpoint = Checkpoint { size: Version(u64::MAX / 2), ..ledger.checkpoint(9) };
    let lines = signers().iter().map(|signer| checkpoint.sign(signer)).collect();
    let note = checkpoint.with_signatures(lines).unwrap();
    fs::write(ledger.dir.join("checkpoint"), note.to_string()).unwrap();
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::DoesNotHold);
    let face = verify(&Face(DirSource::new(&ledger.dir)), &Options::default());
    assert_eq!(face.verdict(), Verdict::DoesNotHold);
}

#[test]
fn a_ledger_holds_while_it_is_being_written() {
    let (_temp, mut ledger) = sample();
    let dir = ledger.dir.clone();
    let audits = 30;
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                ledger.fill(15, 40);
                let size = ledger.replay.size().0;
                ledger.publish(size);
            }
        });
        let mut last = Version::ZERO;
        for _ in 0..audits {
            let report = audit(&dir);
            assert_eq!(messages(&report), "");
            assert!(report.ledgers[0].verified_through >= last);
            last = report.ledgers[0].verified_through;
            let face = verify(&Face(DirSource::new(&dir)), &Options::default());
            assert_eq!(messages(&face), "");
        }
        drop(stop);
    });
}

#[test]
fn of_a_pruned_ledger_what_is_there_is_proven_and_what_is_not_is_said() {
    let (_temp, mut ledger) = sample();
    let whole = audit(&ledger.dir);
    let first = ledger.prune();
    let report = audit(&ledger.dir);
    assert_eq!(report.verdict(), Verdict::Holds, "{:?}", report.ledgers[0].problems);
    let (before, after) = (&whole.ledgers[0], &report.ledgers[0]);
    assert_eq!((before.first, after.first), (Version(0), first));
    assert_eq!((after.verified_through, after.root), (before.verified_through, before.root));
    assert_eq!((after.lineage, &after.signers), (before.lineage, &before.signers));

    // A checkpoint from before what was pruned is still compared.
    let source = DirSource::new(&ledger.dir);
    let known = |size: u64| {
        let options =
            Options { known: vec![ledger.signed(size, &signers())], ..Options::default() };
        verify(&source, &options).verdict()
    };
    assert_eq!(known(100), Verdict::Holds);
    let mut other = ledger.checkpoint(100);
    other.root.0[0] ^= 1;
    let lines = signers().iter().map(|signer| other.sign(signer)).collect();
    let known = vec![other.with_signatures(lines).unwrap()];
    let report = verify(&source, &Options { known, ..Options::default() });
    assert_eq!(report.verdict(), Verdict::Equivocation);

    // Files that an interrupted pruning left are none of the ledger's.
    let name = "segments/00000000000000000000-00000000000000000009.seg";
    std::fs::write(ledger.dir.join(name), b"left").unwrap();
    assert_eq!(audit(&ledger.dir).verdict(), Verdict::Holds);

    // A proof of what is gone cannot be made, one of what is there can.
    let proven = tradewind_audit::prove(&source, Version(first.0 / 256 * 256 - 1));
    assert!(
        matches!(proven, Err(tradewind_audit::ProveError::Pruned { first: it, .. }) if it == first)
    );
    tradewind_audit::prove(&source, first).unwrap();
}
