//! What must hold of mirrors and ledgers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use tradewind_audit::{DirSource, Options, Verdict, verify};
use tradewind_client::Range;
use tradewind_client::wire::Read;
use tradewind_ledger::{LedgerId, Version};

use super::{Running, eventually};

/// The ledgers of a deployment.
///
/// # Panics
/// Never: pools have good names.
pub fn ledgers(running: &Running) -> Vec<LedgerId> {
    let pools = running.deployment.plan().pools.iter();
    let shards = pools.flat_map(|pool| (0..pool.shards).map(|shard| (pool.name.as_str(), shard)));
    shards.map(|(pool, shard)| LedgerId::new(pool, shard).expect("a good name")).collect()
}

/// How many entries of each ledger a process shows.
///
/// # Panics
/// If it does not answer.
pub async fn sizes(running: &Running, name: &str) -> BTreeMap<LedgerId, Version> {
    let client = running.deployment.client_of_only(name).await.expect("a client");
    let range = Range { prefix: b"", after: None, limit: 1, values: false };
    let mut sizes = BTreeMap::new();
    for ledger in ledgers(running) {
        let page = client.list_shard(ledger.pool(), ledger.shard(), range, Read::default()).await;
        let (_, _, as_of) = page.unwrap_or_else(|error| panic!("{name}, {ledger}: {error}"));
        sizes.insert(ledger, as_of.readable);
    }
    sizes
}

/// Waits until a process shows at least these sizes.
///
/// # Panics
/// If it does not in time.
pub async fn wait_for_sizes(running: &Running, name: &str, wanted: &BTreeMap<LedgerId, Version>) {
    let deadline = std::time::Instant::now() + super::LIMIT;
    loop {
        let found = sizes(running, name).await;
        if wanted.iter().all(|(ledger, size)| found[ledger] >= *size) {
            return;
        }
        if std::time::Instant::now() > deadline {
            running.fail(&format!("{name} shows {found:?}, wanted is {wanted:?}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Asserts that an auditor finds all ledgers of these processes in order, proven at least up to `sizes`. The newest
/// entries may wait for their signatures a moment.
///
/// # Panics
/// If one does not hold.
pub fn assert_ledgers_hold(running: &Running, names: &[&str], sizes: &BTreeMap<LedgerId, Version>) {
    for name in names {
        for (ledger, size) in sizes {
            let source = DirSource::new(directory(running, name, ledger));
            eventually("proven", || {
                let report = verify(&source, &Options::default());
                let [found] = report.ledgers.as_slice() else {
                    panic!("{name}, {ledger}: one ledger expected: {report:#?}")
                };
                let faulty = found.verdict() == Verdict::DoesNotHold;
                assert!(!faulty, "{name}, {ledger}: {:#?}", found.problems);
                if report.verdict() == Verdict::Holds && found.verified_through >= *size {
                    return Ok(());
                }
                let through = found.verified_through;
                Err(format!("{name}, {ledger}: {through} of {size}: {:?}", found.problems))
            });
        }
    }
}

/// Asserts that each process has the same sealed segments as the first, byte for byte, once all of them are sealed:
/// nobody may write meanwhile.
///
/// # Panics
/// If a segment differs, or one does not come.
pub fn assert_segments_equal(running: &Running, names: &[&str]) {
    for ledger in ledgers(running) {
        let sealed = |name: &str| -> BTreeMap<String, Vec<u8>> {
            let dir = directory(running, name, &ledger).join("segments");
            let files =
                fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
            let files = files.map(|file| file.expect("a file"));
            let named =
                files.map(|file| (file.file_name().to_string_lossy().into_owned(), file.path()));
            let sealed = named.filter(|(name, _)| name.ends_with(".seg"));
            sealed.map(|(name, path)| (name, fs::read(path).expect("a segment"))).collect()
        };
        for other in &names[1..] {
            let count = eventually("sealed alike", || {
                let (first, second) = (sealed(names[0]), sealed(other));
                for (name, bytes) in &first {
                    let same = second.get(name).is_none_or(|own| own == bytes);
                    assert!(same, "{ledger}: {name} differs between {} and {other}", names[0]);
                }
                if first.keys().eq(second.keys()) && !first.is_empty() {
                    return Ok(first.len());
                }
                Err(format!("{ledger}: {:?}, {:?}", first.keys(), second.keys()))
            });
            assert!(count > 0);
        }
    }
}

/// The records of a pool at a process, as `tradewind export` writes them.
///
/// # Panics
/// If it fails.
pub fn export(running: &Running, name: &str, pool: &str) -> String {
    running.run(&["export", pool, "--endpoints", name, "--only"]).expect(0).stdout()
}

fn directory(running: &Running, name: &str, ledger: &LedgerId) -> PathBuf {
    running.deployment.data(name).join("ledgers").join(ledger.to_string())
}
