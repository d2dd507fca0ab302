//! Real processes killed with SIGKILL while a large value is on its way by the bulk lane: it arrives all the same, once,
//! and nothing that is small waits for it or fails.

use std::fs;

use rustix::process::Signal;
use tokio::task::JoinHandle;
use tradewind_client::wire::Read;
use tradewind_client::{Client, Condition, Error, ItemValue, Reply};
use tradewind_ledger::Version;
use tradewind_local::Plan;
use tradewind_tests::e2e::{
    Acknowledged, LIMIT, POOL, Running, Writers, assert_ledgers_hold, assert_segments_equal,
    eventually, ledgers, sizes,
};
use tradewind_topology::FabricKind;

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
/// The client writes through it.
const WRITER: &str = "ams-1";
const KEY: &[u8] = b"object";
const OBJECT: u64 = 100 << 20;
/// Mid-transfer: so much has arrived, and not all of it.
const SOME: u64 = OBJECT / 10;

/// Bytes of which no two blocks are alike.
fn object() -> Vec<u8> {
    let words = (0..OBJECT / 8).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.flatten().collect()
}

/// The lengths of the bodies beside a node's ledgers that have not become values.
fn staged(running: &Running, name: &str) -> Vec<u64> {
    let values =
        |ledger: &str| running.deployment.data(name).join("ledgers").join(ledger).join("values");
    let files = ledgers(running).into_iter().flat_map(|ledger| {
        let dir = values(&ledger.to_string());
        fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
    });
    let files = files.map(|file| file.expect("a file"));
    let staged = files.filter(|file| file.file_name().to_string_lossy().starts_with("staged-"));
    // One that is gone since was adopted or removed.
    staged.filter_map(|file| Some(file.metadata().ok()?.len())).collect()
}

/// Waits until `receiver` has some of the object, and kills `victim` while it does not have all of it: `victim` stands
/// still while that is looked at.
fn kill_in_mid_transfer(running: &mut Running, receiver: &str, victim: &str) {
    eventually("on its way", || match staged(running, receiver).as_slice() {
        [len] if *len >= SOME => Ok(()),
        other => Err(format!("{other:?}")),
    });
    running.deployment.signal(victim, Signal::STOP).expect("it runs");
    let have = staged(running, receiver);
    assert!(matches!(have.as_slice(), [len] if *len < OBJECT), "{receiver} has {have:?} already");
    running.deployment.kill(victim).expect("it ran");
}

/// Puts the object in the background, if there is none.
async fn put_object(running: &Running, value: Vec<u8>) -> JoinHandle<Result<Reply, Error>> {
    let client = running.deployment.client_within(&[WRITER], LIMIT).await.expect("a client");
    tokio::spawn(async move { client.put(POOL, KEY, &value, Condition::Absent).await })
}

/// Asserts that a node has the object as it was acknowledged, and that it was written once.
async fn assert_there_once(client: &Client, name: &str, value: &[u8], version: Version) {
    let read = Read { min_version: Some(version), wait_ms: 10_000, ..Read::default() };
    let (item, _) = client.get(POOL, KEY, read).await.expect("a read");
    let item = item.unwrap_or_else(|| panic!("{name} does not have what was acknowledged"));
    assert_eq!(item.version, version, "{name}");
    let ItemValue::Inline(bytes) = item.value else { panic!("{name}: a value not inline") };
    assert!(*bytes == *value, "{name} has another value than was written");
    let (revisions, more, _) = client.history(POOL, KEY, None, 8, read).await.expect("a history");
    let versions: Vec<Version> = revisions.iter().map(|revision| revision.version).collect();
    assert_eq!((versions, more), (vec![version], false), "{name}: written once");
}

async fn a_killed_node_costs_no_large_value(fabric: FabricKind, receiver: &str, victim: &str) {
    let mut plan = Plan::one_site(3, 1);
    plan.sites[0].fabric = fabric;
    let mut running = Running::start(plan);
    let value = object();
    let writers = Writers::start(&running, "k", 3).await;
    writers.wait_for(20);
    let putting = put_object(&running, value.clone()).await;
    kill_in_mid_transfer(&mut running, receiver, victim);
    let left = staged(&running, victim);
    assert!(!left.is_empty(), "the killed node leaves what it had of the object");
    writers.wait_for(20);

    // Acknowledged by the others, while the killed one is away.
    let put = tokio::time::timeout(LIMIT * 2, putting).await.expect("answered").expect("no panic");
    let Reply::Written { version, .. } = put.expect("acknowledged") else { panic!("not written") };
    writers.wait_for(20);
    running.deployment.start(victim).expect("it starts");
    running.ready();
    writers.wait_for(20);
    let failed = writers.failed();
    let acknowledged = writers.stop().await;
    assert!(failed.is_empty(), "small puts failed: {failed:?}");

    for name in NODES {
        let client = running.deployment.client_of_only_within(name, LIMIT).await;
        let client = client.expect("a client");
        assert_there_once(&client, name, &value, version).await;
        Acknowledged::assert_all_there(&acknowledged, &client).await;
        eventually("without left-overs", || match staged(&running, name).as_slice() {
            [] => Ok(()),
            other => Err(format!("{name}: {other:?}")),
        });
    }
    let have = sizes(&running, WRITER).await;
    assert_segments_equal(&running, &NODES);
    assert_ledgers_hold(&running, &NODES, &have);
    for name in NODES {
        let data = running.deployment.data(name);
        let source = data.to_str().expect("a path in UTF-8");
        running.run(&["audit", "verify", source]).expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_killed_in_mid_transfer_through_shared_memory() {
    a_killed_node_costs_no_large_value(FabricKind::Auto, "ams-2", "ams-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_killed_in_mid_transfer_over_tcp() {
    // It also passes the object on to the third.
    a_killed_node_costs_no_large_value(FabricKind::Tcp, "ams-2", "ams-2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_the_client_writes_through_killed_in_mid_transfer_through_shared_memory() {
    a_killed_node_costs_no_large_value(FabricKind::Auto, "ams-3", WRITER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_that_the_client_writes_through_killed_in_mid_transfer_over_tcp() {
    a_killed_node_costs_no_large_value(FabricKind::Tcp, "ams-3", WRITER).await;
}
