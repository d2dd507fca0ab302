//! What a good file means, and that no text whatever makes the reader panic.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::prelude::*;
use tradewind_topology::{Durability, Parent, Process, Right, Rights, Role, Topology};

const ATLAS: &str = "testdata/good/atlas.toml";

fn atlas() -> Topology {
    let loaded = Topology::load_with(Path::new(ATLAS), &[]).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.topology
}

#[test]
fn a_good_file_is_accepted_without_a_word_and_means_what_it_says() {
    let topology = atlas();
    assert_eq!(topology.name.as_str(), "atlas");
    assert_eq!(topology.keys, Path::new("testdata/good/keys"));
    assert_eq!(topology.sites.len(), 2);
    assert_eq!(topology.timeouts, tradewind_topology::Timeouts::default());

    let a1 = &topology.site("ams").unwrap().nodes[0];
    assert_eq!(a1.ports.client().to_string(), "10.0.1.1:7400");
    assert_eq!(a1.ports.http().to_string(), "10.0.1.1:80");
    assert_eq!(a1.ports.wan().to_string(), "10.0.1.1:7402");
    assert_eq!(a1.ports.group().to_string(), "10.0.1.1:7403");
    assert_eq!(a1.certificate.as_deref(), Some(Path::new("testdata/good/keys/a1.pem")));

    let bos = topology.mirror("bos-2").unwrap();
    assert_eq!(bos.ports.http().to_string(), "127.0.0.1:7401", "HTTP binds loopback");
    let parents: Vec<&str> = bos.parents.iter().map(Parent::name).collect();
    assert_eq!(parents, ["bos-1", "nyc-relay"]);
    assert!(matches!(topology.mirror("nyc-relay").unwrap().parents[0], Parent::Site(_)));

    let settings = topology.pool("settings").unwrap();
    assert_eq!((settings.shards, settings.replicas), (1, 3));
    assert_eq!(settings.durability, Durability::Disk);

    assert_eq!(topology.client("ops").unwrap().rights, Rights::All(Right::Admin));
    let app = &topology.client("app").unwrap().rights;
    assert_eq!(app.on("flights"), Some(Right::Write));
    assert_eq!(app.on("settings"), Some(Right::Read));
    assert_eq!(app.on("other"), None);

    assert!(matches!(topology.process("a2"), Some(Process::Node { index: 1, .. })));
    assert!(matches!(topology.process("bos-1"), Some(Process::Mirror(_))));
    assert!(topology.process("ams").is_none() && topology.process("ops").is_none());
    assert_eq!(topology.identities().count(), 6 + 3 + 2);
    assert_eq!(topology.identities().filter(|(.., role)| *role == Role::Client).count(), 2);
    let children: Vec<&str> = topology.children("nyc-relay").map(|m| m.name.as_str()).collect();
    assert_eq!(children, ["bos-1"]);
}

