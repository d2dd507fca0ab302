//! Long runs of the simulator, and one run step by step: `tradewind-tests sim --help`.

use std::time::Instant;

use anyhow::bail;
use clap::{Parser, Subcommand};
use tradewind_tests::sim::{self, Coverage};

#[derive(Parser)]
#[command(about = "Long-running tests of Tradewind")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates core groups under faults and checks their invariants.
    Sim {
        /// Run this seed only, and tell each step.
        #[arg(long, conflicts_with_all = ["seeds", "from"])]
        seed: Option<u64>,
        /// How many seeds to run.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// With nodes that are added and removed meanwhile.
        #[arg(long)]
        changes: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Sim { seed: Some(seed), changes, .. } => {
            match sim::run_traced(seed, None, changes, |line| println!("{line}")) {
                Ok(coverage) => println!("seed {seed} holds: {coverage:#?}"),
                Err(failure) => bail!("seed {seed}: {failure}"),
            }
        }
        Command::Sim { seed: None, seeds, from, changes } => run_many(from, seeds, changes)?,
    }
    Ok(())
}

fn run_many(from: u64, seeds: u64, changes: bool) -> anyhow::Result<()> {
    let (start, mut sum) = (Instant::now(), Coverage::default());
    for seed in from..from + seeds {
        let _named = NameSeed(seed);
        let run = if changes { sim::run_changes } else { sim::run };
        match run(seed, None) {
            Ok(coverage) => sum.join(&coverage),
            Err(failure) => {
                let changes = if changes { " --changes" } else { "" };
                bail!(
                    "seed {seed}: {failure}\nreplay with: tradewind-tests sim --seed {seed}{changes}"
                )
            }
        }
    }
    println!("{seeds} seeds from {from} hold, {:.1?}: {sum:#?}", start.elapsed());
    Ok(())
}

/// Names the seed if the run panics.
struct NameSeed(u64);

impl Drop for NameSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {}: panicked; replay with: tradewind-tests sim --seed {}",
                self.0, self.0
            );
        }
    }
}
