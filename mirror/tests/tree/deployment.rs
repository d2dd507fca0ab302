//! A deployment on this machine: topology, keys, and a site whose ledgers the test itself grows.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quinn::{Endpoint, VarInt};
use tokio::sync::watch;
use tradewind_gateway::Backend;
use tradewind_ledger::tree::value_digest;
use tradewind_ledger::{
    Body, Checkpoint, Ed25519Signer, Entry, Genesis, Hlc, KeyVersion, LedgerId, Replay, RequestId,
    RequestNumber, SealLimits, SessionId, SignedNote, Update, Value, Version, ViewId, ViewRecord,
    Write,
};
use tradewind_ledger_disk::{LedgerReader, LedgerWriter, Publisher};
use tradewind_mirror::{Config, Mirror};
use tradewind_topology::Topology;
use tradewind_transport::{
    Directory, Identity,
    quic::{self, Tuning},
    tls::{Credentials, Protocol},
};
use tradewind_wan::protocol::{Head, Timing};
use tradewind_wan::{Mirrors, ServeConfig, Server, Source, expected_genesis, serve};

/// Nothing here takes longer unless it fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Deployment {
    pub(crate) topology: Arc<Topology>,
    pub(crate) dir: tempfile::TempDir,
}

fn seed(name: &str) -> [u8; 32] {
    value_digest(name.as_bytes()).0
}

pub(crate) fn identity(name: &str) -> Identity {
    Identity::from_seed(name, &seed(name))
}

pub(crate) fn timing() -> Timing {
    let ms = Duration::from_millis;
    Timing {
        connect: ms(1_000),
        beat: ms(100),
        stall: ms(3_000),
        backoff_min: ms(20),
        backoff_max: ms(500),
        probe: ms(300),
        report: ms(10),
        ..Timing::default()
    }
}

/// Addresses in 127.0.0.0/8 that no other test of this machine has.
fn address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let process = std::process::id();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(next < 250, "too many processes in one test binary");
    format!("127.{}.{}.{next}", 1 + (process >> 8) % 250, process % 256)
}

impl Deployment {
    /// One site of three nodes, pools `flights` (two shards) and `settings`, and these mirrors:
    /// name, parents, pools.
    pub(crate) fn new(mirrors: &[(&str, &[&str], &[&str])]) -> Self {
        let process = |name: &str| {
            let key = identity(name).public_key();
            format!(
                "name = \"{name}\"\naddress = \"{}\"\nport = 7000\nkey = \"{key}\"\n",
                address()
            )
        };
        let mut text = "[deployment]\nname = \"atlas\"\n[sites.ams]\nregion = \"eu\"\n".to_owned();
        for node in ["a1", "a2", "a3"] {
            text += &format!("[[sites.ams.nodes]]\n{}", process(node));
        }
        for (name, parents, pools) in mirrors {
            text += &format!("[[mirrors]]\n{}", process(name));
            text += &format!("region = \"us\"\nparents = {parents:?}\npools = {pools:?}\n");
        }
        text += "[pools.flights]\nhome = \"ams\"\nshards = 2\n[pools.settings]\nhome = \"ams\"\n";
        let loaded = Topology::parse(&text, Path::new("test.toml"), &[]);
        let topology = loaded.unwrap_or_else(|faults| panic!("{faults}\n{text}")).topology;
        Self { topology: Arc::new(topology), dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn credentials(&self, name: &str) -> Credentials {
        let directory = Arc::new(Directory::from_topology(&self.topology).unwrap());
        Credentials::new(&identity(name), directory).unwrap()
    }

    pub(crate) async fn mirror(&self, name: &str) -> Arc<Mirror> {
        let config = Config {
            topology: Arc::clone(&self.topology),
            identity: identity(name),
            data: self.data(name),
            timing: Some(timing()),
        };
        Mirror::start(config).await.unwrap()
    }

    pub(crate) fn genesis(&self, ledger: &str) -> Genesis {
        let id: LedgerId = ledger.parse().unwrap();
        let pool = self.topology.pool(id.pool()).unwrap();
        expected_genesis(&self.topology, pool, id.shard())
    }

    /// All files of a ledger's segments, by name; the open one without what is preallocated.
    pub(crate) fn segments(&self, process: &str, ledger: &str) -> BTreeMap<String, Vec<u8>> {
        let dir = self.data(process).join("ledgers").join(ledger).join("segments");
        let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap());
        let sealed = files.filter(|file| file.path().extension() == Some("seg".as_ref()));
        sealed
            .map(|file| (file.file_name().into_string().unwrap(), fs::read(file.path()).unwrap()))
            .collect()
    }

    pub(crate) fn checkpoint(&self, process: &str, ledger: &str) -> Option<Checkpoint> {
        let path = self.data(process).join("ledgers").join(ledger).join("checkpoint");
        let bytes = fs::read(path).ok()?;
        Some(SignedNote::parse(&bytes).unwrap().checkpoint().unwrap())
    }
}

/// One ledger of the site, at one of its nodes for all.
pub(crate) struct Grower {
    pub(crate) genesis: Genesis,
    writer: LedgerWriter,
    publisher: Publisher,
    pub(crate) reader: LedgerReader,
    pub(crate) replay: Replay,
    chain: HashMap<Vec<u8>, (KeyVersion, Version)>,
    /// When to cut a segment.
    pub(crate) seals: SealLimits,
    pub(crate) heads: watch::Sender<Option<Arc<Head>>>,
}

impl Grower {
    fn open(data: &Path, genesis: Genesis) -> Self {
        let dir = data.join("ledgers").join(genesis.ledger.to_string());
        fs::create_dir_all(&dir).unwrap();
        let mut chain = HashMap::new();
        let opened = tradewind_ledger_disk::open(&dir, &Default::default(), |version, entry| {
            for update in entry.updates() {
                chain.insert(update.key.clone(), (update.key_version, version));
            }
            Ok(())
        });
        let opened = opened.unwrap();
        let mut grower = Self {
            genesis,
            writer: opened.writer,
            publisher: opened.publisher,
            reader: opened.reader,
            replay: opened.replay,
            chain,
            seals: SealLimits { entries: 500, ..SealLimits::default() },
            heads: watch::Sender::new(None),
        };
        if grower.replay.size() == Version::ZERO {
            let genesis = grower.genesis.clone();
            let members = genesis.members.clone();
            grower.push(&genesis.into_entry());
            let view = ViewId(1);
            let body = Body::View(ViewRecord { view, members });
            grower.push(&Entry { hlc: grower.hlc(), view, body });
        }
        grower.sign();
        grower
    }

