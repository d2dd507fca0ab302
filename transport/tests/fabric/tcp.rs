//! TCP: the conformance suite with and without TLS, then links refused and bytes of strangers.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use tradewind_topology::{Rights, Role};
use tradewind_transport::{
    Directory, Identity, Peer,
    fabric::{
        Fabric, FabricEvent, NodeId,
        tcp::{Security, TcpFabric, TcpNode, TcpOptions, Timing},
    },
    tls::Credentials,
};

use crate::conformance::{A, B, Nodes, Site, conformance};

/// Nodes on loopback, their ports taken before any of them runs.
pub(crate) struct Loopback<const TLS: bool> {
    listeners: Vec<Option<TcpListener>>,
    addresses: Vec<SocketAddr>,
    silence: Duration,
}

fn name(node: NodeId) -> String {
    format!("a{}", node.0 + 1)
}

fn identity(node: NodeId) -> Identity {
    Identity::from_seed(&name(node), &[node.0 as u8 + 1; 32])
}

fn entry(identity: &Identity, role: Role) -> (tradewind_topology::PublicKey, Peer) {
    let rights = Rights::Pools(BTreeMap::new());
    (identity.public_key(), Peer { name: identity.name().to_owned(), role, rights })
}

fn directory(nodes: usize) -> Arc<Directory> {
    let role = Role::Node("ams".parse().unwrap());
    let nodes = (0..nodes as u16).map(|node| entry(&identity(NodeId(node)), role.clone()));
    Arc::new(Directory::new(nodes).unwrap())
}

impl<const TLS: bool> Loopback<TLS> {
    pub(crate) fn options(&self, own: NodeId, incarnation: u64) -> TcpOptions {
        let nodes = self.addresses.iter().enumerate();
        let security = match TLS {
            true => {
                let directory = directory(self.addresses.len());
                Security::Tls(Credentials::new(&identity(own), directory).unwrap())
            }
            false => Security::Plain,
        };
        TcpOptions {
            own,
            nodes: nodes
                .map(|(index, &address)| TcpNode {
                    name: name(NodeId(index as u16)),
                    address,
                    is_former: false,
                })
                .collect(),
            deployment: "atlas".to_owned(),
            site: "ams".to_owned(),
            digest: [1; 32],
            incarnation,
            security,
            timing: Timing {
                keep_alive: self.silence / 6,
                silence: self.silence,
                backoff_max: Duration::from_millis(40),
                ..Timing::default()
            },
        }
    }

    /// Nodes at another address of this machine.
    pub(crate) fn at(address: IpAddr, nodes: u16, silence: Duration) -> Self {
        let listener = |_| TcpListener::bind((address, 0)).unwrap();
        let listeners: Vec<_> = (0..nodes).map(listener).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        Self { listeners: listeners.into_iter().map(Some).collect(), addresses, silence }
    }

    pub(crate) fn start_with(&mut self, options: TcpOptions) -> TcpFabric {
        match self.listeners[options.own.index()].take() {
            Some(listener) => TcpFabric::with_listener(options, listener).unwrap(),
            None => TcpFabric::bind(options).unwrap(),
        }
    }
}

impl<const TLS: bool> Site for Loopback<TLS> {
    fn new(nodes: u16, silence: Duration) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), nodes, silence)
    }

    fn start(&mut self, node: NodeId, incarnation: u64) -> Box<dyn Fabric> {
        let options = self.options(node, incarnation);
        Box::new(self.start_with(options))
    }
}

conformance!(tls, Loopback<true>);
conformance!(plain, Loopback<false>);

const MINUTE: Duration = Duration::from_secs(60);

/// Starts two nodes of which B differs, and returns what A and B were told of each other.
fn refusal<const TLS: bool>(differ: impl Fn(&mut TcpOptions)) -> [String; 2] {
    let mut site = Loopback::<TLS>::new(2, MINUTE);
    let mut other = site.options(B, 1);
    differ(&mut other);
    let fabrics: Vec<Option<Box<dyn Fabric>>> =
        vec![Some(site.start(A, 1)), Some(Box::new(site.start_with(other)))];
    let mut nodes = Nodes::of(fabrics);
    let reason = |events: &[FabricEvent]| {
        events.iter().find_map(|event| match event {
            FabricEvent::Unreachable { reason, .. } => Some(reason.clone()),
            FabricEvent::Connected { .. } => panic!("connected"),
            _ => None,
        })
    };
    nodes.until("B is told", |all| reason(&all.events[1]).is_some());
    [0, 1].map(|node| reason(&nodes.events[node]).unwrap_or_default())
}

