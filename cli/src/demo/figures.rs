//! The figures of a demo: what `-o json` prints and what the picture is drawn from.

use std::time::Duration;

use serde::Serialize;

/// Everything that was measured and proven.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    /// The whole run, in seconds.
    pub(crate) seconds: f64,
    /// Cores of the machine; all processes and all clients share them.
    pub(crate) cores: usize,
    /// Where the topology file, keys, data and logs lie.
    pub(crate) directory: String,
    pub(crate) sites: Vec<Site>,
    pub(crate) import: Rate,
    /// Written by several clients while the mirrors follow.
    pub(crate) writes: Rate,
    pub(crate) crash: Crash,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) audit: Audit,
    pub(crate) ledgers: Vec<Ledger>,
}

/// A site at the end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) region: String,
    /// Of its group, if the first node told.
    pub(crate) view: Option<u64>,
    pub(crate) nodes: Vec<String>,
    pub(crate) pools: Vec<String>,
}

/// So many in that time.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) records: u64,
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    pub(crate) records_per_second: f64,
}

/// A mirror killed in mid-stream.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Crash {
    pub(crate) killed: String,
    /// Writes acknowledged by the site while it was down.
    pub(crate) writes_meanwhile: u64,
    /// From its restart until it showed all of them.
    pub(crate) caught_up_ms: f64,
}

/// A mirror at the end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Mirror {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) parents: Vec<String>,
    /// From an acknowledgement at the site until the write can be read here.
    pub(crate) lag: Lag,
    /// Records compared with the site's, all equal.
    pub(crate) records_equal: u64,
}

/// Of so many samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Lag {
    pub(crate) samples: usize,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// All verifications together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Audit {
    /// Ledgers verified, each replica and each public face counted.
    pub(crate) ledgers: usize,
    /// Of those over HTTP, by the public face.
    pub(crate) over_http: usize,
    pub(crate) entries: u64,
    /// Bytes of all files read.
    pub(crate) bytes: u64,
    /// On all cores.
    pub(crate) seconds: f64,
    pub(crate) entries_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

/// One ledger at all its places.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ledger {
    pub(crate) ledger: String,
    pub(crate) home: String,
    /// Size of the ledger at the home site.
    pub(crate) version: u64,
    pub(crate) places: Vec<Proven>,
}

/// What an auditor found at one place.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Proven {
    pub(crate) place: String,
    /// Entries `0..proven` were derived again and are covered by a checkpoint with enough signatures.
    pub(crate) proven: u64,
    /// The root over them.
    pub(crate) root: String,
    pub(crate) signers: Vec<String>,
}

impl Rate {
    pub(crate) fn new(records: u64, clients: usize, time: Duration) -> Self {
        let seconds = time.as_secs_f64();
        Self { records, clients, seconds, records_per_second: records as f64 / seconds.max(1e-9) }
    }
}

impl Lag {
    /// Of the samples, in any order.
    pub(crate) fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let at = |quantile: f64| {
            let last = samples.len().saturating_sub(1);
            let index = ((quantile * samples.len() as f64) as usize).min(last);
            samples.get(index).map_or(0.0, |lag| lag.as_secs_f64() * 1e3)
        };
        Self { samples: samples.len(), p50_ms: at(0.50), p99_ms: at(0.99) }
    }
}
