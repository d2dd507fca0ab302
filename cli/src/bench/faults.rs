//! Nodes that may be killed, and a load of puts that goes on meanwhile and is looked at window by window.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::{JoinSet, block_in_place};
use tradewind_client::Client;
use tradewind_local::{Deployment, Plan};
use tradewind_topology::FabricKind;

use super::{Level, POOL, READY_LIMIT, put};

/// A change that is not over after this time fails the run.
const CHANGE_LIMIT: Duration = Duration::from_secs(120);
/// How often nodes are asked what they do.
const LOOK: Duration = Duration::from_millis(10);
/// Different keys of the load.
const KEYS: u64 = 10_000;

/// Nodes on this machine, each with a data directory below `dir`.
///
/// # Errors
/// When they cannot be started.
pub(super) fn start(
    dir: &Path,
    nodes: usize,
    fabric: FabricKind,
    suspect_ms: u32,
) -> anyhow::Result<Deployment> {
    ensure!(
        nodes >= 3,
        "--nodes: found {nodes}, allowed is 3 or more: the others must be a majority"
    );
    let binary = std::env::current_exe().context("finding the own executable")?;
    let mut plan = Plan::one_site(nodes, 1);
    plan.sites.iter_mut().for_each(|site| site.fabric = fabric);
    plan.extra = format!("[timeouts]\nsuspect_ms = {suspect_ms}\n");
    let mut own = Deployment::create(dir, &binary, plan)?;
    own.start_all()?;
    block_in_place(|| own.wait_ready(READY_LIMIT))?;
    Ok(own)
}

/// What a node says of itself: the part of its status that counts here.
#[derive(Debug, Deserialize)]
pub(super) struct NodeStatus {
    pub(super) state: String,
    pub(super) view: u64,
    pub(super) view_members: Vec<String>,
    pub(super) view_changes: Changes,
}

#[derive(Debug, Deserialize)]
pub(super) struct Changes {
    pub(super) count: u64,
    pub(super) last: Option<Change>,
}

/// One change, as a node saw it.
#[derive(Debug, Deserialize)]
pub(super) struct Change {
    pub(super) stopped_unix_us: u64,
    pub(super) took_ms: f64,
}

impl Change {
    fn installed_us(&self) -> u64 {
        self.stopped_unix_us + (self.took_ms * 1e3) as u64
    }
}

/// A change as a whole: from the first end of the old view at any node to the last beginning of the new one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) stopped_unix_us: u64,
    pub(super) took_ms: f64,
}

impl Whole {
    /// # Errors
    /// When a node tells of no change.
    pub(super) fn of(nodes: &[NodeStatus]) -> anyhow::Result<Self> {
        let changes: Option<Vec<&Change>> =
            nodes.iter().map(|node| node.view_changes.last.as_ref()).collect();
        let changes = changes.context("a node is in another view and tells of no change")?;
        let first = changes.iter().map(|change| change.stopped_unix_us).min().unwrap_or_default();
        let last = changes.iter().map(|change| change.installed_us()).max().unwrap_or_default();
        Ok(Self { stopped_unix_us: first, took_ms: last.saturating_sub(first) as f64 / 1e3 })
    }
}

fn status(own: &Deployment, name: &str) -> anyhow::Result<NodeStatus> {
    let (code, text) = own.fetch(name, "/status")?;
    ensure!(code == 200, "{name}: /status answers {code}");
    serde_json::from_str(&text).with_context(|| format!("the status of {name}"))
}

/// What these nodes say now.
pub(super) fn statuses(own: &Deployment, names: &[String]) -> anyhow::Result<Vec<NodeStatus>> {
    names.iter().map(|name| status(own, name)).collect()
}

