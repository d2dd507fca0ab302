//! Keeps a fixed number of operations in flight for some time and tells what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::task::JoinSet;

/// An operation that takes longer is counted with this time.
const LATENCY_US_MAX: u64 = 60_000_000;

/// How to load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Operations under way at any time.
    pub(crate) inflight: usize,
    /// Time before anything is counted.
    pub(crate) warm_up: Duration,
    /// Time that is counted.
    pub(crate) measured: Duration,
}

/// CPU time used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// By this process.
    pub(crate) client: Duration,
    /// By all servers together, where they are ours to look at.
    pub(crate) servers: Option<Duration>,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// Operations in flight.
    pub(crate) inflight: usize,
    /// Operations completed in the measured time.
    pub(crate) operations: u64,
    /// Of those, how many failed, and the first failure.
    pub(crate) errors: u64,
    /// The first failure.
    pub(crate) first_error: Option<String>,
    /// Completed without failure, in a second.
    pub(crate) per_second: f64,
    /// Time from the call to its answer.
    pub(crate) latency_us: Latency,
    /// CPU time by operation, in microseconds.
    pub(crate) cpu_us_per_operation: CpuRow,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) mean: f64,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct CpuRow {
    pub(crate) client: f64,
    pub(crate) servers: Option<f64>,
    pub(crate) total: Option<f64>,
}

/// What one worker saw in the measured time.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u32>,
    errors: u64,
    first_error: Option<String>,
}

/// Runs `operation` (which gets a number that no other call gets) in `shape.inflight` workers at once.
///
/// # Errors
/// When `cpu` fails, or not one operation was completed.
pub(crate) async fn drive<O, F>(
    shape: Shape,
    cpu: impl Fn() -> anyhow::Result<Cpu>,
    operation: O,
) -> anyhow::Result<Row>
where
    O: Fn(u64) -> F + Clone + Send + 'static,
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let numbers = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + shape.warm_up;
    let end = start + shape.measured;
    let mut workers = JoinSet::new();
    for _ in 0..shape.inflight {
        workers.spawn(work(operation.clone(), Arc::clone(&numbers), start, end));
    }
    tokio::time::sleep_until(start.into()).await;
    let (before, began) = (cpu()?, Instant::now());
    tokio::time::sleep_until(end.into()).await;
    let (after, elapsed) = (cpu()?, began.elapsed());

    let mut latencies =
        Histogram::<u64>::new_with_bounds(1, LATENCY_US_MAX, 3).expect("valid bounds");
    let (mut errors, mut first_error) = (0, None);
    while let Some(seen) = workers.join_next().await {
        let seen = seen.context("a worker of the benchmark")?;
        for us in seen.latencies_us {
            latencies.saturating_record(u64::from(us));
        }
        errors += seen.errors;
        first_error = first_error.or(seen.first_error);
    }
    let good = latencies.len();
    anyhow::ensure!(
        good > 0,
        "no operation was completed: {}",
        first_error.as_deref().unwrap_or("none was answered in time")
    );
    let per_operation = |used: Duration| used.as_secs_f64() * 1e6 / (good + errors) as f64;
    let client = per_operation(after.client.saturating_sub(before.client));
    let servers = after.servers.zip(before.servers);
    let servers = servers.map(|(after, before)| per_operation(after.saturating_sub(before)));
    Ok(Row {
        inflight: shape.inflight,
        operations: good + errors,
        errors,
        first_error,
        per_second: good as f64 / elapsed.as_secs_f64(),
        latency_us: Latency {
            mean: latencies.mean(),
            p50: latencies.value_at_quantile(0.50),
            p99: latencies.value_at_quantile(0.99),
            max: latencies.max(),
        },
        cpu_us_per_operation: CpuRow {
            client,
            servers,
            total: servers.map(|servers| servers + client),
        },
    })
}

/// One operation after the other until `end`; counts those that are completed from `start` on.
async fn work<O, F>(operation: O, numbers: Arc<AtomicU64>, start: Instant, end: Instant) -> Seen
where
    O: Fn(u64) -> F,
    F: Future<Output = anyhow::Result<()>>,
{
    let mut seen = Seen::default();
    let mut before = Instant::now();
    while before < end {
        let result = operation(numbers.fetch_add(1, Ordering::Relaxed)).await;
        let now = Instant::now();
        if (start..end).contains(&now) {
            match result {
                Ok(()) => {
                    let us = now.duration_since(before).as_micros();
                    seen.latencies_us.push(u32::try_from(us).unwrap_or(u32::MAX));
                }
                Err(error) => {
                    seen.errors += 1;
                    seen.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
        before = now;
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        inflight: 4,
        warm_up: Duration::from_millis(10),
        measured: Duration::from_millis(100),
    };

    fn cpu() -> anyhow::Result<Cpu> {
        Ok(Cpu { client: Duration::ZERO, servers: None })
    }

    #[tokio::test]
    async fn latency_and_rate_are_those_of_the_operation() {
        let row = drive(SHAPE, cpu, |_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(())
        });
        let row = row.await.unwrap();
        assert!(row.latency_us.p50 >= 5_000 && row.latency_us.max >= row.latency_us.p99, "{row:?}");
        assert!(row.per_second <= 4.0 * 200.0 * 1.2 && row.errors == 0, "{row:?}");
    }

    #[tokio::test]
    async fn failures_are_counted_apart_and_the_first_is_told() {
        let row = drive(SHAPE, cpu, |number| async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            anyhow::ensure!(number % 2 == 0, "odd");
            Ok(())
        });
        let row = row.await.unwrap();
        assert!(row.errors > 0 && row.errors < row.operations, "{row:?}");
        assert_eq!(row.first_error.as_deref(), Some("odd"));
    }

    #[tokio::test]
    async fn a_run_without_any_success_is_an_error() {
        let error = drive(SHAPE, cpu, |_| async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            anyhow::bail!("down")
        });
        assert!(error.await.unwrap_err().to_string().contains("down"));
    }
}
