//! Members of one site in this process, over real sockets and files.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tradewind_client::wire::{CallId, Fault, PoolIndex};
use tradewind_client::{Command, Condition, Durability, Reply};
use tradewind_embed::{
    At, Group, OpenError, Options, QueryError, Replicated, SendError, Standing, StateMachine,
    Stopped, View, ViewEvent,
};
use tradewind_gateway::{ReplySink, ReplyTo, Submission};
use tradewind_ledger::{RequestId, RequestNumber};
use tradewind_local::{Deployment, Plan};
use tradewind_store::session_id;
use tradewind_topology::Topology;
use tradewind_transport::Identity;

const POOL: &str = "bench";
const NAME: &str = "log";
const NAMES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Remembers all it was told, and what it went through in this process.
#[derive(Default)]
struct Log {
    lines: Vec<(At, String)>,
    /// Not part of the state: commands applied since the start.
    applied_here: usize,
    restored: bool,
}

#[derive(Serialize, Deserialize)]
enum Line {
    Text(String),
    Long(Vec<u8>),
    Fail,
}

impl StateMachine for Log {
    type Command = Line;
    type Reply = usize;

    fn apply(&mut self, at: At, command: Line) -> usize {
        let text = match command {
            Line::Text(text) => text,
            Line::Long(bytes) => format!("{} bytes", bytes.len()),
            Line::Fail => panic!("as it was told"),
        };
        self.lines.push((at, text));
        self.applied_here += 1;
        self.lines.len()
    }

    fn snapshot(&self) -> Vec<u8> {
        let lines: Vec<_> =
            self.lines.iter().map(|(at, text)| (at.version, at.hlc, at.view, text)).collect();
        postcard::to_extend(&lines, Vec::new()).unwrap()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let lines: Vec<_> = postcard::from_bytes(bytes)?;
        let line = |(version, hlc, view, text)| (At { version, hlc, view }, text);
        let lines = lines.into_iter().map(line).collect();
        Ok(Self { lines, applied_here: 0, restored: true })
    }
}

fn deployment(dir: &Path) -> Arc<Topology> {
    let deployment = Deployment::create(dir, Path::new("unused"), Plan::one_site(3, 1)).unwrap();
    Arc::new(deployment.topology().clone())
}

async fn join(topology: &Arc<Topology>, name: &str) -> Group {
    let identity = Identity::load(name, &topology.keys.join(format!("{name}.key"))).unwrap();
    Group::join(Arc::clone(topology), Arc::new(identity)).await.unwrap()
}

fn options() -> Options {
    Options { deadline: PATIENCE, ..Options::default() }
}

fn open(group: &Group) -> Replicated<Log> {
    group.replicated(POOL, NAME, Log::default(), options()).unwrap()
}

fn text(text: &str) -> Line {
    Line::Text(text.into())
}

