//! Compares what the entries of a ledger give with what was signed.

use std::collections::HashMap;

use tradewind_ledger::tree::{compact_range_at, consistency_proof, root_at};
use tradewind_ledger::{Checkpoint, Digest, Genesis, Hlc, Replay, SignedNote, Version};

use crate::ledger::Mark;
use crate::published::Published;
use crate::reader::published_tree;
use crate::report::{Evidence, LedgerReport, Place, ProblemKind, Problems, Trust};
use crate::signatures;
use crate::source::Source;
use crate::verify::Options;

/// Says what is proven of the ledger of this name, whose entries before `first` were pruned. `marks` are the states at the sizes of the checkpoints.
pub(crate) fn judge(
    source: &dyn Source,
    options: &Options,
    (name, first): (String, Version),
    replay: &Replay,
    marks: &HashMap<Version, Option<Mark>>,
    published: Option<Published>,
    problems: &mut Problems,
) -> LedgerReport {
    let mut report = LedgerReport {
        ledger: replay.genesis().map_or(name, |genesis| genesis.ledger.to_string()),
        origin: replay.genesis().map(Genesis::origin),
        lineage: replay.lineage(),
        first,
        verified_through: Version::ZERO,
        root: None,
        size: replay.size(),
        checkpoint_size: published.as_ref().map(|published| published.checkpoint.size),
        signers: Vec::new(),
        threshold: 0,
        trust: Trust::OwnGenesis,
        last_time: None,
        age_seconds: None,
        segments: 0,
        values: 0,
        bytes: 0,
        evidence: Vec::new(),
        problems: Vec::new(),
    };
    check_lineage(options, &mut report, problems);
    let Some(Published { note, checkpoint, .. }) = published else { return report };
    let mark = marks.get(&checkpoint.size).and_then(Option::as_ref);
    let members = mark.map_or(replay.members(), |mark| &mark.members);
    let origin = report.origin.clone().unwrap_or_else(|| checkpoint.origin.clone());
    if signatures::trusted(options, &origin, members).1 == Trust::Keys {
        report.trust = Trust::Keys;
    }
    let signed = signatures::check(&note, &origin, members, options, problems);
    report.signers = signed.signers;
    report.threshold = signed.threshold;

    for known in &options.known {
        let Some(stated) = known.checkpoint().ok().filter(|known| known.origin == origin) else {
            continue;
        };
        let both = signed.enough
            && signatures::check(known, &origin, members, options, &mut Problems::default()).enough;
        let here = match marks.get(&stated.size).and_then(Option::as_ref) {
            Some(mark) => Some(mark.root),
            // The entries are gone, but the tiles give the root.
            None if stated.size < first => {
                root_at(&published_tree(source, checkpoint.size), stated.size).ok()
            }
            None => None,
        };
        let evidence =
            compare(source, (known, &stated), (&note, &checkpoint), here, both, problems);
        report.evidence.extend(evidence);
    }
    let proven = proven(source, &checkpoint, mark, replay, problems);
    if let Some((through, root, hlc)) = proven.filter(|_| signed.enough) {
        report.verified_through = through;
        report.root = Some(root);
        check_age(options, hlc, &mut report, problems);
    }
    report
}

fn check_lineage(options: &Options, report: &mut LedgerReport, problems: &mut Problems) {
    if report.size == Version::ZERO && report.checkpoint_size.is_none() {
        let message = "there is neither an entry nor a checkpoint";
        problems.add(ProblemKind::Unchecked, Place::default(), message);
    }
    let Some(lineage) = report.lineage.filter(|_| !options.lineages.is_empty()) else { return };
    if options.lineages.contains(&lineage) {
        report.trust = Trust::Lineage;
    } else {
        let message = format!("lineage {lineage} is not one of those that were given");
        problems.fault(Place::version(Version::ZERO), message);
    }
}

/// The range of entries that the checkpoint's root proves, with its root and last time.
fn proven(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    mark: Option<&Mark>,
    replay: &Replay,
    problems: &mut Problems,
) -> Option<(Version, Digest, Hlc)> {
    let Checkpoint { size, root: stated, .. } = checkpoint;
    let fault = |problems: &mut Problems, message: String| {
        problems.fault(Place::file("checkpoint"), message);
    };
    if let Some(mark) = mark {
        if mark.root == *stated {
            return Some((*size, mark.root, mark.hlc));
        }
        let root = mark.root;
        fault(problems, format!("it states root {stated} at size {size}, the entries give {root}"));
        return None;
    }
    // The entries could not be followed that far: the tiles may still tie the beginning to the root.
    let tree = published_tree(source, *size);
    match root_at(&tree, *size) {
        Ok(root) if root == *stated => {
            let range = compact_range_at(&tree, replay.size()).ok()?;
            let same = range.root() == replay.root();
            same.then(|| (replay.size(), range.root(), replay.last_hlc()))
        }
        Ok(root) => {
            fault(
                problems,
                format!("it states root {stated} at size {size}, the tiles give {root}"),
            );
            None
        }
        Err(error) => {
            let message = format!("its root cannot be computed: {error}");
            problems.missing(Place::file("checkpoint"), message);
            None
        }
    }
}

/// Compares with a checkpoint that the auditor has from before or elsewhere. `here` is the root that this
/// ledger has at its size. Returns evidence if both are signed and cannot both be true.
fn compare(
    source: &dyn Source,
    (known, stated): (&SignedNote, &Checkpoint),
    (note, checkpoint): (&SignedNote, &Checkpoint),
    here: Option<Digest>,
    both_signed: bool,
    problems: &mut Problems,
) -> Option<Evidence> {
    let place = || Place::file("checkpoint").of(stated.size);
    let same_size = stated.size == checkpoint.size;
    let here = if same_size { Some(checkpoint.root) } else { here };
    let Some(root) = here else {
        let message =
            format!("the known checkpoint of size {} lies beyond this ledger", stated.size);
        problems.add(ProblemKind::Unchecked, place(), message);
        return None;
    };
    if root == stated.root {
        return None;
    }
    let evidence = Evidence {
        first: known.to_string(),
        second: note.to_string(),
        committed_root: (!same_size).then_some(root),
        proof: Vec::new(),
    };
    let evidence = if same_size {
        Some(evidence)
    } else {
        let tree = published_tree(source, checkpoint.size);
        let proof = consistency_proof(&tree, stated.size, checkpoint.size).ok();
        proof.map(|proof| Evidence { proof, ..evidence })
    };
    let evidence = evidence.filter(|_| both_signed);
    let kind = if evidence.is_some() { ProblemKind::Equivocation } else { ProblemKind::Fault };
    let size = stated.size;
    let message =
        format!("a known checkpoint states root {} at size {size}, here it is {root}", stated.root);
    problems.add(kind, place(), message);
    evidence
}

fn check_age(options: &Options, hlc: Hlc, report: &mut LedgerReport, problems: &mut Problems) {
    let seconds = hlc.micros() / 1_000_000;
    report.last_time = Some(seconds);
    let Some(now) = options.now else { return };
    let age = (now.micros() / 1_000_000).saturating_sub(seconds);
    report.age_seconds = Some(age);
    if let Some(max) = options.max_age.filter(|max| age > max.as_secs()) {
        let message =
            format!("the last proven entry is {age} s old, {} s are allowed", max.as_secs());
        problems.add(ProblemKind::TooOld, Place::file("checkpoint"), message);
    }
}
