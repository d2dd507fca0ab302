//! The dependency rules of docs/ARCHITECTURE.md: which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crate (without the `tradewind-` prefix) and the crates of the workspace it may depend on.
/// `cli` and `tests` may use everything and are not listed.
const ALLOWED: &[(&str, &[&str])] = &[
    ("topology", &[]),
    ("transport", &["topology"]),
    ("ledger", &[]),
    ("ledger-disk", &["ledger"]),
    ("store", &["ledger"]),
    ("store-disk", &["store", "ledger", "ledger-disk"]),
    ("site-protocol", &["ledger", "store"]),
    (
        "site",
        &[
            "site-protocol",
            "transport",
            "ledger",
            "ledger-disk",
            "store",
            "store-disk",
            "topology",
            "gateway",
            "client",
        ],
    ),
    ("wan-protocol", &["ledger"]),
    ("wan", &["wan-protocol", "transport", "ledger", "ledger-disk", "topology"]),
    (
        "mirror",
        &[
            "wan",
            "wan-protocol",
            "transport",
            "ledger",
            "ledger-disk",
            "store",
            "store-disk",
            "topology",
            "gateway",
            "client",
        ],
    ),
    ("audit", &["ledger"]),
    ("local", &["client", "ledger", "store", "topology", "transport"]),
    ("client", &["ledger", "store"]),
    (
        "embed",
        &["site", "gateway", "client", "store", "ledger", "ledger-disk", "topology", "transport"],
    ),
    ("gateway", &["client", "ledger", "store", "transport"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn short(name: &str) -> Option<&str> {
    name.strip_prefix("tradewind-")
}

#[test]
fn every_crate_knows_only_the_crates_it_may() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ALLOWED.iter().map(|(name, list)| (*name, list.iter().copied().collect())).collect();
    let mut faults = Vec::new();
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = short(package["name"].as_str().expect("name")).expect("tradewind- prefix");
        if matches!(name, "cli" | "tests") {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            faults.push(format!("{name}: add it to ALLOWED and to docs/ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let is_dev = dependency["kind"] == "dev";
            let Some(other) = dependency["name"].as_str().and_then(short) else { continue };
            if !is_dev && !allowed.contains(other) {
                faults.push(format!("{name} may not depend on {other}; allowed: {allowed:?}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn pure_cores_are_no_std() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace root");
    for core in ["ledger", "store", "site/protocol", "wan/protocol"] {
        let lib = std::fs::read_to_string(root.join(core).join("src/lib.rs")).expect("lib.rs");
        assert!(
            lib.contains("#![no_std]"),
            "{core}/src/lib.rs must stay #![no_std]: it is a pure core"
        );
    }
}
