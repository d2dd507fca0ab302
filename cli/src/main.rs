//! The one binary, `tradewind`.
//!
//! | module | what it holds |
//! |---|---|
//! | `command` | the command line: which subcommands there are, and what runs them |
//! | `exit` | exit codes, and how an error becomes one |
//! | `output` | tables for people, JSON for programs |
//! | `scratch` | a directory that lives as long as the command |
//! | `time` | moments on the command line and in tables |
//!
//! Every other module is the subcommand of its name.

mod bench;
mod command;
mod completion;
mod demo;
mod exit;
mod keys;
mod output;
mod scratch;
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
