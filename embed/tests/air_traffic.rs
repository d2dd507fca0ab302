//! The example with real processes, and its checker with faults planted in what it reads.

#[path = "../examples/air_traffic/ledgers.rs"]
mod ledgers;
#[path = "../examples/air_traffic/plans.rs"]
mod plans;

use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use plans::{Airspace, Command, Plan, Reply, Sent, Strip};
use tradewind_audit::{DirSource, Options, Verdict};
use tradewind_embed::{At, StateMachine as _};
use tradewind_ledger::{Hlc, Version, ViewId};

/// What a busy machine may add to the bound of a take-over.
const BUSY_MS: u64 = 5_000;

/// The example of the profile that the tests are built with.
fn example() -> PathBuf {
    let mut build = Process::new(env!("CARGO"));
    build.args(["build", "--package", "tradewind-embed", "--example", "air_traffic", "--locked"]);
    build.arg("--message-format=json-render-diagnostics").current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let output = build.stderr(Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "the example does not build");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo names the executable")
}

#[test]
fn a_runway_changes_hands_when_its_controller_is_killed_or_stopped_and_is_never_held_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = Process::new(example());
    demo.args(["demo", "-o", "json", "--dir"]).arg(dir.path());
    let output = demo.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the demo does not hold");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let figure = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"));
    for took in ["takeover_after_kill_ms", "takeover_after_stop_ms"] {
        assert!(figure(took) <= figure("bound_ms") + BUSY_MS, "{report}");
    }
    // Both runways, and one more each time that a controller was lost.
    assert!(figure("grants") >= 4 && figure("told") > 0, "{report}");

    // What the demo checked holds; and what a stranger can check, holds of each member alone.
    let data = |name: &str| dir.path().join("data").join(name);
    let names = ["ams-1", "ams-2", "ams-3"];
    let ledgers =
        names.map(|name| ledgers::entries(&data(name).join("ledgers/flights.0")).unwrap());
    let history = ledgers::one_history(ledgers.to_vec()).unwrap();
    let counts = ledgers::check(&ledgers::play(&history, "plans").unwrap()).unwrap();
    assert_eq!(figure("commands"), counts.commands);
    let found = (counts.plans, counts.clearances, counts.grants, counts.fenced);
    assert_eq!((figure("plans"), figure("clearances"), figure("grants"), figure("fenced")), found);
    for name in names {
        let audit = tradewind_audit::verify(&DirSource::new(data(name)), &Options::default());
        assert_eq!(audit.verdict(), Verdict::Holds, "{audit:?}");
    }
}

/// A history as the state machine makes it.
fn history() -> Vec<ledgers::Played> {
    let plan = || Plan { runway: "27".into(), level: 200 };
    let (flight, runway) = (|| "TW101".to_owned(), || "27".to_owned());
    let commands = [
        ("a", 10, Command::Take { runway: runway(), ttl_ms: 1_000 }),
        ("b", 20, Command::Take { runway: runway(), ttl_ms: 1_000 }),
        ("b", 30, Command::File { flight: flight(), plan: plan() }),
        ("c", 40, Command::File { flight: flight(), plan: plan() }),
        ("a", 50, Command::Clear { runway: runway(), token: 0, flight: flight() }),
        ("c", 60, Command::Amend { flight: flight(), of: 2, plan: plan() }),
        ("b", 1_600, Command::Take { runway: runway(), ttl_ms: 1_000 }),
        ("a", 1_610, Command::Clear { runway: runway(), token: 0, flight: flight() }),
        ("b", 1_620, Command::Clear { runway: runway(), token: 6, flight: flight() }),
        ("a", 1_630, Command::Cancel { flight: flight(), of: 5 }),
    ];
    let mut airspace = Airspace::default();
    let play = |(version, (tower, ms, command)): (u64, (&str, u64, Command))| {
        let strip = Strip { tower: tower.into(), since: 0, number: version };
        let (sent, hlc) = (Sent { strip, command }, Hlc::from_micros(ms * 1_000));
        let at = At { version: Version(version), hlc, view: ViewId(1) };
        let reply = airspace.apply(at, sent.clone());
        ledgers::Played { at, sent, reply }
    };
    (0..).zip(commands).map(play).collect()
}

#[test]
fn the_checker_finds_each_planted_fault() {
    let good = history();
    let counts = ledgers::check(&good).unwrap();
    assert_eq!((counts.plans, counts.clearances, counts.grants, counts.fenced), (2, 2, 2, 1));
    assert!(matches!(&good[1].reply, Reply::Controlled { by, token: 0, .. } if by == "a"));
    assert_eq!(good[3].reply, Reply::Otherwise(Some(2)));

    let fault = |plant: &dyn Fn(&mut Vec<ledgers::Played>)| {
        let mut bad = good.clone();
        plant(&mut bad);
        ledgers::check(&bad).unwrap_err()
    };
    let twice = fault(&|bad| bad[9].sent = bad[5].sent.clone());
    assert!(twice.contains("applied before"), "{twice}");
    let two_plans = fault(&|bad| bad[3].reply = Reply::Active(3));
    assert!(two_plans.contains("active plans"), "{two_plans}");
    let late = fault(&|bad| bad[7].reply = Reply::Cleared);
    assert!(late.contains("old token"), "{late}");
    let stolen = fault(&|bad| bad[8].sent.strip.tower = "c".into());
    assert!(stolen.contains("token of b"), "{stolen}");

    let told: Vec<_> =
        good.iter().map(|p| (p.sent.strip.clone(), p.at.version.0, p.reply.clone())).collect();
    ledgers::check_told(&good, &told).unwrap();
    let repeated = [&told[..], &told[..1]].concat();
    assert!(ledgers::check_told(&good, &repeated).unwrap_err().contains("twice"));
    let mut other = told.clone();
    other[1].2 = Reply::Granted(1);
    assert!(ledgers::check_told(&good, &other).unwrap_err().contains("was told"));
}
