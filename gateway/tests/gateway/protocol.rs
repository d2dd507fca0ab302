//! The client library against the gateway, over real sockets.

use crate::support::{POOL, Site, now};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use tradewind_client::{
    Client, Command, Compare, Condition, Config, Endpoint, Error, ItemValue, Range, Refusal, Reply,
    Test, TxnOp, TxnResult,
    wire::{self, At, CallId, Fault, Hello, Kind, Level, Read, Rejected, Request, Role},
};
use tradewind_gateway::Security;
use tradewind_ledger::{KeyVersion, RequestId, RequestNumber, SessionId, Version};

fn version(reply: &Reply) -> Version {
    match reply {
        Reply::Written { version, .. } => *version,
        other => panic!("not written: {other:?}"),
    }
}

async fn value(client: &Client, key: &[u8], read: Read) -> Option<Vec<u8>> {
    let (item, _) = client.get(POOL, key, read).await.expect("an answer");
    item.map(|item| item.bytes().expect("inline over the wire").to_vec())
}

#[tokio::test]
async fn a_client_puts_gets_deletes_lists_and_looks_back() {
    let site = Site::new(3);
    let server = site.node("a1").await;
    let client = server.connect().await;
    assert_eq!(client.welcome().deployment, "atlas");

    let first = client.put(POOL, b"k", b"1", Condition::Absent).await.expect("written");
    let again = client.put(POOL, b"k", b"2", Condition::Absent).await.expect("answered");
    let Reply::Conflict { current: Some(current) } = again else { panic!("{again:?}") };
    assert_eq!(current.version, version(&first));
    let condition = Condition::Version(current.version);
    let second = client.put(POOL, b"k", b"2", condition).await.expect("written");
    let large = vec![9; 100_000];
    let third = client.put(POOL, b"k", &large, Condition::Always).await.expect("written");
    client.delete(POOL, b"k", Condition::Always).await.expect("deleted");
    let nothing = client.delete(POOL, b"k", Condition::Always).await.expect("answered");
    assert_eq!(nothing, Reply::Absent);

    let at = |reply: &Reply| Read { at: At::Version(version(reply)), ..Read::default() };
    assert_eq!(value(&client, b"k", Read::default()).await, None);
    assert_eq!(value(&client, b"k", at(&first)).await, Some(b"1".to_vec()));
    assert_eq!(value(&client, b"k", at(&second)).await, Some(b"2".to_vec()));
    assert_eq!(value(&client, b"k", at(&third)).await, Some(large.clone()));
    let Reply::Written { hlc, .. } = second else { unreachable!() };
    let then = Read { at: At::Time(hlc), ..Read::default() };
    assert_eq!(value(&client, b"k", then).await, Some(b"2".to_vec()));

    let (changes, more, _) =
        client.history(POOL, b"k", None, 3, Read::default()).await.expect("a history");
    assert!(more);
    assert_eq!(changes.iter().map(|r| r.key_version.0).collect::<Vec<_>>(), [4, 3, 2]);
    assert!(changes[0].deleted);
    let before = Some(changes[2].version);
    let (changes, more, _) =
        client.history(POOL, b"k", before, 3, Read::default()).await.expect("a history");
    assert_eq!((changes.len(), changes[0].version, more), (1, version(&first), false));

    // What the store has let go of is found in the ledger.
    for shard in 0..3 {
        site.shard(shard).compact();
    }
    assert_eq!(value(&client, b"k", at(&first)).await, Some(b"1".to_vec()));
    assert_eq!(value(&client, b"k", at(&third)).await, Some(large.clone()));
    assert_eq!(value(&client, b"k", then).await, Some(b"2".to_vec()));
    let (changes, more, _) =
        client.history(POOL, b"k", None, 4, Read::default()).await.expect("a history");
    assert_eq!(changes.iter().map(|r| r.key_version.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    assert!(!more && changes[0].deleted && changes[3].version == version(&first));
    let (changes, more, _) =
        client.history(POOL, b"k", before, 3, Read::default()).await.expect("a history");
    assert_eq!((changes.len(), changes[0].version, more), (1, version(&first), false));
    for n in 0..50 {
        let key = format!("list/{n:02}").into_bytes();
        client.put(POOL, &key, &large[..n], Condition::Always).await.expect("written");
    }
    let mut keys = Vec::new();
    let mut after: Option<Vec<u8>> = None;
    loop {
        let range = Range { prefix: b"list/", after: after.as_deref(), limit: 7, values: true };
        let page = client.list(POOL, range, Read::default()).await.expect("a page");
        assert_eq!(page.as_of.len(), 3);
        keys.extend(page.items.into_iter().map(|listed| {
            let ItemValue::Inline(value) = listed.item.value else { panic!("not inline") };
            (listed.key, value.len())
        }));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let due: Vec<_> = (0..50).map(|n| (format!("list/{n:02}").into_bytes(), n)).collect();
    assert_eq!(keys, due);
    let status = client.status().await.expect("a status");
    assert!(status.contains("\"state\":\"serving\""), "{status}");
}

#[tokio::test]
async fn a_transaction_compares_reads_and_writes_values_of_any_length() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let client = server.connect().await;
    let large = vec![3; 40_000];
    client.put(POOL, b"large", &large, Condition::Always).await.expect("written");
    let compare = vec![
        Compare { key: b"large".to_vec(), test: Test::Value(large.clone()) },
        Compare { key: b"new".to_vec(), test: Test::Exists(false) },
    ];
    let then = vec![
        TxnOp::Get { key: b"large".to_vec() },
        TxnOp::Put { key: b"new".to_vec(), value: b"1".to_vec() },
        TxnOp::Delete { key: b"large".to_vec() },
    ];
    let otherwise = vec![TxnOp::Get { key: b"new".to_vec() }];
    let txn = || client.txn(POOL, compare.clone(), then.clone(), otherwise.clone());
    let Reply::Txn { succeeded: true, written: Some(_), results } = txn().await.expect("ran")
    else {
        panic!("it holds")
    };
    let TxnResult::Read(Some(item)) = &results[0] else { panic!("{results:?}") };
    assert_eq!(item.bytes().map(|bytes| bytes.to_vec()), Some(large));
    assert_eq!(results[1], TxnResult::Written { key_version: KeyVersion(1) });
    let Reply::Txn { succeeded: false, written: None, results } = txn().await.expect("ran") else {
        panic!("it no longer holds")
    };
    assert!(matches!(&results[0], TxnResult::Read(Some(item)) if item.bytes().is_some()));
}

#[tokio::test]
async fn a_transaction_over_shards_is_refused_before_it_is_sent() {
    let site = Site::new(4);
    let client = site.node("a1").await.connect().await;
    let put = |key: &[u8]| TxnOp::Put { key: key.to_vec(), value: vec![] };
    let keys: Vec<_> = (0..9_u8).map(|n| put(&[n])).collect();
    let error = client.txn(POOL, vec![], keys, vec![]).await.expect_err("different shards");
    assert!(error.to_string().contains("order/{alice}/1"), "{error}");
}

#[tokio::test]
async fn many_requests_at_a_time_are_each_executed_once() {
    let site = Site::new(2);
    let server = site.node("a1").await;
    let client = server.connect().await;
    let mut tasks = JoinSet::new();
    for n in 0..2000_u32 {
        let client = client.clone();
        tasks.spawn(async move {
            let key = (n % 100).to_be_bytes();
            client.put(POOL, &key, &n.to_be_bytes(), Condition::Always).await
        });
    }
    while let Some(reply) = tasks.join_next().await {
        version(&reply.expect("no panic").expect("written"));
    }
    let mut changes = 0;
    for n in 0..100_u32 {
        let (item, _) = client.get(POOL, &n.to_be_bytes(), Read::default()).await.expect("there");
        changes += item.expect("there").key_version.0;
    }
    assert_eq!(changes, 2000);
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_asked_for_at_another_node_and_executed_once() {
    let site = Site::new(1);
    let (first, second) = (site.node("a1").await, site.node("a2").await);
    let client = first.connect().await;
    *first.process.kept.lock() = Some(Vec::new());
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.put(POOL, b"k", b"v", Condition::Absent).await }
    });
    // It is executed, as a reader sees, but its reply never leaves the first node.
    let reader = second.connect().await;
    let genesis = Version(1);
    let written = Read { min_version: Some(genesis), wait_ms: 10_000, ..Read::default() };
    assert_eq!(value(&reader, b"k", written).await, Some(b"v".to_vec()));
    first.gateway.stop().await;
    let reply = writing.await.expect("no panic").expect("answered by the second node");
    assert!(matches!(
        reply,
        Reply::Written { version: Version(1), key_version: KeyVersion(1), .. }
    ));
    // The client goes on with the second node.
    client.put(POOL, b"k", b"w", Condition::Always).await.expect("written");
    let (item, _) = client.get(POOL, b"k", Read::default()).await.expect("an answer");
    assert_eq!(item.expect("there").key_version, KeyVersion(2));
}

