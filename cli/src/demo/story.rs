//! The demo, step by step. Every step either holds or ends the demo with what did not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::task::block_in_place;
use tradewind_client::wire::Read;
use tradewind_client::{Client, Range};
use tradewind_ledger::LedgerId;
use tradewind_local::{Deployment, PoolPlan};

use super::check;
use super::deployment::{AIRPORTS, CHAIN, VICTIM};
use super::figures::{Crash, Figures, Lag, Mirror, Rate, Site};
use super::records::{self, Record};
use super::steps::Steps;
use super::traffic::{self, Traffic};

/// All processes must be ready after this time.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Whatever else is waited for must have come after this time.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a state that can only be asked for is asked for.
const POLL: Duration = Duration::from_millis(10);
/// Writes that the killed mirror must miss.
const MISSED_MIN: u64 = 500;
/// Samples of all mirrors' lag together before the writers may stop.
const SAMPLES_MIN: u64 = 300;

/// The size of each ledger at some moment at its home.
pub(crate) type Sizes = BTreeMap<LedgerId, u64>;

/// Runs the whole demo on the processes of `deployment`, none of which runs yet.
///
/// # Errors
/// The first thing that does not hold.
pub(crate) async fn run(deployment: &mut Deployment, steps: &Steps) -> anyhow::Result<Figures> {
    start(deployment, steps).await?;
    let Filled { import, writes, crash, lags } = fill(deployment, steps).await?;

    let step = steps.spinner("waiting until every mirror has everything");
    let sizes = sizes(deployment).await?;
    for mirror in CHAIN {
        wait_for_sizes(deployment, mirror, &sizes).await?;
    }
    let entries: u64 = sizes.values().sum();
    step.done(format!("every mirror has all {entries} entries of {} ledgers", sizes.len()));

    let (audit, ledgers) = check::audit(deployment, &sizes, steps).await?;
    let equal = check::compare(deployment, &sizes, steps).await?;
    for name in deployment.plan().process_names() {
        if let Some(status) = deployment.exited(&name)? {
            bail!("{name} ended with {status}; its log is {}", deployment.log(&name).display());
        }
    }
    let mirrors = mirrors(deployment, lags, equal);
    Ok(Figures {
        seconds: steps.elapsed().as_secs_f64(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        directory: deployment.dir().display().to_string(),
        sites: sites(deployment)?,
        import,
        writes,
        crash,
        mirrors,
        audit,
        ledgers,
    })
}

async fn start(deployment: &mut Deployment, steps: &Steps) -> anyhow::Result<()> {
    let names = deployment.plan().process_names();
    let step = steps.bar("starting processes", names.len() as u64);
    deployment.start_all()?;
    let deadline = Instant::now() + READY_LIMIT;
    for (index, name) in names.iter().enumerate() {
        wait_ready(deployment, name, deadline).await?;
        step.set(index as u64 + 1);
    }
    step.done(format!("{} processes are ready: {}", names.len(), names.join(", ")));
    Ok(())
}

/// Waits in small portions, so that a Ctrl-C is heard meanwhile.
async fn wait_ready(
    deployment: &mut Deployment,
    name: &str,
    deadline: Instant,
) -> anyhow::Result<()> {
    loop {
        match block_in_place(|| deployment.ready(name))? {
            Ok(()) => return Ok(()),
            Err(last) => ensure!(
                Instant::now() < deadline,
                "{name} did not become ready: {last}; its log is {}",
                deployment.log(name).display()
            ),
        }
        tokio::time::sleep(POLL).await;
    }
}

struct Filled {
    import: Rate,
    writes: Rate,
    crash: Crash,
    /// In the order of [`CHAIN`].
    lags: Vec<Lag>,
}

/// Imports and writes while the mirrors follow and one of them is killed and brought back.
async fn fill(deployment: &mut Deployment, steps: &Steps) -> anyhow::Result<Filled> {
    let airports: Arc<[Record]> = records::airports()?.into();
    let mut traffic = Traffic::start(deployment, &airports).await?;
    let step = steps.bar("importing airports, writing flights", airports.len() as u64);
    let nodes = deployment.plan().nodes_of_pool(AIRPORTS);
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let client = deployment.client(&nodes).await?;
    let imported = AtomicU64::new(0);

    let import = traffic::import(&client, &airports, &imported, &step);
    let crash = crash(deployment, &mut traffic, &imported, airports.len() as u64 / 3);
    let (import, crash) = tokio::try_join!(import, crash)?;
    step.done(format!(
        "imported {} airports ({:.0}/s) while {} clients wrote flights; killed {VICTIM} (kill -9) meanwhile, \
         brought it back {} writes behind: it has them",
        import.records,
        import.records_per_second,
        traffic::WRITERS,
        crash.writes_meanwhile
    ));

    let step = steps.bar("writing flights, measuring how far behind each mirror is", SAMPLES_MIN);
    while traffic.samples() < SAMPLES_MIN {
        traffic.check()?;
        step.set(traffic.samples());
        tokio::time::sleep(POLL).await;
    }
    let (writes, lags) = traffic.stop().await?;
    let lags: Vec<Lag> = lags.into_iter().map(Lag::of).collect();
    let line = lags.iter().zip(CHAIN);
    let line = line.map(|(lag, name)| format!("{name} {:.0}/{:.0} ms", lag.p50_ms, lag.p99_ms));
    step.done(format!(
        "wrote {} flights; lag p50/p99: {}",
        writes.records,
        line.collect::<Vec<_>>().join(", ")
    ));
    Ok(Filled { import, writes, crash, lags })
}

/// Kills the victim when `after` records are imported, and brings it back when it has missed something.
async fn crash(
    deployment: &mut Deployment,
    traffic: &mut Traffic,
    imported: &AtomicU64,
    after: u64,
) -> anyhow::Result<Crash> {
    while imported.load(Ordering::Relaxed) < after {
        traffic.check()?;
        tokio::time::sleep(POLL).await;
    }
    traffic.pause_probes();
    deployment.kill(VICTIM)?;
    let written = traffic.written() + imported.load(Ordering::Relaxed);
    let missed = |traffic: &Traffic| traffic.written() + imported.load(Ordering::Relaxed) - written;
    while missed(traffic) < MISSED_MIN {
        traffic.check()?;
        tokio::time::sleep(POLL).await;
    }
    let writes_meanwhile = missed(traffic);
    let sizes = sizes(deployment).await?;
    let back = Instant::now();
    deployment.start(VICTIM)?;
    wait_ready(deployment, VICTIM, back + READY_LIMIT).await?;
    wait_for_sizes(deployment, VICTIM, &sizes).await?;
    let caught_up_ms = back.elapsed().as_secs_f64() * 1e3;
    // What it feeds must be there again too before its lag is measured again.
    for mirror in CHAIN {
        wait_for_sizes(deployment, mirror, &sizes).await?;
    }
    traffic.resume_probes();
    Ok(Crash { killed: VICTIM.into(), writes_meanwhile, caught_up_ms })
}

/// The size of each ledger at its home, now.
async fn sizes(deployment: &Deployment) -> anyhow::Result<Sizes> {
    let mut sizes = Sizes::new();
    for PoolPlan { name, shards, .. } in &deployment.plan().pools {
        let nodes = deployment.plan().nodes_of_pool(name);
        let client = deployment.client_of_only(&nodes[0]).await?;
        for shard in 0..*shards {
            let size = readable(&client, name, shard).await?;
            sizes.insert(LedgerId::new(name, shard)?, size);
        }
    }
    Ok(sizes)
}

/// How many entries of a ledger a server shows.
async fn readable(client: &Client, pool: &str, shard: u32) -> anyhow::Result<u64> {
    let nothing = Range { prefix: b"", after: None, limit: 1, values: false };
    let (_, _, as_of) = client.list_shard(pool, shard, nothing, Read::default()).await?;
    Ok(as_of.readable.0)
}

/// Waits until a mirror shows at least `sizes`.
async fn wait_for_sizes(
    deployment: &Deployment,
    mirror: &str,
    sizes: &Sizes,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    let client = deployment.client_of_only(mirror).await?;
    for (ledger, &size) in sizes {
        loop {
            let last = match readable(&client, ledger.pool(), ledger.shard()).await {
                Ok(found) if found >= size => break,
                Ok(found) => format!("{found} entries"),
                Err(error) => error.to_string(),
            };
            ensure!(
                Instant::now() < deadline,
                "{mirror} does not have the {size} entries of {ledger} after {} s: {last}; its log is {}",
                LIMIT.as_secs(),
                deployment.log(mirror).display()
            );
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

fn sites(deployment: &Deployment) -> anyhow::Result<Vec<Site>> {
    let plan = deployment.plan();
    plan.sites
        .iter()
        .map(|site| {
            let nodes = site.node_names();
            let (_, status) = block_in_place(|| deployment.fetch(&nodes[0], "/status"))?;
            let status: serde_json::Value = serde_json::from_str(&status)?;
            let pools = plan.pools.iter().filter(|pool| pool.home == site.name);
            Ok(Site {
                name: site.name.clone(),
                region: site.region.clone(),
                view: status["view"].as_u64(),
                pools: pools.map(|pool| pool.name.clone()).collect(),
                nodes,
            })
        })
        .collect()
}

fn mirrors(deployment: &Deployment, lags: Vec<Lag>, equal: Vec<u64>) -> Vec<Mirror> {
    let planned = deployment.plan().mirrors.iter();
    let measured = lags.into_iter().zip(equal);
    planned
        .zip(measured)
        .map(|(mirror, (lag, records_equal))| Mirror {
            name: mirror.name.clone(),
            region: mirror.region.clone(),
            parents: mirror.parents.clone(),
            lag,
            records_equal,
        })
        .collect()
}
