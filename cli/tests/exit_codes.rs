//! Exit codes, and that errors say what to do next.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use common::{run, tradewind};
use serde_json::Value;

const GOOD: &str = "../topology/testdata/good/atlas.toml";
const BAD: &str = "../topology/testdata/bad/many-faults.toml";
const DOUBTFUL: &str = "../topology/testdata/bad/even-site.toml";

fn code(arguments: &[&str]) -> i32 {
    run(&mut tradewind(arguments)).0
}

/// Fails with this code, and says this on stderr.
fn fails(arguments: &[&str], code: i32, said: &str) {
    let (found, stdout, stderr) = run(&mut tradewind(arguments));
    assert_eq!(found, code, "{arguments:?}: {stderr}");
    assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    assert_eq!(stdout, "", "{arguments:?}");
}

#[test]
fn a_topology_is_good_or_not() {
    assert_eq!(code(&["topology", "check", GOOD]), 0);
    assert_eq!(code(&["topology", "check", BAD]), 1);
    assert_eq!(code(&["topology", "check", DOUBTFUL]), 0);
    assert_eq!(code(&["topology", "check", "--strict", DOUBTFUL]), 1);
    fails(&["topology", "show", BAD], 2, "cannot be used");
}

#[test]
fn bad_arguments_are_2() {
    fails(&["topolgy"], 2, "similar subcommand exists: 'topology'");
    fails(&["put", "flights"], 2, "required arguments");
    fails(&["cas", "flights", "k", "seventeen", "v"], 2, "a version, or `absent`");
    fails(&["get", "flights", "k", "--at", "noon"], 2, "2026-11-22T14:03:07.25Z");
    fails(&["get", "flights", "k", "--timeout", "0"], 2, "more than 0");
    assert_eq!(code(&["--help"]), 0);
    assert_eq!(code(&["--version"]), 0);
}

#[test]
fn what_is_missing_is_named_with_the_way_to_give_it() {
    fails(&["get", "flights", "k"], 2, "--topology FILE or TRADEWIND_TOPOLOGY");
    fails(&["get", "flights", "k", "--topology", "nowhere.toml"], 2, "tradewind topology init");
    fails(&["get", "flights", "k", "--topology", GOOD], 2, "ops.key, app.key");
    fails(&["get", "flights", "k", "--topology", GOOD, "--as", "eve"], 2, "it has ops, app");
    fails(&["get", "flights", "k", "--context", "home"], 2, "contexts.toml");
    fails(&["keys", "show"], 2, "nothing to show");
    fails(&["import", "flights", "table.xls"], 2, "give --format");
    fails(&["import", "flights", ".", "--key-column", "id"], 2, "have no columns");
    fails(&["audit", "verify", "nowhere"], 2, "no such directory");
    fails(&["audit", "verify", "https://example.invalid/log/x.0"], 2, "only http://");
    fails(&["audit", "check", GOOD], 2, "--vkeys or --topology");
}

#[test]
fn errors_are_json_if_results_are() {
    let (code, _, stderr) = run(&mut tradewind(&["get", "flights", "k", "-o", "json"]));
    let error: Value = serde_json::from_str(&stderr).unwrap();
    assert_eq!((code, &error["exit_code"]), (2, &Value::from(2)));
    assert!(error["error"].as_str().unwrap().contains("TRADEWIND_TOPOLOGY"));
}

#[test]
fn servers_that_do_not_answer_are_2() {
    let directory = tempfile::tempdir().unwrap();
    let deployment = directory.path().join("t");
    let deployment = deployment.to_str().unwrap();
    // Ports that nobody listens on; nothing is started here.
    assert_eq!(code(&["topology", "init", deployment, "--port", "9"]), 0);
    let topology = format!("{deployment}/topology.toml");
    let get = ["get", "default", "k", "--topology", &topology, "--timeout", "0.2"];
    fails(&get, 2, "asked n1-1, n1-2, n1-3; are they running?");
    let unknown = ["get", "default", "k", "--topology", &topology, "--endpoints", "n9"];
    fails(&unknown, 2, "it has n1-1, n1-2, n1-3");
    let only = ["get", "default", "k", "--topology", &topology, "--only"];
    fails(&only, 2, "--only needs --endpoints");
    let (code, stdout, _) =
        run(&mut tradewind(&["status", "--topology", &topology, "--timeout", "0.2", "-o", "json"]));
    let status: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, status["processes"].as_array().unwrap().len()), (1, 3));
    assert_eq!(status["processes"][0]["ready"], false);
}

#[test]
fn contexts_stand_for_flags() {
    let directory = tempfile::tempdir().unwrap();
    let deployment = directory.path().join("t");
    assert_eq!(code(&["topology", "init", deployment.to_str().unwrap(), "--port", "9"]), 0);
    let contexts = directory.path().join("contexts.toml");
    fs::write(
        &contexts,
        "[home]\ntopology = \"t/topology.toml\"\nas = \"ops\"\nendpoints = [\"n1-2\"]\n",
    )
    .unwrap();
    let get = |name| {
        let mut command =
            tradewind(&["get", "default", "k", "--timeout", "0.2", "--context", name]);
        run(command.env("TRADEWIND_CONTEXTS", &contexts))
    };
    let (code, _, stderr) = get("home");
    assert!(code == 2 && stderr.contains("asked n1-2;"), "{stderr}");
    let (code, _, stderr) = get("work");
    assert!(code == 2 && stderr.contains("no context work") && stderr.contains("home"), "{stderr}");
}

#[test]
fn keys_are_private_and_never_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let keys = directory.path().join("keys");
    let new = ["keys", "new", "a1", "--dir", keys.to_str().unwrap()];
    let (code, public, _) = run(&mut tradewind(&new));
    assert_eq!(code, 0);
    let file = keys.join("a1.key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let (_, shown, _) = run(&mut tradewind(&["keys", "show", file.to_str().unwrap()]));
    assert_eq!(shown, public);
    fails(&new, 2, "not overwritten");
    fails(&["keys", "new", "../a1"], 2, "1 to 63 of a-z");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fails(&["keys", "show", file.to_str().unwrap()], 2, "chmod 600");
}

#[test]
fn init_makes_what_check_accepts_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let deployment = directory.path().join("atlas");
    let deployment = deployment.to_str().unwrap();
    let init = ["topology", "init", deployment, "--sites", "2", "--mirrors", "3"];
    assert_eq!(code(&init), 0);
    let topology = format!("{deployment}/topology.toml");
    assert_eq!(code(&["topology", "check", "--strict", &topology]), 0);
    fails(&init, 2, "not overwritten");
    let keys = fs::read_dir(Path::new(deployment).join("keys")).unwrap().count();
    assert_eq!(keys, 2 * 3 + 3 + 1);
}
