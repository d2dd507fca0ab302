//! Small puts while large objects are written, next to the same puts without.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::task::{JoinSet, block_in_place};
use tradewind_client::Client;

use super::fractions::{Fractions, Line, Needs, percent};
use super::limits::{self, Limits};
use super::load::Row;
use super::report::Setting;
use super::{LIMIT_TIME, Level, Load, Operation, Target, attach, measure_one, put, setting, start};
use crate::scratch::Scratch;

/// What is written beside the small puts.
#[derive(Debug, clap::Args)]
pub(super) struct Objects {
    /// Bytes of an object
    #[arg(long, default_value_t = 100 << 20)]
    object: usize,
    /// Objects that are written at a time, each by a client of its own
    #[arg(long, default_value_t = 1)]
    objects: usize,
    #[command(flatten)]
    load: Load,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct BulkReport {
    setting: Setting,
    lines: Vec<BulkLine>,
    limits: Limits,
}

/// The same small puts, without and with objects on their way.
#[derive(Debug, Serialize)]
struct BulkLine {
    alone: Line,
    beside: Line,
    /// Latency beside objects by latency alone.
    p50_ratio: f64,
    p99_ratio: f64,
    objects: Written,
}

/// What became of the objects.
#[derive(Debug, Serialize)]
struct Written {
    bytes_each: usize,
    at_a_time: usize,
    acknowledged: u64,
    mb_per_second: f64,
    of_limits: Fractions,
}

/// Measures each number of small puts in flight alone, and beside objects.
///
/// # Errors
/// When nodes cannot be started, no operation succeeds, or an object is not written.
pub(super) async fn measure(
    Objects { object, objects, load }: &Objects,
) -> anyhow::Result<BulkReport> {
    ensure!(!load.inflight.contains(&0), "--inflight: found 0, allowed is 1 or more");
    ensure!(*objects > 0 && *object > 0, "--object and --objects: allowed is 1 or more");
    let home = Scratch::new("bench", load.dir.as_deref())?;
    let limits = block_in_place(|| limits::measure(home.path(), LIMIT_TIME))?;
    let target = match &load.pool {
        None => start(load, home.path()).await?,
        Some(pool) => attach(load, pool).await?,
    };
    let mut writers = Vec::new();
    for index in 0..*objects {
        // Connections of their own: what they wait for is not what the small puts wait for.
        let node = match &target.own {
            Some(own) => {
                let nodes = own.plan().process_names();
                own.client(&[&nodes[index % nodes.len()]]).await?
            }
            None => attach(load, &target.pool).await?.clients[0].clone(),
        };
        writers.push(node);
    }
    let setting = setting(Operation::Put, load, &target)?;
    let needs = setting.needs(Operation::Put, load);
    let of_object = Needs { bytes: *object, ..needs };
    let line = |row: Row| Line::new(row, &needs, &limits, setting.cores);
    let mut lines = Vec::new();
    for &inflight in &load.inflight {
        let alone = measure_one(Operation::Put, load, inflight, &target).await;
        let alone = alone.with_context(|| format!("with {inflight} in flight"))?;
        let beside = Beside::start(&target, &writers, *object, load);
        let row = measure_one(Operation::Put, load, inflight, &target).await;
        let row = row.with_context(|| format!("with {inflight} in flight, beside objects"))?;
        let objects = beside.stop(&of_object, &limits, setting.cores).await?;
        let ratio = |of: fn(&Row) -> u64| of(&row) as f64 / of(&alone).max(1) as f64;
        lines.push(BulkLine {
            p50_ratio: ratio(|row| row.latency_us.p50),
            p99_ratio: ratio(|row| row.latency_us.p99),
            alone: line(alone),
            beside: line(row),
            objects,
        });
    }
    if let Some(mut own) = target.own {
        block_in_place(|| own.stop_all())?;
    }
    Ok(BulkReport { setting, lines, limits })
}

/// Objects on their way.
struct Beside {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: JoinSet<anyhow::Result<()>>,
    bytes: usize,
    began: Instant,
}

impl Beside {
    fn start(target: &Target, clients: &[Client], bytes: usize, load: &Load) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut writers = JoinSet::new();
        for (index, client) in (0u64..).zip(clients) {
            let (client, pool) = (client.clone(), Arc::clone(&target.pool));
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            let durability: Level = load.durability;
            writers.spawn(async move {
                // A few keys of each writer's own, so that disks do not fill with what is current.
                for number in 0u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = u64::MAX - (index << 8) - number % 4;
                    put(&client, &pool, key, bytes, durability).await.context("an object")?;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        Self { stop, acknowledged, writers, bytes, began: Instant::now() }
    }

    async fn stop(
        mut self,
        needs: &Needs,
        limits: &Limits,
        cores: usize,
    ) -> anyhow::Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let at_a_time = self.writers.len();
        while let Some(writer) = self.writers.join_next().await {
            writer.context("a writer of objects")??;
        }
        let acknowledged = self.acknowledged.load(Ordering::Relaxed);
        let elapsed = self.began.elapsed().max(Duration::from_millis(1)).as_secs_f64();
        let per_second = acknowledged as f64 / elapsed;
        let mb_per_second = per_second * self.bytes as f64 / 1e6;
        // One at a time follows the other, so this is the mean of their latencies.
        let latency_us = 1e6 * at_a_time as f64 / per_second;
        let of_limits = needs.of(limits, cores, per_second, latency_us);
        let bytes_each = self.bytes;
        Ok(Written { bytes_each, at_a_time, acknowledged, mb_per_second, of_limits })
    }
}

impl fmt::Display for BulkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.setting)?;
        for BulkLine { alone, beside, p50_ratio, p99_ratio, objects } in &self.lines {
            let latency =
                |Line { row, .. }: &Line| (row.latency_us.p50, row.latency_us.p99, row.per_second);
            let ((p50, p99, rate), (with50, with99, with_rate)) = (latency(alone), latency(beside));
            writeln!(f, "{} puts in flight", alone.row.inflight)?;
            writeln!(f, "  alone           p50 {p50:>8} us  p99 {p99:>8} us  {rate:>9.0}/s")?;
            writeln!(
                f,
                "  beside objects  p50 {with50:>8} us  p99 {with99:>8} us  {with_rate:>9.0}/s"
            )?;
            writeln!(f, "  ratio           p50 {p50_ratio:>8.1}     p99 {p99_ratio:>8.1}")?;
            let Written { bytes_each, at_a_time, acknowledged, mb_per_second, of_limits } = objects;
            writeln!(
                f,
                "  {acknowledged} objects of {bytes_each} bytes, {at_a_time} at a time: {mb_per_second:.0} MB/s, {} of disk, \
                 {} of copying",
                percent(of_limits.disk_stream),
                percent(of_limits.memory_copy)
            )?;
        }
        write!(f, "{}", self.limits)
    }
}
