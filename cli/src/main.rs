//! The one binary, `tradewind`.
//!
//! | module | what it holds |
//! |---|---|
//! | `command` | the command line: which subcommands there are, and what runs them |
//! | `exit` | exit codes, and how an error becomes one |
//! | `output` | tables for people, JSON for programs |
//! | `scratch` | a directory that lives as long as the command |
//! | `progress` | bars on stderr, on a terminal only |
//! | `restart` | how `serve` begins anew |
//! | `records` | keys and values in files: NDJSON, CSV, directories |
//! | `http_source` | a ledger's public face, for the auditor |
//! | `connect` | from flags, environment and contexts to a connected client |
//! | `read` | which state a read wants |
//! | `time` | moments on the command line and in tables |
//! | `data` | keys and values as text: plain if they are UTF-8, base64 if not |
//!
//! Every other module is the subcommand of its name; `write` is `put`, `delete` and `cas`, `list` is
//! `history` too.

mod audit;
mod bench;
mod command;
mod completion;
mod connect;
mod data;
mod demo;
mod exit;
mod export;
mod get;
mod http_source;
mod import;
mod keys;
mod lease;
mod list;
mod node;
mod output;
mod progress;
mod read;
mod records;
mod repair;
mod restart;
mod roll;
mod runtime;
mod scenario;
mod scratch;
mod scrub;
mod serve;
mod status;
mod time;
mod topology;
mod txn;
mod write;

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
