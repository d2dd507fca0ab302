//! The command line against a real deployment: three nodes and a mirror, processes of this binary.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use common::{run, tradewind};
use serde_json::Value;
use tempfile::TempDir;
use tradewind_local::{Deployment, MirrorPlan, Plan};

/// Generous: the machine may be busy with other things.
const READY: Duration = Duration::from_secs(60);

struct Store {
    deployment: Deployment,
    directory: TempDir,
}

impl Store {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut plan = Plan::one_site(3, 2);
        plan.mirrors.push(MirrorPlan {
            name: "leaf".into(),
            region: "us".into(),
            parents: vec!["ams".into()],
            pools: vec!["bench".into()],
        });
        let binary = Path::new(env!("CARGO_BIN_EXE_tradewind"));
        let deployment = directory.path().join("deployment");
        let mut deployment = Deployment::create(&deployment, binary, plan).unwrap();
        deployment.start_all().unwrap();
        deployment.wait_ready(READY).unwrap();
        Self { deployment, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = tradewind(arguments);
        let topology = self.deployment.dir().join("topology.toml");
        run(command.env("TRADEWIND_TOPOLOGY", topology).args(["--output", "json"]))
    }

    /// Ends with this code and prints this JSON.
    fn json(&self, arguments: &[&str], code: i32) -> Value {
        let (found, stdout, stderr) = self.run(arguments);
        assert_eq!(found, code, "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"))
    }

    /// Fails with code 2 and says this.
    fn refused(&self, arguments: &[&str], said: &str) {
        let (code, _, stderr) = self.run(arguments);
        assert!(code == 2 && stderr.contains(said), "{arguments:?}: {code}: {stderr}");
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Exports a pool to a file, and tells at which version.
    fn export(&self, out: &str, more: &[&str]) -> String {
        let arguments = [&["export", "bench", "--out", out, "--wait", "30000"], more].concat();
        self.json(&arguments, 0)["version"].as_str().unwrap().to_owned()
    }
}

#[test]
fn what_the_command_line_writes_it_reads_everywhere() {
    let store = Store::start();
    single_keys(&store);
    transactions(&store);
    leases(&store);
    files(&store);
    mirrors(&store);
    audits(&store);
    stalls(store);
}

fn single_keys(store: &Store) {
    let first = store.json(&["put", "bench", "k", "one"], 0);
    assert_eq!(first["key_version"], 1);
    let version = first["version"].to_string();
    let got = store.json(&["get", "bench", "k"], 0);
    assert_eq!((&got["value"], &got["version"]), (&"one".into(), &first["version"]));

    let conflict = store.json(&["put", "bench", "k", "two", "--if-absent"], 1);
    assert_eq!((&conflict["written"], &conflict["version"]), (&false.into(), &first["version"]));
    store.json(&["cas", "bench", "k", "absent", "two"], 1);
    let second = store.json(&["cas", "bench", "k", &version, "two"], 0);
    store.json(&["cas", "bench", "k", &version, "three"], 1);
    assert_eq!(store.json(&["get", "bench", "k", "--version", &version], 0)["value"], "one");
    assert_eq!(store.json(&["get", "bench", "k"], 0)["value"], "two");
    let time = first["time"].as_str().unwrap();
    assert_eq!(store.json(&["get", "bench", "k", "--at", time], 0)["value"], "one");

    store.json(&["delete", "bench", "k", "--if-version", &version], 1);
    store.json(&["delete", "bench", "k"], 0);
    store.json(&["delete", "bench", "k"], 1);
    assert_eq!(store.json(&["get", "bench", "k"], 1)["found"], false);
    let history = store.json(&["history", "bench", "k"], 0);
    let deleted: Vec<&Value> =
        history["revisions"].as_array().unwrap().iter().map(|r| &r["deleted"]).collect();
    assert_eq!(deleted, [true, false, false]);
    assert_eq!(history["revisions"][1]["version"], second["version"]);

    let large = store.file("large");
    fs::write(&large, vec![0xfe; 200_000]).unwrap();
    store.json(&["put", "bench", "large", "--file", &large], 0);
    let mut get = tradewind(&["get", "bench", "large", "--topology"]);
    let output = get.arg(store.deployment.dir().join("topology.toml")).output().unwrap();
    assert_eq!(output.stdout, vec![0xfe; 200_000], "bytes come as they are");
    store.json(&["delete", "bench", "large"], 0);
    store.refused(&["get", "nowhere", "k"], "there is no pool nowhere");
}

