//! The words of an auditor.

use tradewind_audit::{LedgerReport, Report, Trust, Verdict};
use tradewind_ledger::Version;

use crate::output::{count, table};

pub(super) fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Holds => "holds",
        Verdict::DoesNotHold => "does not hold",
        Verdict::CouldNotCheck => "could not check",
        Verdict::Equivocation => "two histories",
        Verdict::TooFewOrTooOld => "too few signers, or too old",
    }
}

/// All faults, then a line for each ledger, then the verdict.
pub(super) fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    for ledger in &report.ledgers {
        let problems = ledger.problems.iter();
        lines.extend(problems.map(|problem| format!("{}/{problem}", ledger.ledger)));
    }
    if !report.ledgers.is_empty() {
        let mut table =
            table(&["ledger", "verdict", "proven", "held", "signed by", "trust", "age", "root"]);
        table.add_rows(report.ledgers.iter().map(row));
        lines.push(table.trim_fmt());
    }
    for ledger in report.ledgers.iter().filter(|ledger| ledger.first > Version::ZERO) {
        let LedgerReport { ledger, first, .. } = ledger;
        lines.push(format!(
            "{ledger}: entries before {first} were pruned: only their hashes are proven"
        ));
    }
    let proven = |ledger: &LedgerReport| ledger.verified_through.since(ledger.first);
    let entries: u64 = report.ledgers.iter().map(proven).sum();
    let summary = format!(
        "{}: {} in {}, {entries} entries proven, {}",
        words(report.verdict()),
        count(report.ledgers.len(), "ledger"),
        report.source,
        count(report.problem_count(), "problem"),
    );
    lines.push(summary);
    let unknown = report.ledgers.iter().any(|ledger| ledger.trust == Trust::OwnGenesis);
    if unknown {
        lines.push(
            "whose ledgers these are was not checked: give --topology, --vkeys or --lineage"
                .to_owned(),
        );
    }
    lines.join("\n")
}

fn row(ledger: &LedgerReport) -> [String; 8] {
    let trust = match ledger.trust {
        Trust::OwnGenesis => "its own genesis",
        Trust::Lineage => "lineage",
        Trust::Keys => "keys",
    };
    [
        ledger.ledger.clone(),
        words(ledger.verdict()).to_owned(),
        format!("{}..{}", ledger.first, ledger.verified_through.max(ledger.first)),
        format!("{}..{}", ledger.first, ledger.size),
        super::signers(ledger.signers.len(), ledger.threshold),
        trust.to_owned(),
        ledger.age_seconds.map_or(String::new(), |age| format!("{age} s")),
        ledger.root.map_or(String::new(), |root| format!("{:.16}", root.to_string())),
    ]
}
