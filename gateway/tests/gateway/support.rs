//! A small site behind real gateways: real stores, real ledgers on disk, real sockets; only the agreement between
//! nodes is missing, because all of them share one state.

use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tradewind_client::{
    Client, Config, Endpoint,
    wire::{Fault, Incarnation, NodeInfo, PoolIndex, PoolInfo, Role, ShardInfo, Welcome},
};
use tradewind_gateway::{
    Backend, Completions, Gateway, Horizon, Options, Readiness, ReplyTo, Restart, Security, Shard,
    Submission,
};
use tradewind_ledger::{
    Body, Checkpoint, Digest, Ed25519Signer, Entry, Genesis, Hlc, LedgerId, Member, Replay,
    RequestId, Signer, Version, ViewId,
};
use tradewind_ledger_disk::{Face, LedgerReader, LedgerWriter, Publisher};
use tradewind_store::{Command, Context, Reply, Store};

pub(crate) const POOL: &str = "flights";

/// What the nodes of the site have in common.
pub(crate) struct Site {
    shards: Vec<Arc<TestShard>>,
    nodes: Mutex<Vec<NodeInfo>>,
    _directory: tempfile::TempDir,
}

pub(crate) struct TestShard {
    id: LedgerId,
    directory: PathBuf,
    store: RwLock<Store>,
    log: Mutex<Log>,
    reader: LedgerReader,
    horizon: watch::Sender<Horizon>,
    age: Mutex<Duration>,
}

struct Log {
    writer: LedgerWriter,
    publisher: Publisher,
    replay: Replay,
    origin: String,
    signer: Ed25519Signer,
}

/// A process of the site, or a mirror of it.
pub(crate) struct Process {
    site: Arc<Site>,
    name: String,
    role: Role,
    /// Replies are kept here instead of being sent, while this is some.
    pub(crate) kept: Mutex<Option<Vec<(ReplyTo, Reply)>>>,
    pub(crate) fault: Mutex<Option<String>>,
    pub(crate) restart: Arc<Restarts>,
}

/// Restarts asked for.
#[derive(Debug, Default)]
pub(crate) struct Restarts {
    /// Why none is possible.
    pub(crate) refused: Mutex<Option<String>>,
    pub(crate) begun: AtomicU32,
}

impl Restart for Restarts {
    fn check(&self) -> Result<(), String> {
        self.refused.lock().clone().map_or(Ok(()), Err)
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }
}

/// A process with its gateway.
pub(crate) struct Server {
    pub(crate) process: Arc<Process>,
    pub(crate) gateway: Gateway,
    pub(crate) client: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Site {
    pub(crate) fn new(shards: u32) -> Arc<Self> {
        Self::with_face(shards, Face::Static)
    }

    pub(crate) fn with_face(shards: u32, face: Face) -> Arc<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let shard = |shard| Arc::new(TestShard::new(directory.path(), shard, face));
        let shards = (0..shards).map(shard);
        let shards = shards.collect();
        Arc::new(Self { shards, nodes: Mutex::default(), _directory: directory })
    }

    pub(crate) fn shard(&self, shard: u32) -> &TestShard {
        &self.shards[shard as usize]
    }

    /// Starts a process; nodes are members of all shards.
    pub(crate) async fn start(
        self: &Arc<Self>,
        name: &str,
        role: Role,
        security: Security,
    ) -> Server {
        self.start_with_room(name, role, security, Options::LARGE_BYTES).await
    }

    /// The same, with so many bytes for large requests.
    async fn start_with_room(
        self: &Arc<Self>,
        name: &str,
        role: Role,
        security: Security,
        large_bytes: usize,
    ) -> Server {
        let client = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = client.local_addr().expect("bound");
        let http_address = http.local_addr().expect("bound");
        if role != Role::Mirror {
            let node = NodeInfo { name: name.to_owned(), address: address.to_string() };
            self.nodes.lock().push(node);
        }
        let process = Arc::new(Process {
            site: Arc::clone(self),
            name: name.to_owned(),
            role,
            kept: Mutex::new(None),
            fault: Mutex::new(None),
            restart: Arc::default(),
        });
        let backend = Arc::clone(&process) as Arc<dyn Backend>;
        let restart = Some(Arc::clone(&process.restart) as Arc<dyn Restart>);
        let http = Some(http);
        let options = Options { client, security, http, connections_max: 4, large_bytes, restart };
        let gateway = Gateway::start(backend, options).expect("listeners know their addresses");
        Server { process, gateway, client: address, http: http_address }
    }