#[test]
fn nodes_of_another_deployment_site_or_topology_are_refused_in_words_at_both_ends() {
    fn check<const TLS: bool>() {
        let words = "a2 is of deployment borg, this node is of atlas";
        let [a, b] = refusal::<TLS>(|options| options.deployment = "borg".to_owned());
        assert_eq!((a.as_str(), b), (words, format!("closed by the peer: {words}")));

        let words = "a2 is of site lhr, this node is of ams";
        let [a, b] = refusal::<TLS>(|options| options.site = "lhr".to_owned());
        assert_eq!((a.as_str(), b), (words, format!("closed by the peer: {words}")));

        let words = "a2 runs another topology of site ams (02020202, here 01010101): \
                     give all nodes of the site the same file";
        let [a, b] = refusal::<TLS>(|options| options.digest = [2; 32]);
        assert_eq!((a.as_str(), b), (words, format!("closed by the peer: {words}")));
    }
    check::<true>();
    check::<false>();
}

#[test]
fn of_two_starts_of_a_node_the_newer_one_is_heard() {
    let mut site = Loopback::<true>::new(2, MINUTE);
    let fabrics = vec![Some(site.start(A, 1)), Some(site.start(B, 5))];
    let mut nodes = Nodes::of(fabrics);
    let connected = |incarnation| FabricEvent::Connected { peer: B, incarnation };
    nodes.until("B is connected", |all| all.told(A, |event| *event == connected(5)));

    // Somebody started it twice, or from an old copy of its directory.
    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let older = TcpFabric::with_listener(site.options(B, 4), away).unwrap();
    nodes.fabrics.push(Some(Box::new(older)));
    nodes.events.push(Vec::new());
    let words = "closed by the peer: a newer start of a2 is connected already";
    nodes.until("the older one is refused", |all| {
        all.events[2].iter().any(
            |event| matches!(event, FabricEvent::Unreachable { reason, .. } if reason == words),
        )
    });
    assert!(
        !nodes.told(A, |event| matches!(event, FabricEvent::Lost { .. })),
        "B is not disturbed"
    );

    let away = TcpListener::bind("127.0.0.1:0").unwrap();
    let newer = TcpFabric::with_listener(site.options(B, 6), away).unwrap();
    nodes.fabrics[2] = Some(Box::new(newer));
    nodes.until("the newer one takes its place", |all| {
        all.told(A, |event| *event == connected(6))
            && all.told(
                B,
                |event| matches!(event, FabricEvent::Unreachable { reason, .. } if reason == words),
            )
    });
}

#[test]
fn a_node_is_known_by_its_key_whatever_it_says() {
    // B has a key that its own topology names, but A's does not.
    let [_, b] = refusal::<true>(|options| {
        let thief = Identity::from_seed("a2", &[66; 32]);
        let role = Role::Node("ams".parse().unwrap());
        let peers = [entry(&identity(A), role.clone()), entry(&thief, role)];
        let directory = Arc::new(Directory::new(peers).unwrap());
        options.security = Security::Tls(Credentials::new(&thief, directory).unwrap());
    });
    assert!(b.contains("alert"), "{b}");

    // B is a mirror in A's topology.
    let mut site = Loopback::<true>::new(2, MINUTE);
    let mut options = site.options(A, 1);
    let role = Role::Node("ams".parse().unwrap());
    let peers = [entry(&identity(A), role), entry(&identity(B), Role::Mirror)];
    let directory = Arc::new(Directory::new(peers).unwrap());
    options.security = Security::Tls(Credentials::new(&identity(A), directory).unwrap());
    let fabrics: Vec<Option<Box<dyn Fabric>>> =
        vec![Some(Box::new(site.start_with(options))), Some(site.start(B, 1))];
    let mut nodes = Nodes::of(fabrics);
    nodes.until("B is refused", |all| {
        all.told(B, |event| matches!(event, FabricEvent::Unreachable { .. }))
    });
    assert_eq!(nodes.at(A).counters().links_made, 0);

    // B dials an address at which another node answers.
    let [_, b] = refusal::<true>(|options| {
        let role = Role::Node("ams".parse().unwrap());
        let third = Identity::from_seed("a1", &[9; 32]);
        let peers = [entry(&third, role.clone()), entry(&identity(B), role)];
        let directory = Arc::new(Directory::new(peers).unwrap());
        options.security = Security::Tls(Credentials::new(&identity(B), directory).unwrap());
    });
    assert!(b.contains("no process or client of the topology has the peer's key"), "{b}");
}

