//! Processes that begin anew: on request, by `tradewind roll`, and how they end where they cannot.

use std::net::UdpSocket;
use std::process::Stdio;

use tradewind_client::wire::{Fault, Incarnation};
use tradewind_client::{Client, Error};
use tradewind_local::Plan;
use tradewind_tests::e2e::{LIMIT, POOL, Running, eventually, site_leaf};

async fn restart(client: &Client, incarnation: u64) -> Result<(), Error> {
    client.restart(Incarnation(incarnation)).await
}

fn incarnation(running: &Running, name: &str) -> u64 {
    running.status(name)["incarnation"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_a_fresh_incarnation_in_the_same_process_and_keeps_what_was_written() {
    let mut running = Running::start(site_leaf(3, 1));
    running.run(&["put", POOL, "k", "v"]).expect(0);
    for name in ["ams-2", "leaf"] {
        let client = running.deployment.client_of_only(name).await.expect("a client");
        let (before, pid) = (incarnation(&running, name), running.deployment.pid(name));
        restart(&client, before).await.expect("it begins anew");
        eventually("anew", || match running.deployment.fetch(name, "/status") {
            Ok((200, status)) if status.contains(&format!("\"incarnation\":{}", before + 1)) => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        });
        running.ready();
        assert_eq!(running.deployment.pid(name), pid);
        // The same request again, late: that start has ended.
        restart(&client, before).await.expect("it has");
        assert_eq!(incarnation(&running, name), before + 1);
    }
    for name in ["ams-2", "leaf"] {
        running.run(&["get", POOL, "k", "--endpoints", name, "--only"]).expect(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_could_not_come_back_does_not_end() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let client = running.deployment.client_of_only("ams-1").await.expect("a client");
    let file = running.deployment.topology_file();
    let kept = std::fs::read_to_string(&file).expect("a file");
    std::fs::write(&file, kept.replace("[pools.bench]", "[pools.bench")).expect("written");
    let own = incarnation(&running, "ams-1");
    let error = restart(&client, own).await.expect_err("the file does not hold");
    let refused = matches!(&error, Error::Fault(Fault::RestartRefused { .. }));
    assert!(refused && error.to_string().contains("topology.toml"), "{error}");
    std::fs::write(&file, kept).expect("written");
    running.ready();
    assert_eq!(incarnation(&running, "ams-1"), own);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_restart_of_its_own_a_process_ends_with_a_code_for_its_supervisor() {
    let mut running = Running::start(site_leaf(3, 1));
    running.deployment.stop("leaf").expect("it ends");
    let topology = running.deployment.topology_file();
    let mut serve = running.command(&["serve", "--no-restart", "--exit-with-stdin", "leaf"]);
    serve.env("TRADEWIND_TOPOLOGY", topology).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut leaf = serve.spawn().expect("it starts");
    let client = running.deployment.client_of_only("leaf").await.expect("a client");
    restart(&client, incarnation(&running, "leaf")).await.expect("it ends");
    let status = eventually("ended", || match leaf.try_wait() {
        Ok(Some(status)) => Ok(status),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(status.code(), Some(6));
}

#[test]
fn a_node_that_cannot_feed_mirrors_ends_its_threads_in_order() {
    let mut running = Running::start(Plan::one_site(3, 1));
    running.deployment.stop("ams-1").expect("it ends");
    let taken = running.deployment.topology().process("ams-1").expect("a node").ports().wan();
    let _socket = UdpSocket::bind(taken).expect("the port is free");
    running.deployment.start("ams-1").expect("it starts");
    let status = running.deployment.wait_exit("ams-1", LIMIT).expect("it ends by itself");
    assert_eq!(status.code(), Some(2));
    let log = std::fs::read_to_string(running.deployment.log("ams-1")).expect("a log");
    let end: Vec<&str> = log.lines().rev().take(2).collect();
    assert!(end[0].contains(&taken.to_string()), "{log}");
    assert!(end[1].contains("node stopped"), "{log}");
}