#[tokio::test]
async fn without_any_node_the_client_says_whether_a_write_may_have_happened() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let mut config = Config::new(None);
    config.deadline = Duration::from_millis(300);
    let client = Client::connect(config, vec![server.endpoint()]).await.expect("a welcome");

    *server.process.fault.lock() = Some("node a3 is missing".to_owned());
    let error = client.put(POOL, b"k", b"v", Condition::Always).await.expect_err("stalled");
    assert!(matches!(error, Error::NotExecuted { .. }), "{error:?}");
    assert!(error.to_string().contains("node a3 is missing"), "{error}");

    *server.process.fault.lock() = None;
    *server.process.kept.lock() = Some(Vec::new());
    // Each has its own deadline, and one timer watches over both.
    let (first, second) = tokio::join!(
        client.put(POOL, b"k", b"v", Condition::Always),
        client.put(POOL, b"l", b"v", Condition::Always),
    );
    for error in [first.expect_err("no reply"), second.expect_err("no reply")] {
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error:?}");
    }

    server.gateway.stop().await;
    let error = client.put(POOL, b"k", b"v", Condition::Always).await.expect_err("gone");
    assert!(matches!(error, Error::NotExecuted { .. } | Error::OutcomeUnknown { .. }), "{error:?}");
}

#[tokio::test]
async fn a_mirror_answers_reads_and_names_the_home_site_to_writers() {
    let site = Site::new(1);
    let node = site.node("a1").await;
    let mirror = site.start("nyc-1", Role::Mirror, Security::Plain).await;
    let writer = node.connect().await;
    let written = writer.put(POOL, b"k", b"v", Condition::Always).await.expect("written");
    let reader = mirror.connect().await;
    let read = Read { min_version: Some(version(&written)), wait_ms: 1000, ..Read::default() };
    assert_eq!(value(&reader, b"k", read).await, Some(b"v".to_vec()));
    let error = reader.put(POOL, b"k", b"v", Condition::Always).await.expect_err("read only");
    let Error::Fault(Fault::ReadOnly { home, .. }) = error else { panic!("{error:?}") };
    assert_eq!(home, "ams");
}

