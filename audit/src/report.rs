//! What a check found.

use serde::Serialize;
use tradewind_ledger::{Digest, Lineage, Version};

/// The result of [`verify`](crate::verify()): one part a ledger.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The directory or URL.
    pub source: String,
    /// Every ledger found there, by name.
    pub ledgers: Vec<LedgerReport>,
    /// What is wrong beyond any one ledger.
    pub problems: Vec<Problem>,
}

/// What is known of one ledger.
#[derive(Clone, Debug, Serialize)]
pub struct LedgerReport {
    /// `<pool>.<shard>`, from the genesis; the directory's name if there is none.
    pub ledger: String,
    /// The origin of its checkpoints.
    pub origin: Option<String>,
    /// Its identity: the leaf hash of its genesis.
    pub lineage: Option<Lineage>,
    /// Entries before it were pruned: only their hashes are proven. Zero if all are there.
    pub first: Version,
    /// The proven range: entries `first .. verified_through` follow all rules and are in the tree that enough
    /// trusted keys signed.
    pub verified_through: Version,
    /// The root over the proven range.
    pub root: Option<Digest>,
    /// Entries that follow all rules, signed or not: the proven range and an unsigned tail.
    pub size: Version,
    /// Size of the published checkpoint.
    pub checkpoint_size: Option<Version>,
    /// Who signed it: names of members, or key ids of given keys.
    pub signers: Vec<String>,
    /// How many had to.
    pub threshold: usize,
    /// Why these signatures are believed.
    pub trust: Trust,
    /// Time of the last proven entry, in seconds since 1970.
    pub last_time: Option<u64>,
    /// Seconds between that and the time of the check.
    pub age_seconds: Option<u64>,
    /// Segments read.
    pub segments: u64,
    /// Detached values hashed.
    pub values: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Proofs that the signers contradict themselves.
    pub evidence: Vec<Evidence>,
    /// All that is wrong.
    pub problems: Vec<Problem>,
}

/// Why a ledger's signatures are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// The ledger's own genesis names the keys, and nothing outside vouches for it: the history hangs
    /// together, but whose it is was not checked.
    OwnGenesis,
    /// The genesis is the one that was given.
    Lineage,
    /// The keys were given.
    Keys,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub kind: ProblemKind,
    /// In which file, below the ledger's directory.
    pub file: Option<String>,
    /// Where in that file.
    pub offset: Option<u64>,
    /// About which entry.
    pub version: Option<Version>,
    /// What was found and what should be there.
    pub message: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// Something is not as it must be.
    Fault,
    /// Something could not be read, so nothing is known of it.
    Unchecked,
    /// All holds, but too few trusted keys signed it.
    TooFewSigners,
    /// All holds, but it is older than allowed.
    TooOld,
    /// The signers signed two histories.
    Equivocation,
}

/// Self-contained proof that signers contradict themselves: two checkpoints that they signed and that
/// cannot both be true.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// A signed checkpoint.
    pub first: String,
    /// Another one of at least the same size.
    pub second: String,
    /// If the sizes differ: the root that the second commits to at the size of the first, which is not
    /// the root that the first states.
    pub committed_root: Option<Digest>,
    /// The RFC 6962 consistency proof from that root to the second's.
    pub proof: Vec<Digest>,
}

/// The short answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Everything is as it must be.
    Holds,
    /// Something is wrong.
    DoesNotHold,
    /// Nothing is known to be wrong, but not everything could be read.
    CouldNotCheck,
    /// The signers signed two histories; the evidence is in the report.
    Equivocation,
    /// Everything is right, but too few signed it or it is too old.
    TooFewOrTooOld,
}