/// Waits until these nodes, and no others, are in one view.
///
/// # Errors
/// When that does not come about in two minutes.
pub(super) async fn in_one_view(
    own: &Deployment,
    names: &[String],
) -> anyhow::Result<Vec<NodeStatus>> {
    let deadline = Instant::now() + CHANGE_LIMIT;
    loop {
        let told = block_in_place(|| statuses(own, names));
        let agreed = told.as_ref().is_ok_and(|told| {
            let active = |node: &NodeStatus| {
                node.state == "active" && node.view_members == names && node.view == told[0].view
            };
            told.iter().all(active)
        });
        if agreed {
            return told;
        }
        ensure!(
            Instant::now() < deadline,
            "{} are not in a view of their own after {CHANGE_LIMIT:?}: {told:?}",
            names.join(", ")
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Puts under way all the time, through all nodes.
pub(super) struct Steady {
    shared: Arc<Shared>,
    workers: JoinSet<()>,
}

struct Shared {
    clients: Vec<Client>,
    numbers: AtomicU64,
    stop: AtomicBool,
    window: Mutex<Window>,
}

/// What clients saw since somebody looked last.
#[derive(Debug)]
pub(super) struct Window {
    /// From call to acknowledgement, microseconds.
    latencies: Histogram<u64>,
    acknowledged_at: Instant,
    /// The longest time in which nobody got an acknowledgement.
    pub(super) gap: Duration,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl Window {
    fn new(acknowledged_at: Instant) -> Self {
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self { latencies, acknowledged_at, gap: Duration::ZERO, errors: 0, first_error: None }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.latencies.len()
    }

    /// Milliseconds.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// The slowest put, milliseconds.
    pub(super) fn slowest_ms(&self) -> f64 {
        self.latencies.max() as f64 / 1e3
    }
}

impl Steady {
    /// Starts so many puts in flight, of values of so many bytes; a client a node, which begins there.
    pub(super) async fn start(
        own: &Deployment,
        inflight: usize,
        size: usize,
    ) -> anyhow::Result<Self> {
        ensure!(inflight > 0, "--inflight: found 0, allowed is 1 or more");
        let nodes = own.plan().process_names();
        let mut clients = Vec::new();
        for at in 0..nodes.len() {
            // All nodes, this one first: so each client has somebody to turn to.
            let names: Vec<&str> =
                nodes[at..].iter().chain(&nodes[..at]).map(String::as_str).collect();
            clients.push(own.client(&names).await?);
        }
        let shared = Arc::new(Shared {
            clients,
            numbers: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            window: Mutex::new(Window::new(Instant::now())),
        });
        let mut workers = JoinSet::new();
        for worker in 0..inflight {
            let shared = Arc::clone(&shared);
            workers.spawn(async move { shared.work(worker, size).await });
        }
        Ok(Self { shared, workers })
    }

    /// What was seen since the last look.
    pub(super) fn look(&self) -> Window {
        let mut window = self.shared.window.lock();
        let next = Window::new(window.acknowledged_at);
        let mut seen = std::mem::replace(&mut *window, next);
        seen.gap = seen.gap.max(seen.acknowledged_at.elapsed());
        seen
    }

    /// Waits until so many more puts were acknowledged in the present window.
    ///
    /// # Errors
    /// When that does not come about in two minutes.
    pub(super) async fn flows(&self, more: u64) -> anyhow::Result<()> {
        let goal = self.shared.window.lock().acknowledged() + more;
        let deadline = Instant::now() + CHANGE_LIMIT;
        while self.shared.window.lock().acknowledged() < goal {
            let window = self.shared.window.lock();
            ensure!(
                Instant::now() < deadline,
                "no puts are acknowledged: {:?}",
                window.first_error
            );
            drop(window);
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    pub(super) async fn stop(mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        while self.workers.join_next().await.is_some() {}
    }
}

impl Shared {
    async fn work(&self, worker: usize, size: usize) {
        let client = &self.clients[worker % self.clients.len()];
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed) % KEYS;
            let begun = Instant::now();
            let outcome = put(client, POOL, number, size, Level::Disk).await;
            let now = Instant::now();
            let mut window = self.window.lock();
            match outcome {
                Ok(()) => {
                    let us = u64::try_from((now - begun).as_micros()).unwrap_or(u64::MAX);
                    window.latencies.saturating_record(us);
                    window.gap =
                        window.gap.max(now.saturating_duration_since(window.acknowledged_at));
                    window.acknowledged_at = now;
                }
                Err(error) => {
                    window.errors += 1;
                    window.first_error.get_or_insert_with(|| format!("{error:#}"));
                }
            }
        }
    }
}

/// Some figures of one kind, milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) max: f64,
}

impl Spread {
    pub(super) fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or_default();
        Self { p50: at(figures.len() / 2), max: at(figures.len().saturating_sub(1)) }
    }
}

/// How busy the machine was otherwise: the load average of the last minute.
pub(super) fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The sum of what the nodes say of changes of views.
pub(super) fn changes(told: &[NodeStatus]) -> u64 {
    told.iter().map(|node| node.view_changes.count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(stopped_unix_us: u64, took_ms: f64) -> NodeStatus {
        let last = Some(Change { stopped_unix_us, took_ms });
        let view_changes = Changes { count: 1, last };
        NodeStatus { state: "active".into(), view: 2, view_members: Vec::new(), view_changes }
    }

    #[test]
    fn a_change_lasts_from_the_first_stop_to_the_last_view() {
        let whole = Whole::of(&[node(1_000, 2.0), node(1_500, 4.0)]).unwrap();
        assert_eq!((whole.stopped_unix_us, whole.took_ms), (1_000, 4.5));
        assert!(Whole::of(&[]).is_ok_and(|whole| whole.took_ms == 0.0));
    }

    #[test]
    fn a_spread_is_the_middle_and_the_end() {
        let Spread { p50, max } = Spread::of(vec![9.0, 1.0, 2.0]);
        assert_eq!((p50, max), (2.0, 9.0));
    }
}