    pub(crate) fn size(&self) -> Version {
        self.replay.size()
    }

    fn hlc(&self) -> Hlc {
        let start = Hlc::from_micros(1_700_000_000_000_000);
        start.after(self.replay.last_hlc())
    }

    fn push(&mut self, entry: &Entry) {
        let bytes = entry.to_bytes().unwrap();
        self.replay.push(&bytes).unwrap();
        self.writer.append(&[bytes]).unwrap();
    }

    /// Puts a value; a long one is detached.
    pub(crate) fn put(&mut self, key: &str, value: &[u8]) {
        let version = self.size();
        let key = key.as_bytes().to_vec();
        let last = self.chain.get(&key).copied();
        let key_version = KeyVersion(last.map_or(0, |(count, _)| count.0) + 1);
        self.chain.insert(key.clone(), (key_version, version));
        let value = if value.len() > tradewind_ledger::entry::MAX_INLINE_VALUE {
            let digest = value_digest(value);
            self.writer.store_value(&digest, value).unwrap();
            Value::Detached { len: value.len() as u64, digest }
        } else {
            Value::Inline(value.to_vec())
        };
        let prev_version = last.map(|(_, version)| version);
        let update = Update { key, key_version, prev_version, value: Some(value) };
        let request = RequestId { session: SessionId(7), number: RequestNumber(version.0) };
        let body = Body::Put(Write { request, update });
        let (hlc, view) = (self.hlc(), self.replay.view());
        self.push(&Entry { hlc, view, body });
        let hlc = self.hlc();
        if self.replay.segment().due(&self.seals, hlc) {
            self.push(&self.replay.segment().make_seal(hlc, view));
        }
    }

    /// Makes everything durable.
    pub(crate) fn flush(&mut self) {
        self.writer.sync().unwrap();
    }

    /// Makes everything durable and signs it, as a majority of the nodes does.
    pub(crate) fn sign(&mut self) {
        self.flush();
        let note = self.note(&["a1", "a3"]);
        let (size, root) = (self.replay.size(), self.replay.root());
        let head = Head::signed(size, root, self.replay.last_hlc(), &note.to_string());
        self.heads.send_replace(Some(Arc::new(head)));
        self.publisher.publish(&note).unwrap();
    }

    pub(crate) fn note(&self, signers: &[&str]) -> SignedNote {
        let (size, root) = (self.replay.size(), self.replay.root());
        let checkpoint = Checkpoint { origin: self.genesis.origin(), size, root };
        let sign = |name: &&str| checkpoint.sign(&Ed25519Signer::from_seed(&seed(name)));
        checkpoint.with_signatures(signers.iter().map(sign).collect()).unwrap()
    }

