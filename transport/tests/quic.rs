//! QUIC endpoints on loopback: who gets in, and whether bytes get through.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Connection, Endpoint};
use tokio::{sync::watch, task::JoinHandle};
use tradewind_topology::{Link, Rights, Role};
use tradewind_transport::{
    Directory, Identity, Peer,
    quic::{self, Congestion, Tuning},
    tls::{Credentials, Protocol},
};

fn identity(seed: u8, name: &str) -> Identity {
    Identity::from_seed(name, &[seed; 32])
}

fn directory(peers: &[(&Identity, Role)]) -> Arc<Directory> {
    let rights = Rights::Pools(BTreeMap::new());
    Arc::new(
        Directory::new(peers.iter().map(|(identity, role)| {
            let (name, role, rights) = (identity.name().to_owned(), role.clone(), rights.clone());
            (identity.public_key(), Peer { name, role, rights })
        }))
        .unwrap(),
    )
}

fn node() -> Role {
    Role::Node("ams".parse().unwrap())
}

/// A node a1 and its mirror m1, as both know each other.
fn pair() -> (Credentials, Credentials) {
    let (a1, m1) = (identity(1, "a1"), identity(2, "m1"));
    let directory = directory(&[(&a1, node()), (&m1, Role::Mirror)]);
    (
        Credentials::new(&a1, Arc::clone(&directory)).unwrap(),
        Credentials::new(&m1, directory).unwrap(),
    )
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Dials `server` as a1; the connection of either end, the server's with whom it sees.
async fn meet(
    server: &Credentials,
    client: &Credentials,
    tuning: &Tuning,
) -> Result<(Connection, Connection, Arc<Peer>, [Endpoint; 2]), String> {
    let listening = quic::server(loopback(), server, Protocol::Wan, tuning).unwrap();
    let address = listening.local_addr().unwrap();
    let dialling = quic::client(loopback(), tuning).unwrap();
    let accept = async {
        let incoming = listening.accept().await.expect("the endpoint is open");
        let connection = incoming.await.map_err(|error| format!("server: {error}"))?;
        let peer = quic::peer(&connection, server, Protocol::Wan);
        Ok::<_, String>((connection, peer.map_err(|error| error.to_string())?))
    };
    let dial = async {
        let connection = quic::connect(&dialling, client, Protocol::Wan, "a1", address, tuning)
            .await
            .map_err(|error| format!("client: {error}"))?;
        // Accepted by the other end, too: in TLS 1.3 its look at our certificate comes last.
        let mut hello =
            connection.accept_uni().await.map_err(|error| format!("client: {error}"))?;
        hello.read_to_end(8).await.map_err(|error| format!("client: {error}"))?;
        Ok::<_, String>(connection)
    };
    let greet = async {
        let (connection, peer) = accept.await?;
        let mut hello = connection.open_uni().await.map_err(|error| error.to_string())?;
        hello.write_all(b"hello").await.map_err(|error| error.to_string())?;
        hello.finish().map_err(|error| error.to_string())?;
        Ok((connection, peer))
    };
    let (server_side, client_side) = tokio::join!(greet, dial);
    match (server_side, client_side) {
        (Ok((accepted, peer)), Ok(dialled)) => Ok((accepted, dialled, peer, [listening, dialling])),
        (server, client) => {
            let mut words: Vec<String> = server.err().into_iter().collect();
            words.extend(client.err());
            Err(words.join("; "))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_know_each_other() {
    let (a1, m1) = pair();
    let (_, dialled, peer, _endpoints) = meet(&a1, &m1, &Tuning::default()).await.unwrap();
    assert_eq!((peer.name.as_str(), &peer.role), ("m1", &Role::Mirror));
    let parent = quic::peer(&dialled, &m1, Protocol::Wan).unwrap();
    assert_eq!((parent.name.as_str(), &parent.role), ("a1", &node()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_in_words() {
    let (a1, m1) = pair();
    let unknown = "no process or client of the topology has the peer's key";

    // A mirror that only its own topology names.
    let thief = identity(66, "m1");
    let own = directory(&[(&identity(1, "a1"), node()), (&thief, Role::Mirror)]);
    let thief = Credentials::new(&thief, own).unwrap();
    let refused = meet(&a1, &thief, &Tuning::default()).await.unwrap_err();
    assert!(refused.contains("server:") && refused.contains(unknown), "{refused}");
    assert!(refused.contains("client:"), "the client hears of it: {refused}");

    // A parent that only its own topology names.
    let impostor = identity(66, "a1");
    let own = directory(&[(&impostor, node()), (&identity(2, "m1"), Role::Mirror)]);
    let impostor = Credentials::new(&impostor, own).unwrap();
    let refused = meet(&impostor, &m1, &Tuning::default()).await.unwrap_err();
    assert!(refused.contains("client:") && refused.contains(unknown), "{refused}");

    // A node's key does not dial as a mirror.
    let a2 = identity(3, "a2");
    let everybody = directory(&[(&identity(1, "a1"), node()), (&a2, node())]);
    let a1 = Credentials::new(&identity(1, "a1"), everybody).unwrap();
    let belief = directory(&[(&identity(1, "a1"), node()), (&a2, Role::Mirror)]);
    let a2 = Credentials::new(&a2, belief).unwrap();
    let refused = meet(&a1, &a2, &Tuning::default()).await.unwrap_err();
    assert!(
        refused.contains("a2 is a node of ams: it may not speak the wan protocol"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_64_mib_gets_through_whatever_the_controller() {
    for congestion in [Congestion::Cubic, Congestion::Bbr] {
        let (a1, m1) = pair();
        let link = Link { rtt_ms: 1, bandwidth_mbps: 10_000 };
        let tuning = Tuning { link, congestion, ..Tuning::default() };
        let (accepted, dialled, _, _endpoints) = meet(&a1, &m1, &tuning).await.unwrap();
        let block: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
        let expected = block.clone();
        let send = async move {
            let mut stream = accepted.open_uni().await.unwrap();
            for _ in 0..64 {
                stream.write_all(&block).await.unwrap();
            }
            stream.finish().unwrap();
            stream.stopped().await.unwrap();
        };
        let receive = async move {
            let mut stream = dialled.accept_uni().await.unwrap();
            let mut found = vec![0; 1 << 20];
            for number in 0..64 {
                stream.read_exact(&mut found).await.unwrap();
                assert!(found == expected, "MiB {number}");
            }
            assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), None);
        };
        tokio::join!(send, receive);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_is_gone_is_noticed_within_the_idle_timeout() {
    let (a1, m1) = pair();
    let tuning = Tuning {
        keep_alive: Duration::from_millis(50),
        idle_timeout: Duration::from_millis(500),
        ..Tuning::default()
    };
    // A relay in the middle that is stopped: the packets of both ends go nowhere from then on.
    let listening = quic::server(loopback(), &a1, Protocol::Wan, &tuning).unwrap();
    let (_parent, parent) = watch::channel(listening.local_addr().unwrap());
    let (address, carry) = relay(parent).await;
    let dialling = quic::client(loopback(), &tuning).unwrap();
    let accept = async { listening.accept().await.unwrap().await.unwrap() };
    let dial = quic::connect(&dialling, &m1, Protocol::Wan, "a1", address, &tuning);
    let (accepted, dialled) = tokio::join!(accept, dial);
    let dialled = dialled.unwrap();
    carry.abort();
    let start = std::time::Instant::now();
    let (first, second) = tokio::join!(accepted.closed(), dialled.closed());
    for reason in [first, second] {
        assert!(matches!(reason, quinn::ConnectionError::TimedOut), "{reason}");
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// Carries packets between a child and whatever parent is there now. Where to dial it.
async fn relay(parent: watch::Receiver<SocketAddr>) -> (SocketAddr, JoinHandle<()>) {
    let relay = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let address = relay.local_addr().unwrap();
    let carry = tokio::spawn(async move {
        let mut buffer = vec![0; 65_536];
        let mut known = vec![*parent.borrow()];
        let mut child = None;
        loop {
            let (length, from) = relay.recv_from(&mut buffer).await.unwrap();
            let now = *parent.borrow();
            if !known.contains(&now) {
                known.push(now);
            }
            let to = match known.contains(&from) {
                true if from != now => continue,
                true => child,
                false => {
                    child = Some(from);
                    Some(now)
                }
            };
            if let Some(to) = to {
                _ = relay.send_to(&buffer[..length], to).await;
            }
        }
    });
    (address, carry)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parent_that_was_killed_and_is_back_is_noticed_at_once() {
    let (a1, m1) = pair();
    let tuning = Tuning {
        keep_alive: Duration::from_millis(50),
        idle_timeout: Duration::from_secs(60),
        ..Tuning::default()
    };
    let first = quic::server(loopback(), &a1, Protocol::Wan, &tuning).unwrap();
    let (move_parent, parent) = watch::channel(first.local_addr().unwrap());
    let (address, carry) = relay(parent).await;
    let dialling = quic::client(loopback(), &tuning).unwrap();
    let accept = async { first.accept().await.unwrap().await.unwrap() };
    let dial = quic::connect(&dialling, &m1, Protocol::Wan, "a1", address, &tuning);
    let (_accepted, dialled) = tokio::join!(accept, dial);
    let dialled = dialled.unwrap();
    // The next start of the same process has its place; the first hears and says nothing more.
    let second = quic::server(loopback(), &a1, Protocol::Wan, &tuning).unwrap();
    move_parent.send(second.local_addr().unwrap()).unwrap();
    let reason = tokio::time::timeout(Duration::from_secs(20), dialled.closed()).await;
    assert!(matches!(reason, Ok(quinn::ConnectionError::Reset)), "{reason:?}");
    carry.abort();
}
