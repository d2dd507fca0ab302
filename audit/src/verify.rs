//! The whole check of a data directory, a ledger's directory, or a ledger's public face.

use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tradewind_ledger::{Hlc, Lineage, SignedNote, VerifierKey};

use crate::ledger::verify_ledger;
use crate::report::{LedgerReport, Place, ProblemKind, Problems, Report};
use crate::source::{Below, Source};

/// What the auditor brings along. The default trusts a ledger's own genesis.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Trusted keys of ledgers (their name is the origin) and of witnesses. If there is one, only given
    /// keys count.
    pub keys: Vec<VerifierKey>,
    /// Trusted ledgers. If there is one, every ledger must be among them.
    pub lineages: Vec<Lineage>,
    /// How many signatures a checkpoint needs; by default a majority of the members or of the given keys.
    pub threshold: Option<usize>,
    /// Checkpoints seen before or elsewhere: the ledger of the same origin must agree with them.
    pub known: Vec<SignedNote>,
    /// The time of the check; without it no age is told.
    pub now: Option<Hlc>,
    /// How old the last proven entry may be.
    pub max_age: Option<Duration>,
}

/// Checks everything at `source`: a data directory (all its ledgers), or one ledger.
#[must_use]
pub fn verify(source: &dyn Source, options: &Options) -> Report {
    let mut problems = Problems::default();
    let prefixes = ledgers(source, &mut problems);
    if prefixes.is_empty() && problems.len() == 0 {
        let message =
            "there is no ledger here: give a data directory, a ledger's directory, or its URL";
        problems.add(ProblemKind::Unchecked, Place::default(), message);
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut reports = Vec::new();
        while let Some(prefix) = prefixes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let below = Below { source, prefix: prefix.clone() };
            reports.push((prefix.clone(), verify_ledger(&below, name(prefix, source), options)));
        }
        reports
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(prefixes.len());
    let mut reports: Vec<(String, LedgerReport)> = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut reports = work();
        for helper in helpers {
            reports.extend(helper.join().expect("a check does not panic"));
        }
        reports
    });
    reports.sort_by(|a, b| a.0.cmp(&b.0));
    Report {
        source: source.name(),
        ledgers: reports.into_iter().map(|(_, report)| report).collect(),
        problems: problems.into_list(),
    }
}

/// The last part of a ledger's path.
fn name(prefix: &str, source: &dyn Source) -> String {
    let path = if prefix.is_empty() { source.name() } else { prefix.to_owned() };
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

/// The ledgers at a source, as prefixes of their paths.
fn ledgers(source: &dyn Source, problems: &mut Problems) -> Vec<String> {
    let files = match source.list("ledgers") {
        // A public face: it is one ledger.
        Ok(None) => return vec![String::new()],
        Ok(Some(files)) => files,
        Err(error) => {
            problems.unread(&error);
            return Vec::new();
        }
    };
    let directory = |file: &String| {
        let (name, _) = file.strip_prefix("ledgers/")?.split_once('/')?;
        Some(format!("ledgers/{name}/"))
    };
    let found: BTreeSet<String> = files.iter().filter_map(directory).collect();
    if !found.is_empty() {
        return found.into_iter().collect();
    }
    let has = |dir: &str| matches!(source.list(dir), Ok(Some(files)) if !files.is_empty());
    let is_ledger =
        has("segments") || has("tile") || matches!(source.read("checkpoint", 1 << 20), Ok(Some(_)));
    if is_ledger { vec![String::new()] } else { Vec::new() }
}
