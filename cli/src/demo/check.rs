//! Proves what the demo claims: every ledger at every place holds, and every mirror has the site's records.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::task::block_in_place;
use tradewind_audit::{DirSource, LedgerReport, Options, Source, Verdict, verify};
use tradewind_client::wire::{At, Listed, Read};
use tradewind_client::{Client, Range};
use tradewind_ledger::note::KeyKind;
use tradewind_ledger::{LedgerId, VerifierKey, Version};
use tradewind_local::Deployment;

use crate::http_source::HttpSource;

use super::deployment::CHAIN;
use super::figures::{Audit, Ledger, Proven};
use super::steps::Steps;
use super::story::Sizes;

/// Records asked for at a time.
const PAGE: u32 = 1_000;
/// Every ledger must be proven after this time.
const LIMIT: Duration = Duration::from_secs(20);
/// Pause between two verifications of the same place.
const POLL: Duration = Duration::from_millis(50);

/// Compares each mirror with the home of each pool, record for record: keys, versions, times and values, in the state
/// of `sizes`. Gives how many records are equal, for each mirror in the order of [`CHAIN`].
///
/// # Errors
/// The first record that differs.
pub(crate) async fn compare(
    deployment: &Deployment,
    sizes: &Sizes,
    steps: &Steps,
) -> anyhow::Result<Vec<u64>> {
    let step = steps.bar("comparing records", (CHAIN.len() * sizes.len()) as u64);
    let mut equal = Vec::new();
    for mirror in CHAIN {
        let copy = deployment.client_of_only(mirror).await?;
        let mut records = 0;
        for (index, (ledger, &size)) in sizes.iter().enumerate() {
            let nodes = deployment.plan().nodes_of_pool(ledger.pool());
            let home = deployment.client_of_only(&nodes[index % nodes.len()]).await?;
            let differs = || format!("{ledger} at {mirror}, compared with its home");
            records += compare_shard(&home, &copy, ledger, size).await.with_context(differs)?;
            step.set((equal.len() * sizes.len() + index) as u64);
        }
        equal.push(records);
    }
    step.done(format!("{} records are equal at the sites and at each mirror", equal[0]));
    Ok(equal)
}

async fn compare_shard(
    home: &Client,
    copy: &Client,
    ledger: &LedgerId,
    size: u64,
) -> anyhow::Result<u64> {
    let (mut after, mut records): (Option<Vec<u8>>, _) = (None, 0);
    loop {
        let (expected, next) = page(home, ledger, size, after.as_deref()).await?;
        let (found, found_next) = page(copy, ledger, size, after.as_deref()).await?;
        for (index, expected) in expected.iter().enumerate() {
            ensure!(found.get(index) == Some(expected), "{expected:?} is {:?}", found.get(index));
        }
        ensure!(found.len() == expected.len(), "{:?} should not be there", found[expected.len()]);
        ensure!(next == found_next, "one listing goes on after {next:?}, one after {found_next:?}");
        records += expected.len() as u64;
        match next {
            Some(next) => after = Some(next),
            None => return Ok(records),
        }
    }
}

async fn page(
    client: &Client,
    ledger: &LedgerId,
    size: u64,
    after: Option<&[u8]>,
) -> anyhow::Result<(Vec<Listed>, Option<Vec<u8>>)> {
    let range = Range { prefix: b"", after, limit: PAGE, values: true };
    // The state right after the last of so many entries.
    let at = At::Version(Version(size - 1));
    let read = Read { at, ..Read::default() };
    let (items, next, as_of) =
        client.list_shard(ledger.pool(), ledger.shard(), range, read).await?;
    ensure!(as_of.at.0 == size, "asked for the state of {size} entries, got that of {}", as_of.at);
    Ok((items, next))
}