    pub(crate) async fn node(self: &Arc<Self>, name: &str) -> Server {
        self.node_with_room(name, Options::LARGE_BYTES).await
    }

    pub(crate) async fn node_with_room(self: &Arc<Self>, name: &str, large_bytes: usize) -> Server {
        let role = Role::Node { site: "ams".to_owned() };
        self.start_with_room(name, role, Security::Plain, large_bytes).await
    }
}

impl Server {
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint { name: self.process.name.clone(), address: self.client.to_string() }
    }

    pub(crate) async fn connect(&self) -> Client {
        Client::connect(Config::new(None), vec![self.endpoint()]).await.expect("a welcome")
    }
}

impl TestShard {
    /// Lets the store forget what it can.
    pub(crate) fn compact(&self) {
        let mut store = self.store.write();
        let base = store.next();
        assert_eq!(store.compact(base, None, usize::MAX), None);
    }

    fn new(root: &Path, shard: u32, face: Face) -> Self {
        let id = LedgerId::new(POOL, shard).expect("a good name");
        let directory = root.join(id.to_string());
        let signer = Ed25519Signer::from_seed(&[7; 32]);
        let options = tradewind_ledger_disk::Options { face, ..Default::default() };
        let opened = tradewind_ledger_disk::open(&directory, &options, |_, _| Ok(()))
            .expect("an empty directory");
        let members = vec![Member { name: "a1".to_owned(), public_key: signer.public_key() }];
        let (deployment, site) = ("atlas".to_owned(), "ams".to_owned());
        let genesis = Genesis { deployment, site, ledger: id.clone(), members };
        let origin = genesis.origin();
        let body = Body::Genesis(genesis);
        let genesis = Entry { hlc: Hlc(0), view: ViewId(0), body };
        let (writer, publisher, replay) = (opened.writer, opened.publisher, opened.replay);
        let mut log = Log { writer, publisher, replay, origin, signer };
        let mut store = Store::new();
        store.apply(Version(0), &genesis).expect("the first entry");
        let readable = log.append(&[genesis]);
        Self {
            id,
            directory,
            store: RwLock::new(store),
            log: Mutex::new(log),
            reader: opened.reader,
            horizon: watch::Sender::new(Horizon { readable, covered: Hlc(0) }),
            age: Mutex::default(),
        }
    }

    /// Executes commands, makes them durable, signs and publishes, then shows them.
    fn execute(&self, commands: Vec<(RequestId, Command)>) -> Vec<Reply> {
        let mut log = self.log.lock();
        let mut entries = Vec::new();
        let mut replies = Vec::new();
        for (request, command) in commands {
            let mut store = self.store.write();
            let version = store.next();
            let hlc = now().after(store.last_hlc().unwrap_or_default());
            let context = Context { version, hlc, view: ViewId(0), request };
            let outcome = store.execute(context, command);
            for (digest, value) in outcome.detached {
                log.writer.store_value(&digest, &value).expect("the disk takes it");
            }
            entries.extend(outcome.entry);
            replies.push(outcome.reply);
        }
        if !entries.is_empty() {
            let readable = log.append(&entries);
            self.horizon.send_modify(|horizon| horizon.readable = readable);
        }
        replies
    }

    /// Writes without a client.
    pub(crate) fn write(&self, number: u64, command: Command) -> Reply {
        let session = tradewind_store::session_id(now(), 1);
        let request = RequestId { session, number: tradewind_ledger::RequestNumber(number) };
        self.execute(vec![(request, command)]).remove(0)
    }

    /// Writes many at once, under consecutive request numbers.
    pub(crate) fn write_all(&self, first: u64, commands: impl IntoIterator<Item = Command>) {
        let session = tradewind_store::session_id(now(), 1);
        let numbered = (first..).zip(commands).map(|(number, command)| {
            let number = tradewind_ledger::RequestNumber(number);
            (RequestId { session, number }, command)
        });
        self.execute(numbered.collect());
    }

    pub(crate) fn set_age(&self, age: Duration) {
        *self.age.lock() = age;
    }
}

impl Log {
    fn append(&mut self, entries: &[Entry]) -> Version {
        let encode = |entry: &Entry| {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes).expect("an entry that fits");
            bytes
        };
        let entries: Vec<_> = entries.iter().map(encode).collect();
        for entry in &entries {
            self.replay.push(entry).expect("follows");
        }
        self.writer.append(&entries).expect("the disk takes it");
        let size = self.writer.sync().expect("the disk takes it");
        let root = self.replay.root();
        let checkpoint = Checkpoint { origin: self.origin.clone(), size, root };
        let signature = checkpoint.sign(&self.signer);
        let note = checkpoint.with_signatures(vec![signature]).expect("a note");
        self.publisher.publish(&note).expect("the disk takes it");
        size
    }
}

