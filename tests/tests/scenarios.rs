//! Every file of tests/scenarios, played: real processes, real faults, golden output (docs/scenarios.md).
//! `BLESS=1 cargo test -p tradewind-tests --test scenarios` writes what happens into the files; read the diff.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use tradewind_tests::e2e::binary;

/// How many are played at a time: they wait more than they compute.
const AT_A_TIME: usize = 2;

fn scenarios() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files =
        std::fs::read_dir(dir).expect("the scenarios").map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|e| e == "txt")).collect();
    files.sort();
    files
}

#[test]
fn every_scenario_holds() {
    let (waiting, failed) = (Mutex::new(scenarios()), Mutex::new(Vec::new()));
    let next = || waiting.lock().expect("no panic while it is held").pop();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(file) = next() {
                    let began = std::time::Instant::now();
                    let mut run = Command::new(binary());
                    run.args(["scenario", "run"]).arg(&file).stdin(Stdio::null());
                    let output = run.output().expect("the command runs");
                    let said = [output.stdout, output.stderr].concat();
                    let said = String::from_utf8_lossy(&said).trim_end().to_owned();
                    println!("{said} ({:.1} s)", began.elapsed().as_secs_f32());
                    if !output.status.success() {
                        failed.lock().expect("no panic while it is held").push(said);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic while it was held");
    assert!(failed.is_empty(), "{} differ:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn there_are_twenty_scenarios_and_each_shows_a_row_of_the_guarantees() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let guarantees = std::fs::read_to_string(root.join("docs/GUARANTEES.md")).expect("the page");
    let scenarios = scenarios();
    assert!(scenarios.len() >= 20, "{} scenarios", scenarios.len());
    let name = |file: &PathBuf| file.file_name().expect("a name").to_string_lossy().into_owned();
    let unnamed: Vec<String> = scenarios
        .iter()
        .map(name)
        .filter(|name| !guarantees.contains(&format!("`{name}`")))
        .collect();
    assert!(unnamed.is_empty(), "docs/GUARANTEES.md does not name {}", unnamed.join(", "));
}
