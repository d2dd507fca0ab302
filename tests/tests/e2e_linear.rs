//! Real processes killed and stopped under concurrent clients: all of them see one copy of each key, an application
//! sees no error, and nothing happens twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::task::JoinSet;
use tradewind_client::wire::{Level, Read};
use tradewind_client::{Client, Condition, Item, Reply};
use tradewind_local::{Contenders, Plan};
use tradewind_tests::e2e::{POOL, Running, eventually, wait_for_calls};

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
/// Longer than a node takes to come back on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const LINEARIZABLE: Read = Read {
    level: Level::Linearizable,
    wait_ms: 60_000,
    at: tradewind_client::wire::At::Latest,
    min_version: None,
    max_staleness_ms: None,
};

/// Starts a node again that may have ended by itself, and waits until all are ready.
fn back(running: &mut Running, name: &str) {
    if running.deployment.exited(name).expect("it ran").is_some() {
        running.deployment.start(name).expect("it starts");
    }
    running.ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_clients_see_one_copy_while_nodes_are_killed_and_stopped() {
    let mut running = Running::start(Plan::one_site(3, 2));
    let clients = Contenders::start(&running.deployment, POOL, &["x", "y", "z"], 6, PATIENCE).await;
    let clients = clients.expect("clients");
    wait_for_calls(&clients, 200);
    running.deployment.kill("ams-1").expect("it ran");
    running.deployment.start("ams-1").expect("it starts");
    running.ready();
    wait_for_calls(&clients, 200);

    let seen = |running: &Running| {
        let status = running.status("ams-1");
        (status["state"].clone(), status["view"].clone())
    };
    let before = seen(&running);
    running.deployment.signal("ams-2", Signal::STOP).expect("it runs");
    eventually("noticed", || match seen(&running) {
        same if same == before => Err(format!("{same:?}")),
        _ => Ok(()),
    });
    running.deployment.signal("ams-2", Signal::CONT).expect("it runs");
    back(&mut running, "ams-2");
    wait_for_calls(&clients, 200);

    running.deployment.kill_all().expect("they ran");
    running.deployment.start_all().expect("they start");
    running.ready();
    wait_for_calls(&clients, 100);
    let (history, errors) = clients.stop().await;
    if let Err(violation) = history.check() {
        running.fail(&violation.to_string());
    }
    assert!(errors.is_empty(), "{errors:#?}");
}

/// Adds one to a counter by comparing; gives how often that succeeded.
async fn count(client: Client, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> u64 {
    let mut added = 0;
    while !stop.load(Ordering::Relaxed) {
        let (item, _) = client.get(POOL, b"counter", LINEARIZABLE).await.expect("a read");
        let (value, condition) = match &item {
            None => (0, Condition::Absent),
            Some(item) => (number(item), Condition::Version(item.version)),
        };
        let next = (value + 1).to_string();
        let cas = client.put(POOL, b"counter", next.as_bytes(), condition).await;
        match cas.expect("a compare and set") {
            Reply::Written { .. } => added += 1,
            Reply::Conflict { .. } => {}
            other => panic!("{other:?}"),
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
    added
}

/// Puts a key again and again; gives how often.
async fn put(client: Client, key: String, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) -> u64 {
    let mut puts = 0;
    while !stop.load(Ordering::Relaxed) {
        puts += 1;
        let value = puts.to_string();
        let reply = client.put(POOL, key.as_bytes(), value.as_bytes(), Condition::Always).await;
        let Reply::Written { key_version, .. } = reply.expect("a put") else { panic!("no reply") };
        assert_eq!(key_version.0, puts, "{key}: each put once");
        done.fetch_add(1, Ordering::Relaxed);
    }
    puts
}

fn number(item: &Item) -> u64 {
    let bytes = item.bytes().expect("a short value");
    std::str::from_utf8(bytes).expect("text").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_sees_no_error_and_no_duplicate_when_any_node_is_killed() {
    let mut running = Running::start(Plan::one_site(3, 2));
    let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let (mut counters, mut putters) = (JoinSet::new(), JoinSet::new());
    for (index, name) in NODES.iter().enumerate() {
        let client = running.deployment.client_within(&[name], PATIENCE).await.expect("a client");
        counters.spawn(count(client.clone(), Arc::clone(&stop), Arc::clone(&done)));
        putters.spawn(put(client, format!("own-{index}"), Arc::clone(&stop), Arc::clone(&done)));
    }
    let wait_for = |more: u64| {
        let goal = done.load(Ordering::Relaxed) + more;
        eventually("done", || match done.load(Ordering::Relaxed) {
            done if done >= goal => Ok(()),
            done => Err(format!("{done} of {goal}")),
        });
    };
    wait_for(100);
    for name in NODES {
        running.deployment.kill(name).expect("it ran");
        running.deployment.start(name).expect("it starts");
        running.ready();
        wait_for(100);
    }
    stop.store(true, Ordering::Relaxed);
    let added: u64 = counters.join_all().await.into_iter().sum();
    let puts: u64 = putters.join_all().await.into_iter().sum();
    assert!(added > 0 && puts > 0);
    let client = running.deployment.client(&NODES).await.expect("a client");
    let (item, _) = client.get(POOL, b"counter", LINEARIZABLE).await.expect("a read");
    let item = item.expect("counted");
    assert_eq!((number(&item), item.key_version.0), (added, added), "each addition once");
}
