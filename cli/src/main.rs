//! The one binary, `tradewind`.
//!
//! | module | what it holds |
//! |---|---|
//! | `command` | the command line: which subcommands there are, and what runs them |
//! | `exit` | exit codes, and how an error becomes one |
//! | `output` | tables for people, JSON for programs |
//! | `time` | moments on the command line and in tables |
//!
//! Every other module is the subcommand of its name.

mod command;
mod completion;
mod exit;
mod keys;
mod output;
mod time;
mod topology;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let command = command::Cli::parse();
    let output = command.output();
    match command.run(&output) {
        Ok(exit) => exit.into(),
        Err(error) => exit::report(&error, &output).into(),
    }
}
