//! Runs the real binary.

use std::{
    path::Path,
    process::{Command, Output},
};

/// The binary with these arguments, in a clean environment.
pub(crate) fn tradewind(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tradewind"));
    command.args(arguments).env_remove("NO_COLOR").env_remove("COLUMNS");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("TRADEWIND") {
            command.env_remove(name);
        }
    }
    command
}

/// Its exit code, stdout and stderr.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let code = status.code().expect("no signal ended it");
    (code, text(stdout), text(stderr))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

/// Compares with a golden file; `BLESS=1` writes it anew. Returns what is wrong.
pub(crate) fn golden(file: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(file, text).expect("a golden file can be written");
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected == text {
        return Ok(());
    }
    Err(format!("--- not as in {}:\n{text}", file.display()))
}
