//! Every page of help, golden: `BLESS=1 cargo test -p tradewind-cli --test help` writes them anew.

mod common;

use std::path::Path;

use common::{golden, run, tradewind};

const COMMANDS: &[&str] = &[
    "topology",
    "topology check",
    "topology show",
    "topology graph",
    "topology init",
    "keys",
    "keys new",
    "keys show",
    "serve",
    "put",
    "get",
    "delete",
    "cas",
    "txn",
    "lease",
    "lease acquire",
    "lease renew",
    "lease release",
    "lease show",
    "list",
    "history",
    "import",
    "export",
    "status",
    "roll",
    "node",
    "node add",
    "node remove",
    "node replace",
    "repair",
    "audit",
    "audit verify",
    "audit prove",
    "audit check",
    "audit consistency",
    "scenario",
    "scenario run",
    "completion",
];

#[test]
fn help_is_as_golden() {
    let wrong: Vec<String> = COMMANDS
        .iter()
        .filter_map(|command| {
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.push("--help");
            let (code, stdout, stderr) = run(&mut tradewind(&arguments));
            assert_eq!((code, stderr.as_str()), (0, ""), "{command}");
            let name = format!("testdata/help/{}.txt", command.replace(' ', "-"));
            golden(Path::new(&name), &stdout).err()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_names_every_command_and_exit_code() {
    let (code, stdout, _) = run(&mut tradewind(&["--help"]));
    assert_eq!(code, 0);
    let first_words = COMMANDS.iter().filter(|command| !command.contains(' '));
    for command in first_words.chain(&["demo", "bench"]) {
        assert!(stdout.contains(&format!("\n  {command}")), "{command}");
    }
    for code in 0..=6 {
        assert!(stdout.contains(&format!("\n  {code}  ")), "exit code {code}");
    }
}

#[test]
fn every_command_has_examples() {
    for command in COMMANDS
        .iter()
        .filter(|command| !["topology", "keys", "audit", "scenario", "node"].contains(*command))
    {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let (_, stdout, _) = run(&mut tradewind(&arguments));
        assert!(stdout.contains("\nExamples:\n  "), "{command}");
    }
}

#[test]
fn completion_is_made_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, stdout, _) = run(&mut tradewind(&["completion", shell]));
        assert_eq!(code, 0);
        assert!(stdout.contains("topology") && stdout.contains("history"), "{shell}");
    }
}
