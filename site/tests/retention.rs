//! Three nodes that keep little history, over real sockets and files.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tradewind_client::wire::{CallId, Fault, PoolIndex};
use tradewind_gateway::{Backend, ReplySink, ReplyTo, Submission};
use tradewind_ledger::{RequestId, RequestNumber, Version};
use tradewind_local::{Deployment, Plan};
use tradewind_site::Node;
use tradewind_store::{Command, Condition, ItemValue, Reply, session_id};
use tradewind_topology::{Retain, Topology};
use tradewind_transport::Identity;

const POOL: PoolIndex = PoolIndex(0);
const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: u64 = 20;
const VALUE: usize = 30_000;

struct Answers(Sender<Result<Reply, Fault>>);

impl ReplySink for Answers {
    fn push(&self, _: CallId, answer: Result<Reply, Fault>) {
        // The test may be over.
        let _ = self.0.send(answer);
    }

    fn flush(&self) {}
}

fn start(topology: &Arc<Topology>, name: &str) -> Node {
    let identity = Identity::load(name, &topology.keys.join(format!("{name}.key"))).unwrap();
    Node::start(Arc::clone(topology), Arc::new(identity)).unwrap()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The key's value after write number `n` of it.
fn value(n: u64) -> Vec<u8> {
    n.to_be_bytes().repeat(VALUE / 8)
}

/// Writes the keys in turn, as requests `numbers`; returns the version of the last.
fn write(backend: &dyn Backend, numbers: std::ops::Range<u64>) -> Version {
    let (sender, answers) = channel();
    let session = session_id(backend.welcome().now, numbers.start);
    let mut last = Version::ZERO;
    let mut outstanding = 0;
    let mut take = |outstanding: &mut u64| {
        match answers.recv_timeout(PATIENCE).unwrap() {
            Ok(Reply::Written { version, .. }) => last = last.max(version),
            other => panic!("{other:?}"),
        }
        *outstanding -= 1;
    };
    for n in numbers {
        let (key, condition) = (format!("key {}", n % KEYS).into_bytes(), Condition::Always);
        backend.submit(vec![Submission {
            pool: POOL,
            shard: 0,
            request: RequestId { session, number: RequestNumber(n) },
            durability: None,
            command: Command::Put { key, value: value(n), condition }.encode(),
            reply: ReplyTo::new(Arc::new(Answers(sender.clone())), CallId(n)),
        }]);
        outstanding += 1;
        while outstanding >= 32 {
            take(&mut outstanding);
        }
    }
    while outstanding > 0 {
        take(&mut outstanding);
    }
    last
}

fn kept(node: &Node, field: &str) -> u64 {
    let status: Value = node.backend().status();
    status["shards"][0]["kept"][field].as_u64().expect("a number")
}

fn assert_reads_all(node: &Node, last: Version, written: u64) {
    let shard = node.backend().shard(POOL, 0).unwrap();
    let horizon = shard.horizon();
    until("everything is committed here", || horizon.borrow().readable > last);
    let at = horizon.borrow().readable;
    for key in 0..KEYS {
        let newest = (0..written).rev().find(|n| n % KEYS == key).expect("each was written");
        let mut found = None;
        shard.with_store(&mut |store| {
            let item = store.get(format!("key {key}").as_bytes(), at).expect("in memory");
            found = item.map(|item| item.value);
        });
        assert_eq!(found, Some(ItemValue::Inline(value(newest).into())), "key {key}");
    }
}

/// The node works meanwhile: a file that is renamed or removed between two looks counts for nothing.
fn bytes_below(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[test]
fn history_goes_the_present_stays_and_no_start_replays_what_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let deployment =
        Deployment::create(dir.path(), Path::new("unused"), Plan::one_site(3, 1)).unwrap();
    let mut topology = deployment.topology().clone();
    topology.pools[0].retain = Retain::Bytes(2 << 20);
    let topology = Arc::new(topology);
    let names: Vec<String> =
        topology.sites[0].nodes.iter().map(|node| node.name.to_string()).collect();
    let mut nodes: Vec<Node> = names.iter().map(|name| start(&topology, name)).collect();
    let ready = |node: &Node| node.backend().readiness().fault.is_none();
    until("all are ready", || nodes.iter().all(ready));

    // Far more is written than is kept.
    let mut written = 0;
    let mut last = Version::ZERO;
    let segments = dir_of(&topology, &names[0]).join("segments");
    until("all have pruned twice, and the disk is bounded", || {
        last = write(&*nodes[written as usize % 3].backend(), written..written + 100);
        written += 100;
        let total = written * VALUE as u64;
        nodes.iter().all(|node| kept(node, "first") > 500) && bytes_below(&segments) < total / 2
    });

    // All nodes end, and come back without what is gone.
    nodes.into_iter().for_each(Node::stop);
    nodes = names.iter().map(|name| start(&topology, name)).collect();
    until("all are ready again", || nodes.iter().all(ready));
    for node in &nodes {
        let (first, snapshot) = (kept(node, "first"), kept(node, "snapshot_at_start"));
        assert!(first > 500 && snapshot >= first, "kept from {first}, began at {snapshot}");
        assert!(kept(node, "replayed_at_start") < last.0 - snapshot + 100);
        assert_reads_all(node, last, written);
    }

    // One less, and everything goes on.
    nodes.remove(2).stop();
    until("the others go on", || {
        nodes[0].backend().status()["view_members"] == serde_json::json!([names[0], names[1]])
    });
    last = write(&*nodes[1].backend(), written..written + 100);
    written += 100;
    nodes.iter().for_each(|node| assert_reads_all(node, last, written));
    nodes.into_iter().for_each(Node::stop);
}

fn dir_of(topology: &Topology, node: &str) -> std::path::PathBuf {
    let ledger = format!("{}.0", topology.pools[0].name);
    topology.data.join(node).join("ledgers").join(ledger)
}
