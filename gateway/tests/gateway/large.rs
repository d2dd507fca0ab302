//! Large requests share room: what comes beyond it waits, is told so, and is lost to nobody.

use crate::{
    protocol::Raw,
    support::{POOL, Server, Site, get, now},
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tradewind_client::{
    Client, Command, Condition, Config, Endpoint, Error, Reply,
    wire::{self, CallId, Hello, Kind, Read, Request},
};
use tradewind_gateway::Completions;
use tradewind_ledger::{KeyVersion, RequestId, RequestNumber};

/// The time for what must happen at last.
const LIMIT: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;
/// Room for two values of [`VALUE`] bytes, not for three.
const ROOM: usize = 8 * MIB;
const VALUE: usize = 3 * MIB;

fn put(key: &str) -> Command {
    let (key, value) = (key.as_bytes().to_vec(), vec![7; VALUE]);
    Command::Put { key, value, condition: Condition::Always }
}

/// Puts in the background.
fn putting(client: &Client, key: &str) -> tokio::task::JoinHandle<Result<Reply, Error>> {
    let (client, command) = (client.clone(), put(key));
    tokio::spawn(async move { client.execute(POOL, &command, None).await })
}

fn assert_first_write(reply: Result<Reply, Error>) {
    let reply = reply.expect("acknowledged");
    assert!(matches!(reply, Reply::Written { key_version: KeyVersion(1), .. }), "{reply:?}");
}

/// From now on replies are kept, so that what was submitted stays without an answer.
fn keep_replies(server: &Server) {
    *server.process.kept.lock() = Some(Vec::new());
}

fn kept(server: &Server) -> usize {
    server.process.kept.lock().as_ref().map_or(0, Vec::len)
}

async fn wait_until_kept(server: &Server, count: usize) {
    let wait = async {
        while kept(server) < count {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, wait).await.expect("submitted");
}

/// Sends the replies that were kept, and keeps none any more.
fn send_kept(server: &Server) {
    let kept = server.process.kept.lock().take().expect("replies are kept");
    let mut completions = Completions::default();
    for (to, reply) in kept {
        completions.push(to, Ok(reply));
    }
}

/// Bytes that large requests take, as `/metrics` tells.
async fn taken(server: &Server) -> usize {
    let metrics = get(server.http, "/metrics").await;
    let line =
        metrics.text().lines().find_map(|it| it.strip_prefix("tradewind_large_request_bytes "));
    line.expect("a figure").parse().expect("a number")
}

/// A client without the library that has said hello.
async fn raw(server: &Server) -> Raw {
    let mut raw = Raw::connect(server.client).await;
    raw.send(Kind::Hello, 0, &Hello::new("test")).await;
    assert_eq!(raw.receive().await.expect("an answer").0, Kind::Welcome);
    raw
}

/// A put as it goes over the wire.
fn frame(key: &str, number: u64) -> Vec<u8> {
    let command = put(key).encode();
    let session = tradewind_store::session_id(now(), 5);
    let request = RequestId { session, number: RequestNumber(number) };
    let pool = wire::PoolIndex(0);
    let write = wire::Write { pool, shard: 0, request, durability: None, command: &command };
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, Kind::Request, CallId(number), &Request::Write(write)).expect("fits");
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_beyond_the_room_for_them_wait_and_small_ones_do_not() {
    let site = Site::new(1);
    let server = site.node_with_room("a1", ROOM).await;
    let (first, second) = (server.connect().await, server.connect().await);
    let other = server.connect().await;
    other.put(POOL, b"small", b"1", Condition::Always).await.expect("written");
    keep_replies(&server);
    let two = [putting(&first, "a"), putting(&first, "b")];
    wait_until_kept(&server, 2).await;
    let third = putting(&second, "c");
    // A fourth one waits too, and is told again and again that the server is there.
    let mut fourth = raw(&server).await;
    let bytes = frame("d", 1);
    let (head, rest) = bytes.split_at(100);
    fourth.0.write_all(head).await.expect("sent");
    for _ in 0..5 {
        let (kind, ..) = timeout(LIMIT, fourth.receive()).await.expect("told").expect("open");
        assert_eq!(kind, Kind::Ping);
    }
    assert_eq!(kept(&server), 2, "no more than there is room for is taken");
    let held = taken(&server).await;
    assert!((2 * VALUE..=ROOM).contains(&held), "{held}");
    assert!(!third.is_finished());
    let read = other.get(POOL, b"small", Read::default()).await.expect("an answer");
    assert!(read.0.is_some(), "small requests are served meanwhile");

    send_kept(&server);
    for put in two.into_iter().chain([third]) {
        assert_first_write(timeout(LIMIT, put).await.expect("answered").expect("no panic"));
    }
    fourth.0.write_all(rest).await.expect("sent");
    let answered = async {
        loop {
            match fourth.receive().await.expect("open") {
                (Kind::Response, call, _) => return call,
                (kind, ..) => assert_eq!(kind, Kind::Ping),
            }
        }
    };
    assert_eq!(timeout(LIMIT, answered).await.expect("answered"), CallId(1));
    assert_eq!(taken(&server).await, 0, "all room is free again");
    let accepted = server.gateway.counters().accepted.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(accepted, 4, "nobody had to connect again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_longer_than_all_room_gets_all_of_it() {
    let site = Site::new(1);
    let server = site.node_with_room("a1", MIB).await;
    let client = server.connect().await;
    for put in [putting(&client, "a"), putting(&client, "b"), putting(&client, "c")] {
        assert_first_write(timeout(LIMIT, put).await.expect("answered").expect("no panic"));
    }
    assert_eq!(taken(&server).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gave_up_waiting_for_room_may_repeat_its_request() {
    let site = Site::new(1);
    let server = site.node_with_room("a1", ROOM).await;
    let first = server.connect().await;
    let config = Config { deadline: Duration::from_millis(300), ..Config::new(None) };
    let hasty = Client::connect(config, vec![server.endpoint()]).await.expect("a welcome");
    keep_replies(&server);
    let two = [putting(&first, "a"), putting(&first, "b")];
    wait_until_kept(&server, 2).await;
    let request = hasty.request_number();
    let given_up = hasty.execute_numbered(POOL, &put("c"), request).await;
    assert!(matches!(given_up, Err(Error::OutcomeUnknown { .. })), "{given_up:?}");
    assert_eq!(kept(&server), 2);
    send_kept(&server);
    for put in two {
        assert_first_write(timeout(LIMIT, put).await.expect("answered").expect("no panic"));
    }
    // Whether the first copy arrived meanwhile or not: it is written once.
    let patient = server.connect().await;
    for _ in 0..2 {
        assert_first_write(patient.execute_numbered(POOL, &put("c"), request).await);
    }
    let read = Read::default();
    let (revisions, ..) = patient.history(POOL, b"c", None, 9, read).await.expect("a history");
    assert_eq!(revisions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_goes_away_while_it_waits_for_room_leaves_none_taken() {
    let site = Site::new(1);
    let server = site.node_with_room("a1", ROOM).await;
    let first = server.connect().await;
    keep_replies(&server);
    let two = [putting(&first, "a"), putting(&first, "b")];
    wait_until_kept(&server, 2).await;
    let mut gone = raw(&server).await;
    gone.0.write_all(&frame("c", 1)[..100]).await.expect("sent");
    assert_eq!(gone.receive().await.expect("open").0, Kind::Ping);
    drop(gone);
    send_kept(&server);
    for put in two {
        assert_first_write(timeout(LIMIT, put).await.expect("answered").expect("no panic"));
    }
    let freed = async {
        while taken(&server).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, freed).await.expect("nobody takes room any more");
    assert_first_write(putting(&first, "d").await.expect("no panic"));
}

/// Passes on what comes from a client slowly, and everything that goes to it.
async fn slow_link(to: std::net::SocketAddr) -> std::net::SocketAddr {
    const PIECE: usize = 64 << 10;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(to).await.expect("a listener");
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                (client.into_split(), server.into_split());
            tokio::spawn(async move {
                let mut piece = vec![0; PIECE];
                while let Ok(count @ 1..) = from_client.read(&mut piece).await {
                    // What the link takes, not what anybody waits for.
                    sleep(Duration::from_micros(count as u64)).await;
                    if to_server.write_all(&piece[..count]).await.is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_request_that_comes_slowly_is_not_given_up() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let address = slow_link(server.client).await.to_string();
    let endpoint = Endpoint { name: "a1".into(), address };
    let client = Client::connect(Config::new(None), vec![endpoint]).await.expect("a welcome");
    // More than three seconds on this link: a client that hears nothing gives up after two.
    assert_first_write(putting(&client, "slow").await.expect("no panic"));
    assert_eq!(server.gateway.counters().accepted.load(std::sync::atomic::Ordering::Relaxed), 1);
}
