//! A client's key is taken out of the topology: keys are pinned, so that is how one is revoked.

use std::time::Duration;

use tradewind_client::{Condition, Reply};
use tradewind_local::{OPERATOR, Plan};
use tradewind_tests::e2e::{POOL, Running};
use tradewind_transport::Identity;

/// A request of a client that nobody lets in ends after this.
const PATIENCE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_key_was_taken_out_is_refused_also_one_that_was_connected() {
    let mut running = Running::start(Plan::one_site(3, 1));
    let nodes = ["ams-1", "ams-2", "ams-3"];
    let connected = running.deployment.client_within(&nodes, PATIENCE).await.expect("a client");
    let put = connected.put(POOL, b"k", b"before", Condition::Always).await;
    assert!(matches!(put, Ok(Reply::Written { .. })), "{put:?}");

    // Another key in its place; the processes take up the file when they begin anew.
    let file = running.deployment.topology_file();
    let text = std::fs::read_to_string(&file).expect("the topology");
    let kept = running.deployment.dir().join("keys").join(format!("{OPERATOR}.key"));
    let former = Identity::load(OPERATOR, &kept).expect("the key").public_key().to_string();
    assert!(text.contains(&former), "{text}");
    let next = Identity::generate(OPERATOR).expect("a key");
    std::fs::remove_file(&kept).expect("removed");
    next.save(&kept).expect("saved");
    let key = next.public_key().to_string();
    std::fs::write(&file, text.replace(&former, &key)).expect("written");
    for name in nodes {
        running.deployment.stop(name).expect("it ends");
    }
    running.deployment.start_all().expect("they start");
    running.ready();

    // It connects again, with the key that it has.
    let put = connected.put(POOL, b"k", b"after", Condition::Always).await;
    let refused = put.expect_err("the key is of use no more").to_string();
    assert!(refused.contains("ams-"), "{refused}");

    // Who holds the key that the file has is let in, and finds nothing of what was refused.
    let found = running.run(&["get", POOL, "k"]).expect(0).stdout();
    assert_eq!(found.trim_end(), "before");
}