#[tokio::test]
async fn a_read_waits_for_what_it_wants_or_says_what_is_missing() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let client = server.connect().await;
    let fault = |result: Result<_, Error>| match result {
        Err(Error::Fault(fault)) => fault,
        other => panic!("{other:?}"),
    };
    let far = Read { min_version: Some(Version(9)), ..Read::default() };
    let missing = fault(client.get(POOL, b"k", far).await.map(|_| ()));
    assert_eq!(missing, Fault::NotYet { wanted: Version(9), readable: Version(1) });
    let later = Read { at: At::Time(now()), ..Read::default() };
    assert!(matches!(
        fault(client.get(POOL, b"k", later).await.map(|_| ())),
        Fault::TimeNotYet { .. }
    ));
    site.shard(0).set_age(Duration::from_secs(3));
    let fresh = Read { max_staleness_ms: Some(2000), ..Read::default() };
    let stale = fault(client.get(POOL, b"k", fresh).await.map(|_| ()));
    assert_eq!(stale, Fault::TooStale { age_ms: 3000, allowed_ms: 2000 });

    let waiting = tokio::spawn({
        let client = client.clone();
        let next = Read { min_version: Some(Version(1)), wait_ms: 30_000, ..Read::default() };
        async move { value(&client, b"k", next).await }
    });
    client.put(POOL, b"k", b"v", Condition::Always).await.expect("written");
    assert_eq!(waiting.await.expect("no panic"), Some(b"v".to_vec()));
    let linearizable = Read { level: Level::Linearizable, ..Read::default() };
    assert_eq!(value(&client, b"k", linearizable).await, Some(b"v".to_vec()));
}

