//! Proves what the demo claims: every ledger at every place holds, and every mirror has the site's records.

use anyhow::{Context as _, ensure};
use tradewind_client::wire::{At, Listed, Read};
use tradewind_client::{Client, Range};
use tradewind_ledger::{LedgerId, Version};
use tradewind_local::Deployment;

use super::deployment::CHAIN;
use super::steps::Steps;
use super::story::Sizes;

/// Records asked for at a time.
const PAGE: u32 = 1_000;

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

pub(crate) async fn audit(
    _: &Deployment,
    _: &Sizes,
    _: &Steps,
) -> anyhow::Result<(super::figures::Audit, Vec<super::figures::Ledger>)> {
    anyhow::bail!("not yet")
}
