//! Mixed versions: whoever greets with another version of a protocol is refused in words that name both, on each of the
//! three wires, and whoever was refused says so too. The greetings are made by hand, as docs/formats says.

use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tradewind_client::wire::{self, CallId, Hello, Kind, Rejected};
use tradewind_local::{MirrorPlan, OPERATOR, Plan};
use tradewind_tests::e2e::{LIMIT, POOL, Running, eventually};
use tradewind_topology::FabricKind;
use tradewind_transport::quic::{self, Tuning};
use tradewind_transport::tls::{Credentials, Protocol, server_name};
use tradewind_transport::{Directory, Identity};

/// The identity of a process or client of the deployment.
fn credentials(running: &Running, name: &str) -> Credentials {
    let key = running.deployment.dir().join("keys").join(format!("{name}.key"));
    let identity = Identity::load(name, &key).expect("a key");
    let directory = Directory::from_topology(running.deployment.topology()).expect("a directory");
    Credentials::new(&identity, Arc::new(directory)).expect("the topology names it")
}

fn address(running: &Running, name: &str, protocol: Protocol) -> std::net::SocketAddr {
    let process = running.deployment.topology().process(name).expect("a process");
    match protocol {
        Protocol::Group => process.ports().group(),
        Protocol::Client => process.ports().client(),
        Protocol::Wan => process.ports().wan(),
    }
}

fn wait_for_log(running: &Running, name: &str, words: &str) {
    eventually("said", || {
        let log = fs::read_to_string(running.deployment.log(name)).expect("a log");
        if log.contains(words) { Ok(()) } else { Err(format!("{words:?} in {log}")) }
    });
}

/// What comes until the other side closes, which it must do in time.
async fn to_the_end(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut heard = Vec::new();
    let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut heard)).await;
    match read.expect("it closes") {
        Ok(_) => {}
        // Closed without the farewell of TLS.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => panic!("{error}; heard {:?}", String::from_utf8_lossy(&heard)),
    }
    heard
}

/// A frame of the fabric's protocol: a hello of node 2 to node 0 in this version, without what a newer one may add.
fn group_hello(version: u16) -> Vec<u8> {
    let mut body = version.to_le_bytes().to_vec();
    body.extend(b"\x02\0\0\0");
    body.extend(99_u64.to_le_bytes());
    let mut frame = b"TF\x01\0".to_vec();
    frame.extend(u32::try_from(body.len()).expect("short").to_le_bytes());
    frame.extend([0; 8]);
    frame.extend(body);
    frame
}

