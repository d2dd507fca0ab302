//! What goes on in the demo at the same time: an import, clients that write, and probes of every mirror's lag.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tokio::task::{JoinHandle, JoinSet};
use tradewind_client::wire::Read;
use tradewind_client::{Client, Condition, Reply};
use tradewind_ledger::Version;
use tradewind_local::Deployment;

use super::deployment::{AIRPORTS, CHAIN, FLIGHTS};
use super::figures::Rate;
use super::records::{Record, flight};
use super::steps::Step;

/// Requests of the import that are under way at a time.
const IMPORT_INFLIGHT: usize = 128;
/// Clients that write flights; each sends one request after the other.
pub(crate) const WRITERS: usize = 4;
/// Pause between two probes of one mirror.
const PROBE_PAUSE: Duration = Duration::from_millis(20);
/// A probe that takes longer fails the demo.
const PROBE_LIMIT: Duration = Duration::from_secs(10);

/// Writers and probes under way.
#[derive(Debug)]
pub(crate) struct Traffic {
    state: Arc<State>,
    start: Instant,
    writers: JoinSet<anyhow::Result<()>>,
    probes: Vec<JoinHandle<anyhow::Result<Vec<Duration>>>>,
}

#[derive(Debug, Default)]
struct State {
    stop: AtomicBool,
    /// Counts changes: odd while a mirror is down on purpose, when a probe says nothing about lag.
    pauses: AtomicU64,
    /// Acknowledged writes of flights.
    written: AtomicU64,
    /// Good samples of all mirrors' lag.
    samples: AtomicU64,
}

/// Writes all `records` through one client.
///
/// # Errors
/// The first write that was not acknowledged.
pub(crate) async fn import(
    client: &Client,
    records: &[Record],
    imported: &AtomicU64,
    step: &Step,
) -> anyhow::Result<Rate> {
    let start = Instant::now();
    let mut under_way = JoinSet::new();
    for (key, value) in records {
        if under_way.len() >= IMPORT_INFLIGHT {
            next(&mut under_way).await?;
            step.set(imported.fetch_add(1, Ordering::Relaxed) + 1);
        }
        let (client, key, value) = (client.clone(), key.clone(), value.clone());
        under_way.spawn(async move { put(&client, AIRPORTS, &key, &value).await.map(drop) });
    }
    while !under_way.is_empty() {
        next(&mut under_way).await?;
        step.set(imported.fetch_add(1, Ordering::Relaxed) + 1);
    }
    Ok(Rate::new(records.len() as u64, 1, start.elapsed()))
}

async fn next(under_way: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    under_way.join_next().await.context("nothing is under way")?.context("a task of the import")?
}

/// Puts one record; gives its version.
async fn put(client: &Client, pool: &str, key: &[u8], value: &[u8]) -> anyhow::Result<Version> {
    let reply = client.put(pool, key, value, Condition::Always).await;
    match reply.with_context(|| format!("putting {} into {pool}", key.escape_ascii()))? {
        Reply::Written { version, .. } => Ok(version),
        other => bail!("putting {} into {pool}: {other:?}", key.escape_ascii()),
    }
}

impl Traffic {
    /// Starts the writers, each at another node of the home of `flights`, and a probe for each mirror.
    ///
    /// # Errors
    /// When a client cannot be connected.
    pub(crate) async fn start(
        deployment: &Deployment,
        airports: &Arc<[Record]>,
    ) -> anyhow::Result<Self> {
        let state = Arc::new(State::default());
        let nodes = deployment.plan().nodes_of_pool(FLIGHTS);
        let mut writers = JoinSet::new();
        for index in 0..WRITERS {
            let client = deployment.client(&[&nodes[index % nodes.len()]]).await?;
            writers.spawn(write(index, client, Arc::clone(airports), Arc::clone(&state)));
        }
        let mut probes = Vec::new();
        for (index, mirror) in CHAIN.into_iter().enumerate() {
            let site = deployment.client(&[&nodes[index % nodes.len()]]).await?;
            let here = deployment.client_of_only(mirror).await?;
            probes.push(tokio::spawn(probe(mirror, site, here, Arc::clone(&state))));
        }
        Ok(Self { state, start: Instant::now(), writers, probes })
    }

