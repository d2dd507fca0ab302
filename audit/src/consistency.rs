//! That one checkpoint extends another, or proof that its signers contradict themselves.

use serde::Serialize;
use tradewind_ledger::tree::{ProofError, consistency_proof, root_at, verify_consistency};
use tradewind_ledger::{Checkpoint, Digest, SignedNote, Version};

use crate::reader::published_tree;
use crate::report::{Evidence, Place, Problem, ProblemKind, Problems, Verdict};
use crate::signatures;
use crate::source::Source;
use crate::verify::Options;

/// How two checkpoints relate.
#[derive(Clone, Debug, Serialize)]
pub struct ConsistencyReport {
    /// Their origin.
    pub origin: Option<String>,
    /// Size of the smaller.
    pub old_size: Option<Version>,
    /// Size of the larger.
    pub new_size: Option<Version>,
    /// The RFC 6962 consistency proof between them.
    pub proof: Vec<Digest>,
    /// Proof that the signers contradict themselves.
    pub evidence: Option<Evidence>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

impl ConsistencyReport {
    /// The short answer.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.problems)
    }
}

/// Shows that the larger of two checkpoints extends the smaller, with the hash tiles at `source`. The keys
/// in `options` say who is to have signed them; without keys signatures are not judged, and so nothing can
/// be held against the signers.
#[must_use]
pub fn consistency(
    source: &dyn Source,
    a: &SignedNote,
    b: &SignedNote,
    options: &Options,
) -> ConsistencyReport {
    let mut problems = Problems::default();
    let mut report = ConsistencyReport {
        origin: None,
        old_size: None,
        new_size: None,
        proof: Vec::new(),
        evidence: None,
        problems: Vec::new(),
    };
    match (a.checkpoint(), b.checkpoint()) {
        (Ok(first), Ok(second)) if first.size <= second.size => {
            relate(source, (a, &first), (b, &second), options, &mut report, &mut problems);
        }
        (Ok(first), Ok(second)) => {
            relate(source, (b, &second), (a, &first), options, &mut report, &mut problems);
        }
        (first, second) => {
            for error in [first.err(), second.err()].into_iter().flatten() {
                problems.fault(Place::default(), error.to_string());
            }
        }
    }
    report.problems = problems.into_list();
    report
}

fn relate(
    source: &dyn Source,
    (old_note, old): (&SignedNote, &Checkpoint),
    (new_note, new): (&SignedNote, &Checkpoint),
    options: &Options,
    report: &mut ConsistencyReport,
    problems: &mut Problems,
) {
    report.origin = Some(new.origin.clone());
    (report.old_size, report.new_size) = (Some(old.size), Some(new.size));
    if old.origin != new.origin {
        let message = format!("checkpoints of two ledgers: `{}` and `{}`", old.origin, new.origin);
        return problems.fault(Place::default(), message);
    }
    let mut signed = |note| {
        !options.keys.is_empty()
            && signatures::check(note, &new.origin, &[], options, problems).enough
    };
    let both_signed = signed(old_note) & signed(new_note);
    let tree = published_tree(source, new.size);
    let mut evidence = Evidence {
        first: old_note.to_string(),
        second: new_note.to_string(),
        committed_root: None,
        proof: Vec::new(),
    };
    let proof = match consistency_proof(&tree, old.size, new.size) {
        Ok(proof) => proof,
        Err(error) => {
            let message = format!("{error}: the tiles of the larger checkpoint are needed");
            return problems.add(ProblemKind::Unchecked, Place::default(), message);
        }
    };
    let failed = match verify_consistency(old.size, new.size, &old.root, &new.root, &proof) {
        Ok(()) => {
            report.proof = proof;
            return;
        }
        Err(error) => error,
    };
    if old.size != new.size {
        // The fault is the signers' only if the tiles tie another root of that size to the newer one.
        let committed = root_at(&tree, old.size).map_err(ProofError::from).and_then(|root| {
            verify_consistency(old.size, new.size, &root, &new.root, &proof).map(|()| root)
        });
        match committed {
            Ok(root) => (evidence.committed_root, evidence.proof) = (Some(root), proof),
            Err(error) => {
                let message = format!("the tiles do not belong to the larger checkpoint: {error}");
                return problems.add(ProblemKind::Unchecked, Place::default(), message);
            }
        }
    }
    let message = format!("the larger checkpoint does not extend the smaller: {failed}");
    if both_signed {
        report.evidence = Some(evidence);
        problems.add(ProblemKind::Equivocation, Place::default(), message);
    } else {
        problems.fault(Place::default(), message);
    }
}
