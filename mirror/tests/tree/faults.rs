//! Parents that lie, and sites that fork.

use std::{fs, sync::Arc};

use quinn::{Connection, Endpoint, RecvStream};
use tokio::sync::watch;
use tradewind_gateway::Backend;
use tradewind_ledger::{Policy, Version};
use tradewind_transport::{
    quic::{self, Tuning},
    tls::Protocol,
};
use tradewind_wan::protocol::wire::{
    Accept, Batch, BulkHeader, ChildMessage, HEADER_BYTES, Header, Hello, ParentMessage, Position,
    RefuseReason, Welcome,
};

use crate::deployment::{Deployment, Grower, PATIENCE, Site, shows, stop, until};

async fn message<T>(
    stream: &mut RecvStream,
    decode: impl Fn(&Header, &[u8]) -> Result<T, tradewind_wan::protocol::wire::WireError>,
) -> Option<T> {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).await.ok()?;
    let header = Header::decode(&header).unwrap();
    let mut payload = vec![0; header.length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(decode(&header, &payload).unwrap())
}

/// A node that holds the site's real key and sends each child what `lie` makes of an honest batch.
struct Liar {
    endpoint: Endpoint,
    children: watch::Receiver<u64>,
}

fn liar(
    deployment: &Deployment,
    name: &str,
    ledger: &Grower,
    lie: impl Fn(Batch) -> Batch + Send + Sync + 'static,
) -> Liar {
    let credentials = deployment.credentials(name);
    let address = deployment.topology.process(name).unwrap().ports().wan();
    let endpoint = quic::server(address, &credentials, Protocol::Wan, &Tuning::default()).unwrap();
    let head = ledger.heads.borrow().clone().unwrap();
    let entries = ledger.reader.entries(Version(0), Version(50), usize::MAX).unwrap();
    let id = ledger.genesis.ledger.clone();
    let proof =
        |size| tradewind_ledger::tree::consistency_proof(&ledger.reader, size, head.size).unwrap();
    let honest =
        Batch::pack(id.clone(), Version(0), &entries, head.claim(Version(50), proof(Version(50))));
    let accept =
        Accept { ledger: id, size: head.size, claim: Some(head.claim(Version(0), vec![])) };
    let (told, children) = watch::channel(0);
    let (accepting, name) = (endpoint.clone(), name.to_owned());
    let lie = Arc::new(lie);
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let (lie, honest) = (Arc::clone(&lie), honest.clone());
            let (accept, name, told) = (accept.clone(), name.clone(), told.clone());
            tokio::spawn(async move {
                let connection: Connection = incoming.await.unwrap();
                let (mut send, mut receive) = connection.accept_bi().await.unwrap();
                let path = Some(vec![name.clone(), "ams".to_owned()]);
                let welcome = ParentMessage::Welcome(Welcome { name, path });
                _ = message(&mut receive, ChildMessage::decode).await;
                _ = send.write_all(&welcome.encode()).await;
                _ = send.write_all(&ParentMessage::Accept(accept).encode()).await;
                while let Some(said) = message(&mut receive, ChildMessage::decode).await {
                    if matches!(said, ChildMessage::Grant(_)) {
                        let batch = lie(honest.clone());
                        let mut stream = connection.open_uni().await.unwrap();
                        _ = stream.write_all(&BulkHeader::Batch(batch.header).encode()).await;
                        _ = stream.write_all(&batch.body).await;
                        _ = stream.finish();
                        told.send_modify(|children| *children += 1);
                    }
                }
            });
        }
    });
    Liar { endpoint, children }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forges_is_refused_and_an_honest_one_feeds() {
    // Each mirror begins at another node; all of these begin at the liar, one after the other.
    let deployment = Deployment::new(&[("leaf", &["ams"], &["settings"])]);
    let mut site = Site::open(&deployment, "site");
    site.ledger("settings.0").grow(400);
    let size = site.sizes()["settings.0"];
    let route = tradewind_wan::routes(&deployment.topology, "leaf").unwrap().remove(0);
    let names: Vec<&str> = route.candidates.iter().map(|candidate| &*candidate.name).collect();
    let forged: [fn(Batch) -> Batch; 4] = [
        |mut batch| {
            let last = batch.body.len() - 1;
            batch.body[last] ^= 1;
            batch
        },
        |mut batch| {
            batch.header.claim.note = batch.header.claim.note.replacen("\n\n", "\n\n\n", 1);
            batch
        },
        |mut batch| {
            batch.header.first = Version(1);
            batch
        },
        |mut batch| {
            batch.header.claim.links.clear();
            batch
        },
    ];
    // First the liar alone: nothing of what it says is believed.
    for (round, lie) in forged.into_iter().enumerate() {
        let liar = liar(&deployment, names[0], site.ledger("settings.0"), lie);
        let leaf = deployment.mirror("leaf").await;
        let seen = liar.children.clone();
        until(seen, "the liar is tried again and again", |children| *children >= 2).await;
        let shard = leaf.ledger(&"settings.0".parse().unwrap()).unwrap();
        assert_eq!(shard.horizon().borrow().readable, Version(0), "lie {round}");
        stop(&deployment, leaf).await;
        liar.endpoint.close(0_u32.into(), b"");
        liar.endpoint.wait_idle().await;
        let address = liar.endpoint.local_addr().unwrap();
        drop(liar);
        crate::deployment::free(address).await;
    }
    // Then with an honest node beside it.
    let liar = liar(&deployment, names[0], site.ledger("settings.0"), forged[0]);
    site.serve(&deployment, &names[1..]);
    let leaf = deployment.mirror("leaf").await;
    shows(&leaf, "settings.0", size).await;
    let status = leaf.routes().remove(0).status;
    assert!(*liar.children.borrow() >= 1 && status.ledgers[0].refusals >= 1);
    assert_eq!(
        deployment.segments("leaf", "settings.0"),
        deployment.segments("site", "settings.0")
    );
    stop(&deployment, leaf).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_forks_halts_the_mirror_which_keeps_both_signed_heads() {
    let deployment = Deployment::new(&[("leaf", &["ams"], &["settings"])]);
    let mut site = Site::open(&deployment, "site");
    site.ledger("settings.0").grow(300);
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let leaf = deployment.mirror("leaf").await;
    let size = site.sizes()["settings.0"];
    shows(&leaf, "settings.0", size).await;
    site.stop().await;

    // The same keys, another history.
    let mut fork = Site::open(&deployment, "fork");
    for index in 0..400 {
        fork.ledger("settings.0").put(&format!("other-{index}"), b"history");
    }
    fork.ledger("settings.0").sign();
    fork.serve(&deployment, &["a1", "a2", "a3"]);
    let folder = deployment.data("leaf").join("evidence");
    let halted = async {
        while leaf.readiness().fault.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, halted).await.expect("the mirror halts the ledger");
    let shard = leaf.ledger(&"settings.0".parse().unwrap()).unwrap();
    assert_eq!(shard.horizon().borrow().readable, size, "what was verified stays readable");
    stop(&deployment, leaf).await;
    let file = fs::read_dir(&folder).unwrap().next().expect("a file of evidence").unwrap();
    let text = fs::read_to_string(file.path()).unwrap();
    assert_eq!(text.matches("\natlas/ams/settings/0\n").count(), 2, "{text}");

    // It stays halted until somebody has looked at it.
    let leaf = deployment.mirror("leaf").await;
    assert!(leaf.readiness().fault.unwrap().contains("evidence of a fork"));
    stop(&deployment, leaf).await;
    fork.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_checkpoint_is_shown_and_the_rest_once_a_parent_confirms_it() {
    let deployment = Deployment::new(&[("leaf", &["ams"], &["settings"])]);
    let mut site = Site::open(&deployment, "site");
    site.ledger("settings.0").grow(300);
    site.serve(&deployment, &["a1", "a2", "a3"]);
    let leaf = deployment.mirror("leaf").await;
    let first = site.sizes()["settings.0"];
    shows(&leaf, "settings.0", first).await;
    stop(&deployment, leaf).await;
    let ledger = deployment.data("leaf").join("ledgers/settings.0");
    let old = fs::read(ledger.join("checkpoint")).unwrap();
    site.ledger("settings.0").grow(300);
    let second = site.sizes()["settings.0"];
    let leaf = deployment.mirror("leaf").await;
    shows(&leaf, "settings.0", second).await;
    stop(&deployment, leaf).await;
    site.stop().await;

    // As after a crash before the newer checkpoint was published.
    fs::write(ledger.join("checkpoint"), &old).unwrap();
    let leaf = deployment.mirror("leaf").await;
    let shard = leaf.ledger(&"settings.0".parse().unwrap()).unwrap();
    assert_eq!(shard.horizon().borrow().readable, first);
    let mut site = Site::open(&deployment, "site");
    site.serve(&deployment, &["a1", "a2", "a3"]);
    shows(&leaf, "settings.0", second).await;
    stop(&deployment, leaf).await;

    // A checkpoint that its nodes did not sign is not believed.
    let text = fs::read_to_string(ledger.join("checkpoint")).unwrap();
    let policy = Policy::of_genesis(&deployment.genesis("settings.0")).unwrap();
    let note = tradewind_ledger::SignedNote::parse(text.as_bytes()).unwrap();
    assert!(policy.verify(&note).is_ok());
    let by_one = site.ledger("settings.0").note(&["a2"]).to_string();
    fs::write(ledger.join("checkpoint"), by_one).unwrap();
    let config = tradewind_mirror::Config {
        topology: Arc::clone(&deployment.topology),
        identity: crate::deployment::identity("leaf"),
        data: deployment.data("leaf"),
        timing: None,
    };
    let error = tradewind_mirror::Mirror::start(config).await.unwrap_err().to_string();
    assert!(error.contains("signed by 1 of the members, 2 are needed"), "{error}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_gets_nothing_that_the_topology_does_not_give_it() {
    let deployment =
        Deployment::new(&[("relay", &["ams"], &["settings"]), ("leaf", &["relay"], &["settings"])]);
    let mut site = Site::open(&deployment, "site");
    site.serve(&deployment, &["a1"]);
    let dial = async |child: &str| {
        let credentials = deployment.credentials(child);
        let address = deployment.topology.process("a1").unwrap().ports().wan();
        let tuning = Tuning::default();
        let endpoint = quic::client("127.0.0.1:0".parse().unwrap(), &tuning).unwrap();
        quic::connect(&endpoint, &credentials, Protocol::Wan, "a1", address, &tuning).await.unwrap()
    };
    // A child of another parent.
    let stranger = dial("leaf").await;
    match stranger.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            assert!(reason.contains("does not name this process among"), "{reason}");
        }
        other => assert!(matches!(other, quinn::ConnectionError::Reset), "{other}"),
    }
    // A ledger of another pool.
    let connection = dial("relay").await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let hello = Hello { deployment: "atlas".into(), mirror: "relay".into() };
    let genesis = deployment.genesis("flights.0");
    let position = Position {
        ledger: genesis.ledger.clone(),
        lineage: genesis.lineage().unwrap(),
        size: Version(0),
        root: tradewind_ledger::tree::empty_root(),
    };
    send.write_all(&ChildMessage::Hello(hello).encode()).await.unwrap();
    send.write_all(&ChildMessage::Follow(vec![position]).encode()).await.unwrap();
    let said = message(&mut receive, ParentMessage::decode).await;
    assert!(matches!(said, Some(ParentMessage::Welcome(_))));
    let said = message(&mut receive, ParentMessage::decode).await;
    let Some(ParentMessage::Refuse(refuse)) = said else { panic!("{said:?}") };
    assert_eq!(refuse.reason, RefuseReason::Unknown);
    // Bytes that are no message.
    send.write_all(&[0; 64]).await.unwrap();
    let closed = connection.closed().await;
    match &closed {
        quinn::ConnectionError::ApplicationClosed(close) => {
            let reason = String::from_utf8_lossy(&close.reason);
            assert!(reason.contains("not a frame of the mirroring protocol"), "{reason}");
        }
        // The packet with the reason may be late on a busy machine; the connection is gone anyway.
        other => assert!(matches!(other, quinn::ConnectionError::Reset), "{other}"),
    }
    site.stop().await;
}