    /// Puts `count` records over a limited set of keys, signing now and then.
    pub(crate) fn grow(&mut self, count: usize) {
        for _ in 0..count {
            let version = self.size().0;
            let value = [version.to_be_bytes().as_slice(), &[b'v'; 120]].concat();
            self.put(&format!("key-{:04}", version % 997), &value);
            if version.is_multiple_of(97) {
                self.sign();
            }
        }
        self.sign();
    }
}

/// The site: its ledgers, and what its nodes serve.
pub(crate) struct Site {
    pub(crate) ledgers: BTreeMap<String, Grower>,
    nodes: Vec<(Endpoint, Server)>,
    pub(crate) mirrors: Mirrors,
}

impl Site {
    /// Opens the ledgers below the data directory `data`; nobody serves them yet.
    pub(crate) fn open(deployment: &Deployment, data: &str) -> Self {
        let data = deployment.data(data);
        let open =
            |ledger: &str| (ledger.to_owned(), Grower::open(&data, deployment.genesis(ledger)));
        let ledgers: BTreeMap<_, _> =
            ["flights.0", "flights.1", "settings.0"].into_iter().map(open).collect();
        let mirrors = Mirrors::new(ledgers.values().map(source).collect());
        Self { ledgers, nodes: Vec::new(), mirrors }
    }

    /// Lets these nodes serve.
    pub(crate) fn serve(&mut self, deployment: &Deployment, nodes: &[&str]) {
        for name in nodes {
            let credentials = deployment.credentials(name);
            let ports = *deployment.topology.process(name).unwrap().ports();
            let tuning = Tuning::default();
            let endpoint = quic::server(ports.wan(), &credentials, Protocol::Wan, &tuning).unwrap();
            let path = vec![(*name).to_owned(), "ams".to_owned()];
            let config = ServeConfig {
                topology: Arc::clone(&deployment.topology),
                credentials,
                sources: self.ledgers.values().map(source).collect(),
                path: watch::Sender::new(Some(path)).subscribe(),
                mirrors: self.mirrors.clone(),
                timing: timing(),
            };
            self.nodes.push((endpoint.clone(), serve(endpoint, config)));
        }
    }

    pub(crate) fn ledger(&mut self, name: &str) -> &mut Grower {
        self.ledgers.get_mut(name).unwrap()
    }

    pub(crate) fn sizes(&self) -> BTreeMap<String, Version> {
        self.ledgers.iter().map(|(name, ledger)| (name.clone(), ledger.size())).collect()
    }

    /// Ends the nodes; the ledgers are closed.
    pub(crate) async fn stop(self) {
        for (endpoint, server) in self.nodes {
            drop(server);
            endpoint.close(VarInt::from_u32(0), b"the site stops");
            endpoint.wait_idle().await;
            let address = endpoint.local_addr().unwrap();
            drop(endpoint);
            free(address).await;
        }
    }
}

pub(crate) fn source(ledger: &Grower) -> Source {
    Source {
        ledger: ledger.genesis.ledger.clone(),
        lineage: ledger.genesis.lineage().unwrap(),
        reader: ledger.reader.clone(),
        heads: ledger.heads.subscribe(),
        age: Arc::new(Duration::default),
        lend: Arc::new(|_, _| Ok(None)),
    }
}

/// Stops a mirror and waits until its port is free.
pub(crate) async fn stop(deployment: &Deployment, mirror: Arc<Mirror>) {
    mirror.stop().await;
    let address = deployment.topology.mirror(mirror.name()).unwrap().ports.wan();
    drop(mirror);
    free(address).await;
}

/// Waits until a UDP port can be bound: the library closes a socket in a task of its own.
pub(crate) async fn free(address: std::net::SocketAddr) {
    let bound = async {
        while std::net::UdpSocket::bind(address).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, bound).await.expect("the port is given back");
}

/// Waits until a mirror shows the first `size` entries of a ledger.
pub(crate) async fn shows(mirror: &Mirror, ledger: &str, size: Version) {
    let shard = mirror.ledger(&ledger.parse().unwrap()).expect("the mirror holds the ledger");
    let mut horizon = shard.horizon();
    let waited = tokio::time::timeout(PATIENCE, horizon.wait_for(|now| now.readable >= size)).await;
    if waited.is_err() {
        panic!("{} does not show {ledger} up to {size}: {:#}", mirror.name(), mirror.status());
    }
}

/// Waits until `done` holds of a changing value.
pub(crate) async fn until<T: Clone + std::fmt::Debug>(
    mut watch: watch::Receiver<T>,
    what: &str,
    done: impl FnMut(&T) -> bool,
) {
    let waited = tokio::time::timeout(PATIENCE, watch.wait_for(done)).await.is_ok();
    assert!(waited, "{what} does not come about: {:?}", watch.borrow());
}