impl Verdict {
    /// The exit code of the command line: 0 holds, 1 does not hold, 2 could not check, 3 equivocation,
    /// 4 valid but too few signers or too old.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Holds => 0,
            Self::DoesNotHold => 1,
            Self::CouldNotCheck => 2,
            Self::Equivocation => 3,
            Self::TooFewOrTooOld => 4,
        }
    }

    /// The verdict over some problems: the worst of them counts.
    #[must_use]
    pub fn of<'a>(problems: impl IntoIterator<Item = &'a Problem>) -> Self {
        let rank = |kind: ProblemKind| match kind {
            ProblemKind::Equivocation => (4, Self::Equivocation),
            ProblemKind::Fault => (3, Self::DoesNotHold),
            ProblemKind::Unchecked => (2, Self::CouldNotCheck),
            ProblemKind::TooFewSigners | ProblemKind::TooOld => (1, Self::TooFewOrTooOld),
        };
        let worst = problems.into_iter().map(|problem| rank(problem.kind)).max_by_key(|of| of.0);
        worst.map_or(Self::Holds, |(_, verdict)| verdict)
    }
}

impl Report {
    /// The verdict over all ledgers.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let of_ledgers = self.ledgers.iter().flat_map(|ledger| &ledger.problems);
        Verdict::of(self.problems.iter().chain(of_ledgers))
    }

    /// How many problems there are.
    #[must_use]
    pub fn problem_count(&self) -> usize {
        let of_ledgers = self.ledgers.iter().map(|ledger| ledger.problems.len());
        self.problems.len() + of_ledgers.sum::<usize>()
    }
}

impl LedgerReport {
    /// The verdict over this ledger.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        Verdict::of(&self.problems)
    }
}

impl std::fmt::Display for Problem {
    /// `file:offset: entry v: message`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            match self.offset {
                Some(offset) => write!(f, ":{offset}: ")?,
                None => write!(f, ": ")?,
            }
        }
        if let Some(version) = self.version {
            write!(f, "entry {version}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Collects problems, up to a bound: a ledger may be wrong everywhere.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Problem>,
    dropped: u64,
    unread: bool,
}

/// Problems listed of one ledger at most; the rest is only counted.
const MAX_PROBLEMS: usize = 10_000;

/// Where something was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    pub(crate) file: Option<String>,
    pub(crate) offset: Option<u64>,
    pub(crate) version: Option<Version>,
}

impl Place {
    pub(crate) fn file(file: impl Into<String>) -> Self {
        Self { file: Some(file.into()), ..Self::default() }
    }

    pub(crate) fn version(version: Version) -> Self {
        Self { version: Some(version), ..Self::default() }
    }

    pub(crate) fn at(self, offset: u64) -> Self {
        Self { offset: Some(offset), ..self }
    }

    pub(crate) fn of(self, version: Version) -> Self {
        Self { version: Some(version), ..self }
    }
}

impl Problems {
    pub(crate) fn add(&mut self, kind: ProblemKind, place: Place, message: impl Into<String>) {
        if self.list.len() == MAX_PROBLEMS {
            self.dropped += 1;
            return;
        }
        let Place { file, offset, version } = place;
        self.list.push(Problem { kind, file, offset, version, message: message.into() });
    }

    pub(crate) fn fault(&mut self, place: Place, message: impl Into<String>) {
        self.add(ProblemKind::Fault, place, message);
    }

    pub(crate) fn unread(&mut self, error: &crate::SourceError) {
        // A file that is too long is wrong; one that cannot be read is unknown.
        let kind = match error {
            crate::SourceError::TooLong { .. } => ProblemKind::Fault,
            crate::SourceError::Io { .. } => {
                self.unread = true;
                ProblemKind::Unchecked
            }
        };
        let (crate::SourceError::TooLong { path, .. } | crate::SourceError::Io { path, .. }) =
            error;
        self.add(kind, Place::file(path.clone()), error.to_string());
    }

    /// Something is not there. After a failure to read it may well be: then nothing is known of it.
    pub(crate) fn missing(&mut self, place: Place, message: impl Into<String>) {
        let kind = if self.unread { ProblemKind::Unchecked } else { ProblemKind::Fault };
        self.add(kind, place, message);
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn into_list(mut self) -> Vec<Problem> {
        if self.dropped > 0 {
            let message = format!("and {} more problems that are not listed", self.dropped);
            let kind = ProblemKind::Fault;
            self.list.push(Problem { kind, file: None, offset: None, version: None, message });
        }
        self.list
    }
}
