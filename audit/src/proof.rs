//! `prove` and `check`: that an entry is in a ledger, as a `.tlog-proof` (c2sp.org/tlog-proof).

use serde::Serialize;
use tradewind_ledger::entry::MAX_ENTRY;
use tradewind_ledger::note::{MAX_NOTE, VerifierKey};
use tradewind_ledger::tile::{MAX_BUNDLE_BYTES, TileId, TileKind, decode_bundle};
use tradewind_ledger::tlog_proof::{TlogProof, TlogProofError};
use tradewind_ledger::tree::{ProofError, inclusion_proof, leaf_hash, verify_inclusion};
use tradewind_ledger::{Base, Digest, Entry, SignedNote, Version};

use crate::pruned::read_base;
use crate::reader::published_tree;
use crate::report::{Place, Problem, ProblemKind, Problems, Verdict};
use crate::segments::Segments;
use crate::signatures;
use crate::source::{Source, SourceError};
use crate::verify::Options;

/// Why a proof cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProveError {
    /// A file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file that the proof needs is not there.
    #[error("{path} is missing")]
    Missing {
        /// Which one.
        path: String,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    Damaged {
        /// Which one.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The entry was removed, as the ledger's retention has it; its hash is still in the tree.
    #[error("entry {version} was pruned: entries from {first} on are kept")]
    Pruned {
        /// The entry.
        version: Version,
        /// The first that is kept.
        first: Version,
    },
    /// The entry is not covered by the checkpoint, or a hash is not held.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

/// Makes the proof that entry `version` is in the ledger at `source`, by its published checkpoint and tiles
/// alone. The entry travels in the proof's extra line.
///
/// # Errors
/// If something is missing, or the proof would not hold. Signatures are for [`check`] to judge.
pub fn prove(source: &dyn Source, version: Version) -> Result<TlogProof, ProveError> {
    let path = "checkpoint";
    let bytes = source.read(path, MAX_NOTE as u64)?;
    let bytes = bytes.ok_or_else(|| ProveError::Missing { path: path.into() })?;
    let damaged = |path: &str, reason: String| ProveError::Damaged { path: path.into(), reason };
    let note = SignedNote::parse(&bytes).map_err(|error| damaged(path, error.to_string()))?;
    let checkpoint = note.checkpoint().map_err(|error| damaged(path, error.to_string()))?;
    if version >= checkpoint.size {
        return Err(ProofError::OutOfTree { index: version, size: checkpoint.size }.into());
    }
    let entry = read_entry(source, version, checkpoint.size)?;
    let tree = published_tree(source, checkpoint.size);
    let hashes = inclusion_proof(&tree, version, checkpoint.size)?;
    verify_inclusion(&leaf_hash(&entry), version, checkpoint.size, &hashes, &checkpoint.root)?;
    Ok(TlogProof { extra: Some(entry), index: version, hashes, checkpoint: note })
}

/// One entry from its bundle, or from its segment in a directory without bundles.
fn read_entry(source: &dyn Source, version: Version, size: Version) -> Result<Vec<u8>, ProveError> {
    let id = TileId::of_entry(TileKind::Entries, version, size);
    let limit = MAX_BUNDLE_BYTES as u64;
    let (id, bytes) = match source.read(&id.to_string(), limit)? {
        Some(bytes) => (id, bytes),
        None => {
            let path = id.full().to_string();
            let Some(bytes) = source.read(&path, limit)? else {
                let mut problems = Problems::default();
                let base = read_base(source, &mut problems);
                if let Some(first) = base.as_ref().map(Base::size).filter(|it| version < *it) {
                    return Err(ProveError::Pruned { version, first });
                }
                let segments = Segments::open(source, base.as_ref(), &mut problems);
                let entry = segments.and_then(|segments| segments.entry(version, &mut problems));
                return entry.ok_or(ProveError::Missing { path });
            };
            (id.full(), bytes)
        }
    };
    let entries = decode_bundle(&bytes, id.width)
        .map_err(|error| ProveError::Damaged { path: id.to_string(), reason: error.to_string() })?;
    Ok(entries[(version.0 - id.first()) as usize].to_vec())
}

/// What a proof shows.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The ledger's origin, as its signers state it.
    pub origin: Option<String>,
    /// Which entry.
    pub version: Option<Version>,
    /// The entry's leaf hash.
    pub leaf: Option<Digest>,
    /// The entry, decoded, if it is of a format known here.
    #[serde(skip)]
    pub entry: Option<Entry>,
    /// Size of the checkpoint that it is in.
    pub size: Option<Version>,
    /// Root of that checkpoint.
    pub root: Option<Digest>,
    /// Which trusted keys signed that checkpoint.
    pub signers: Vec<String>,
    /// How many had to.
    pub threshold: usize,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

impl CheckReport {
    /// The short answer.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.problems)
    }
}

/// Checks a proof, offline: nothing is needed but the keys. `entry` is the entry that it should be about;
/// without one it is about the entry in its extra line.
#[must_use]
pub fn check(
    proof: &str,
    entry: Option<&[u8]>,
    keys: &[VerifierKey],
    threshold: Option<usize>,
) -> CheckReport {
    let mut problems = Problems::default();
    let mut report = CheckReport {
        origin: None,
        version: None,
        leaf: None,
        entry: None,
        size: None,
        root: None,
        signers: Vec::new(),
        threshold: 0,
        problems: Vec::new(),
    };
    match proof.parse() {
        Ok(proof) => check_parsed(&proof, entry, keys, threshold, &mut report, &mut problems),
        Err(error) => problems.fault(Place::default(), TlogProofError::to_string(&error)),
    }
    report.problems = problems.into_list();
    report
}

fn check_parsed(
    proof: &TlogProof,
    entry: Option<&[u8]>,
    keys: &[VerifierKey],
    threshold: Option<usize>,
    report: &mut CheckReport,
    problems: &mut Problems,
) {
    report.version = Some(proof.index);
    let checkpoint = match proof.checkpoint.checkpoint() {
        Ok(checkpoint) => checkpoint,
        Err(error) => return problems.fault(Place::default(), error.to_string()),
    };
    let options = Options { keys: keys.to_vec(), threshold, ..Options::default() };
    let signed = signatures::check(&proof.checkpoint, &checkpoint.origin, &[], &options, problems);
    report.signers = signed.signers;
    report.threshold = signed.threshold;
    report.size = Some(checkpoint.size);
    report.root = Some(checkpoint.root);
    report.origin = Some(checkpoint.origin);
    let place = || Place::version(proof.index);
    let Some(bytes) = entry.or(proof.extra.as_deref()).filter(|bytes| bytes.len() <= MAX_ENTRY)
    else {
        let message = "the proof does not carry its entry, and none was given";
        return problems.add(ProblemKind::Unchecked, place(), message);
    };
    let leaf = leaf_hash(bytes);
    report.leaf = Some(leaf);
    report.entry = Entry::decode(bytes).ok();
    let (size, root) = (checkpoint.size, checkpoint.root);
    if let Err(error) = verify_inclusion(&leaf, proof.index, size, &proof.hashes, &root) {
        problems.fault(place(), format!("the entry is not shown to be in the tree: {error}"));
    }
}
