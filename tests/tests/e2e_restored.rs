//! A site that is set back to a backup as a whole, and then goes on with another history than its mirrors verified.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tradewind_ledger::SignedNote;
use tradewind_tests::e2e::{
    LIMIT, POOL, Running, assert_ledgers_hold, eventually, ledgers, site_relay_leaf, sizes,
    wait_for_sizes,
};

const NODES: [&str; 3] = ["ams-1", "ams-2", "ams-3"];
const MIRRORS: [&str; 2] = ["relay", "leaf"];

/// All files below a directory, with their bytes, but for those that say who has the directory open.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false if path.ends_with("LOCK") => {}
            false => _ = found.insert(path.clone(), fs::read(&path).expect("a file")),
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{copied}");
}

fn ledgers_of(running: &Running, name: &str) -> PathBuf {
    running.deployment.data(name).join("ledgers")
}

fn put(running: &Running, value: &str) {
    // Enough keys for each of the two shards to have some.
    for key in 0..16 {
        running.run(&["put", POOL, &format!("key-{key}"), value]).expect(0);
    }
}

fn stop(running: &mut Running, names: &[&str]) {
    for name in names {
        running.deployment.stop(name).expect("it ends");
    }
}

fn start(running: &mut Running, names: &[&str]) {
    for name in names {
        running.deployment.start(name).expect("it starts");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_takes_nothing_from_a_site_that_was_set_back_and_changes_no_byte() {
    let mut running = Running::start(site_relay_leaf());
    put(&running, "before");
    let backup = running.deployment.dir().join("backup");
    fs::create_dir(&backup).expect("made");
    stop(&mut running, &NODES);
    for name in NODES {
        copy(&running.deployment.data(name), &backup.join(name));
    }
    start(&mut running, &NODES);
    running.ready();
    put(&running, "lost with the backup");
    let verified = sizes(&running, "ams-1").await;
    for mirror in MIRRORS {
        wait_for_sizes(&running, mirror, &verified).await;
    }
    stop(&mut running, &NODES);
    let verified = sizes(&running, "leaf").await;
    wait_for_sizes(&running, "relay", &verified).await;
    // A start removes what only older checkpoints needed of the tiles; none of it is the site's doing.
    stop(&mut running, &["leaf", "relay"]);
    start(&mut running, &MIRRORS);
    running.ready();
    assert_ledgers_hold(&running, &MIRRORS, &verified);
    stop(&mut running, &["leaf", "relay"]);
    let had = MIRRORS.map(|mirror| files(&ledgers_of(&running, mirror)));

    // The site goes on from the backup with something else, beyond what the mirrors have.
    for name in NODES {
        fs::remove_dir_all(running.deployment.data(name)).expect("removed");
        copy(&backup.join(name), &running.deployment.data(name));
    }
    start(&mut running, &NODES);
    running.ready();
    let mut rounds = 0;
    while sizes(&running, "ams-1").await.iter().any(|(id, size)| *size <= verified[id]) {
        put(&running, &format!("another history {rounds}"));
        rounds += 1;
        assert!(rounds < 100, "the site grows");
    }

    start(&mut running, &MIRRORS);
    eventually("halted", || {
        let told =
            running.deployment.fetch("relay", "/status").map_err(|error| error.to_string())?;
        let status: serde_json::Value = serde_json::from_str(&told.1).expect("JSON");
        let shards = status["shards"].as_array().ok_or("no shards")?;
        match shards.iter().all(|shard| shard["halted"] == true) {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    });
    running.deployment.wait_ready_one("leaf", LIMIT).expect("what it follows has no other history");
    for ledger in ledgers(&running) {
        let words = format!("{ledger} is halted: its site signed two histories");
        eventually("told", || {
            let log = fs::read_to_string(running.deployment.log("relay")).expect("a log");
            if log.contains(&words) { Ok(()) } else { Err(log) }
        });
    }
    let (code, words) = running.deployment.fetch("relay", "/readyz").expect("an answer");
    assert!(code == 503 && words.contains("evidence of a fork"), "{code} {words}");
    for mirror in MIRRORS {
        let get = ["get", POOL, "key-3", "--level", "local", "--endpoints", mirror, "--only"];
        let found = running.run(&get).expect(0).stdout();
        assert_eq!(found.trim_end(), "lost with the backup", "{mirror}");
        assert_eq!(sizes(&running, mirror).await, verified, "{mirror}");
    }
    stop(&mut running, &["leaf", "relay"]);
    for (mirror, had) in MIRRORS.iter().zip(had) {
        let have = files(&ledgers_of(&running, mirror));
        assert!(have.keys().eq(had.keys()), "{mirror}: {:?}, {:?}", have.keys(), had.keys());
        for (path, bytes) in had {
            // A checkpoint may be signed by other nodes than before: the leaf takes the relay's.
            let content = |bytes: &[u8]| match path.ends_with("checkpoint") {
                true => SignedNote::parse(bytes).expect("a note").text().as_bytes().to_vec(),
                false => bytes.to_vec(),
            };
            assert!(content(&have[&path]) == content(&bytes), "{} is another", path.display());
        }
    }

    // Each history holds, and whoever has a checkpoint of both knows that there are two.
    stop(&mut running, &NODES);
    let evidence = running.deployment.dir().join("evidence.json");
    for ledger in ledgers(&running) {
        let [site, relay] = ["ams-1", "relay"]
            .map(|name| ledgers_of(&running, name).join(ledger.to_string()))
            .map(|path| path.to_str().expect("a path in UTF-8").to_owned());
        for source in [&site, &relay] {
            running.run(&["audit", "verify", source]).expect(0);
        }
        let [note, evidence] = [Path::new(&relay).join("checkpoint"), evidence.clone()]
            .map(|path| path.to_str().expect("a path in UTF-8").to_owned());
        let consistency = ["audit", "consistency", &site, &note, "--evidence", &evidence];
        let said = running.run(&consistency).expect(3).stdout();
        assert!(said.contains("two histories"), "{said}");
    }
    assert!(evidence.exists());
}