/// A connection that speaks the protocol by hand.
pub(crate) struct Raw(pub(crate) TcpStream, Vec<u8>);

impl Raw {
    pub(crate) async fn connect(address: std::net::SocketAddr) -> Self {
        Self(TcpStream::connect(address).await.expect("a listener"), Vec::new())
    }

    pub(crate) async fn send(&mut self, kind: Kind, call: u64, message: &impl serde::Serialize) {
        let mut bytes = Vec::new();
        wire::encode(&mut bytes, kind, CallId(call), message).expect("short");
        self.0.write_all(&bytes).await.expect("sent");
    }

    /// The next frame; `None` when the server has closed.
    pub(crate) async fn receive(&mut self) -> Option<(Kind, CallId, Vec<u8>)> {
        loop {
            if let Some((frame, used)) = wire::split(&self.1, wire::MAX_FRAME).expect("a frame") {
                let found = (frame.kind, frame.call, frame.body.to_vec());
                self.1.drain(..used);
                return Some(found);
            }
            if self.0.read_buf(&mut self.1).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn rejected(&mut self) -> Rejected {
        let (kind, _, body) = self.receive().await.expect("a farewell");
        assert_eq!(kind, Kind::Rejected);
        let (rejected, rest) = postcard::take_from_bytes(&body).expect("a reason");
        assert!(rest.is_empty());
        assert_eq!(self.receive().await, None, "closed after it");
        rejected
    }
}

#[tokio::test]
async fn what_is_not_the_protocol_is_closed_with_a_reason() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let frames: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        &[0; 13],
        &[9, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0],
        &[9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0],
        &[10, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for bytes in frames {
        let mut raw = Raw::connect(server.client).await;
        raw.0.write_all(bytes).await.expect("sent");
        assert!(matches!(raw.rejected().await, Rejected::Malformed(_)), "{bytes:?}");
    }
    let mut raw = Raw::connect(server.client).await;
    let hello = Hello { protocol_min: 2, protocol_max: 9, ..Hello::new("test") };
    raw.send(Kind::Hello, 0, &hello).await;
    assert_eq!(raw.rejected().await, Rejected::Protocol { min: 1, max: 1 });

    // After the welcome: an over-long frame is refused by its length alone, and so are trailing bytes.
    for bytes in [
        &[255, 255, 255, 255, 16, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[11, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4],
    ] {
        let mut raw = Raw::connect(server.client).await;
        raw.send(Kind::Hello, 0, &Hello::new("test")).await;
        assert_eq!(raw.receive().await.expect("a welcome").0, Kind::Welcome);
        raw.0.write_all(bytes).await.expect("sent");
        assert!(matches!(raw.rejected().await, Rejected::Malformed(_)));
    }
}

#[tokio::test]
async fn requests_are_answered_by_call_even_if_the_request_is_wrong() {
    let site = Site::new(2);
    let server = site.node("a1").await;
    let mut raw = Raw::connect(server.client).await;
    raw.send(Kind::Hello, 0, &Hello::new("test")).await;
    raw.receive().await.expect("a welcome");
    raw.send(Kind::Ping, 0, &()).await;
    assert_eq!(raw.receive().await.expect("a pong").0, Kind::Pong);
    let write = |pool, shard, command: &Command| {
        let command = command.encode();
        let request = RequestId { session: SessionId(1 << 64), number: RequestNumber(1) };
        let pool = wire::PoolIndex(pool);
        let write = wire::Write { pool, shard, request, durability: None, command: &command };
        postcard::to_allocvec(&Request::Write(write)).expect("encodes")
    };
    let put = Command::Put { key: b"a".to_vec(), value: vec![], condition: Condition::Always };
    let shard = put.shard(2).expect("one key");
    let long = Command::Put { key: vec![0; 5000], value: vec![], condition: Condition::Always };
    for (call, body) in [
        (7, write(5, shard, &put)),
        (8, write(0, 1 - shard, &put)),
        (9, write(0, shard, &long)),
        (10, write(0, shard, &put)),
    ] {
        let mut bytes = (9 + body.len() as u32).to_le_bytes().to_vec();
        bytes.push(Kind::Request as u8);
        bytes.extend(u64::to_le_bytes(call));
        bytes.extend(body);
        raw.0.write_all(&bytes).await.expect("sent");
    }
    let mut answers = Vec::new();
    for _ in 0..4 {
        let (_, call, body) = raw.receive().await.expect("a response");
        let response: wire::Response = postcard::from_bytes(&body).expect("a response");
        answers.push((call.0, response));
    }
    answers.sort_by_key(|(call, _)| *call);
    assert!(matches!(answers[0], (7, Err(Fault::NoSuchPool { .. }))), "{answers:?}");
    assert!(matches!(answers[1], (8, Err(Fault::WrongShard { .. }))), "{answers:?}");
    assert!(matches!(answers[2], (9, Err(Fault::Command(_)))), "{answers:?}");
    assert!(
        matches!(answers[3], (10, Ok(wire::Answer::Reply(Reply::Written { .. })))),
        "{answers:?}"
    );
}

#[tokio::test]
async fn one_request_number_is_one_command() {
    let site = Site::new(1);
    let shard = site.shard(0);
    let put = |value: &[u8]| Command::Put {
        key: b"k".to_vec(),
        value: value.to_vec(),
        condition: Condition::Always,
    };
    let session = tradewind_store::session_id(now(), 9);
    let number = RequestNumber(1);
    let server = site.node("a1").await;
    let mut raw = Raw::connect(server.client).await;
    raw.send(Kind::Hello, 0, &Hello::new("test")).await;
    raw.receive().await.expect("a welcome");
    for (call, value) in [(1, b"1"), (2, b"1"), (3, b"2")] {
        let command = put(value).encode();
        let request = RequestId { session, number };
        let pool = wire::PoolIndex(0);
        let write = wire::Write { pool, shard: 0, request, durability: None, command: &command };
        raw.send(Kind::Request, call, &Request::Write(write)).await;
    }
    let mut replies = Vec::new();
    for _ in 0..3 {
        let (_, _, body) = raw.receive().await.expect("a response");
        let response: wire::Response = postcard::from_bytes(&body).expect("a response");
        replies.push(response.expect("a reply"));
    }
    assert_eq!(replies[0], replies[1]);
    let version = Version(1);
    let refused = Refusal::OtherBody { number, version };
    assert_eq!(replies[2], wire::Answer::Reply(Reply::Refused(refused)));
    let _ = shard;
}

#[tokio::test]
async fn connections_beyond_the_most_are_told_so() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(server.connect().await);
    }
    let mut raw = Raw::connect(server.client).await;
    raw.send(Kind::Hello, 0, &Hello::new("test")).await;
    assert_eq!(raw.rejected().await, Rejected::Full(4));
    drop(kept);
    // A slot is free as soon as the server has seen one of them go.
    let client = server.connect().await;
    client.status().await.expect("a status");
}

/// Byte after byte, and never a whole hello: each is a sign of life, and none of them buys more time.
#[tokio::test]
async fn a_hello_that_drips_in_is_cut_off_and_others_are_served_meanwhile() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let mut raw = Raw::connect(server.client).await;
    let mut ended = false;
    // A frame that promises 200 bytes.
    for byte in [200, 0, 0, 0, 1].into_iter().chain([0; 100]) {
        ended = raw.0.write_all(&[byte]).await.is_err();
        let mut answer = [0; 1];
        let read = raw.0.read(&mut answer);
        ended |= tokio::time::timeout(Duration::from_millis(500), read).await.is_ok();
        if ended {
            break;
        }
        server.connect().await.status().await.expect("a status");
    }
    assert!(ended, "50 s, and it still listens");
}

