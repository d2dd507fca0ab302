//! `tradewind roll`: a site's nodes restarted one by one under load, and no client notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;
use tradewind_client::wire::Read;
use tradewind_client::{Client, Condition, Reply};
use tradewind_local::Plan;
use tradewind_tests::e2e::{POOL, Running, assert_segments_equal, eventually};

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];

fn incarnations(running: &Running) -> BTreeMap<&'static str, u64> {
    let of = |name| running.status(name)["incarnation"].as_u64().expect("a number");
    NODES.into_iter().map(|name| (name, of(name))).collect()
}

/// Counts in one key, each step on condition of the one before: an error, a step that is lost, or one that is made
/// twice ends it. Gives how far it came.
async fn count(client: Client, key: String, stop: Arc<AtomicBool>, steps: Arc<AtomicU64>) -> u64 {
    let (mut condition, mut value) = (Condition::Absent, 0);
    while !stop.load(Ordering::Relaxed) {
        let next = (value + 1).to_string();
        let put = client.put(POOL, key.as_bytes(), next.as_bytes(), condition).await;
        match put.unwrap_or_else(|error| panic!("{key}, step {next}: {error}")) {
            Reply::Written { version, .. } => condition = Condition::Version(version),
            other => panic!("{key}, step {next}: {other:?}"),
        }
        value += 1;
        steps.fetch_add(1, Ordering::Relaxed);
    }
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_restarts_every_node_and_no_client_sees_an_error() {
    let running = Running::start(Plan::one_site(3, 2));
    let (stop, steps): (Arc<AtomicBool>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
    let mut counters = JoinSet::new();
    for (place, name) in NODES.into_iter().cycle().take(6).enumerate() {
        let client = running.deployment.client(&[name]).await.expect("a client");
        let key = format!("counter-{place}");
        let counting = count(client, key.clone(), Arc::clone(&stop), Arc::clone(&steps));
        counters.spawn(async move { (key, counting.await) });
    }
    let wait_for = |more: u64| {
        let goal = steps.load(Ordering::Relaxed) + more;
        eventually("counted", || match steps.load(Ordering::Relaxed) {
            steps if steps >= goal => Ok(()),
            steps => Err(format!("{steps} of {goal}")),
        });
    };
    wait_for(60);
    let before = incarnations(&running);
    let rolled = running.run(&["roll", "ams", "-o", "json"]).json();
    let after = incarnations(&running);
    wait_for(60);
    stop.store(true, Ordering::Relaxed);

    for (node, name) in rolled["nodes"].as_array().expect("a list").iter().zip(NODES) {
        assert_eq!(node["name"], name);
        assert_eq!(
            (&node["before"], &node["incarnation"]),
            (&before[name].into(), &after[name].into())
        );
    }
    assert!(NODES.iter().all(|name| after[name] == before[name] + 1), "{before:?} {after:?}");
    let client = running.deployment.client(&NODES).await.expect("a client");
    while let Some(counted) = counters.join_next().await {
        let (key, value) = counted.expect("no error");
        let (item, _) = client.get(POOL, key.as_bytes(), Read::default()).await.expect("a read");
        let item = item.expect("counted");
        assert_eq!(&**item.bytes().expect("inline"), value.to_string().as_bytes());
        assert_eq!(item.key_version.0, value, "each step once");
    }
    assert_segments_equal(&running, &NODES);
}

#[test]
fn a_roll_does_not_begin_below_full_strength_and_says_who_is_missing() {
    let mut running = Running::start(Plan::one_site(3, 1));
    running.deployment.kill("ams-3").expect("it ran");
    let refused = running.run(&["roll", "ams"]).expect(1);
    assert!(refused.stdout().contains("ams-3"), "{}", refused.stdout());
    let ids = ["ams-1", "ams-2"].map(|name| running.status(name)["incarnation"].clone());
    assert_eq!(ids, [1, 1]);
    running.deployment.start("ams-3").expect("it starts");
    running.ready();
    let one = ["roll", "ams", "--node", "ams-2", "-o", "json"];
    assert_eq!(running.run(&one).json()["nodes"].as_array().expect("a list").len(), 1);
    assert_eq!(incarnations(&running).into_values().collect::<Vec<_>>(), [1, 2, 2]);
    let unknown = running.run(&["roll", "ams", "--node", "ams-9"]).expect(2);
    assert!(unknown.stderr().contains("ams-1, ams-2, ams-3"), "{}", unknown.stderr());
}
