//! `tradewind topology` and `keys show` on the topology crate's own test files.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::fs;

use common::{run, tradewind};
use serde_json::Value;

const GOOD: &str = "../topology/testdata/good/atlas";

fn good(arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(&mut tradewind(arguments));
    assert_eq!((code, stderr.as_str()), (0, ""), "{arguments:?}");
    stdout
}

#[test]
fn check_prints_every_fault_with_file_and_line() {
    // The messages are golden in the topology crate; here: that they arrive, with paths as given.
    for name in ["many-faults", "mirror-cycle", "syntax", "missing"] {
        let file = format!("../topology/testdata/bad/{name}.toml");
        let golden = fs::read_to_string(format!("../topology/testdata/bad/{name}.txt")).unwrap();
        let (code, stdout, stderr) = run(&mut tradewind(&["topology", "check", &file]));
        let expected = if name == "missing" { 2 } else { 1 };
        assert_eq!((code, stderr.as_str()), (expected, ""));
        assert_eq!(stdout, golden.replace("testdata/", "../topology/testdata/"));
    }
}

#[test]
fn check_gives_the_same_as_json() {
    let file = "../topology/testdata/bad/many-faults.toml";
    let (code, stdout, _) = run(&mut tradewind(&["topology", "check", file, "-o", "json"]));
    let value: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &value["ok"]), (1, &Value::Bool(false)));
    assert_eq!((&value["errors"], &value["warnings"]), (&5.into(), &2.into()));
    let first = &value["diagnostics"][0];
    assert_eq!(first["key"], "deployment.name");
    assert_eq!(first["place"]["line"], 2);
    assert_eq!(first["found"], "\"The Atlas\"");
}

#[test]
fn show_and_graph_draw_the_topology() {
    let file = format!("{GOOD}.toml");
    let golden = |extension: &str| fs::read_to_string(format!("{GOOD}.{extension}")).unwrap();
    assert_eq!(good(&["topology", "show", &file]), golden("tree"));
    assert_eq!(good(&["topology", "graph", &file]), golden("svg"));
    assert_eq!(good(&["topology", "graph", &file, "--format", "dot"]), golden("dot"));
    let shown: Value =
        serde_json::from_str(&good(&["topology", "show", &file, "-o", "json"])).unwrap();
    assert_eq!(shown["mirrors"][0]["name"], "nyc-relay");
    let directory = tempfile::tempdir().unwrap();
    let picture = directory.path().join("atlas.svg");
    good(&["topology", "graph", &file, "--out", picture.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(&picture).unwrap(), golden("svg"));
}

#[test]
fn the_environment_names_and_overrides_the_file() {
    let mut show = tradewind(&["topology", "show", "-o", "json"]);
    show.env("TRADEWIND_TOPOLOGY", format!("{GOOD}.toml"));
    show.env("TRADEWIND_TIMEOUTS__SUSPECT_MS", "900");
    let (code, stdout, stderr) = run(&mut show);
    assert_eq!(code, 0, "{stderr}");
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(shown["timeouts"]["suspect"]["nanos"], 900_000_000);
}

#[test]
fn verifier_keys_are_those_of_the_shards_members() {
    let file = format!("{GOOD}.toml");
    let vkeys = good(&["keys", "show", "--topology", &file, "--vkey", "settings.0"]);
    let names: Vec<&str> = vkeys.lines().map(|line| line.split('+').next().unwrap()).collect();
    assert_eq!(names, ["atlas/sfo/settings/0"; 3]);
    let (code, _, stderr) =
        run(&mut tradewind(&["keys", "show", "--topology", &file, "--vkey", "settings.1"]));
    assert!(code == 2 && stderr.contains("has 1 shards"), "{stderr}");
}
