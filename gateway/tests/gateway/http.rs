//! HTTP over real sockets.

use crate::support::{POOL, Site, get, http};
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tradewind_client::{Command, Condition, wire::Role};
use tradewind_gateway::Security;
use tradewind_ledger::{
    Digest, SignedNote, Version,
    tile::{TileId, TileKind, decode_bundle, decode_hashes},
    tree::{CompactRange, leaf_hash},
};
use tradewind_ledger_disk::Face;

async fn put(
    address: SocketAddr,
    key: &str,
    headers: &[(&str, &str)],
    value: &[u8],
) -> crate::support::Answer {
    http(address, "PUT", &format!("/v1/pools/{POOL}/keys/{key}"), headers, value).await
}

#[tokio::test]
async fn keys_are_put_read_and_deleted_on_condition() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let at = server.http;
    let path = "/v1/pools/flights/keys/KL%2F601";
    let created = put(at, "KL%2F601", &[("if-none-match", "*")], b"boarding").await;
    assert_eq!(created.status, 201, "{}", created.text());
    let tag = created.header("etag").expect("a version").to_owned();
    assert_eq!(created.json()["key_version"], 1);

    let found = get(at, path).await;
    assert_eq!((found.status, found.text(), found.header("etag")), (200, "boarding", Some(&*tag)));
    assert_eq!(found.header("tradewind-key-version"), Some("1"));
    assert_eq!(http(at, "GET", path, &[("if-none-match", &tag)], b"").await.status, 304);
    assert_eq!(http(at, "HEAD", path, &[], b"").await.status, 200);

    let again = put(at, "KL%2F601", &[("if-none-match", "*")], b"x").await;
    assert_eq!((again.status, again.header("etag")), (412, Some(&*tag)));
    let changed = put(at, "KL%2F601", &[("if-match", &tag)], b"departed").await;
    assert_eq!(changed.status, 200);
    let stale = http(at, "DELETE", path, &[("if-match", &tag)], b"").await;
    assert_eq!(stale.status, 412);
    assert!(stale.json()["next_step"].is_string());
    let version = tag.trim_matches('"');
    assert_eq!(get(at, &format!("{path}?version={version}")).await.text(), "boarding");
    // A moment is over once there is a later entry.
    put(at, "other", &[], b"").await;
    put(at, "another", &[], b"").await;
    let time = changed.header("tradewind-time-us").expect("a time").to_owned();
    assert_eq!(get(at, &format!("{path}?at={time}")).await.text(), "departed");
    assert_eq!(http(at, "DELETE", path, &[], b"").await.status, 200);
    assert_eq!(http(at, "DELETE", path, &[], b"").await.status, 204);
    let gone = get(at, path).await;
    assert_eq!((gone.status, gone.header("tradewind-age-ms")), (404, Some("0")));

    let history = get(at, "/v1/pools/flights/history/KL%2F601?limit=2").await.json();
    let deleted: Vec<_> = history["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|r| r["deleted"].clone())
        .collect();
    assert_eq!(deleted, [json!(true), json!(false)]);
    let next = history["next_before"].as_u64().expect("more");
    let rest = get(at, &format!("/v1/pools/flights/history/KL%2F601?before={next}")).await.json();
    assert_eq!(rest["revisions"].as_array().expect("a list").len(), 1);
    assert_eq!(rest["next_before"], json!(null));
}

