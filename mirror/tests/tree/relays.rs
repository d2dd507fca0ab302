//! Relays, restarts, re-parenting, subsets.

use std::sync::Arc;

use tradewind_gateway::Backend;
use tradewind_ledger::Version;
use tradewind_mirror::Mirror;

use crate::deployment::{Deployment, Site, shows, stop, until};

/// Waits until the mirrors show everything that the site has, and compares all files with the site's.
async fn assert_equal(deployment: &Deployment, site: &Site, mirrors: &[&Arc<Mirror>]) {
    for (ledger, size) in site.sizes() {
        for mirror in mirrors {
            shows(mirror, &ledger, size).await;
            let own = deployment.segments(mirror.name(), &ledger);
            assert!(own == deployment.segments("site", &ledger), "{} {ledger}", mirror.name());
        }
    }
}

const TREE: [(&str, &[&str], &[&str]); 3] = [
    ("relay", &["ams"], &["flights", "settings"]),
    ("leaf", &["relay"], &["flights", "settings"]),
    ("leaf-2", &["leaf"], &["flights", "settings"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hops_end_up_with_the_files_of_the_site() {
    let deployment = Deployment::new(&TREE);
    let mut site = Site::open(&deployment, "site");
    site.ledger("flights.0").grow(3_000);
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let relay = deployment.mirror("relay").await;
    let leaf = deployment.mirror("leaf").await;
    let leaf_2 = deployment.mirror("leaf-2").await;
    for _ in 0..10 {
        for ledger in ["flights.0", "flights.1", "settings.0"] {
            site.ledger(ledger).grow(200);
        }
    }
    let big = vec![b'x'; 3 << 20];
    site.ledger("settings.0").put("big", &big);
    site.ledger("settings.0").sign();
    assert_equal(&deployment, &site, &[&relay, &leaf, &leaf_2]).await;

    // The detached value came with its entry.
    let shard = leaf_2.ledger(&"settings.0".parse().unwrap()).unwrap();
    assert_eq!(shard.value(&tradewind_ledger::tree::value_digest(&big)).unwrap(), big);
    // The site knows all mirrors below it, with nothing lacking.
    until(site.mirrors.changes(), "all mirrors report", |_| {
        let status = site.mirrors.status();
        let is_done = |name: &str, parent: &str| {
            status.iter().any(|mirror| {
                let all = mirror.ledgers.len() == 3;
                let done = mirror.ledgers.iter().all(|ledger| ledger.behind == 0);
                mirror.mirror == name && mirror.parent == parent && all && done
            })
        };
        is_done("leaf", "relay") && is_done("leaf-2", "leaf")
    })
    .await;
    assert_eq!(
        leaf_2.path().borrow().as_ref().unwrap()[..3],
        ["leaf-2", "leaf", "relay"].map(str::to_owned)
    );
    for mirror in [leaf_2, leaf, relay] {
        let name = mirror.name().to_owned();
        stop(&deployment, mirror).await;
        // A clean stop publishes the newest checkpoint.
        let size = site.sizes()["flights.0"];
        assert_eq!(deployment.checkpoint(&name, "flights.0").unwrap().size, size, "{name}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_place_can_be_restarted_in_mid_stream() {
    let deployment = Deployment::new(&TREE);
    let mut site = Site::open(&deployment, "site");
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let mut mirrors = Vec::new();
    for (name, ..) in TREE {
        mirrors.push(deployment.mirror(name).await);
    }
    for round in 0..6 {
        for ledger in ["flights.0", "flights.1"] {
            site.ledger(ledger).grow(700);
        }
        // Not waited for: whatever is on its way is cut off.
        let place = round % 3;
        let name = TREE[place].0;
        stop(&deployment, mirrors.remove(place)).await;
        site.ledger("flights.0").grow(300);
        let again = deployment.mirror(name).await;
        assert_eq!(again.incarnation(), 2 + round as u64 / 3);
        mirrors.insert(place, again);
        if round == 3 {
            site.stop().await;
            site = Site::open(&deployment, "site");
            site.serve(&deployment, &["a1", "a2", "a3"]);
        }
    }
    assert_equal(&deployment, &site, &mirrors.iter().collect::<Vec<_>>()).await;
    let refusals = |mirror: &Arc<Mirror>| {
        let routes = mirror.routes();
        let ledgers = routes.iter().flat_map(|route| route.status.ledgers.clone());
        ledgers.map(|ledger| ledger.refusals).sum::<u64>()
    };
    assert_eq!(mirrors.iter().map(refusals).collect::<Vec<_>>(), [0, 0, 0]);
    for mirror in mirrors {
        stop(&deployment, mirror).await;
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_parent_is_replaced_and_taken_back_without_resync() {
    let deployment = Deployment::new(&[
        ("relay", &["ams"], &["flights"]),
        ("leaf", &["relay", "ams"], &["flights"]),
    ]);
    let mut site = Site::open(&deployment, "site");
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let relay = deployment.mirror("relay").await;
    let leaf = deployment.mirror("leaf").await;
    let fed_by = |name: &'static str| {
        move |path: &Option<Vec<String>>| path.as_ref().is_some_and(|path| path[1] == name)
    };
    until(leaf.path(), "the relay feeds", fed_by("relay")).await;
    site.ledger("flights.0").grow(1_000);
    stop(&deployment, relay).await;
    site.ledger("flights.0").grow(1_000);
    let size = site.sizes()["flights.0"];
    shows(&leaf, "flights.0", size).await;
    assert!(!fed_by("relay")(&leaf.path().borrow()));
    let relay = deployment.mirror("relay").await;
    until(leaf.path(), "the relay feeds again", fed_by("relay")).await;
    site.ledger("flights.0").grow(1_000);
    assert_equal_flights(&deployment, &site, &[&relay, &leaf]).await;
    stop(&deployment, leaf).await;
    stop(&deployment, relay).await;
    site.stop().await;
}

async fn assert_equal_flights(deployment: &Deployment, site: &Site, mirrors: &[&Arc<Mirror>]) {
    for (ledger, size) in site.sizes().into_iter().filter(|(name, _)| name.starts_with("flights")) {
        for mirror in mirrors {
            shows(mirror, &ledger, size).await;
            let own = deployment.segments(mirror.name(), &ledger);
            assert!(own == deployment.segments("site", &ledger), "{} {ledger}", mirror.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_has_its_pools_and_no_others_and_takes_no_writes() {
    let deployment = Deployment::new(&[("leaf", &["ams"], &["settings"])]);
    let mut site = Site::open(&deployment, "site");
    site.ledger("settings.0").grow(100);
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let leaf = deployment.mirror("leaf").await;
    let size = site.sizes()["settings.0"];
    shows(&leaf, "settings.0", size).await;
    assert_eq!(leaf.ledgers(), ["settings.0".parse().unwrap()]);
    let pools = leaf.welcome().pools;
    let here = |name: &str| {
        let pool = pools.iter().find(|pool| pool.name == name).unwrap();
        pool.shards.iter().any(|shard| shard.here)
    };
    assert!(here("settings") && !here("flights"));

    let shard = leaf.ledger(&"settings.0".parse().unwrap()).unwrap();
    let mut items = 0;
    shard.with_store(&mut |store| {
        items = store.list(b"key-", None, 1_000, size).items.len();
    });
    assert!(items > 90, "{items} records can be read");
    assert!(shard.barrier().await.unwrap_err().to_string().contains("home site ams"));
    assert!(shard.entry(Version(1)).is_ok());
    stop(&deployment, leaf).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_mirror_is_refused() {
    let deployment =
        Deployment::new(&[("leaf", &["ams"], &["settings"]), ("other", &["ams"], &["settings"])]);
    stop(&deployment, deployment.mirror("leaf").await).await;
    let config = tradewind_mirror::Config {
        topology: Arc::clone(&deployment.topology),
        identity: crate::deployment::identity("other"),
        data: deployment.data("leaf"),
        timing: None,
    };
    let error = Mirror::start(config).await.unwrap_err().to_string();
    assert!(error.contains("its name is \"leaf\", but this process has \"other\""), "{error}");
}
