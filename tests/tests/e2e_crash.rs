//! Real processes killed with SIGKILL: what was acknowledged stays, and everything comes back equal.

use rustix::process::Signal;
use tradewind_client::wire::Read;
use tradewind_client::{Condition, Reply};
use tradewind_local::Plan;
use tradewind_tests::e2e::{
    Acknowledged, POOL, Running, Writers, assert_ledgers_hold, assert_segments_equal, eventually,
    export, site_relay_leaf, sizes, wait_for_sizes,
};

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
const MIRRORS: [&str; 2] = ["relay", "leaf"];
const ALL: [&str; 5] = ["ams-1", "ams-2", "ams-3", "relay", "leaf"];

/// Nobody writes any more: every mirror gets what the site has, every ledger holds everywhere, every replica has the
/// same segments, every mirror exports the same records.
async fn assert_everything_equal(running: &Running) {
    let have = sizes(running, NODES[0]).await;
    for name in MIRRORS {
        wait_for_sizes(running, name, &have).await;
    }
    assert_segments_equal(running, &ALL);
    assert_ledgers_hold(running, &ALL, &have);
    let records = export(running, NODES[0], POOL);
    assert!(!records.is_empty());
    for name in MIRRORS {
        assert!(export(running, name, POOL) == records, "{name} exports other records");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_and_a_relay_killed_in_mid_stream_come_back_equal() {
    let mut running = Running::start(site_relay_leaf());
    let writers = Writers::start(&running, "k", 3).await;
    writers.wait_for(300);
    for victim in ["leaf", "relay"] {
        running.deployment.kill(victim).expect("it ran");
        // The site does not wait for mirrors.
        writers.wait_for(300);
        running.deployment.start(victim).expect("it starts");
        running.ready();
        writers.wait_for(300);
    }
    let acknowledged = writers.stop().await;
    assert_everything_equal(&running).await;
    let leaf = running.deployment.client_of_only("leaf").await.expect("a client");
    Acknowledged::assert_all_there(&acknowledged, &leaf).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_processes_killed_at_once_lose_nothing_acknowledged() {
    let mut running = Running::start(site_relay_leaf());
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let writers = Writers::start(&running, &format!("round-{round}"), 6).await;
        writers.wait_for(500);
        running.deployment.kill_all().expect("they ran");
        running.deployment.start_all().expect("they start");
        running.ready();
        // The writers go on by themselves.
        writers.wait_for(100);
        acknowledged.extend(writers.stop().await);
    }
    let site = running.deployment.client(&NODES).await.expect("a client");
    Acknowledged::assert_all_there(&acknowledged, &site).await;
    assert_everything_equal(&running).await;
}

/// Waits until the first node says that no majority is there, and for whom it waits.
fn assert_stalled_by(running: &Running, missing: &str) {
    eventually("without a majority, naming the node", || {
        let status = running.status(NODES[0]);
        let told = status["state"] == "stalled" && status.to_string().contains(missing);
        let not_ready =
            running.deployment.fetch(NODES[0], "/readyz").is_ok_and(|(code, _)| code == 503);
        if told && not_ready { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Waits until the first node is in a view of exactly these.
fn assert_view_is_of(running: &Running, members: &[&str]) {
    eventually("a view of these members", || {
        let status = running.status(NODES[0]);
        let told =
            status["state"] == "active" && status["view_members"] == serde_json::json!(members);
        if told { Ok(()) } else { Err(status.to_string()) }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hangs_is_left_out_and_takes_part_again_when_it_goes_on() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let writers = Writers::start(&running, "k", 3).await;
    writers.wait_for(100);
    running.deployment.signal("ams-2", Signal::STOP).expect("it runs");
    assert_view_is_of(&running, &["ams-1", "ams-3"]);
    writers.wait_for(100);
    running.deployment.signal("ams-2", Signal::CONT).expect("it runs");
    running.ready();
    writers.wait_for(100);
    let acknowledged = writers.stop().await;
    for name in NODES {
        let client = running.deployment.client_of_only(name).await.expect("a client");
        let newest = acknowledged.iter().map(|write| write.version).max();
        let read = Read { min_version: newest, wait_ms: 10_000, ..Read::default() };
        client.get(POOL, b"k-0-000000", read).await.expect("a read").0.expect("written before");
        Acknowledged::assert_all_there(&acknowledged, &client).await;
    }
    assert_segments_equal(&running, &NODES);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_without_a_dead_node_and_stall_by_name_without_two() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let writers = Writers::start(&running, "k", 2).await;
    writers.wait_for(100);
    running.deployment.kill("ams-3").expect("it ran");
    assert_view_is_of(&running, &["ams-1", "ams-2"]);
    writers.wait_for(100);

    running.deployment.kill("ams-2").expect("it ran");
    assert_stalled_by(&running, "ams-3");
    // Exit code 2: certainly not executed (5 were: not known).
    let refused = running.run(&["put", POOL, "refused", "v", "--timeout", "1"]).expect(2);
    assert!(refused.stderr().contains("ams-3"), "names who is missing: {}", refused.stderr());
    running.run(&["get", POOL, "refused", "--level", "local"]).expect(1);

    // Reads go on.
    let one = running.deployment.client_of_only("ams-1").await.expect("a client");
    let (item, _) = one.get(POOL, b"k-0-000000", Read::default()).await.expect("a read");
    assert!(item.is_some(), "what was acknowledged is shown");

    running.deployment.start("ams-3").expect("it starts");
    assert_view_is_of(&running, &["ams-1", "ams-3"]);
    writers.wait_for(100);
    running.deployment.start("ams-2").expect("it starts");
    running.ready();
    writers.wait_for(100);
    let acknowledged = writers.stop().await;
    let three = running.deployment.client_of_only("ams-3").await.expect("a client");
    let put = three.put(POOL, b"after", b"v", Condition::Absent).await.expect("a write");
    let Reply::Written { version, .. } = put else { panic!("{put:?}") };
    let read = Read { min_version: Some(version), wait_ms: 10_000, ..Read::default() };
    three.get(POOL, b"after", read).await.expect("a read").0.expect("written before");
    Acknowledged::assert_all_there(&acknowledged, &three).await;
    let have = sizes(&running, "ams-3").await;
    assert_segments_equal(&running, &NODES);
    assert_ledgers_hold(&running, &NODES, &have);
}