fn lines(log: &Log) -> Vec<(At, String)> {
    log.lines.clone()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

struct Ignored;

impl ReplySink for Ignored {
    fn push(&self, _: CallId, answer: Result<Reply, Fault>) {
        answer.unwrap();
    }

    fn flush(&self) {}
}

/// Puts something under the key of the commands, as a client would.
fn put(group: &Group, number: u64, value: &[u8]) {
    let backend = group.node().backend();
    let (key, condition) = (NAME.into(), Condition::Always);
    let session = session_id(backend.welcome().now, 7);
    backend.submit(vec![Submission {
        pool: PoolIndex(0),
        shard: 0,
        request: RequestId { session, number: RequestNumber(number) },
        durability: Some(Durability::Disk),
        command: Command::Put { key, value: value.into(), condition }.encode(),
        reply: ReplyTo::new(Arc::new(Ignored), CallId(1)),
    }]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_applies_the_same_commands_and_answers_of_its_own_state() {
    let dir = tempfile::tempdir().unwrap();
    let topology = deployment(dir.path());
    let mut groups = Vec::new();
    for name in NAMES {
        groups.push(join(&topology, name).await);
    }
    let logs: Vec<_> = groups.iter().map(open).collect();

    // Three members send at the same time; each is told its own command's place.
    let senders = logs.iter().enumerate().map(|(member, log)| {
        let log = log.clone();
        tokio::spawn(async move {
            for line in 0..50 {
                let line = format!("{member}-{line}");
                let applied = log.ordered_send(&text(&line)).await.unwrap();
                let told = log.query_local(|log| log.lines[applied.reply - 1].clone());
                assert_eq!(told, (applied.at, line), "the reply is of this very command");
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
    let all = logs[0].query(lines).await.unwrap();
    assert_eq!(all.len(), 150);
    assert!(all.is_sorted_by(|a, b| a.0.version < b.0.version && a.0.hlc < b.0.hlc));
    for log in &logs {
        assert_eq!(log.query(lines).await.unwrap(), all);
    }

    // A command that does not fit an entry; what is no command is passed over; a name is open once.
    let long = logs[1].ordered_send(&Line::Long(vec![7; 200_000])).await.unwrap();
    put(&groups[0], 1, b"no command");
    assert_eq!(logs[2].ordered_send(&text("after")).await.unwrap().reply, long.reply + 1);
    logs[0].await_applied(long.at.version).await.unwrap();
    assert_eq!(logs[0].query_local(|log| log.lines[150].1.clone()), "200000 bytes");
    let again = groups[0].replicated(POOL, NAME, Log::default(), options());
    assert!(matches!(again, Err(OpenError::AlreadyOpen { .. })));
    let other = groups[0].replicated("flights", NAME, Log::default(), options());
    assert!(matches!(other, Err(OpenError::NoSuchPool { .. })));

    // A command of a later release stops the replica, and says where.
    put(&groups[0], 2, b"TWR1\x09");
    let sent = logs[0].ordered_send(&text("behind it")).await;
    assert!(matches!(sent, Err(SendError::Stopped(Stopped::Command { .. }))), "{sent:?}");
    assert!(matches!(logs[0].query(lines).await, Err(QueryError::Stopped(_))));
    assert_eq!(logs[0].query_local(|log| log.lines.len()), 152);
    for group in groups {
        within("leaving", group.leave()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_the_state_machine_ends_its_replica_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let topology = deployment(dir.path());
    let groups = [join(&topology, NAMES[0]).await, join(&topology, NAMES[1]).await];
    let log = open(&groups[0]);
    log.ordered_send(&text("first")).await.unwrap();
    let sent = log.ordered_send(&Line::Fail).await;
    assert!(matches!(sent, Err(SendError::Stopped(Stopped::Panicked))), "{sent:?}");
    assert_eq!(log.query_local(|log| log.lines.len()), 1);
    let other = groups[0].replicated(POOL, "other", Log::default(), options()).unwrap();
    other.ordered_send(&text("first")).await.unwrap();
    for group in groups {
        within("leaving", group.leave()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_comes_back_with_its_snapshot_and_the_tail_alone() {
    let dir = tempfile::tempdir().unwrap();
    let topology = deployment(dir.path());
    let groups = [join(&topology, NAMES[0]).await, join(&topology, NAMES[1]).await];
    let back = join(&topology, NAMES[2]).await;
    let logs = groups.each_ref().map(open);
    let log = open(&back);
    for line in 0..100 {
        log.ordered_send(&text(&line.to_string())).await.unwrap();
    }
    drop(log);
    within("leaving", back.leave()).await;
    for line in 100..110 {
        logs[0].ordered_send(&text(&line.to_string())).await.unwrap();
    }

    let back = join(&topology, NAMES[2]).await;
    let log = open(&back);
    let all = logs[1].query(lines).await.unwrap();
    assert_eq!(log.query(lines).await.unwrap(), all, "the same as where nothing was restored");
    assert_eq!(log.query_local(|log| (log.restored, log.applied_here)), (true, 10));
    within("leaving", back.leave()).await;

    // A damaged snapshot is passed over: the one before it, or the ledger, says the same.
    let snapshots = topology.data.join(NAMES[2]).join("replicated").join("bench.0").join(NAME);
    let files = || std::fs::read_dir(&snapshots).unwrap().map(|file| file.unwrap().path());
    assert_eq!(files().count(), 2);
    for file in files() {
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[90] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    }
    let back = join(&topology, NAMES[2]).await;
    let log = open(&back);
    assert_eq!(log.query(lines).await.unwrap(), all);
    assert_eq!(log.query_local(|log| (log.restored, log.applied_here)), (false, 110));
    for group in groups.into_iter().chain([back]) {
        within("leaving", group.leave()).await;
    }
}

/// Waits until a view of exactly these members is told of.
async fn view_of(views: &mut tradewind_embed::ViewEvents, members: &[&str]) -> View {
    let found = async {
        loop {
            match views.next().await.expect("the replica runs") {
                ViewEvent::Installed(view) if view.members == members => return view,
                _ => {}
            }
        }
    };
    within("a view", found).await
}

#[tokio::test(flavor = "multi_thread")]
async fn views_are_told_in_order_with_commands_and_a_minority_says_what_it_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let topology = deployment(dir.path());
    let first = join(&topology, NAMES[0]).await;
    // What the upcall saw: views by their place in the order.
    let told: Arc<Mutex<Vec<ViewEvent>>> = Arc::default();
    let telling = Arc::clone(&told);
    let on_view = Box::new(move |event: &ViewEvent| telling.lock().push(event.clone()));
    let options = Options { on_view: Some(on_view), ..options() };
    let log = first.replicated(POOL, NAME, Log::default(), options).unwrap();
    let second = join(&topology, NAMES[1]).await;
    let mut views = log.views();
    let pair = view_of(&mut views, &NAMES[..2]).await;
    let before = log.ordered_send(&text("in a view of two")).await.unwrap();
    assert!(pair.first < before.at.version && before.at.view == pair.id);

    let third = join(&topology, NAMES[2]).await;
    let all = view_of(&mut views, &NAMES).await;
    assert_eq!((&all.joined[..], &all.left[..]), (&["ams-3".to_owned()][..], &[][..]));
    let after = log.ordered_send(&text("in a view of three")).await.unwrap();
    assert!(before.at.version < all.first && all.first < after.at.version);
    assert_eq!(after.at.view, all.id);
    third.leave().await;
    let left = view_of(&mut views, &NAMES[..2]).await;
    assert_eq!((&left.joined[..], &left.left[..]), (&[][..], &["ams-3".to_owned()][..]));

    // The upcall heard the same, and whoever comes later begins with the view that is.
    assert_eq!(view_of(&mut log.views(), &NAMES[..2]).await, left);
    let installed = |event: &ViewEvent| match event {
        ViewEvent::Installed(view) => Some(view.id),
        ViewEvent::Suspended(_) => None,
    };
    let ids: Vec<_> = told.lock().iter().filter_map(installed).collect();
    assert!(
        ids.is_sorted()
            && BTreeSet::from([pair.id, all.id, left.id]).is_subset(&ids.into_iter().collect())
    );

    // Alone it takes nothing, promises nothing, and still shows what it has.
    second.leave().await;
    let mut membership = first.membership();
    let alone = |now: &tradewind_embed::Membership| matches!(&now.standing, Standing::Minority { missing } if missing.len() == 2);
    within("a minority", membership.wait_for(alone)).await.unwrap();
    drop(log);
    let log = within("the replica to end", async {
        loop {
            let options = Options { deadline: Duration::from_secs(2), ..Options::default() };
            match first.replicated(POOL, NAME, Log::default(), options) {
                Ok(log) => return log,
                Err(OpenError::AlreadyOpen { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    let sent = log.ordered_send(&text("alone")).await.unwrap_err();
    assert!(sent.is_not_applied() && sent.to_string().contains("ams-2"), "{sent}");
    let asked = log.query(lines).await.unwrap_err();
    assert!(matches!(asked, QueryError::Unavailable { .. }), "{asked}");
    assert_eq!(log.query_local(|log| log.lines.len()), 2);

    // What was refused is nowhere when the others are back.
    let second = join(&topology, NAMES[1]).await;
    within("a view", first.active()).await;
    let other = open(&second);
    assert_eq!(other.query(lines).await.unwrap().len(), 2);
    for group in [first, second] {
        within("leaving", group.leave()).await;
    }
}
