//! Air traffic: a flight-plan log, replicated by the processes that use it.
//!
//! Each tower is a process and a member of one site. Flights have at most one active plan, runways at most one controller,
//! which holds a lease with a fencing token; everything is decided in one order, and kept in a signed ledger.
//!
//! ```text
//! cargo run -p tradewind-embed --example air_traffic -- demo
//! ```
//!
//! starts three towers, kills the controller of a runway, stops another one for a while, tells how long each runway was
//! without a controller, and in the end checks the ledgers of all three against the rules and against what each tower was
//! told. Exit code 0: everything held.
//!
//! | module | holds |
//! |---|---|
//! | `plans` | the state machine |
//! | `tower` | one process: files plans, contends for runways |
//! | `demo` | three of them, and what is done to them |
//! | `ledgers` | the rules, checked on what the ledgers say |

mod demo;
mod ledgers;
mod plans;
mod tower;

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

/// A flight-plan log, replicated by the towers that use it
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Three towers on this machine; one is killed, one is stopped for a while
    Demo {
        /// Keep everything below this directory
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// How to tell it
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// One tower, under the name of a node of the topology, until standard input closes
    Tower {
        /// The topology file
        #[arg(long, value_name = "FILE")]
        topology: PathBuf,
        /// The name of the node
        name: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// One JSON object at the end
    Json,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Demo { dir, output } => demo::run(dir, output == Output::Text),
        What::Tower { topology, name } => {
            tracing_subscriber::fmt().with_writer(std::io::stderr).init();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(tower::run(topology, name))
        }
    }
}
