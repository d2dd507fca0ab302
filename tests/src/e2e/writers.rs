//! Clients that write until told to stop, and remember what was acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use tradewind_client::wire::Read;
use tradewind_client::{Client, Condition, ItemValue, Reply};
use tradewind_ledger::Version;

use super::{POOL, Running, eventually};

/// A write that was acknowledged; each has a key of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The version that the acknowledgement named.
    pub version: Version,
}

/// Writers under way.
#[derive(Debug)]
pub struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    failed: Arc<Mutex<Vec<String>>>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts `count` writers of the pool [`POOL`], each at another node first, with one request at a time. An error
    /// does not end a writer: it goes on with the next key.
    ///
    /// # Panics
    /// If a client cannot be connected.
    pub async fn start(running: &Running, prefix: &str, count: usize) -> Self {
        let nodes = running.deployment.plan().nodes_of_pool(POOL);
        let (stop, acknowledged, failed) = (Arc::default(), Arc::default(), Arc::default());
        let mut tasks = JoinSet::new();
        for index in 0..count {
            let client = running.deployment.client(&[&nodes[index % nodes.len()]]).await;
            let client = client.expect("a client");
            let prefix = format!("{prefix}-{index}");
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            tasks.spawn(write(client, prefix, stop, acknowledged, Arc::clone(&failed)));
        }
        Self { stop, acknowledged, failed, tasks }
    }

    /// What became of the writes that were not acknowledged, so far.
    ///
    /// # Panics
    /// If a writer did.
    pub fn failed(&self) -> Vec<String> {
        self.failed.lock().expect("no panic while it is held").clone()
    }

    /// How many writes are acknowledged so far.
    pub fn count(&self) -> usize {
        self.acknowledged.lock().expect("no panic while it is held").len()
    }

    /// Waits until `more` further writes are acknowledged.
    ///
    /// # Panics
    /// If they are not in time.
    pub fn wait_for(&self, more: usize) {
        let goal = self.count() + more;
        eventually("written", || match self.count() {
            count if count >= goal => Ok(()),
            count => Err(format!("{count} of {goal} writes acknowledged")),
        });
    }

    /// Ends the writers; gives what was acknowledged.
    ///
    /// # Panics
    /// If a writer did.
    pub async fn stop(mut self) -> Vec<Acknowledged> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a writer");
        }
        std::mem::take(&mut self.acknowledged.lock().expect("no panic while it is held"))
    }
}

async fn write(
    client: Client,
    prefix: String,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    failed: Arc<Mutex<Vec<String>>>,
) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let (key, value) = (format!("{prefix}-{number:06}"), format!("value of {number}"));
        let put = client.put(POOL, key.as_bytes(), value.as_bytes(), Condition::Always).await;
        match put {
            Ok(Reply::Written { version, .. }) => {
                let mut acknowledged = acknowledged.lock().expect("no panic while it is held");
                acknowledged.push(Acknowledged { key, value, version });
            }
            other => {
                let mut failed = failed.lock().expect("no panic while it is held");
                failed.push(format!("{key}: {other:?}"));
            }
        }
    }
}

impl Acknowledged {
    /// Asserts that every write is there, with the version and value that were acknowledged.
    ///
    /// # Panics
    /// If one is not.
    pub async fn assert_all_there(acknowledged: &[Self], client: &Client) {
        assert!(!acknowledged.is_empty(), "nothing was acknowledged, so nothing is shown");
        for Self { key, value, version } in acknowledged {
            let (item, _) =
                client.get(POOL, key.as_bytes(), Read::default()).await.expect("a read");
            let item = item.unwrap_or_else(|| panic!("{key} was acknowledged and is missing"));
            assert_eq!(item.version, *version, "{key} was acknowledged with another version");
            let ItemValue::Inline(bytes) = item.value else { panic!("{key}: a value not inline") };
            assert_eq!(&*bytes, value.as_bytes(), "{key} has another value than was acknowledged");
        }
    }
}