    /// Acknowledged writes so far.
    pub(crate) fn written(&self) -> u64 {
        self.state.written.load(Ordering::Relaxed)
    }

    /// Samples of all mirrors' lag so far.
    pub(crate) fn samples(&self) -> u64 {
        self.state.samples.load(Ordering::Relaxed)
    }

    /// Probes are not counted until `resume_probes`.
    pub(crate) fn pause_probes(&self) {
        assert_eq!(self.state.pauses.fetch_add(1, Ordering::Relaxed) % 2, 0, "paused already");
    }

    /// Probes that begin from now on are counted.
    pub(crate) fn resume_probes(&self) {
        assert_eq!(self.state.pauses.fetch_add(1, Ordering::Relaxed) % 2, 1, "not paused");
    }

    /// A task that has failed, if one has: there is no sense in going on then.
    ///
    /// # Errors
    /// The task's error.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        while let Some(ended) = self.writers.try_join_next() {
            ended.context("a writer")??;
        }
        Ok(())
    }

    /// Ends everything: what was written, and each mirror's lag in the order of [`CHAIN`].
    ///
    /// # Errors
    /// The first write that was not acknowledged or probe that was not answered.
    pub(crate) async fn stop(mut self) -> anyhow::Result<(Rate, Vec<Vec<Duration>>)> {
        self.state.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.writers.join_next().await {
            ended.context("a writer")??;
        }
        let written = Rate::new(self.written(), WRITERS, self.start.elapsed());
        let mut lags = Vec::new();
        for probe in self.probes {
            lags.push(probe.await.context("a probe")??);
        }
        Ok((written, lags))
    }
}

async fn write(
    index: usize,
    client: Client,
    airports: Arc<[Record]>,
    state: Arc<State>,
) -> anyhow::Result<()> {
    for number in 0.. {
        if state.stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, value) = flight(index, number, &airports);
        put(&client, FLIGHTS, &key, &value).await?;
        state.written.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// How long after its acknowledgement at the site a write can be read at the mirror, again and again.
async fn probe(
    mirror: &'static str,
    site: Client,
    here: Client,
    state: Arc<State>,
) -> anyhow::Result<Vec<Duration>> {
    let key = format!("probe/{mirror}");
    let mut samples = Vec::new();
    for number in 0_u64.. {
        tokio::time::sleep(PROBE_PAUSE).await;
        if state.stop.load(Ordering::Relaxed) {
            break;
        }
        let pauses = state.pauses.load(Ordering::Relaxed);
        if pauses % 2 == 1 {
            continue;
        }
        let value = number.to_string();
        let version = put(&site, FLIGHTS, key.as_bytes(), value.as_bytes()).await?;
        let acknowledged = Instant::now();
        let read = Read {
            min_version: Some(version),
            wait_ms: u32::try_from(PROBE_LIMIT.as_millis()).expect("seconds"),
            ..Read::default()
        };
        let answer = here.get(FLIGHTS, key.as_bytes(), read).await;
        let lag = acknowledged.elapsed();
        // Whatever was met while the mirror, or what feeds it, was down does not count.
        if pauses != state.pauses.load(Ordering::Relaxed) {
            continue;
        }
        let (item, _) = answer.with_context(|| format!("reading {key} at {mirror}"))?;
        anyhow::ensure!(
            item.is_some_and(|item| item.version >= version),
            "{mirror} said it has version {version} of {key}, and answered with an older one"
        );
        samples.push(lag);
        state.samples.fetch_add(1, Ordering::Relaxed);
    }
    Ok(samples)
}