#[tokio::test]
async fn a_reader_that_takes_no_answers_cannot_make_the_server_keep_them_all() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let value = vec![1; 30_000];
    let command = Command::Put { key: b"k".to_vec(), value, condition: Condition::Always };
    site.shard(0).write(1, command);
    let mut raw = Raw::connect(server.client).await;
    raw.send(Kind::Hello, 0, &Hello::new("test")).await;
    let get = wire::Get { pool: wire::PoolIndex(0), key: b"k", read: Read::default() };
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, Kind::Request, CallId(1), &Request::Get(get)).expect("short");
    let many = bytes.repeat(10_000);
    // Far more answers than the server keeps: it stops taking requests, so that these can no longer be sent.
    let (_, mut writing) = raw.0.split();
    let mut sent = 0;
    loop {
        let send = writing.write(&many[sent % many.len()..]);
        match tokio::time::timeout(Duration::from_secs(2), send).await {
            Ok(count) => sent += count.expect("still open"),
            Err(_) => break,
        }
        assert!(sent < 1 << 30, "the server takes whatever is sent");
    }
    // Others are served meanwhile.
    server.connect().await.status().await.expect("a status");
}

#[tokio::test]
async fn a_second_life_of_the_same_server_is_found_again() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let client = server.connect().await;
    client.put(POOL, b"k", b"1", Condition::Always).await.expect("written");
    let (address, process) = (server.client, Arc::clone(&server.process));
    server.gateway.stop().await;
    let writing = tokio::spawn({
        let client = client.clone();
        async move { client.put(POOL, b"k", b"2", Condition::Always).await }
    });
    let listener = loop {
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let options = tradewind_gateway::Options {
        client: listener,
        security: Security::Plain,
        http: None,
        connections_max: 4,
        large_bytes: tradewind_gateway::Options::LARGE_BYTES,
        restart: None,
    };
    let _gateway = tradewind_gateway::Gateway::start(process, options).expect("started");
    version(&writing.await.expect("no panic").expect("written after a while"));
}

