//! How long changes of views took: from the moment at which this node stopped one until it installed the next.

use std::fmt::Write as _;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tradewind_ledger::ViewId;
use tradewind_site_protocol::Stop;

/// Upper ends of the histogram's buckets, milliseconds; one more bucket holds what is longer.
const BUCKETS_MS: [u32; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 5_000, 30_000];

/// The changes since the start of the process.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// The view that was stopped, while none runs.
    stopped: Option<Stopped>,
    last: Option<Change>,
    /// By bucket.
    counts: [u64; BUCKETS_MS.len() + 1],
    sum_ms: f64,
}

#[derive(Clone, Debug)]
struct Stopped {
    at: Instant,
    unix_us: u64,
    why: String,
}

#[derive(Clone, Debug)]
struct Change {
    stopped: Stopped,
    took_ms: f64,
    view: ViewId,
}

impl Changes {
    /// A running view is stopped.
    pub(crate) fn stopped(&self, why: &Stop) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(unix.as_micros()).unwrap_or(u64::MAX);
        let stopped = Stopped { at: Instant::now(), unix_us, why: format!("{why:?}") };
        self.0.lock().stopped = Some(stopped);
    }

    /// A view is installed: the first of this start, or the next one.
    pub(crate) fn installed(&self, view: ViewId) {
        let mut seen = self.0.lock();
        let Some(stopped) = seen.stopped.take() else { return };
        let took_ms = stopped.at.elapsed().as_secs_f64() * 1e3;
        let bucket = BUCKETS_MS.iter().position(|most| took_ms <= f64::from(*most));
        seen.counts[bucket.unwrap_or(BUCKETS_MS.len())] += 1;
        seen.sum_ms += took_ms;
        seen.last = Some(Change { stopped, took_ms, view });
    }

    /// For `status`.
    pub(crate) fn status(&self) -> Value {
        let seen = self.0.lock();
        let last = seen.last.as_ref().map(|Change { stopped, took_ms, view }| {
            json!({
                "view": view.0,
                "why": stopped.why,
                "stopped_unix_us": stopped.unix_us,
                "took_ms": took_ms,
            })
        });
        json!({ "count": seen.counts.iter().sum::<u64>(), "last": last })
    }

    /// For `/metrics`: a histogram in the text format of Prometheus.
    pub(crate) fn metrics(&self) -> String {
        let seen = self.0.lock();
        let name = "tradewind_view_change_seconds";
        let mut text = format!(
            "# HELP {name} From the end of a view at this node to the next one.\n# TYPE {name} histogram\n"
        );
        let ends = BUCKETS_MS.iter().map(|ms| (f64::from(*ms) / 1e3).to_string());
        let mut count = 0;
        for (of_bucket, end) in seen.counts.iter().zip(ends.chain(["+Inf".into()])) {
            count += of_bucket;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}_bucket{{le=\"{end}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {count}", seen.sum_ms / 1e3);
        text
    }
}

#[cfg(test)]
mod tests {
    use tradewind_site_protocol::NodeId;

    use super::*;

    #[test]
    fn a_change_is_counted_from_its_stop_and_a_first_view_is_none() {
        let changes = Changes::default();
        changes.installed(ViewId(1));
        assert_eq!(changes.status(), json!({ "count": 0, "last": null }));
        changes.stopped(&Stop::Lost(NodeId(2)));
        assert_eq!(changes.status()["count"], 0, "it is under way");
        changes.installed(ViewId(3));
        let status = changes.status();
        assert_eq!((&status["count"], &status["last"]["view"]), (&json!(1), &json!(3)));
        let metrics = changes.metrics();
        assert!(metrics.contains("tradewind_view_change_seconds_bucket{le=\"+Inf\"} 1\n"));
        assert!(metrics.ends_with("tradewind_view_change_seconds_count 1\n"), "{metrics}");
    }
}