#[test]
fn the_example_of_the_documentation_is_a_good_file() {
    let document = fs::read_to_string("../docs/topology.md").unwrap();
    let (_, rest) = document.split_once("```toml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let loaded = Topology::parse(example, Path::new("topology.md"), &[]).unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn the_environment_overrides_the_file() {
    let environment = [
        ("TRADEWIND_DEPLOYMENT__DATA", "/srv/tradewind"),
        ("TRADEWIND_DEPLOYMENT__NAME", "0042"),
        ("TRADEWIND_TIMEOUTS__SUSPECT_MS", "900"),
        ("TRADEWIND_SITES__AMS__FABRIC_TLS", "false"),
        ("TRADEWIND_CLIENTS__APP__RIGHTS", "read"),
        ("TRADEWIND_ENDPOINTS", "127.0.0.1:1"),
        ("TRADEWIND", ""),
        ("PATH__X", "/bin"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let topology = Topology::load_with(Path::new(ATLAS), &environment).unwrap().topology;
    assert_eq!(topology.data, Path::new("/srv/tradewind"));
    assert_eq!(topology.name.as_str(), "0042", "text stays text, though it looks like a number");
    assert_eq!(topology.timeouts.suspect.as_millis(), 900);
    assert!(!topology.site("ams").unwrap().fabric_tls);
    assert_eq!(topology.client("app").unwrap().rights, Rights::All(Right::Read));
}

#[test]
fn shards_lie_where_they_have_always_been_and_spread_evenly() {
    let text = fs::read_to_string(ATLAS).unwrap();
    let text = text.replace("replicas = 3", "replicas = 2").replace("shards = 4", "shards = 9");
    let loaded = Topology::parse(&text, Path::new(ATLAS), &[]).unwrap();
    let topology = loaded.topology;
    let pool = topology.pool("flights").unwrap();
    let members: Vec<Vec<usize>> =
        (0..9).map(|shard| topology.shard_members(pool, shard)).collect();
    // Golden: data lies there.
    assert_eq!(members[..3], [vec![1, 2], vec![0, 2], vec![0, 1]]);
    let mut load = BTreeMap::new();
    for node in members.iter().flatten() {
        *load.entry(*node).or_insert(0) += 1;
    }
    assert_eq!(load, BTreeMap::from([(0, 6), (1, 6), (2, 6)]));
}

/// The text with a change of `ams` appended, and with what else is written there.
fn changed(text: &str, change: &str) -> String {
    format!("{text}\n[[sites.ams.changes]]\n{change}\n")
}

fn parsed(text: &str) -> Topology {
    let loaded = Topology::parse(text, Path::new(ATLAS), &[]);
    loaded.unwrap_or_else(|faults| panic!("{faults}")).topology
}

#[test]
fn a_change_makes_the_next_roster_and_leaves_all_before_as_it_was() {
    const NODE: &str = "[[sites.ams.nodes]]\nname = \"a4\"\naddress = \"10.0.1.4\"\nkey = \"YqYRtHLYmw5fyTwGm59wC0xVLVW8Doe1YAjvF7ayvr4=\"\n";
    let text = fs::read_to_string(ATLAS).unwrap();
    let first = parsed(&text);
    let ams = |topology: &Topology| topology.site("ams").unwrap().clone();
    let rosters = |topology: &Topology| topology.rosters(&ams(topology));
    let nodes = |topology: &Topology| -> Vec<Vec<usize>> {
        let seats = rosters(topology).into_iter().map(|roster| roster.seats);
        seats.map(|seats| seats.iter().map(|seat| seat.node).collect()).collect()
    };
    // The fourth is a spare at first, for each shard has its three members.
    let spare = changed(&format!("{text}\n{NODE}"), "add = \"a4\"");
    let grown = parsed(&spare);
    assert_eq!(nodes(&grown), [vec![0, 1, 2], vec![0, 1, 2, 3]]);
    assert_eq!(rosters(&grown)[0], rosters(&first)[0]);
    let pool = grown.pool("flights").unwrap();
    assert_eq!(grown.shard_members_on(pool, 1), [vec![0, 1, 2], vec![0, 1, 2]]);
    // It takes the place of one that goes, under the same digests as before.
    let shrunk = parsed(&changed(&spare, "remove = \"a2\""));
    assert_eq!(nodes(&shrunk)[1..], [vec![0, 1, 2, 3], vec![0, 2, 3]]);
    assert_eq!(rosters(&shrunk)[..2], rosters(&grown)[..]);
    assert_eq!(shrunk.shard_members(pool, 1), [0, 2, 3]);
    assert_eq!(shrunk.founding_members(pool, 1), [0, 1, 2]);
    assert!(shrunk.process("a2").is_none() && ams(&shrunk).is_removed(1));
    assert!(
        shrunk
            .identities()
            .any(|(_, name, role)| name == "a2" && role == Role::Former("ams".parse().unwrap()))
    );
    // A member from the start, if more are wanted.
    let wanted = parsed(&changed(&format!("{text}\n{NODE}"), "add = \"a4\"\nreplicas = 4"));
    assert_eq!(wanted.shard_members(pool, 1), [0, 1, 2, 3]);
    assert_ne!(rosters(&wanted)[1].digest, rosters(&grown)[1].digest);
}

#[test]
fn a_change_that_cannot_be_is_refused_in_words() {
    let text = fs::read_to_string(ATLAS).unwrap();
    for (changes, words) in [
        (&["remove = \"a9\""][..], "which is no node of the site"),
        (&["add = \"a1\"", "add = \"a1\""], "which is a node already"),
        (&["add = \"a1\"", "add = \"a2\"", "add = \"a3\""], "no founder"),
        (&["add = \"a1\"\nremove = \"a2\""], "exactly one of add, remove, replace"),
        (&["remove = \"a1\"", "remove = \"a1\""], "which is none at that time"),
        (&["remove = \"a1\"", "remove = \"a2\""], "leaves 1 of 2 nodes"),
        (&["add = \"a3\"", "remove = \"a3\"", "add = \"a3\""], "which was removed"),
        (&["replace = \"a1\""], "the key that a node had before"),
        (&["remove = \"a1\"\nreplicas = 3"], "only where a node is added"),
    ] {
        let text = changes.iter().fold(text.clone(), |text, change| changed(&text, change));
        let faults = Topology::parse(&text, Path::new(ATLAS), &[]).unwrap_err().to_string();
        assert!(faults.contains(words), "{changes:?}: {faults}");
    }
}

#[test]
fn the_site_digest_changes_with_members_and_pools_but_not_with_addresses_or_mirrors() {
    let text = fs::read_to_string(ATLAS).unwrap();
    let digest = |text: &str| {
        let topology = Topology::parse(text, Path::new(ATLAS), &[]).unwrap().topology;
        topology.site_digest(topology.site("ams").unwrap())
    };
    let own = digest(&text);
    let mirrors = text.find("[[mirrors]]").unwrap()..text.find("[pools.flights]").unwrap();
    assert_eq!(own, digest(&text.replace("10.0.1.2", "10.0.9.9")));
    assert_eq!(own, digest(&text.replace(&text[mirrors], "")));
    assert_eq!(own, digest(&text.replace("home = \"sfo\"", "home = \"sfo\"\nshards = 7")));
    assert_ne!(own, digest(&text.replace("shards = 4", "shards = 5")));
    assert_ne!(own, digest(&text.replace("\"a2\"", "\"a9\"")));
    assert_ne!(own, digest(&text.replace("\"atlas\"", "\"atlantis\"")));
}

/// Checks the text, and uses the result for all that a validated topology promises.
fn exercise(text: &str) {
    match Topology::parse(text, Path::new("any.toml"), &[]) {
        Ok(loaded) => {
            _ = loaded.warnings.to_string();
            let topology = loaded.topology;
            for pool in &topology.pools {
                for shard in 0..pool.shards {
                    let members = topology.shard_members(pool, shard);
                    assert_eq!(members.len(), pool.replicas as usize);
                    assert!(members.is_sorted_by(|a, b| a < b));
                }
            }
            for site in &topology.sites {
                _ = topology.site_digest(site);
            }
            for mirror in &topology.mirrors {
                for pool in &mirror.pools {
                    assert!(mirror.parents.iter().any(|p| topology.offers(p, pool.as_str())));
                }
            }
        }
        Err(diagnostics) => {
            assert!(diagnostics.errors() > 0);
            _ = diagnostics.to_string();
        }
    }
}

/// The good file with some lines dropped, doubled or swapped, and some bytes changed.
fn mutilated() -> impl Strategy<Value = String> {
    let text = fs::read_to_string(ATLAS).unwrap();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (count, bytes) = (lines.len(), text.len());
    let moves = prop::collection::vec((0..count, 0..count, 0..3u8), 0..6);
    let flips = prop::collection::vec((0..bytes, any::<u8>()), 0..4);
    (moves, flips).prop_map(move |(moves, flips)| {
        let mut lines = lines.clone();
        for (a, b, what) in moves {
            let (a, b) = (a % lines.len(), b % lines.len());
            match what {
                0 => lines.swap(a, b),
                1 => lines[a] = lines[b].clone(),
                _ => lines[a].clear(),
            }
        }
        let mut bytes = lines.join("\n").into_bytes();
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC*") {
        exercise(&text);
    }

    #[test]
    fn no_bytes_in_a_file_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("any.toml");
        fs::write(&file, bytes).unwrap();
        _ = Topology::load_with(&file, &[]);
    }

    #[test]
    fn no_mutilation_of_a_good_file_makes_the_reader_panic(text in mutilated()) {
        exercise(&text);
    }

    #[test]
    fn no_environment_makes_the_reader_panic(
        pairs in prop::collection::vec(("TRADEWIND_[A-Z_]{0,40}", "\\PC{0,20}"), 0..5),
    ) {
        let text = fs::read_to_string(ATLAS).unwrap();
        _ = Topology::parse(&text, Path::new(ATLAS), &pairs);
    }
}
