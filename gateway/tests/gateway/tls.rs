//! Who may connect, and what they may do.

use crate::support::{POOL, Server, Site};
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tradewind_client::{
    Client, Condition, Config, Endpoint, Error, TlsFor,
    wire::{Access, Fault, Incarnation, Read, Role},
};
use tradewind_gateway::Security;
use tradewind_topology::{Right, Rights, Role as PeerRole};
use tradewind_transport::{
    Directory, Identity, Peer,
    tls::{Credentials, Protocol, server_name},
};

fn identity(name: &str) -> Identity {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    Identity::from_seed(name, &seed)
}

fn directory() -> Arc<Directory> {
    let on = |right| Rights::Pools(BTreeMap::from([(POOL.parse().expect("a name"), right)]));
    let peers = [
        ("a1", PeerRole::Node("ams".parse().expect("a name")), Rights::Pools(BTreeMap::new())),
        ("nyc-1", PeerRole::Mirror, Rights::Pools(BTreeMap::new())),
        ("writer", PeerRole::Client, Rights::All(Right::Write)),
        ("reader", PeerRole::Client, on(Right::Read)),
        ("ops", PeerRole::Client, Rights::All(Right::Admin)),
        ("ops-of-a-pool", PeerRole::Client, on(Right::Admin)),
        ("stranger", PeerRole::Client, Rights::Pools(BTreeMap::new())),
    ];
    let peers = peers.map(|(name, role, rights)| {
        (identity(name).public_key(), Peer { name: name.to_owned(), role, rights })
    });
    Arc::new(Directory::new(peers).expect("keys of their own"))
}

pub(crate) fn credentials(name: &str) -> Credentials {
    Credentials::new(&identity(name), directory()).expect("named")
}

async fn server() -> Server {
    let role = Role::Node { site: "ams".to_owned() };
    Site::new(1).start("a1", role, Security::Tls(credentials("a1"))).await
}

pub(crate) fn config(credentials: Credentials) -> Config {
    let tls: TlsFor =
        Arc::new(move |server| (credentials.client(Protocol::Client, server), server_name()));
    let mut config = Config::new(Some(tls));
    config.deadline = Duration::from_millis(500);
    config
}

#[tokio::test]
async fn a_client_does_what_the_topology_says_and_nothing_else() {
    let server = server().await;
    let connect = async |name| {
        let endpoints = vec![server.endpoint()];
        Client::connect(config(credentials(name)), endpoints).await.expect("a welcome")
    };
    let writer = connect("writer").await;
    writer.put(POOL, b"k", b"v", Condition::Always).await.expect("it may");
    let reader = connect("reader").await;
    let (item, _) = reader.get(POOL, b"k", Read::default()).await.expect("it may");
    assert!(item.is_some());
    let error = reader.put(POOL, b"k", b"w", Condition::Always).await.expect_err("it may not");
    let Error::Fault(Fault::Forbidden { client, access, .. }) = error else { panic!("{error:?}") };
    assert_eq!((client.as_str(), access), ("reader", Access::Write));
    let stranger = connect("stranger").await;
    let error = stranger.get(POOL, b"k", Read::default()).await.expect_err("it may not");
    assert!(matches!(error, Error::Fault(Fault::Forbidden { .. })), "{error:?}");
}

#[tokio::test]
async fn an_administrator_restarts_the_start_that_was_meant_and_nobody_else_does() {
    let server = server().await;
    let restart = async |name, incarnation| {
        let endpoints = vec![server.endpoint()];
        let client = Client::connect(config(credentials(name)), endpoints).await;
        client.expect("a welcome").restart(Incarnation(incarnation)).await
    };
    let begun = || server.process.restart.begun.load(Ordering::Relaxed);
    for name in ["writer", "ops-of-a-pool", "stranger"] {
        let error = restart(name, 7).await.expect_err("it may not");
        let Error::Fault(Fault::NotAdministrator { client, .. }) = error else {
            panic!("{error:?}")
        };
        assert_eq!(client, name);
    }
    *server.process.restart.refused.lock() = Some("no such file".into());
    let error = restart("ops", 7).await.expect_err("it cannot");
    assert!(error.to_string().contains("no such file"), "{error}");
    *server.process.restart.refused.lock() = None;
    restart("ops", 6).await.expect("that start has ended already");
    let error = restart("ops", 8).await.expect_err("no such start yet");
    assert!(matches!(error, Error::Fault(Fault::RestartRefused { .. })), "{error:?}");
    assert_eq!(begun(), 0);
    restart("ops", 7).await.expect("it may");
    // The answer comes first, and the restart right after it.
    while begun() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(begun(), 1);
}

#[tokio::test]
async fn unknown_keys_other_roles_plain_text_and_other_servers_are_refused() {
    let server = server().await;
    let endpoint = server.endpoint();
    let connect = async |config: Config, endpoint: Endpoint| {
        Client::connect(config, vec![endpoint]).await.expect_err("refused").to_string()
    };
    // A key that the server's topology does not name: its holder's own topology does.
    let thief = Identity::from_seed("writer", &[99; 32]);
    let peer =
        |name: &str, role| Peer { name: name.to_owned(), role, rights: Rights::All(Right::Admin) };
    let own = Directory::new([
        (thief.public_key(), peer("writer", PeerRole::Client)),
        (identity("a1").public_key(), peer("a1", PeerRole::Node("ams".parse().expect("a name")))),
    ]);
    let thief = Credentials::new(&thief, Arc::new(own.expect("two keys"))).expect("named");
    connect(config(thief), endpoint.clone()).await;
    // A mirror may not speak the client protocol, nor anybody without TLS.
    connect(config(credentials("nyc-1")), endpoint.clone()).await;
    let mut plain = Config::new(None);
    plain.deadline = Duration::from_millis(500);
    connect(plain, endpoint.clone()).await;
    // The server is a1, not the one that was dialled.
    let other = Endpoint { name: "nyc-1".to_owned(), ..endpoint };
    let error = connect(config(credentials("writer")), other).await;
    assert!(error.contains("a1"), "{error}");
}
