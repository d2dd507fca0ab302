//! Bit rot in the middle of a node's files: it does not start, is repaired from its peers, and goes on.

use std::fs;
use std::path::{Path, PathBuf};

use tradewind_local::Plan;
use tradewind_tests::e2e::{LIMIT, POOL, Running, assert_segments_equal, eventually};

/// The files below `dir` whose names end so, in order.
fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(dir) else { return Vec::new() };
    let paths = listing.map(|entry| entry.expect("an entry").path());
    let mut found: Vec<PathBuf> = paths
        .flat_map(|path| if path.is_dir() { files(&path, ending) } else { vec![path] })
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    found.sort();
    found
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[offset] ^= 1;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_node_with_a_damaged_segment_is_repaired_from_a_running_peer_and_comes_back() {
    let mut running = Running::start(Plan::one_site(3, 1));
    for n in 0..20 {
        running.run(&["put", POOL, &format!("k{n}"), "a value"]).expect(0);
    }
    let data = running.deployment.data("ams-2");
    let segment = eventually("sealed and signed", || {
        let checkpoint = fs::read_to_string(files(&data, "checkpoint").first().ok_or("none yet")?);
        let size = checkpoint.map_err(|error| error.to_string())?;
        let size: u64 = size.lines().nth(1).and_then(|it| it.parse().ok()).ok_or("no size")?;
        match files(&data, ".seg").pop() {
            Some(segment) if size > 21 => Ok(segment),
            _ => Err(format!("{size} are signed")),
        }
    });
    running.deployment.kill("ams-2").expect("killed");
    let whole = fs::read(&segment).expect("a segment");
    flip(&segment, whole.len() / 2 + 2048);

    running.deployment.start("ams-2").expect("it starts");
    running.deployment.wait_exit("ams-2", LIMIT).expect("it does not serve damage");
    let log = fs::read_to_string(running.deployment.log("ams-2")).expect("a log");
    let name = segment.file_name().expect("a name").to_string_lossy();
    assert!(log.contains(&*name) && log.contains("tradewind repair"), "{log}");

    let data = data.to_str().expect("a path");
    let url = running.deployment.http("ams-1");
    let repaired = running.run(&["repair", data, "--from", &url, "-o", "json"]).expect(0).json();
    let made = &repaired["ledgers"][0]["segments"];
    assert_eq!(made.as_array().map(Vec::len), Some(1), "{repaired}");
    assert!(fs::read(&segment).expect("a segment") == whole);
    // Once more: there is nothing to do.
    let again = running.run(&["repair", data, "--from", &url, "-o", "json"]).expect(0).json();
    assert_eq!(again["ledgers"][0]["segments"].as_array().map(Vec::len), Some(0), "{again}");

    running.deployment.start("ams-2").expect("it starts");
    running.ready();
    running.run(&["put", POOL, "after", "it"]).expect(0);
    running.run(&["get", POOL, "k7", "--endpoints", "ams-2", "--only"]).expect(0);
    assert_segments_equal(&running, &["ams-1", "ams-2", "ams-3"]);
}