impl Backend for Process {
    fn welcome(&self) -> Welcome {
        let nodes = self.site.nodes.lock().clone();
        let members: Vec<u32> = (0..nodes.len() as u32).collect();
        let shard = ShardInfo { members, here: true };
        let pools = vec![PoolInfo {
            name: POOL.to_owned(),
            home: "ams".to_owned(),
            shards: vec![shard; self.site.shards.len()],
        }];
        Welcome {
            protocol: tradewind_client::wire::PROTOCOL,
            deployment: "atlas".to_owned(),
            server: self.name.clone(),
            role: self.role.clone(),
            now: now(),
            in_flight_max: 0,
            nodes,
            pools,
        }
    }

    fn submit(&self, batch: Vec<Submission>) {
        let mut completions = Completions::default();
        if let Some(reason) = self.fault.lock().clone() {
            for submission in batch {
                completions
                    .push(submission.reply, Err(Fault::Unavailable { reason: reason.clone() }));
            }
            return;
        }
        let mut by_shard: BTreeMap<u32, Vec<Submission>> = BTreeMap::new();
        for submission in batch {
            by_shard.entry(submission.shard).or_default().push(submission);
        }
        for (shard, submissions) in by_shard {
            let command = |submission: &Submission| {
                let command = Command::decode(&submission.command).expect("checked by the gateway");
                (submission.request, command)
            };
            let replies = self.site.shard(shard).execute(submissions.iter().map(command).collect());
            for (submission, reply) in submissions.into_iter().zip(replies) {
                match &mut *self.kept.lock() {
                    Some(kept) => kept.push((submission.reply, reply)),
                    None => completions.push(submission.reply, Ok(reply)),
                }
            }
        }
    }

    fn shard(&self, pool: PoolIndex, shard: u32) -> Option<Arc<dyn Shard>> {
        assert_eq!(pool, PoolIndex(0));
        self.site.shards.get(shard as usize).map(|shard| Arc::clone(shard) as Arc<dyn Shard>)
    }

    fn ledgers(&self) -> Vec<LedgerId> {
        self.site.shards.iter().map(|shard| shard.id.clone()).collect()
    }

    fn ledger(&self, id: &LedgerId) -> Option<Arc<dyn Shard>> {
        let shard = self.site.shards.iter().find(|shard| shard.id == *id);
        shard.map(|shard| Arc::clone(shard) as Arc<dyn Shard>)
    }

    fn incarnation(&self) -> Incarnation {
        Incarnation(7)
    }

    fn status(&self) -> Value {
        json!({ "state": "serving", "ledgers": [{ "ledger": "flights.0", "signed": 1 }] })
    }

    fn readiness(&self) -> Readiness {
        let lag = self.site.shards.iter().map(|shard| *shard.age.lock()).max();
        Readiness { fault: self.fault.lock().clone(), lag: lag.unwrap_or_default() }
    }
}

impl Shard for TestShard {
    fn id(&self) -> &LedgerId {
        &self.id
    }

    fn directory(&self) -> &Path {
        &self.directory
    }

    fn horizon(&self) -> watch::Receiver<Horizon> {
        self.horizon.subscribe()
    }

    fn age(&self) -> Duration {
        *self.age.lock()
    }

    fn barrier(&self) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>> {
        // What was acknowledged is in the one state already.
        Box::pin(async { Ok(()) })
    }

    fn with_store(&self, read: &mut dyn FnMut(&Store)) {
        read(&self.store.read());
    }

    fn first(&self) -> Version {
        self.reader.first()
    }

    fn entry(&self, version: Version) -> io::Result<Vec<u8>> {
        self.reader.entry(version).map_err(io::Error::other)
    }

    fn value(&self, digest: &Digest) -> io::Result<Vec<u8>> {
        let value = self.reader.value(digest).map_err(io::Error::other)?;
        value.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

pub(crate) fn now() -> Hlc {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Hlc::from_micros(since_1970.expect("after 1970").as_micros() as u64)
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// One HTTP/1.1 exchange on a connection of its own.
pub(crate) async fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).await.expect("a listener");
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request += &format!("host: {address}\r\n");
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[request.as_bytes(), body].concat()).await.expect("sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.expect("received");
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&bytes[..end]).expect("text");
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.parse().expect("a number"),
        headers: headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(),
        body: bytes[end + 4..].to_vec(),
    }
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    http(address, "GET", path, &[], b"").await
}