#[tokio::test]
async fn listings_go_on_from_page_to_page_over_all_shards() {
    let site = Site::new(3);
    let server = site.node("a1").await;
    for n in 0..25 {
        assert_eq!(put(server.http, &format!("k{n:02}"), &[], b"v").await.status, 201);
    }
    put(server.http, "%ff%00", &[], b"\xfe").await;
    let mut keys = Vec::new();
    let mut path = "/v1/pools/flights/keys?prefix=k&limit=4&values=true".to_owned();
    loop {
        let page = get(server.http, &path).await.json();
        for item in page["items"].as_array().expect("a list") {
            assert_eq!(item["value"], "v");
            keys.push(item["key"].as_str().expect("text").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/v1/pools/flights/keys?prefix=k&limit=4&values=true&cursor={next}");
    }
    assert_eq!(keys, (0..25).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
    let all = get(server.http, "/v1/pools/flights/keys?limit=1000&values=true").await.json();
    let last = all["items"].as_array().expect("a list").last().expect("one").clone();
    assert_eq!((&last["key_hex"], &last["value_hex"]), (&json!("ff00"), &json!("fe")));
}

#[tokio::test]
async fn wrong_requests_say_what_is_allowed_and_what_to_do() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    for (path, status, part) in [
        ("/nothing", 404, "/metrics"),
        ("/v1/pools/none/keys/k", 404, "flights"),
        ("/v1/pools/flights/keys/k?nonsense=1", 400, "max_staleness"),
        ("/v1/pools/flights/keys/k?version=x", 400, "version"),
        ("/v1/pools/flights/keys/k?version=1&at=1", 400, "one of them"),
        ("/v1/pools/flights/keys/k?wait=5", 400, "250ms"),
        ("/v1/pools/flights/keys/k?at=yesterday", 400, "microseconds"),
        ("/v1/pools/flights/keys/k?min_version=99&wait=1ms", 503, "below 1"),
        ("/v1/pools/flights/keys?limit=0", 400, "1 to 1000"),
        ("/v1/pools/flights/keys?cursor=xy", 400, "next"),
        ("/log/flights.9/checkpoint", 404, "flights.0"),
        ("/log/flights.0/LOCK", 404, "tile/entries"),
        ("/log/flights.0/tile/0/..%2f..%2fLOCK", 404, "checkpoint"),
        ("/log/flights.0/../../etc/passwd", 404, ""),
        ("/log/..%2f/checkpoint", 404, "flights.0"),
    ] {
        let answer = get(server.http, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let body = answer.json();
        assert!(body["error"].is_string() && body["next_step"].is_string(), "{path}");
        assert!(
            body["allowed"].as_str().is_some_and(|allowed| allowed.contains(part)),
            "{path}: {body}"
        );
    }
    let long = put(server.http, &"k".repeat(4097), &[], b"").await;
    assert_eq!(long.status, 400, "{}", long.text());
    let tag = put(server.http, "k", &[("if-match", "17")], b"").await;
    assert_eq!(tag.status, 400);
    assert_eq!(http(server.http, "POST", "/status", &[], b"").await.status, 405);
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_write_and_neither_can_anybody_at_a_mirror() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    for host in ["evil.example", "evil.example:80", "10.0.0.1", ""] {
        assert_eq!(put(server.http, "k", &[("host", host)], b"").await.status, 403, "{host}");
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:8080", "[::1]"] {
        assert!(put(server.http, "k", &[("host", host)], b"").await.status < 300, "{host}");
    }
    let mirror = site.start("nyc-1", Role::Mirror, Security::Plain).await;
    let refused = put(mirror.http, "k", &[], b"").await;
    assert_eq!(refused.status, 405);
    assert!(refused.json()["error"].as_str().expect("text").contains("ams"));
}

#[tokio::test]
async fn health_tells_faults_and_lag() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    assert_eq!(get(server.http, "/livez").await.status, 200);
    assert_eq!(get(server.http, "/readyz?max_lag=1s").await.status, 200);
    site.shard(0).set_age(Duration::from_secs(3));
    assert_eq!(get(server.http, "/readyz").await.status, 200);
    let lagging = get(server.http, "/readyz?max_lag=1s").await;
    assert_eq!(lagging.status, 503);
    assert_eq!(lagging.json()["error"], "3s behind, allowed are 1s");
    *server.process.fault.lock() = Some("a3 is missing".to_owned());
    assert_eq!(get(server.http, "/readyz").await.json()["error"], "a3 is missing");

    let status = get(server.http, "/status").await.json();
    assert_eq!(status["name"], "a1");
    assert_eq!(status["site"], "ams");
    assert_eq!(status["fault"], "a3 is missing");
    assert_eq!(status["state"], "serving", "the backend's own");
    assert_eq!(status["ledgers"][0]["readable"], 1);
    assert_eq!(status["ledgers"][0]["signed"], 1, "the backend's own");
    let metrics = get(server.http, "/metrics").await;
    assert!(metrics.text().contains("tradewind_ready 0\n"), "{}", metrics.text());
    assert!(metrics.text().contains("tradewind_ledger_readable_entries{ledger=\"flights.0\"} 1\n"));
    let page = get(server.http, "/").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(
        !page.text().contains("http://") || page.text().matches("http://").count() == 1,
        "only the SVG namespace"
    );
    assert!(!page.text().contains("https://"), "no external asset");
}

#[tokio::test]
async fn the_public_face_proves_every_entry_at_every_published_size() {
    prove_every_entry(Face::Static).await;
}

/// As a node keeps them: hash tiles in one file a level, no bundles.
#[tokio::test]
async fn the_public_face_of_packed_tiles_proves_every_entry_at_every_published_size() {
    prove_every_entry(Face::Packed).await;
}

async fn prove_every_entry(face: Face) {
    let site = Site::with_face(1, face);
    let server = site.node("a1").await;
    let mut notes = Vec::new();
    let mut first = 1_u64;
    for last in [1, 2, 100, 254, 255, 256, 300, 511, 599_u64] {
        let command = |n: u64| {
            let (key, value) = (n.to_be_bytes().to_vec(), vec![n as u8; n as usize % 50]);
            Command::Put { key, value, condition: Condition::Always }
        };
        site.shard(0).write_all(first, (first..=last).map(command));
        first = last + 1;
        let note = get(server.http, "/log/flights.0/checkpoint").await;
        assert_eq!(note.header("content-type"), Some("text/plain; charset=utf-8"));
        notes.push(
            SignedNote::parse(&note.body).expect("a note").checkpoint().expect("a checkpoint"),
        );
    }
    // All of them at the end, when the partial tiles of the earlier ones are long gone.
    let last = notes.last().expect("some").size;
    for checkpoint in notes {
        let size = checkpoint.size;
        let mut tree = CompactRange::default();
        for first in (0..size.0).step_by(256) {
            let tile = |kind| TileId::of_entry(kind, Version(first), size);
            let (entries, hashes) = (tile(TileKind::Entries), tile(TileKind::Hashes { level: 0 }));
            let bundle = get(server.http, &format!("/log/flights.0/{entries}")).await;
            assert_eq!(bundle.status, 200, "{entries}");
            assert_eq!(bundle.header("content-type"), Some("application/octet-stream"));
            assert!(
                bundle.header("cache-control").is_some_and(|value| value.contains("immutable"))
            );
            let bundle =
                decode_bundle(&bundle.body, entries.width).expect("a bundle of that width");
            let leaves: Vec<Digest> = bundle.iter().map(|entry| leaf_hash(entry)).collect();
            let tile = get(server.http, &format!("/log/flights.0/{hashes}")).await;
            assert_eq!(decode_hashes(&tile.body, hashes.width), Ok(leaves.clone()), "{hashes}");
            leaves.into_iter().for_each(|leaf| tree.push(leaf));
        }
        assert_eq!(tree.root(), checkpoint.root);
        let beyond = TileId { kind: TileKind::Entries, index: size.0 / 256 + 9, width: 1 };
        assert_eq!(get(server.http, &format!("/log/flights.0/{beyond}")).await.status, 404);
        let unpublished = TileId { kind: TileKind::Entries, index: last.0 / 256, width: 255 };
        assert_eq!(get(server.http, &format!("/log/flights.0/{unpublished}")).await.status, 404);
    }
    let ledgers = get(server.http, "/log").await.json();
    assert_eq!(ledgers["ledgers"][0]["checkpoint"], "/log/flights.0/checkpoint");
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_keep_others_waiting() {
    let site = Site::new(1);
    let server = site.node("a1").await;
    let mut slow = TcpStream::connect(server.http).await.expect("a listener");
    slow.write_all(
        b"PUT /v1/pools/flights/keys/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1",
    )
    .await
    .expect("sent");
    assert_eq!(get(server.http, "/livez").await.status, 200);
    slow.write_all(b"23456789").await.expect("sent");
    let mut answer = [0; 12];
    slow.read_exact(&mut answer).await.expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 201");
}