fn leases(store: &Store) {
    let name = "runway/{27}";
    store.json(&["lease", "show", "bench", name], 1);
    let acquire = |holder: &str, ttl: &str, wait: &str, code| {
        let ask =
            ["lease", "acquire", "bench", name, "--holder", holder, "--ttl", ttl, "--wait", wait];
        store.json(&ask, code)
    };
    let first = acquire("tower-a", "60", "0", 0)["token"].to_string();
    assert_eq!(acquire("tower-b", "60", "0", 1)["held"]["holder"], "tower-a");
    let put = |value: &str, token: &str, code| {
        let fence = format!("{name}:{token}");
        store.json(&["put", "bench", "clearance/{27}", value, "--fence", &fence], code)
    };
    assert_eq!(put("KL601", &first, 0)["key_version"], 1);
    store.json(&["lease", "renew", "bench", name, &first], 0);
    assert_eq!(store.json(&["lease", "show", "bench", name], 0)["token"].to_string(), first);
    store.json(&["lease", "release", "bench", name, &first], 0);
    put("KL602", &first, 1);

    // One that is not renewed is taken over, and its holder's late acts do not count.
    let second = acquire("tower-b", "0.5", "0", 0)["token"].to_string();
    let third = acquire("tower-a", "60", "30", 0)["token"].to_string();
    store.json(&["lease", "renew", "bench", name, &second], 1);
    put("KL603", &second, 1);
    put("KL604", &third, 0);
    assert_eq!(store.json(&["get", "bench", "clearance/{27}"], 0)["value"], "KL604");
    store.refused(
        &["put", "bench", "elsewhere", "v", "--fence", &format!("{name}:{third}")],
        "share a shard",
    );
    store.json(&["lease", "release", "bench", name, &third], 0);
    store.json(&["delete", "bench", "clearance/{27}"], 0);
}

fn transactions(store: &Store) {
    let file = store.file("txn.json");
    let transaction = r#"{
        "compare": [{"key": "{t}/a", "exists": false}],
        "then": [{"op": "put", "key": "{t}/a", "value": "1"}, {"op": "put", "key": "{t}/b", "value": "2"}],
        "otherwise": [{"op": "get", "key": "{t}/a"}, {"op": "delete", "key": "{t}/b"}]
    }"#;
    fs::write(&file, transaction).unwrap();
    let first = store.json(&["txn", "bench", &file], 0);
    assert_eq!(
        (&first["succeeded"], first["results"].as_array().unwrap().len()),
        (&true.into(), 2)
    );
    let second = store.json(&["txn", "bench", &file], 1);
    assert_eq!(second["results"][0]["value"], "1");
    let listed = store.json(&["list", "bench", "--prefix", "{t}/"], 0);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let keys: Vec<String> = (0..16)
        .map(|n| format!("{{\"op\": \"put\", \"key\": \"{n}\", \"value\": \"\"}}"))
        .collect();
    fs::write(&file, format!("{{\"then\": [{}]}}", keys.join(","))).unwrap();
    store.refused(&["txn", "bench", &file], "share a shard");
    fs::write(&file, "{\"then\": 1}").unwrap();
    store.refused(&["txn", "bench", &file], "txn --help");
    store.json(&["delete", "bench", "{t}/a"], 0);
}

/// Every format there and back: what is exported again is the same, byte for byte.
fn files(store: &Store) {
    let csv = store.file("in.csv");
    let rows: Vec<String> =
        (0..3_000).map(|n| format!("k{n:05},\"name, {n}\",{}", n * 7)).collect();
    fs::write(&csv, format!("id,name,size\n{}\n", rows.join("\n"))).unwrap();
    let imported = store.json(&["import", "bench", &csv, "--key-column", "id"], 0);
    assert_eq!((&imported["written"], &imported["skipped"]), (&3_000.into(), &0.into()));
    let again = store.json(&["import", "bench", &csv, "--key-column", "id", "--resume"], 0);
    assert_eq!((&again["written"], &again["skipped"]), (&0.into(), &3_000.into()));

    let (exported, lines) = (store.file("out.csv"), store.file("out.ndjson"));
    store.export(&exported, &[]);
    assert_eq!(fs::read(&exported).unwrap(), fs::read(&csv).unwrap());
    let before = store.export(&lines, &[]);

    // Changed, and then exported as it was.
    store.json(&["put", "bench", "k00007", "changed"], 0);
    let (then, now) = (store.file("then.ndjson"), store.file("now.ndjson"));
    assert_eq!(store.export(&then, &["--version", &before]), before);
    assert_eq!(fs::read(&then).unwrap(), fs::read(&lines).unwrap());
    store.export(&now, &[]);
    assert_ne!(fs::read(&now).unwrap(), fs::read(&lines).unwrap());

    // NDJSON undoes the change; a directory takes the same records.
    store.json(&["import", "bench", &lines], 0);
    store.export(&now, &[]);
    assert_eq!(fs::read(&now).unwrap(), fs::read(&lines).unwrap());
    let directory = store.file("out");
    store.export(&directory, &["--format", "dir", "--prefix", "k000"]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 100);
    assert_eq!(store.json(&["import", "bench", &directory, "--resume"], 0)["skipped"], 100);

    // A record that cannot be taken is named, and stops it.
    let bad = store.file("bad.ndjson");
    let mut file = fs::File::create(&bad).unwrap();
    writeln!(file, "{{\"key\": \"k00000\", \"value\": \"x\"}}\n{{\"key\": \"\", \"value\": \"\"}}")
        .unwrap();
    store.refused(&["import", "bench", &bad], "bad.ndjson:2");
    store.json(&["import", "bench", &lines, "--resume"], 0);
}

