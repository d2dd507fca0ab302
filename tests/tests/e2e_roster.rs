//! Nodes are added to a site and removed from it, with real processes, while clients write and a mirror follows.

use std::time::Duration;

use serde_json::Value;
use tradewind_tests::e2e::{
    Acknowledged, LIMIT, Running, Writers, assert_ledgers_hold, eventually, site_leaf, sizes,
    wait_for_sizes,
};

fn status(running: &Running, name: &str) -> Result<Value, String> {
    let (_, text) = running.deployment.fetch(name, "/status").map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// Waits until these nodes, and no others, are in one view of a roster.
fn wait_for_view(running: &Running, roster: u64, nodes: &[&str]) {
    eventually("in one view", || {
        for name in nodes {
            let said = status(running, name)?;
            let found = (said["roster"].as_u64(), said["view_members"].to_string());
            if found != (Some(roster), Value::from(nodes.to_vec()).to_string()) {
                return Err(format!("{name}: {found:?}, {}", said["explanation"]));
            }
        }
        Ok(())
    });
}

/// Has a node added, and started; the others get the file by a roll.
fn add(running: &mut Running, name: &str, port: u16, replicas: &str) {
    let port = port.to_string();
    let args =
        ["node", "add", name, "--address", "127.0.0.1", "--port", &port, "--replicas", replicas];
    let added = running.run(&[&args[..], &["-o", "json"]].concat()).json();
    assert_eq!(added["ledgers"].as_array().expect("a list").len(), 2, "{added}");
    running.deployment.reload().expect("it holds");
    running.deployment.start(name).expect("it starts");
    roll(running);
}

fn roll(running: &Running) {
    eventually("rolled", || match running.run(&["roll", "ams"]) {
        run if run.code() == 0 => Ok(()),
        run => Err(run.stdout() + &run.stderr()),
    });
}

/// A port that the plan did not take, with three more behind it.
fn free_port() -> u16 {
    tradewind_local::plan::free_ports().expect("free ports")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_grows_from_three_nodes_to_five_and_shrinks_again_under_load() {
    let mut running = Running::start(site_leaf(3, 2));
    let writers = Writers::start(&running, "w", 4).await;
    let names = ["ams-1", "ams-2", "ams-3", "ams-4", "ams-5"];
    add(&mut running, "ams-4", free_port(), "4");
    wait_for_view(&running, 1, &names[..4]);
    add(&mut running, "ams-5", free_port(), "5");
    wait_for_view(&running, 2, &names);
    writers.wait_for(200);

    // New members sign: the first two together are no majority of five any more.
    for name in ["ams-1", "ams-2"] {
        running.deployment.kill(name).expect("it ran");
    }
    writers.wait_for(100);
    let grown = sizes(&running, "ams-5").await;
    wait_for_sizes(&running, "leaf", &grown).await;

    // A dead node is removed, then one that runs, and is told so.
    running.deployment.start("ams-2").expect("it starts");
    wait_for_view(&running, 2, &names[1..]);
    let removed = running.run(&["node", "remove", "ams-1", "-o", "json"]).json();
    assert_eq!(removed["roster"], 3);
    running.deployment.reload().expect("it holds");
    roll(&running);
    wait_for_view(&running, 3, &names[1..]);
    running.run(&["node", "remove", "ams-2"]).expect(0);
    running.deployment.reload().expect("it holds");
    roll(&running);
    wait_for_view(&running, 4, &names[2..]);
    let told = running.deployment.wait_exit("ams-2", Duration::from_secs(90)).expect("it ends");
    assert_eq!(told.code(), Some(2));
    let log = std::fs::read_to_string(running.deployment.log("ams-2")).expect("a log");
    assert!(log.contains("ams-2 is no node of the site any more"), "{log}");

    let acknowledged = writers.stop().await;
    let client = running.deployment.client_of_only("ams-3").await.expect("a client");
    Acknowledged::assert_all_there(&acknowledged, &client).await;
    let all = sizes(&running, "ams-3").await;
    wait_for_sizes(&running, "leaf", &all).await;
    let client = running.deployment.client_of_only("leaf").await.expect("a client");
    Acknowledged::assert_all_there(&acknowledged, &client).await;
    assert_ledgers_hold(&running, &["ams-3", "ams-4", "ams-5", "leaf"], &all);

    // With the file in which it is removed it does not even begin.
    running.deployment.start("ams-1").expect("it starts");
    let refused = running.deployment.wait_exit("ams-1", LIMIT).expect("it ends");
    assert_eq!(refused.code(), Some(2));
    let log = std::fs::read_to_string(running.deployment.log("ams-1")).expect("a log");
    assert!(log.contains("ams-1 was removed from site ams"), "{log}");
}

#[test]
fn a_change_that_cannot_be_is_refused_in_words_and_changes_nothing() {
    let running = Running::start(site_leaf(3, 2));
    let file = running.deployment.topology_file();
    let before = std::fs::read_to_string(&file).expect("a file");
    let port = running.deployment.endpoint("ams-1");
    let (_, port) = port.rsplit_once(':').expect("a port");
    let key = running.deployment.topology().process("ams-2").expect("a node").key().to_string();
    let add = ["node", "add"];
    let at = ["--address", "127.0.0.1", "--port"];
    for (args, words) in [
        ([&add[..], &["ams-2"], &at, &["9000"]].concat(), "a name that no other"),
        ([&add[..], &["ams-4"], &at, &[port]].concat(), "which ams-1"),
        ([&add[..], &["ams-4"], &at, &["9000", "--key", &key]].concat(), "a key of its own"),
        ([&add[..], &["ams-4"], &at, &["9000", "--site", "nyc"]].concat(), "it has ams"),
        (vec!["node", "remove", "ams-9"], "it has ams-1, ams-2, ams-3"),
        (vec!["node", "remove", "leaf"], "leaf is a mirror"),
    ] {
        let refused = running.run(&args).expect(2);
        assert!(refused.stderr().contains(words), "{args:?}: {}", refused.stderr());
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), before);
    }
    running.run(&["node", "remove", "ams-3"]).expect(0);
    let last = running.run(&["node", "remove", "ams-2"]).expect(2);
    assert!(last.stderr().contains("leaves 1 of 2 nodes"), "{}", last.stderr());
    let again = running.run(&["node", "remove", "ams-3"]).expect(2);
    assert!(again.stderr().contains("removed from ams already"), "{}", again.stderr());
}
