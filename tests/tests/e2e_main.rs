//! The main way through real processes: write at a site, read there and at mirrors, by command line and library.

use std::time::Duration;

use serde_json::Value;
use tradewind_client::wire::{At, Read};
use tradewind_client::{Client, Compare, Condition, ItemValue, Range, Reply, Test, TxnOp};
use tradewind_ledger::Version;
use tradewind_local::Plan;
use tradewind_tests::e2e::{self, POOL, Running, eventually, site_relay_leaf};

fn version_of(reply: Reply) -> Version {
    match reply {
        Reply::Written { version, .. } => version,
        other => panic!("not written: {other:?}"),
    }
}

fn text(value: &ItemValue) -> &str {
    match value {
        ItemValue::Inline(bytes) => std::str::from_utf8(bytes).expect("text"),
        other => panic!("a value that is not inline: {other:?}"),
    }
}

#[test]
fn the_command_line_writes_at_a_site_and_reads_at_a_mirror() {
    let running = Running::start(site_relay_leaf());

    let put = running.run(&["put", POOL, "KL601", "scheduled", "-o", "json"]).json();
    assert_eq!((&put["written"], &put["key_version"]), (&Value::from(true), &Value::from(1)));
    let first = put["version"].to_string();
    assert_eq!(running.run(&["get", POOL, "KL601"]).expect(0).stdout().trim_end(), "scheduled");

    let boarding = ["cas", POOL, "KL601", &first, "boarding", "-o", "json"];
    let second = running.run(&boarding).json()["version"].to_string();
    let again = running.run(&boarding).expect(1);
    assert!(again.stdout().contains(&second), "a lost race names the version: {}", again.stdout());
    running.run(&["cas", POOL, "KL601", "absent", "new"]).expect(1);

    // Read your own writes: the mirror waits until it has them.
    let mirror = ["--endpoints", "leaf", "--only", "--min-version", &second];
    let at_mirror = |args: &[&str]| running.run(&[args, mirror.as_slice()].concat());
    assert_eq!(at_mirror(&["get", POOL, "KL601"]).expect(0).stdout().trim_end(), "boarding");
    let then = at_mirror(&["get", POOL, "KL601", "--version", &first]).expect(0);
    assert_eq!(then.stdout().trim_end(), "scheduled");
    let history = at_mirror(&["history", POOL, "KL601", "-o", "json"]).json();
    let versions: Vec<String> = history["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|revision| revision["version"].to_string())
        .collect();
    assert_eq!(versions, [second.clone(), first.clone()]);
    let refused = running.run(&["put", POOL, "k", "v", "--endpoints", "leaf", "--only"]);
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr().contains("ams"), "the home is named: {}", refused.stderr());

    running.run(&["delete", POOL, "KL601"]).expect(0);
    running.run(&["delete", POOL, "KL601"]).expect(1);
    running.run(&["get", POOL, "KL601"]).expect(1);
    let nobody = running.run(&["get", "no-such-pool", "k"]);
    assert!(nobody.code() == 2 && nobody.stderr().contains(POOL), "{}", nobody.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_writes_lists_and_transacts_and_reads_its_writes_at_a_mirror() {
    let running = Running::start(site_relay_leaf());
    let site = running.deployment.client(&["ams-1", "ams-2", "ams-3"]).await.expect("a client");
    let leaf = running.deployment.client_of_only("leaf").await.expect("a client");

    let version = version_of(put(&site, "{a}/x", "1").await);
    let transfer = |expected: Version| {
        let compare = vec![Compare { key: b"{a}/x".to_vec(), test: Test::Version(expected) }];
        let put = |key: &str, value: &str| TxnOp::Put {
            key: key.as_bytes().to_vec(),
            value: value.as_bytes().to_vec(),
        };
        let otherwise = vec![TxnOp::Get { key: b"{a}/x".to_vec() }];
        site.txn(POOL, compare, vec![put("{a}/x", "0"), put("{a}/y", "1")], otherwise)
    };
    let Reply::Txn { succeeded: true, written: Some(stamp), .. } =
        transfer(version).await.expect("a transaction")
    else {
        panic!("the comparison holds")
    };
    let lost = transfer(version).await.expect("a transaction");
    assert!(matches!(lost, Reply::Txn { succeeded: false, written: None, .. }), "{lost:?}");
    let crossing = ["p", "q", "r", "s", "t", "u", "v"]
        .map(|key| TxnOp::Put { key: key.as_bytes().to_vec(), value: Vec::new() });
    let refused = site.txn(POOL, vec![], crossing.to_vec(), vec![]).await.unwrap_err().to_string();
    assert!(refused.contains("braces"), "says how to keep keys together: {refused}");

    let mine = Read { min_version: Some(stamp.version), wait_ms: 10_000, ..Read::default() };
    for (key, value) in [("{a}/x", "0"), ("{a}/y", "1")] {
        let (item, as_of) = leaf.get(POOL, key.as_bytes(), mine).await.expect("a read");
        let item = item.expect("written before");
        assert_eq!((text(&item.value), item.version), (value, stamp.version));
        assert!(as_of.readable > stamp.version, "{as_of:?}");
    }
    let before = Read { at: At::Version(version), ..mine };
    let (item, _) = leaf.get(POOL, b"{a}/x", before).await.expect("a read");
    assert_eq!(text(&item.expect("written before").value), "1");

    for number in 0..250 {
        version_of(put(&site, &format!("list/{number:03}"), "v").await);
    }
    let (mut after, mut keys): (Option<Vec<u8>>, Vec<Vec<u8>>) = (None, Vec::new());
    loop {
        let range = Range { prefix: b"list/", after: after.as_deref(), limit: 100, values: false };
        let page = site.list(POOL, range, Read::default()).await.expect("a page");
        keys.extend(page.items.into_iter().map(|listed| listed.key));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert!(keys.len() == 250 && keys.is_sorted(), "{} keys", keys.len());

    // A value beyond what an entry holds lies beside the ledger, and comes whole at the mirror too.
    let large = "0123456789abcdef".repeat(40_000);
    let version = version_of(put(&site, "large", &large).await);
    let mine = Read { min_version: Some(version), wait_ms: 10_000, ..Read::default() };
    let (item, _) = leaf.get(POOL, b"large", mine).await.expect("a read");
    assert!(text(&item.expect("written before").value) == large, "another value");
}

async fn put(client: &Client, key: &str, value: &str) -> Reply {
    let put = client.put(POOL, key.as_bytes(), value.as_bytes(), Condition::Always).await;
    put.unwrap_or_else(|error| panic!("putting {key}: {error}"))
}

#[test]
fn a_second_process_on_the_same_data_a_foreign_directory_and_a_wrong_key_are_refused() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let data = |name: &str| running.deployment.data(name);
    let serve = |name: &str| {
        let topology = running.deployment.topology_file();
        let topology = topology.to_str().expect("a path in UTF-8");
        let run = running.run(&["serve", "--topology", topology, "--exit-with-stdin", name]);
        (run.code(), run.stderr())
    };

    let (code, said) = serve("ams-1");
    assert!(code > 0, "a second ams-1 ended with {code}: {said}");
    let running_still = |running: &mut Running| {
        running.deployment.ready("ams-1").expect("it runs").expect("it is ready");
    };
    let (one, two) = (data("ams-1"), data("ams-2"));
    running_still(&mut running);

    // The data of one node under the name of another.
    running.deployment.stop_all().expect("they end");
    let aside = one.with_extension("aside");
    std::fs::rename(&one, &aside).expect("moved");
    std::fs::rename(&two, &one).expect("moved");
    let status = ended(&mut running, "ams-1");
    assert!(status.contains("ams-2"), "says whose data it found: {status}");
    std::fs::rename(&one, &two).expect("moved");
    std::fs::rename(&aside, &one).expect("moved");

    // A key that the topology does not give to that name.
    let keys = running.deployment.dir().join("keys");
    let (own, other) = (keys.join("ams-1.key"), keys.join("ams-2.key"));
    let kept = std::fs::read(&own).expect("a key");
    std::fs::copy(&other, &own).expect("copied");
    let said = ended(&mut running, "ams-1");
    assert!(said.contains("key"), "says that the key is wrong: {said}");
    std::fs::write(&own, kept).expect("written");

    running.deployment.start_all().expect("they start");
    running.ready();
}

/// Starts a process that must end by itself with an error; gives what it logged since.
fn ended(running: &mut Running, name: &str) -> String {
    let log = running.deployment.log(name);
    let before = std::fs::read_to_string(&log).unwrap_or_default().len();
    running.deployment.start(name).expect("it starts");
    let status = running.deployment.wait_exit(name, e2e::LIMIT).expect("it ends by itself");
    assert!(status.code().is_some_and(|code| code > 0), "{name} ended with {status}");
    std::fs::read_to_string(&log).expect("a log").split_off(before)
}

#[test]
fn an_idle_node_and_an_idle_mirror_use_less_than_a_fiftieth_of_a_core() {
    const WINDOW: Duration = Duration::from_secs(4);
    let running = Running::start(site_relay_leaf());
    running.run(&["put", POOL, "a-key", "a value"]).expect(0);
    let names = running.deployment.plan().process_names();
    let cpu = || -> Vec<Duration> {
        names.iter().map(|name| running.deployment.cpu_time(name).expect("it runs")).collect()
    };
    // The last write is still being sealed and mirrored: a window counts when it is quiet. What does not come to rest
    // never has one.
    eventually("idle", || {
        let before = cpu();
        std::thread::sleep(WINDOW);
        let used: Vec<Duration> =
            cpu().into_iter().zip(before).map(|(after, before)| after - before).collect();
        match used.iter().all(|used| *used < WINDOW / 50) {
            true => Ok(()),
            false => Err(format!("CPU time in {WINDOW:?}: {names:?} {used:?}")),
        }
    });
}