#[tokio::test]
async fn an_answer_right_before_a_farewell_is_not_lost() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let serving = async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let (mut input, mut welcomed) = (Vec::new(), false);
        loop {
            stream.read_buf(&mut input).await.expect("a frame");
            let Some((frame, used)) = wire::split(&input, wire::MAX_FRAME).expect("sound") else {
                continue;
            };
            let call = frame.call;
            input.drain(..used);
            let mut output = Vec::new();
            if !welcomed {
                wire::encode(&mut output, Kind::Welcome, call, &bare_welcome()).expect("short");
                stream.write_all(&output).await.expect("sent");
                welcomed = true;
                continue;
            }
            let response: wire::Response = Ok(wire::Answer::Status("{}".into()));
            wire::encode(&mut output, Kind::Response, call, &response).expect("short");
            wire::encode(&mut output, Kind::Rejected, CallId(0), &Rejected::ShuttingDown)
                .expect("short");
            // Both in one write, so that the client reads them at once; and there is no second chance.
            stream.write_all(&output).await.expect("sent");
            return;
        }
    };
    let server = tokio::spawn(serving);
    let endpoint = Endpoint { name: "a1".into(), address };
    let client = Client::connect(Config::new(None), vec![endpoint]).await.expect("a welcome");
    assert_eq!(client.status().await.expect("an answer"), "{}");
    server.await.expect("no panic");
}

fn bare_welcome() -> wire::Welcome {
    wire::Welcome {
        protocol: wire::PROTOCOL,
        deployment: "atlas".into(),
        server: "a1".into(),
        role: Role::Mirror,
        now: tradewind_ledger::Hlc(1),
        in_flight_max: 1,
        nodes: vec![],
        pools: vec![],
    }
}
