//! Which mirrors there are below this process, and how far they are.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tradewind_ledger::ids::LedgerId;
use tradewind_wan_protocol::{Frontier, MirrorReport};

use crate::source::Source;

/// Names that are kept at most; the topology holds far fewer mirrors.
const MIRRORS_MAX: usize = 4_096;

/// What the mirrors below this process last reported; cheap to clone.
#[derive(Clone, Debug)]
pub struct Mirrors {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sources: Vec<Source>,
    table: Mutex<BTreeMap<(String, LedgerId), Row>>,
    changes: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Row {
    parent: String,
    frontier: Frontier,
    /// The connection it came through.
    via: u64,
    is_connected: bool,
    reported: Instant,
    change: u64,
}

/// A mirror below this process.
#[derive(Clone, Debug)]
pub struct MirrorStatus {
    /// Its name.
    pub mirror: String,
    /// Who feeds it; empty if it has no parent at the moment.
    pub parent: String,
    /// Whether the connection through which it reports stands.
    pub is_connected: bool,
    /// How long ago it last reported.
    pub reported: Duration,
    /// Each ledger that it follows.
    pub ledgers: Vec<LedgerLag>,
}

/// How far a mirror is behind this process.
#[derive(Clone, Debug)]
pub struct LedgerLag {
    /// What it reported.
    pub frontier: Frontier,
    /// Versions that it has yet to make durable.
    pub behind: u64,
    /// Time between its last durable entry and this process's; zero if it lacks none.
    pub lag: Duration,
}

impl Mirrors {
    /// An empty table; lags are told against these ledgers.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        let (table, changes) = (Mutex::default(), watch::Sender::new(0));
        Self { shared: Arc::new(Shared { sources, table, changes }) }
    }

    /// All mirrors by name, with their lags.
    #[must_use]
    pub fn status(&self) -> Vec<MirrorStatus> {
        let rows = self.table().clone();
        let mut mirrors: Vec<MirrorStatus> = Vec::new();
        for ((mirror, ledger), row) in rows {
            if mirrors.last().is_none_or(|last| last.mirror != mirror) {
                mirrors.push(MirrorStatus {
                    mirror,
                    parent: row.parent.clone(),
                    is_connected: false,
                    reported: row.reported.elapsed(),
                    ledgers: Vec::new(),
                });
            }
            let status = mirrors.last_mut().expect("one was pushed");
            if row.is_connected && !status.is_connected {
                (status.is_connected, status.parent) = (true, row.parent);
            }
            status.reported = status.reported.min(row.reported.elapsed());
            status.ledgers.push(self.lag(&ledger, row.frontier));
        }
        mirrors
    }

    fn lag(&self, ledger: &LedgerId, frontier: Frontier) -> LedgerLag {
        let source = self.shared.sources.iter().find(|source| source.ledger == *ledger);
        let head = source.and_then(Source::head);
        let behind = head.as_ref().map_or(0, |head| head.size.since(frontier.durable));
        let lag = match head {
            Some(head) if behind > 0 => {
                let micros = head.hlc.micros().saturating_sub(frontier.hlc.micros());
                Duration::from_micros(micros)
            }
            _ => Duration::ZERO,
        };
        LedgerLag { frontier, behind, lag }
    }

    /// Counts the changes of the table.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What changed after change number `after`, for those ledgers that `wants` wants.
    pub(crate) fn since(&self, after: u64, wants: impl Fn(&LedgerId) -> bool) -> Vec<MirrorReport> {
        let table = self.table();
        let is_news =
            |mirror: &str, row: &Row| row.change > after && row.is_connected && !mirror.is_empty();
        let mut reports: Vec<MirrorReport> = Vec::new();
        for ((mirror, ledger), row) in table.iter().filter(|((_, ledger), _)| wants(ledger)) {
            if reports.last().is_none_or(|last| last.mirror != *mirror) {
                if reports.last().is_some_and(|last| last.ledgers.is_empty()) {
                    reports.pop();
                }
                let (mirror, parent) = (mirror.clone(), row.parent.clone());
                reports.push(MirrorReport { mirror, parent, ledgers: Vec::new() });
            }
            if is_news(mirror, row) {
                debug_assert_eq!(row.frontier.ledger, *ledger);
                let last = reports.last_mut().expect("one was pushed");
                last.parent.clone_from(&row.parent);
                last.ledgers.push(row.frontier.clone());
            }
        }
        reports.retain(|report| !report.ledgers.is_empty());
        reports
    }

