//! Every file in `testdata/bad` with exactly the message that its user sees.
//!
//! `BLESS=1 cargo test -p tradewind-topology` writes the messages anew.

use std::{fs, path::Path};

use tradewind_topology::Topology;

/// `NAME.env` beside `NAME.toml`: the environment that the file is read under.
fn environment(file: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(file.with_extension("env")).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn every_bad_file_gets_its_exact_message() {
    let directory = Path::new("testdata/bad");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    files.push(directory.join("missing.toml"));
    files.sort();
    assert!(files.len() >= 25, "{} bad files", files.len());

    let mut wrong = Vec::new();
    for file in files {
        let message = match Topology::load_with(&file, &environment(&file)) {
            Ok(loaded) if loaded.warnings.is_empty() => "accepted without a word".to_owned(),
            Ok(loaded) => loaded.warnings.to_string(),
            Err(diagnostics) => diagnostics.to_string(),
        };
        let golden = file.with_extension("txt");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, format!("{message}\n")).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        if expected != format!("{message}\n") {
            wrong.push(format!("--- {}\n{message}", golden.display()));
        }
    }
    assert!(wrong.is_empty(), "not as the .txt beside the file says:\n{}", wrong.join("\n"));
}

#[test]
fn a_file_of_more_than_a_mebibyte_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("large.toml");
    fs::write(&file, "#".repeat((1 << 20) + 1)).unwrap();
    let message = Topology::load_with(&file, &[]).unwrap_err().to_string();
    assert!(message.contains("more than 1048576 bytes"), "{message}");
}