fn mirrors(store: &Store) {
    let (home, copy) = (store.file("home.ndjson"), store.file("copy.ndjson"));
    let version = store.export(&home, &[]);
    store.export(&copy, &["--version", &version, "--endpoints", "leaf", "--only"]);
    assert_eq!(fs::read(&home).unwrap(), fs::read(&copy).unwrap());

    let written = store.json(&["put", "bench", "fresh", "x"], 0)["version"].to_string();
    let get = ["get", "bench", "fresh", "--endpoints", "leaf", "--only", "--min-version", &written];
    assert_eq!(store.json(&get, 0)["value"], "x", "read your own writes at a mirror");
    store.refused(&["put", "bench", "k", "v", "--endpoints", "leaf", "--only"], "site ams");
    let linearizable =
        ["get", "bench", "fresh", "--endpoints", "leaf", "--only", "--level", "linearizable"];
    store.refused(&linearizable, "no linearizable reads");

    let status = store.json(&["status"], 0);
    let names: Vec<&str> = status["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ams-1", "ams-2", "ams-3", "leaf"]);
    assert!(status["processes"].as_array().unwrap().iter().all(|process| process["ready"] == true));
}

fn audits(store: &Store) {
    let data = |name: &str| store.deployment.data(name).to_str().unwrap().to_owned();
    let http = store.deployment.http("leaf");
    for source in [data("ams-1"), data("leaf"), http.clone()] {
        let report = store.json(&["audit", "verify", &source], 0);
        assert_eq!(report["ledgers"].as_array().unwrap().len(), 2, "{source}");
        assert_eq!(report["ledgers"][0]["trust"], "keys");
    }
    let checkpoint = store.deployment.data("ams-1").join("ledgers/bench.0/checkpoint");
    let old = store.file("old.note");
    fs::copy(&checkpoint, &old).unwrap();
    let proof = store.file("3.tlog-proof");
    store.json(&["audit", "prove", &http, "3", "--ledger", "bench.0", "--out", &proof], 0);
    let checked = store.json(&["audit", "check", &proof], 0);
    assert_eq!((&checked["version"], &checked["verdict"]), (&3.into(), &"holds".into()));
    store.json(&["audit", "consistency", &http, &old, "--ledger", "bench.0"], 0);

    // A proof about another entry, and a key that nobody should trust.
    let text = fs::read_to_string(&proof).unwrap();
    fs::write(&proof, text.replace("index 3", "index 4")).unwrap();
    store.json(&["audit", "check", &proof], 1);
    fs::write(&proof, &text).unwrap();
    let vkeys = store.file("vkeys");
    fs::write(&vkeys, "# nobody\n").unwrap();
    let (code, _, stderr) = run(&mut tradewind(&["audit", "check", &proof, "--vkeys", &vkeys]));
    assert!(code == 2 && stderr.contains("--vkeys or --topology"), "{stderr}");
    store.refused(&["audit", "prove", &http, "3"], "--ledger POOL.SHARD");
    store.refused(&["audit", "prove", &http, "99999999", "--ledger", "bench.0"], "");
}

/// With one of three nodes gone the site goes on; with two it takes no writes, says why, and still shows what it has.
fn stalls(mut store: Store) {
    store.deployment.kill("ams-3").unwrap();
    store.json(&["put", "bench", "one-less", "v"], 0);
    store.deployment.kill("ams-2").unwrap();
    let (code, _, stderr) = store.run(&["put", "bench", "k", "v", "--timeout", "4"]);
    assert!([2, 5].contains(&code), "{code}: {stderr}");
    assert!(stderr.contains("waiting for ams-2, ams-3"), "{stderr}");
    let got = store.json(&["get", "bench", "fresh", "--level", "local", "--endpoints", "ams-1"], 0);
    assert_eq!(got["value"], "x");
    let status = store.json(&["status"], 1);
    let process = |name: &str| {
        let processes = status["processes"].as_array().unwrap();
        processes.iter().find(|process| process["name"] == name).unwrap().clone()
    };
    assert_eq!(process("ams-3")["ready"], false);
    assert!(process("ams-1")["fault"].as_str().unwrap().contains("waiting for ams-2, ams-3"));

    // A flipped byte is found, with its file.
    store.deployment.stop_all().unwrap();
    let data = store.deployment.data("leaf");
    let ledger = data.join("ledgers/bench.0");
    let tile = ledger.join("tile/0/000");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&tile, bytes).unwrap();
    let mut audit = tradewind(&["audit", "verify", data.to_str().unwrap()]);
    let (code, stdout, _) = run(audit.stdin(Stdio::null()));
    assert_eq!(code, 1, "{stdout}");
    assert!(stdout.contains("tile/0/000:"), "{stdout}");
    assert!(stdout.contains("does not hold: 2 ledgers"), "{stdout}");
}