/// A frame of the mirroring protocol: only its first bytes, which every version will have.
fn wan_frame(version: u8) -> Vec<u8> {
    let mut frame = b"TWwn".to_vec();
    frame.extend([version, 1, 0, 0]);
    frame.extend([0; 8]);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_version_is_refused_in_words_that_name_both() {
    let mut plan = Plan::one_site(3, 1);
    plan.sites[0].fabric = FabricKind::Tcp;
    let mut running = Running::start(plan);
    running.deployment.stop("ams-3").expect("it ends");

    // With the key of ams-3, somebody dials in version 2.
    let words =
        "a hello of version 2 of the fabric's protocol, this node speaks 1: upgrade the older one";
    let own = credentials(&running, "ams-3");
    let stream = TcpStream::connect(address(&running, "ams-1", Protocol::Group)).await;
    let connector = TlsConnector::from(own.client(Protocol::Group, "ams-1"));
    let mut stream =
        connector.connect(server_name(), stream.expect("it listens")).await.expect("TLS");
    stream.write_all(&group_hello(2)).await.expect("sent");
    let heard = to_the_end(&mut stream).await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains(words), "{heard}");

    // With the key of ams-1, whom the others dial, somebody answers in version 2.
    running.deployment.start("ams-3").expect("it starts");
    running.ready();
    running.deployment.stop("ams-1").expect("it ends");
    let own = credentials(&running, "ams-1");
    let listener = TcpListener::bind(address(&running, "ams-1", Protocol::Group)).await;
    let accepting = tokio::time::timeout(LIMIT, listener.as_ref().expect("it is free").accept());
    let (stream, _) = accepting.await.expect("they go on trying").expect("accepted");
    let acceptor = TlsAcceptor::from(own.server(Protocol::Group));
    let mut stream = acceptor.accept(stream).await.expect("TLS");
    let peer = own.peer(Protocol::Group, stream.get_ref().1).expect("a node of the site");
    stream.write_all(&group_hello(2)).await.expect("sent");
    let heard = to_the_end(&mut stream).await;
    let heard = String::from_utf8_lossy(&heard);
    assert!(heard.contains(words), "{heard}");
    wait_for_log(&running, &peer.name, words);

    // Nobody else was disturbed.
    drop((stream, listener));
    running.run(&["put", POOL, "k", "v"]).expect(0);
    running.deployment.start("ams-1").expect("it starts");
    running.ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_or_a_parent_of_another_version_is_refused_in_words_that_name_both() {
    let mut plan = Plan::one_site(1, 1);
    let (parents, pools) = (vec!["ams".into()], vec![POOL.into()]);
    plan.mirrors = vec![MirrorPlan { name: "relay".into(), region: "us".into(), parents, pools }];
    let mut running = Running::start(plan);
    running.run(&["put", POOL, "k", "v"]).expect(0);
    let read = ["get", POOL, "k", "--level", "local", "--endpoints", "relay", "--only"];
    eventually("mirrored", || match running.run(&read).code() {
        0 => Ok(()),
        code => Err(format!("exit code {code}")),
    });
    let words = "protocol version 2, this process speaks 1: upgrade the older one";
    let tuning = Tuning::default();

    // A child of version 2, with the relay's key.
    running.deployment.stop("relay").expect("it ends");
    let own = credentials(&running, "relay");
    let dialling = quic::client("127.0.0.1:0".parse().expect("an address"), &tuning);
    let dialling = dialling.expect("an endpoint");
    let parent = address(&running, "ams-1", Protocol::Wan);
    let connection = quic::connect(&dialling, &own, Protocol::Wan, "ams-1", parent, &tuning).await;
    let connection = connection.expect("connected");
    let (mut send, _receive) = connection.open_bi().await.expect("a stream");
    send.write_all(&wan_frame(2)).await.expect("sent");
    let closed = tokio::time::timeout(LIMIT, connection.closed()).await.expect("it closes");
    assert!(closed.to_string().contains(words), "{closed}");
    wait_for_log(&running, "ams-1", words);

    // A parent of version 2, with the key of the node: the mirror leaves it, and shows what it had.
    running.deployment.stop("ams-1").expect("it ends");
    let node = credentials(&running, "ams-1");
    let listening = quic::server(parent, &node, Protocol::Wan, &tuning).expect("it is free");
    running.deployment.start("relay").expect("it starts");
    let accepted = tokio::time::timeout(LIMIT, listening.accept()).await.expect("it dials");
    let connection = accepted.expect("open").await.expect("connected");
    let (mut send, _receive) = connection.accept_bi().await.expect("its control stream");
    send.write_all(&wan_frame(2)).await.expect("sent");
    wait_for_log(&running, "relay", &format!("left ams-1: {words}"));
    let found = running.run(&read).expect(0).stdout();
    assert_eq!(found.trim_end(), "v");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_or_a_server_of_another_version_is_refused_in_words_that_name_both() {
    let mut running = Running::start(Plan::one_site(1, 1));
    let server = address(&running, "ams-1", Protocol::Client);

    // A client that speaks 2 to 9.
    let operator = credentials(&running, OPERATOR);
    let connector = TlsConnector::from(operator.client(Protocol::Client, "ams-1"));
    let stream = TcpStream::connect(server).await.expect("it listens");
    let mut stream = connector.connect(server_name(), stream).await.expect("TLS");
    let hello = Hello { protocol_min: 2, protocol_max: 9, ..Hello::new("of another version") };
    let mut bytes = Vec::new();
    wire::encode(&mut bytes, Kind::Hello, CallId(0), &hello).expect("encoded");
    stream.write_all(&bytes).await.expect("sent");
    let heard = to_the_end(&mut stream).await;
    let (frame, used) = wire::split(&heard, heard.len()).expect("a frame").expect("a whole one");
    assert_eq!((frame.kind, used), (Kind::Rejected, heard.len()));
    let rejected: Rejected = wire::decode(&frame).expect("a reason");
    assert_eq!(rejected, Rejected::Protocol { min: 1, max: 1 });
    wait_for_log(&running, "ams-1", "the client speaks 2 to 9, this server 1");

    // A server that speaks 2 to 9, with the node's key; the client is the command line.
    running.deployment.stop("ams-1").expect("it ends");
    let acceptor = TlsAcceptor::from(credentials(&running, "ams-1").server(Protocol::Client));
    let listener = TcpListener::bind(server).await.expect("it is free");
    let serving = tokio::spawn(async move {
        let mut bytes = Vec::new();
        let rejected = Rejected::Protocol { min: 2, max: 9 };
        wire::encode(&mut bytes, Kind::Rejected, CallId(0), &rejected).expect("encoded");
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            let mut stream = acceptor.accept(stream).await.expect("TLS");
            stream.write_all(&bytes).await.expect("sent");
            // The client goes away as soon as it has read that, in whatever way.
            _ = stream.shutdown().await;
            _ = stream.read_to_end(&mut Vec::new()).await;
        }
    });
    let said = tokio::task::block_in_place(|| {
        running.run(&["get", POOL, "k", "--timeout", "2"]).expect(2).stderr()
    });
    serving.abort();
    let words = "the server speaks client protocol versions 2 to 9, this client 1: use a client of the same release";
    assert!(said.contains(words), "{said}");
}