/// Has every ledger at every process audited, with the keys that the topology names, until each is proven up to
/// `sizes` at least: the newest entries wait a moment for their signatures.
///
/// # Errors
/// The first ledger that does not hold, or is not proven that far in time.
pub(crate) async fn audit(
    deployment: &Deployment,
    sizes: &Sizes,
    steps: &Steps,
) -> anyhow::Result<(Audit, Vec<Ledger>)> {
    let names = deployment.plan().process_names();
    let step = steps.bar("verifying every ledger at every place", names.len() as u64 + 1);
    let options = Options { keys: keys(deployment)?, ..Options::default() };
    let mut audit = Audit::default();
    let mut ledgers: Vec<Ledger> =
        sizes.iter().map(|(ledger, &size)| of(deployment, ledger, size)).collect();
    let mut add = |place: &str, reports: Vec<LedgerReport>, took: Duration| {
        audit.seconds += took.as_secs_f64();
        for report in reports {
            audit.ledgers += 1;
            audit.entries += report.size.0;
            audit.bytes += report.bytes;
            let ledger = ledgers.iter_mut().find(|ledger| ledger.ledger == report.ledger);
            let ledger =
                ledger.with_context(|| format!("{place} has a ledger {}", report.ledger))?;
            ledger.places.push(Proven {
                place: place.into(),
                proven: report.verified_through.0,
                root: report.root.map(|root| root.to_string()).unwrap_or_default(),
                signers: report.signers,
            });
        }
        anyhow::Ok(())
    };
    for (index, name) in names.iter().enumerate() {
        let source = DirSource::new(deployment.data(name));
        let (reports, took) = verify_until_proven(&source, &options, sizes).await?;
        add(name, reports, took)?;
        step.set(index as u64 + 1);
    }
    let last = CHAIN[CHAIN.len() - 1];
    for ledger in sizes.keys() {
        let source = HttpSource::new(&format!("{}/log/{ledger}", deployment.http(last)))?;
        let (reports, took) = verify_until_proven(&source, &options, sizes).await?;
        add(&format!("{last} over HTTP"), reports, took)?;
    }
    audit.over_http = sizes.len();
    audit.entries_per_second = audit.entries as f64 / audit.seconds;
    audit.bytes_per_second = audit.bytes as f64 / audit.seconds;
    step.done(format!(
        "verified {} ledgers at {} places, {} of them again over HTTP: {:.0} entries/s",
        audit.ledgers - audit.over_http,
        names.len(),
        audit.over_http,
        audit.entries_per_second
    ));
    Ok((audit, ledgers))
}

fn of(deployment: &Deployment, ledger: &LedgerId, size: u64) -> Ledger {
    let pools = &deployment.plan().pools;
    let pool = pools.iter().find(|pool| pool.name == ledger.pool()).expect("a pool of the plan");
    Ledger {
        ledger: ledger.to_string(),
        home: pool.home.clone(),
        version: size,
        places: Vec::new(),
    }
}

/// The keys of all nodes, each for the ledgers that it signs: what an auditor who trusts the topology brings along.
fn keys(deployment: &Deployment) -> anyhow::Result<Vec<VerifierKey>> {
    let topology = deployment.topology();
    let mut keys = Vec::new();
    for pool in &topology.pools {
        let site = topology.site(pool.home.as_str()).context("a pool's home")?;
        for shard in 0..pool.shards {
            let origin = format!("{}/{}/{}/{shard}", topology.name, site.name, pool.name);
            for member in topology.shard_members(pool, shard) {
                let key = *site.nodes[member].key.as_bytes();
                keys.push(VerifierKey::new(&origin, KeyKind::Ed25519, key)?);
            }
        }
    }
    Ok(keys)
}

/// Verifies all ledgers of a source again and again until all hold and are proven far enough; gives the last reports
/// and how long the last verification took.
async fn verify_until_proven(
    source: &dyn Source,
    options: &Options,
    sizes: &Sizes,
) -> anyhow::Result<(Vec<LedgerReport>, Duration)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let start = Instant::now();
        let report = block_in_place(|| verify(source, options));
        let took = start.elapsed();
        let behind = report.ledgers.iter().find_map(|ledger| {
            let id: LedgerId = ledger.ledger.parse().ok()?;
            let (proven, size) = (ledger.verified_through.0, *sizes.get(&id)?);
            (proven < size).then(|| format!("{id} is proven up to {proven}, not {size}"))
        });
        let problems = report.problems.iter();
        let mut problems =
            problems.chain(report.ledgers.iter().flat_map(|ledger| &ledger.problems));
        let fault = problems.next().map(ToString::to_string);
        match fault.or(behind) {
            None => return Ok((report.ledgers, took)),
            Some(last)
                if Instant::now() > deadline || report.verdict() == Verdict::Equivocation =>
            {
                bail!("{} does not verify: {last}", report.source)
            }
            Some(_) => tokio::time::sleep(POLL).await,
        }
    }
}
