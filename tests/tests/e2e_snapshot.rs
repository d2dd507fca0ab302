//! Nodes that lack what all others have pruned: one that was away, and one with an empty disk under a new key; and mirrors, of a
//! site and of a relay. All take a snapshot over the wire, and are as good as any other then.

use std::time::Instant;

use tradewind_client::{Client, Condition, Reply};
use tradewind_local::Plan;
use tradewind_tests::e2e::{
    LIMIT, POOL, Running, assert_ledgers_hold, eventually, site_relay_leaf, sizes, wait_for_sizes,
};

const KEYS: u64 = 20;
const VALUE: usize = 30_000;

/// What key `number % KEYS` has after this write.
fn value(number: u64) -> Vec<u8> {
    number.to_be_bytes().repeat(VALUE / 8)
}

async fn put(client: &Client, key: &str, value: &[u8]) {
    match client.put(POOL, key.as_bytes(), value, Condition::Always).await {
        Ok(Reply::Written { .. }) => {}
        other => panic!("{key}: {other:?}"),
    }
}

/// The field of `kept` in the status of the one shard.
fn kept(running: &Running, name: &str, field: &str) -> u64 {
    running.status(name)["shards"][0]["kept"][field].as_u64().expect("a number")
}

fn size(running: &Running, name: &str) -> u64 {
    running.status(name)["shards"][0]["durable"].as_u64().expect("a number")
}

/// Writes until these nodes have pruned more than the first `past` entries; gives the number to go on with.
async fn prune(running: &Running, names: &[&str], past: u64, mut number: u64) -> u64 {
    let client = running.deployment.client(names).await.expect("a client");
    // The disk is bounded, so it comes to an end; how far writes run ahead of it depends on the machine.
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        if names.iter().all(|name| kept(running, name, "first") > past) {
            return number;
        }
        for _ in 0..40 {
            put(&client, &format!("key {}", number % KEYS), &value(number)).await;
            number += 1;
        }
    }
    running.fail(&format!("{names:?} have not pruned {past} entries"))
}

/// Waits until a node takes part again, and reads everything there.
async fn reads_all(running: &Running, name: &str, written: u64) {
    eventually("all are in one view", || {
        let status = running.status("ams-1");
        let members = status["view_members"].as_array().map_or(0, Vec::len);
        if members == 3 { Ok(()) } else { Err(status.to_string()) }
    });
    let wanted = size(running, "ams-1");
    eventually("it has everything", || match size(running, name) {
        found if found >= wanted => Ok(()),
        found => Err(format!("{found} of {wanted}")),
    });
    shows_all(running, name, written);
}

/// Reads everything at a process.
fn shows_all(running: &Running, name: &str, written: u64) {
    let get = |key: String| {
        let args = ["get", POOL, &key, "--level", "local", "--endpoints", name, "--only"];
        running.command(&args).output().expect("it runs").stdout
    };
    for key in 0..KEYS {
        let newest = (0..written).rev().find(|n| n % KEYS == key).expect("each was written");
        assert!(get(format!("key {key}")).starts_with(&value(newest)), "key {key} at {name}");
    }
    assert!(get("early".into()).starts_with(b"of the pruned past"));
    assert!(get("large".into()).starts_with(&[0x4c; 200_000]));
}

fn log(running: &Running, name: &str) -> String {
    std::fs::read_to_string(running.deployment.log(name)).expect("a log")
}

/// What is there of a node's history is proven, and it is said what is not.
fn audited(running: &Running, name: &str) {
    let data = running.deployment.data(name);
    let verify = ["audit", "verify", data.to_str().expect("a path in UTF-8")];
    let said = eventually("audited", || match running.run(&verify) {
        run if run.code() == 0 => Ok(run.stdout()),
        run => Err(run.stdout() + &run.stderr()),
    });
    assert!(said.contains("pruned"), "{said}");
}

