//! Bit rot in the middle of a node's files: it does not start, is repaired from its peers, and goes on.

use std::fs;
use std::path::{Path, PathBuf};

use tradewind_local::{Launcher, Plan};
use tradewind_tests::e2e::{LIMIT, POOL, Running, assert_segments_equal, eventually, site_leaf};

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

/// Makes a process look for bit rot all the time, from its next start on.
fn search_all_the_time(running: &mut Running, name: &str) {
    let command = "exec \"$@\" --scrub-pause 0 --scrub-rate 100";
    let prefix = ["sh", "-c", command, "sh"].map(Into::into).into();
    running.deployment.set_launcher(name, Launcher { prefix, ..Launcher::default() });
    running.deployment.kill(name).expect("killed");
    running.deployment.start(name).expect("it starts");
    running.ready();
}

#[test]
fn a_byte_that_rots_under_a_running_process_is_mended_without_a_stop() {
    let mut running = Running::start(site_leaf(3, 1));
    let put = |running: &Running, value: &str| {
        let reply = running.run(&["put", POOL, "flight", value, "-o", "json"]).json();
        reply["version"].as_u64().expect("a version").to_string()
    };
    let old = put(&running, &"an old plan ".repeat(40));
    put(&running, "a new plan");
    for name in ["ams-2", "leaf"] {
        search_all_the_time(&mut running, name);
        let data = running.deployment.data(name);
        let incarnation = running.status(name)["incarnation"].clone();
        let (segment, whole) = eventually("sealed, and signed for at the others", || {
            let holding = |path: &PathBuf| {
                let bytes = fs::read(path).expect("a segment");
                bytes.windows(12).position(|it| it == b"an old plan ").map(|at| (at, bytes))
            };
            let found = files(&data, ".seg").into_iter().find_map(|path| {
                let (at, bytes) = holding(&path)?;
                Some((path, at, bytes))
            });
            let (path, at, bytes) = found.ok_or("not sealed yet")?;
            flip(&path, at + 100);
            Ok((path, bytes))
        });
        eventually("mended", || {
            let status = running.status(name);
            let mended = status["scrub"]["mended"].as_u64().unwrap_or_default();
            match fs::read(&segment) {
                Ok(bytes) if bytes == whole && mended > 0 => Ok(()),
                _ => Err(status["scrub"].to_string()),
            }
        });
        let name_of = segment.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(files(&data, &name_of).len(), 2, "the damaged file is kept too");
        let at = ["get", POOL, "flight", "--version", &old, "--endpoints", name, "--only"];
        let read = running.run(&at).expect(0).stdout();
        assert!(read.contains("an old plan an old plan"), "{read}");
        assert_eq!(running.status(name)["incarnation"], incarnation, "it was not started again");
    }
    assert_segments_equal(&running, &["ams-1", "ams-2", "ams-3"]);
}
