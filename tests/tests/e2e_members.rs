//! Nodes leave by `tradewind node remove`; whoever deletes the founders from the topology file gets no majority of its own.

use std::fs;

use tradewind_local::Plan;
use tradewind_tests::e2e::{LIMIT, POOL, Running, assert_ledgers_hold, sizes};

/// The topology without two of the three nodes, so that the one that is left would be a majority by itself.
fn without_two(topology: &str) -> String {
    let paragraphs = topology.split("\n\n");
    let kept: Vec<&str> = paragraphs
        .filter(|lines| !["ams-2", "ams-3"].iter().any(|name| lines.contains(name)))
        .collect();
    let text = kept.join("\n\n");
    assert!(text.contains("replicas = 3"), "{text}");
    text.replace("replicas = 3", "replicas = 1")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_cannot_be_taken_out_of_the_topology() {
    let mut running = Running::start(Plan::one_site(3, 1));
    running.run(&["put", POOL, "k", "before"]).expect(0);
    let file = running.deployment.topology_file();
    let whole = fs::read_to_string(&file).expect("the topology");
    fs::write(&file, without_two(&whole)).expect("written");

    // The file holds, but for those who run it is no change of the roster: the view is what it was.
    running.run(&["topology", "check", file.to_str().expect("UTF-8")]).expect(0);
    running.run(&["put", POOL, "k", "while they run"]).expect(0);
    let members = running.status("ams-1")["view_members"].clone();
    assert_eq!(members.as_array().map(Vec::len), Some(3), "{members}");
    let have = sizes(&running, "ams-1").await;

    // Who starts with it has another ledger than the one that such a site would have, and goes on with nothing.
    running.deployment.stop_all().expect("they end");
    running.deployment.start("ams-1").expect("it starts");
    let status = running.deployment.wait_exit("ams-1", LIMIT).expect("it ends by itself");
    assert_eq!(status.code(), Some(2));
    let log = fs::read_to_string(running.deployment.log("ams-1")).expect("a log");
    assert!(log.contains("it was founded with other members or names"), "{log}");

    fs::write(&file, whole).expect("written");
    running.deployment.start_all().expect("they start");
    running.ready();
    let found = running.run(&["get", POOL, "k"]).expect(0).stdout();
    assert_eq!(found.trim_end(), "while they run");
    assert_ledgers_hold(&running, &["ams-1", "ams-2", "ams-3"], &have);
}