/// A hello of node B, byte by byte as docs/formats/fabric-tcp.md says.
fn hello() -> Vec<u8> {
    let mut body = b"\x01\0\x01\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
    body.extend([1; 32]);
    body.extend(b"\x05atlas\x03ams\x02a2");
    frame(1, 0, &body)
}

fn frame(kind: u8, view: u64, body: &[u8]) -> Vec<u8> {
    let mut frame = vec![b'T', b'F', kind, 0];
    frame.extend((body.len() as u32).to_le_bytes());
    frame.extend(view.to_le_bytes());
    frame.extend(body);
    frame
}

/// What a stranger hears who sends `bytes` to a plain node that has prepared view 3, and reads to the end.
fn answer(bytes: &[u8]) -> String {
    let mut site = Loopback::<false>::new(2, MINUTE);
    let mut fabric = site.start(A, 1);
    fabric.prepare(3, &[A, B], 64).unwrap();
    let mut stream = TcpStream::connect(site.addresses[0]).unwrap();
    stream.write_all(bytes).unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut heard = Vec::new();
    let mut events = Vec::new();
    for _ in 0..10_000 {
        fabric.poll(Some(Duration::from_millis(1)), &mut events);
        match stream.read_to_end(&mut heard) {
            Ok(_) => return String::from_utf8_lossy(&heard).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not closed; heard {heard:?}, events {events:?}");
}

#[test]
fn bytes_that_break_the_protocol_are_refused_in_words() {
    let after_hello = |frame: &[u8]| answer(&[&hello(), frame].concat());
    assert!(answer(b"GET / HTTP/1.1\r\nHost: a1\r\n\r\n").contains("are no frame"));
    let early = frame(4, 0, &[0; 100]);
    assert!(answer(&early).contains("malformed Message frame"), "a message before the hello");
    assert!(after_hello(&hello()).contains("malformed Hello frame"), "a second hello");
    assert!(after_hello(&frame(9, 0, &[])).contains("unknown kind 9"));
    let newer = after_hello(&frame(3, 4, &[0; 16]));
    assert!(newer.contains("a batch of view 4, but this node told of view 3 only"), "{newer}");
    let out_of_row = [&64_u32.to_le_bytes()[..], &8_u32.to_le_bytes(), &[1; 8]].concat();
    let heard = after_hello(&frame(3, 3, &out_of_row));
    assert!(heard.contains("a range at 64 of 8 bytes in a row of 64 bytes"), "{heard}");
    // Refused by their headers alone, before there is a byte of them to keep.
    let mut huge = frame(4, 0, &[]);
    huge[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(after_hello(&huge).contains("at most 8388608 are allowed"));
    let mut long_batch = frame(3, 3, &[]);
    long_batch[4..8].copy_from_slice(&73_u32.to_le_bytes());
    assert!(after_hello(&long_batch).contains("at most 72 are allowed"));
}

#[test]
fn a_flood_of_silent_strangers_leaves_room_for_the_nodes() {
    let mut site = Loopback::<true>::new(2, MINUTE);
    let mut a = site.start(A, 1);
    let strangers: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(site.addresses[0]).unwrap()).collect();
    let mut events = Vec::new();
    while a.counters().refused < 80 {
        a.poll(Some(Duration::from_millis(1)), &mut events);
    }
    // Their deadline passes, and B gets in.
    let fabrics: Vec<Option<Box<dyn Fabric>>> = vec![Some(a), Some(site.start(B, 1))];
    let mut nodes = Nodes::of(fabrics);
    nodes.until("B is connected", |all| {
        all.told(A, |event| matches!(event, FabricEvent::Connected { peer, .. } if *peer == B))
    });
    drop(strangers);
}