    /// Takes up what came through connection `via`.
    pub(crate) fn report(&self, via: u64, reports: Vec<MirrorReport>) {
        let mut table = self.table();
        let change = *self.shared.changes.borrow() + 1;
        let reported = Instant::now();
        for report in reports {
            for frontier in report.ledgers {
                let key = (report.mirror.clone(), frontier.ledger.clone());
                if table.len() >= MIRRORS_MAX && !table.contains_key(&key) {
                    continue;
                }
                let parent = report.parent.clone();
                let is_connected = true;
                let row = Row { parent, frontier, via, is_connected, reported, change };
                table.insert(key, row);
            }
        }
        drop(table);
        self.shared.changes.send_replace(change);
    }

    /// A connection is gone: what came through it is old news from now on.
    pub(crate) fn lost(&self, via: u64) {
        let mut table = self.table();
        for row in table.values_mut().filter(|row| row.via == via) {
            row.is_connected = false;
        }
        drop(table);
        self.shared.changes.send_modify(|change| *change += 1);
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<(String, LedgerId), Row>> {
        self.shared.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tradewind_ledger::ids::{Hlc, Version};

    use super::*;

    fn report(mirror: &str, ledger: &str, durable: u64) -> MirrorReport {
        let at = Version(durable);
        let ledger = ledger.parse().unwrap();
        let frontier =
            Frontier { ledger, received: at, verified: at, durable: at, hlc: Hlc(durable) };
        MirrorReport { mirror: mirror.into(), parent: "relay".into(), ledgers: vec![frontier] }
    }

    #[test]
    fn reports_are_kept_by_mirror_and_ledger_and_told_once() {
        let mirrors = Mirrors::new(Vec::new());
        mirrors.report(1, vec![report("leaf", "flights.0", 5), report("leaf", "settings.0", 6)]);
        mirrors.report(2, vec![report("other", "flights.0", 7)]);
        let status = mirrors.status();
        assert_eq!(
            status.iter().map(|mirror| &*mirror.mirror).collect::<Vec<_>>(),
            ["leaf", "other"]
        );
        assert_eq!(status[0].ledgers.len(), 2);
        assert!(status[0].is_connected && status[0].ledgers[0].behind == 0);

        let flights = |ledger: &LedgerId| ledger.pool() == "flights";
        let told = mirrors.since(0, flights);
        assert_eq!(told, [report("leaf", "flights.0", 5), report("other", "flights.0", 7)]);
        let seen = *mirrors.changes().borrow();
        assert!(mirrors.since(seen, flights).is_empty());
        mirrors.report(1, vec![report("leaf", "flights.0", 9)]);
        assert_eq!(mirrors.since(seen, flights), [report("leaf", "flights.0", 9)]);
    }

    #[test]
    fn what_came_through_a_lost_connection_is_shown_as_such_and_not_passed_on() {
        let mirrors = Mirrors::new(Vec::new());
        mirrors.report(1, vec![report("leaf", "flights.0", 5)]);
        mirrors.lost(1);
        assert!(!mirrors.status()[0].is_connected);
        assert!(mirrors.since(0, |_| true).is_empty());
        // It comes back through another parent.
        mirrors.report(2, vec![report("leaf", "flights.0", 6)]);
        mirrors.lost(1);
        assert!(mirrors.status()[0].is_connected);
    }
}