/// A deployment that keeps little history.
fn keeping_little(plan: Plan) -> Running {
    let mut running = Running::start(plan);
    running.deployment.stop_all().expect("they end");
    let topology = running.deployment.topology_file();
    let text = std::fs::read_to_string(&topology).expect("a topology");
    let text = text.replace("shards = 1", "shards = 1\nretain = \"2MiB\"");
    assert!(text.contains("retain"), "{text}");
    std::fs::write(&topology, text).expect("written");
    running.deployment.start_all().expect("they start");
    running.ready();
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_that_lack_what_their_parents_have_pruned_take_a_snapshot_of_them() {
    let mut plan = site_relay_leaf();
    plan.pools[0].shards = 1;
    let mut running = keeping_little(plan);
    let client = running.deployment.client(&["ams-1"]).await.expect("a client");
    put(&client, "early", b"of the pruned past").await;
    put(&client, "large", &[0x4c; 200_000]).await;
    let shown = sizes(&running, "ams-1").await;
    wait_for_sizes(&running, "leaf", &shown).await;
    let past = size(&running, "ams-1");
    running.deployment.stop("leaf").expect("it ends");
    running.deployment.kill("relay").expect("it ran");
    let mut written = prune(&running, &["ams-1", "ams-2", "ams-3"], past + 10, 0).await;

    // Of a site: what the relay has is in the past.
    running.deployment.start("relay").expect("it starts");
    let shown = sizes(&running, "ams-1").await;
    wait_for_sizes(&running, "relay", &shown).await;
    shows_all(&running, "relay", written);
    assert!(kept(&running, "relay", "first") > past, "it begins with a snapshot");
    let told = log(&running, "relay");
    assert!(told.contains("taking a snapshot") && told.contains("it has pruned"), "{told}");

    // Of a mirror, which gives on what it took or has made since.
    running.deployment.start("leaf").expect("it starts");
    wait_for_sizes(&running, "leaf", &shown).await;
    shows_all(&running, "leaf", written);
    assert!(kept(&running, "leaf", "first") > past, "it begins with a snapshot");

    // Both go on.
    for _ in 0..40 {
        put(&client, &format!("key {}", written % KEYS), &value(written)).await;
        written += 1;
    }
    let shown = sizes(&running, "ams-1").await;
    wait_for_sizes(&running, "leaf", &shown).await;
    shows_all(&running, "leaf", written);
    assert_ledgers_hold(&running, &["ams-1", "relay", "leaf"], &shown);
    for name in ["relay", "leaf"] {
        audited(&running, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_and_an_empty_node_come_back_by_snapshot_when_the_others_have_pruned() {
    let mut running = keeping_little(Plan::one_site(3, 1));
    let client = running.deployment.client(&["ams-1"]).await.expect("a client");
    put(&client, "early", b"of the pruned past").await;
    put(&client, "large", &[0x4c; 200_000]).await;
    drop(client);
    running.deployment.kill("ams-3").expect("it ran");
    let past = size(&running, "ams-1");
    let written = prune(&running, &["ams-1", "ams-2"], past, 0).await;
    running.deployment.start("ams-3").expect("it starts");
    reads_all(&running, "ams-3", written).await;
    assert!(kept(&running, "ams-3", "first") > past, "it has nothing of what the others pruned");
    let log = std::fs::read_to_string(running.deployment.log("ams-3")).expect("a log");
    assert!(log.contains("taking a snapshot"), "{log}");
    audited(&running, "ams-3");

    // One loses its disk, gets a new key, and has nothing at all.
    running.deployment.kill("ams-2").expect("it ran");
    std::fs::remove_dir_all(running.deployment.data("ams-2")).expect("its disk is lost");
    running.run(&["node", "replace", "ams-2"]).expect(0);
    for name in ["ams-1", "ams-3"] {
        running.deployment.stop(name).expect("it ends");
    }
    running.deployment.start_all().expect("they start");
    running.ready();
    reads_all(&running, "ams-2", written).await;
    assert!(kept(&running, "ams-2", "first") > past, "it begins with a snapshot");
    running.run(&["put", POOL, "after", "1", "--endpoints", "ams-2", "--only"]).expect(0);
    audited(&running, "ams-2");
}
