//! What an auditor finds, and whether processes have the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use tradewind_audit::{DirSource, Options, Report, Verdict, verify};
use tradewind_client::wire::Read;
use tradewind_client::{Client, Range};
use tradewind_ledger::{LedgerId, Version};
use tradewind_local::Deployment;

use super::command::LIMIT;
use super::redact::Redact;
use super::requests::text;
use super::stage::Stage;

/// Keys of a page of a listing.
const PAGE: u32 = 1_000;

/// A process' records: of each key its value, its version and the number of its changes.
type Records = BTreeMap<(String, Vec<u8>), (String, u64, u64)>;

impl Stage {
    /// Verifies each ledger of these processes. Those that run must be proven as far as they show entries, which may
    /// take a moment.
    pub(super) async fn audit(&mut self, names: &[String]) -> anyhow::Result<String> {
        let mut told = Vec::new();
        for name in names {
            let mut wanted = BTreeMap::new();
            if self.deployment.pid(name).is_some() {
                wanted = sizes(&self.deployment, name).await?;
            }
            let proven = async |stage: &mut Self| Ok(audited(&stage.deployment, name, &wanted));
            let found = self.eventually(LIMIT, proven).await?;
            told.push(format!("{name}: {}", self.redact(Redact::Numbers, &found)));
        }
        Ok(told.join("\n"))
    }

    /// Holds the number of views that each process has installed since its start against a bound.
    pub(super) fn check_views(&self, names: &[String], most: u32) -> anyhow::Result<String> {
        for name in names {
            let (_, text) = self.deployment.fetch(name, "/status")?;
            let status: serde_json::Value = serde_json::from_str(&text)?;
            let views = status["counters"]["views"].as_u64();
            let views = views.with_context(|| format!("{name} tells of no views"))?;
            anyhow::ensure!(views <= u64::from(most), "{name} has installed {views} views");
        }
        Ok(format!("at most {most} views: {}", names.join(", ")))
    }

    /// Waits until these processes show the same records, then holds their sealed segments against each other.
    pub(super) async fn compare(&mut self, names: &[String]) -> anyhow::Result<String> {
        let same = async |stage: &mut Self| {
            let first = records(&stage.deployment, &names[0]).await?;
            for other in &names[1..] {
                let found = records(&stage.deployment, other).await?;
                if found != first {
                    let (a, b) = (first.len(), found.len());
                    return Ok(Err(format!(
                        "{} has other records than {other}: {a}, {b}",
                        names[0]
                    )));
                }
            }
            Ok(Ok(()))
        };
        self.eventually(LIMIT, same).await?;
        let first = sealed_segments(&self.deployment, &names[0]);
        for other in &names[1..] {
            for (name, path) in sealed_segments(&self.deployment, other) {
                if let Some(own) = first.get(&name)
                    && fs::read(own)? != fs::read(&path)?
                {
                    anyhow::bail!(
                        "the sealed segment {name} differs between {} and {other}",
                        names[0]
                    );
                }
            }
        }
        Ok(format!("same records, same sealed segments: {}", names.join(", ")))
    }
}

fn ledgers(deployment: &Deployment) -> Vec<LedgerId> {
    let pools = deployment.plan().pools.iter();
    let shards = pools.flat_map(|pool| (0..pool.shards).map(|shard| (pool.name.as_str(), shard)));
    shards.filter_map(|(pool, shard)| LedgerId::new(pool, shard).ok()).collect()
}

fn directory(deployment: &Deployment, name: &str, ledger: &LedgerId) -> PathBuf {
    deployment.data(name).join("ledgers").join(ledger.to_string())
}

/// The sealed segments of a process, by ledger and name.
pub(super) fn sealed_segments(deployment: &Deployment, name: &str) -> BTreeMap<String, PathBuf> {
    let mut sealed = BTreeMap::new();
    for ledger in ledgers(deployment) {
        let dir = directory(deployment, name, &ledger).join("segments");
        let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        let named =
            files.map(|file| (format!("{ledger} {}", file.file_name().display()), file.path()));
        sealed.extend(named.filter(|(name, _)| name.ends_with(".seg")));
    }
    sealed
}

async fn sizes(deployment: &Deployment, name: &str) -> anyhow::Result<BTreeMap<LedgerId, Version>> {
    let client = deployment.client_of_only(name).await?;
    let mut sizes = BTreeMap::new();
    for ledger in ledgers(deployment) {
        if directory(deployment, name, &ledger).is_dir() {
            let range = Range { prefix: b"", after: None, limit: 1, values: false };
            let (pool, shard) = (ledger.pool(), ledger.shard());
            let (_, _, as_of) = client.list_shard(pool, shard, range, Read::default()).await?;
            sizes.insert(ledger, as_of.readable);
        }
    }
    Ok(sizes)
}

/// What an auditor says of the ledgers of a process; an error if it may say more a little later.
fn audited(
    deployment: &Deployment,
    name: &str,
    wanted: &BTreeMap<LedgerId, Version>,
) -> Result<String, String> {
    for ledger in ledgers(deployment) {
        let dir = directory(deployment, name, &ledger);
        if !dir.is_dir() {
            continue;
        }
        let report = verify(&DirSource::new(dir), &Options::default());
        let through = report.ledgers.first().map_or(Version::ZERO, |found| found.verified_through);
        let wanted = wanted.get(&ledger);
        match report.verdict() {
            Verdict::Holds if wanted.is_none_or(|wanted| through >= *wanted) => {}
            Verdict::DoesNotHold => return Ok(format!("does not hold: {}", problem(&report))),
            _ if wanted.is_none() => {}
            _ => return Err(format!("{ledger} is proven up to {through}: {}", problem(&report))),
        }
    }
    Ok("every ledger holds".into())
}

fn problem(report: &Report) -> String {
    let problems = report.problems.iter().chain(report.ledgers.iter().flat_map(|l| &l.problems));
    problems.map(ToString::to_string).next().unwrap_or_default()
}

async fn records(deployment: &Deployment, name: &str) -> anyhow::Result<Records> {
    let client = deployment.client_of_only(name).await?;
    let mut records = Records::new();
    for pool in &deployment.plan().pools {
        // A mirror of this deployment has every pool; a node those of its site.
        if client.welcome().pools.iter().any(|own| own.name == pool.name) {
            add_records(&client, &pool.name, &mut records).await?;
        }
    }
    Ok(records)
}

async fn add_records(client: &Client, pool: &str, records: &mut Records) -> anyhow::Result<()> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let range = Range { prefix: b"", after: after.as_deref(), limit: PAGE, values: true };
        let page = client.list(pool, range, Read::default()).await?;
        records.extend(page.items.into_iter().map(|listed| {
            let (version, changes) = (listed.item.version.0, listed.item.key_version.0);
            ((pool.to_owned(), listed.key), (text(&listed.item.value), version, changes))
        }));
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
