//! Three nodes of one site in this process, over real sockets and files.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tradewind_client::wire::{CallId, Fault, PoolIndex};
use tradewind_gateway::{Backend, ReplySink, ReplyTo, Submission};
use tradewind_ledger::{RequestId, RequestNumber, SessionId, Version};
use tradewind_local::{Deployment, Plan};
use tradewind_site::Node;
use tradewind_store::{Command, Condition, ItemValue, Reply, session_id};
use tradewind_topology::Topology;
use tradewind_transport::Identity;

const POOL: PoolIndex = PoolIndex(0);
const PATIENCE: Duration = Duration::from_secs(30);

struct Answers(Sender<(CallId, Result<Reply, Fault>)>);

impl ReplySink for Answers {
    fn push(&self, call: CallId, answer: Result<Reply, Fault>) {
        // The test may be over.
        let _ = self.0.send((call, answer));
    }

    fn flush(&self) {}
}

fn deployment(dir: &Path) -> Arc<Topology> {
    let deployment = Deployment::create(dir, Path::new("unused"), Plan::one_site(3, 1)).unwrap();
    Arc::new(deployment.topology().clone())
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

fn put(
    backend: &dyn Backend,
    number: u64,
    key: &str,
    value: &[u8],
) -> Receiver<(CallId, Result<Reply, Fault>)> {
    let (sender, receiver) = channel();
    let session: SessionId = session_id(backend.welcome().now, 7);
    let session = SESSION.get_or_init(|| session);
    let command =
        Command::Put { key: key.into(), value: value.into(), condition: Condition::Always };
    backend.submit(vec![Submission {
        pool: POOL,
        shard: 0,
        request: RequestId { session: *session, number: RequestNumber(number) },
        durability: None,
        command: command.encode(),
        reply: ReplyTo::new(Arc::new(Answers(sender)), CallId(number)),
    }]);
    receiver
}

static SESSION: std::sync::OnceLock<SessionId> = std::sync::OnceLock::new();

fn written(answer: &Receiver<(CallId, Result<Reply, Fault>)>) -> Version {
    match answer.recv_timeout(PATIENCE).unwrap().1 {
        Ok(Reply::Written { version, .. }) => version,
        other => panic!("{other:?}"),
    }
}

fn read(backend: &dyn Backend, key: &str, at_least: Version) -> Option<ItemValue> {
    let shard = backend.shard(POOL, 0).unwrap();
    let horizon = shard.horizon();
    until("the write is committed here", || horizon.borrow().readable > at_least);
    let at = horizon.borrow().readable;
    let mut found = None;
    shard.with_store(&mut |store| found = store.get(key.as_bytes(), at).expect("in memory"));
    found.map(|item| item.value)
}

#[test]
fn writes_at_any_node_are_read_at_all_and_outlive_a_node_and_the_whole_site() {
    let dir = tempfile::tempdir().unwrap();
    let topology = deployment(dir.path());
    let names: Vec<String> =
        topology.sites[0].nodes.iter().map(|node| node.name.to_string()).collect();
    let mut nodes: Vec<Node> = names.iter().map(|name| start(&topology, name)).collect();
    let ready = |node: &Node| node.backend().readiness().fault.is_none();
    until("all are ready", || nodes.iter().all(ready));

    // Each node takes writes, and what one acknowledged is read at the others.
    let backends: Vec<_> = nodes.iter().map(Node::backend).collect();
    let answers: Vec<_> = (0..3)
        .map(|at| put(&*backends[at], 1 + at as u64, &format!("key-{at}"), b"value"))
        .collect();
    let last = answers.iter().map(written).max().unwrap();
    for backend in &backends {
        for at in 0..3 {
            assert!(read(&**backend, &format!("key-{at}"), last).is_some());
        }
    }
    // A value that fits no entry, and no message.
    let long: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
    let version = written(&put(&*backends[1], 10, "long", &long));
    let Some(ItemValue::Detached { digest, .. }) = read(&*backends[2], "long", version) else {
        panic!("a long value lies beside the ledger");
    };
    assert_eq!(backends[2].shard(POOL, 0).unwrap().value(&digest).unwrap(), long);

    // A barrier is answered, and a repeated request gets its first reply at another node.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(backends[0].shard(POOL, 0).unwrap().barrier()).unwrap();
    let again = written(&put(&*backends[2], 1, "key-0", b"value"));
    assert!(again < last, "request 1 was executed at version {again}, not again");

    // Without one of the nodes writes go on.
    nodes.remove(2).stop();
    until("the others go on", || {
        backends[0].status()["view_members"] == serde_json::json!([names[0], names[1]])
    });
    written(&put(&*backends[0], 19, "two", b"value"));

    // Without two of them writes are refused by name, and reads go on.
    nodes.remove(1).stop();
    until("the other notices", || backends[0].readiness().fault.is_some());
    let fault = backends[0].readiness().fault.unwrap();
    assert!(fault.contains(&names[2]), "{fault}");
    match put(&*backends[0], 20, "lost", b"value").recv_timeout(PATIENCE).unwrap().1 {
        Err(Fault::Unavailable { reason }) => assert!(reason.contains(&names[2]), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(read(&*backends[0], "key-1", Version(0)).is_some());
    assert_eq!(backends[0].status()["waiting_for"][0], names[1].as_str());

    // Their return resumes writes.
    nodes.push(start(&topology, &names[1]));
    nodes.push(start(&topology, &names[2]));
    until("all are ready again", || nodes.iter().all(ready));
    let version = written(&put(&*backends[0], 21, "back", b"value"));
    assert!(read(&*nodes[2].backend(), "back", version).is_some());

    // All nodes end, and come back with everything.
    drop(backends);
    nodes.into_iter().for_each(Node::stop);
    let nodes: Vec<Node> = names.iter().map(|name| start(&topology, name)).collect();
    until("all are ready after a total restart", || nodes.iter().all(ready));
    for node in &nodes {
        for key in ["key-0", "key-1", "key-2", "long", "back"] {
            assert!(read(&*node.backend(), key, version).is_some(), "{key} is lost");
        }
        assert!(read(&*node.backend(), "lost", version).is_none());
    }
    nodes.into_iter().for_each(Node::stop);
}
