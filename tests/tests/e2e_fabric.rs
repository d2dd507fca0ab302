//! Sites whose nodes share memory: real processes, killed and started again.

use serde_json::Value;
use tradewind_local::Plan;
use tradewind_tests::e2e::{
    Acknowledged, Running, Writers, assert_ledgers_hold, assert_segments_equal, eventually, sizes,
};
use tradewind_topology::FabricKind;

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];

/// Waits until rows go from each node to each other one over `path`, as `status` says.
fn assert_rows_over(running: &Running, path: &str) {
    eventually("rows on their path", || {
        let status = running.run(&["status", "-o", "json"]).json();
        let processes = status["processes"].as_array().expect("processes");
        let peers: Vec<&Value> = processes
            .iter()
            .filter_map(|node| node["fabric"]["peers"].as_array())
            .flatten()
            .collect();
        let all = peers.len() == 6
            && peers.iter().all(|peer| peer["rows"] == path && peer["why"].is_string());
        if all { Ok(()) } else { Err(format!("{peers:?}")) }
    });
    assert!(running.run(&["status"]).expect(0).stdout().contains(path));
}

/// How often a process has mapped rows, by the rights to them.
fn mapped_rows(running: &Running, name: &str, rights: &str) -> usize {
    let pid = running.deployment.pid(name).expect("it runs");
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("Linux");
    let rows = maps.lines().filter(|line| line.contains("memfd:tradewind-row"));
    rows.filter(|line| line.contains(rights)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_one_host_share_rows_and_one_that_is_killed_comes_back() {
    let mut plan = Plan::one_site(3, 2);
    plan.sites[0].fabric = FabricKind::Shm;
    let mut running = Running::start(plan);
    assert_rows_over(&running, "shm");
    let writers = Writers::start(&running, "k", 3).await;
    for victim in ["ams-2", "ams-1"] {
        writers.wait_for(200);
        running.deployment.kill(victim).expect("it ran");
        running.deployment.start(victim).expect("it starts");
        running.ready();
        writers.wait_for(200);
        assert_rows_over(&running, "shm");
    }
    let acknowledged = writers.stop().await;
    for name in NODES {
        // Those of dead peers and old views are gone; nobody can write to another's.
        assert_eq!(mapped_rows(&running, name, "rw-s"), 1, "its own row");
        assert_eq!(mapped_rows(&running, name, "r--s"), 2, "its peers' rows");
        let client = running.deployment.client_of_only(name).await.expect("a client");
        Acknowledged::assert_all_there(&acknowledged, &client).await;
    }
    let have = sizes(&running, "ams-1").await;
    assert_segments_equal(&running, &NODES);
    assert_ledgers_hold(&running, &NODES, &have);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_shares_memory_by_itself_and_not_if_told_so() {
    let running = Running::start(Plan::one_site(3, 1));
    assert_rows_over(&running, "shm");
    let mut plan = Plan::one_site(3, 1);
    plan.sites[0].fabric = FabricKind::Tcp;
    let running = Running::start(plan);
    assert_rows_over(&running, "tcp");
    assert_eq!(mapped_rows(&running, "ams-1", ""), 0);
}
