//! A node that was away for long comes back under load: it learns beside the others, who go on, and takes part again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tradewind_client::{Client, Condition, Reply};
use tradewind_local::Plan;
use tradewind_tests::e2e::{POOL, Running, assert_segments_equal, eventually};

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
/// Far more than any pause of clients may be: how long one is, `tradewind bench join` tells.
const PAUSE_MAX: Duration = Duration::from_secs(20);

/// Puts one key after the other without an error; gives the longest time that one took.
async fn write(
    client: Client,
    name: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Duration {
    let (mut longest, value) = (Duration::ZERO, vec![0x5a; 8_000]);
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, began) = (format!("k-{name}-{number}"), Instant::now());
        let put = client.put(POOL, key.as_bytes(), &value, Condition::Always).await;
        match put.unwrap_or_else(|error| panic!("{key}: {error}")) {
            Reply::Written { .. } => done.fetch_add(1, Ordering::Relaxed),
            other => panic!("{key}: {other:?}"),
        };
        longest = longest.max(began.elapsed());
    }
    longest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_far_behind_comes_back_beside_the_writers() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let (stop, done): (Arc<AtomicBool>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
    let mut writers = JoinSet::new();
    for name in 0..8 {
        let client = running.deployment.client(&[NODES[name % 2]]).await.expect("a client");
        writers.spawn(write(client, name, Arc::clone(&stop), Arc::clone(&done)));
    }
    let wait_for = |more: u64| {
        let goal = done.load(Ordering::Relaxed) + more;
        eventually("written", || match done.load(Ordering::Relaxed) {
            done if done >= goal => Ok(()),
            done => Err(format!("{done} of {goal}")),
        });
    };
    wait_for(50);
    running.deployment.kill("ams-3").expect("it ran");
    // Several megabytes: many chunks.
    wait_for(800);
    running.deployment.start("ams-3").expect("it starts");
    eventually("all three are in one view", || {
        let status = running.status("ams-1");
        let members = status["view_members"].as_array().map_or(0, Vec::len);
        if members == 3 { Ok(()) } else { Err(status.to_string()) }
    });
    wait_for(50);
    stop.store(true, Ordering::Relaxed);
    while let Some(longest) = writers.join_next().await {
        let longest = longest.expect("no error");
        assert!(longest < PAUSE_MAX, "a writer waited for {longest:?}");
    }
    // It was let in by stopping a view, after it had learned: until then the others went on.
    let log = std::fs::read_to_string(running.deployment.log("ams-1")).expect("a log");
    assert!(log.contains("Admits"), "{log}");
    assert_segments_equal(&running, &NODES);
}
