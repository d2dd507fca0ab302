//! Long runs of the simulator and the explorer, and one run step by step: `tradewind-tests help`.

use std::time::Instant;

use anyhow::{anyhow, bail};
use clap::{Args, Parser, Subcommand};
use tradewind_tests::explore::{self, Bounds, Choice, Opening};
use tradewind_tests::sim::{self, Case, Course, Coverage, Failure, Kind, Script};

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
        #[arg(long, conflicts_with_all = ["seeds", "from", "script"])]
        seed: Option<u64>,
        /// How many seeds to run.
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
        /// The first of them.
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// With nodes that are added, removed and replaced meanwhile.
        #[arg(long, conflicts_with_all = ["script", "sweep"])]
        changes: bool,
        /// Run this script instead, and tell each step; with `--crash`, crashes beside it.
        #[arg(long, value_enum)]
        script: Option<Script>,
        /// NTH:before|after:APART: a crash before or after the NTH point of the script; APART: which node behind the one that
        /// crashes is cut off for a while, 0 for none.
        #[arg(long, requires = "script")]
        crash: Vec<sim::Injection>,
        /// Run the seeds of small sites whose nodes do not notice for a while that others go on, with many reads.
        #[arg(long, conflicts_with_all = ["script", "sweep"])]
        veiled: bool,
        /// Run all scripts with a crash at every point of theirs, and with so many pairs of crashes each; seeds as given.
        #[arg(long, conflicts_with_all = ["seed", "script"])]
        sweep: Option<usize>,
    },
    /// Follows all paths of a small site on which no more goes another way than these bounds allow.
    Explore(Explore),
}

#[derive(Args)]
struct Explore {
    /// Where to begin; all openings if none is named.
    #[arg(long, value_enum)]
    opening: Vec<Opening>,
    /// In which of the orders 0 to 2 things come if nothing else is chosen; all if none is named.
    #[arg(long)]
    order: Vec<usize>,
    /// How often something else comes than what is due.
    #[arg(long, default_value_t = 1)]
    deviations: u32,
    /// How many crashes.
    #[arg(long, default_value_t = 1)]
    crashes: u32,
    /// How many links are cut.
    #[arg(long, default_value_t = 0)]
    cuts: u32,
    /// A bug to plant, by its name in the code.
    #[arg(long)]
    plant: Option<String>,
    /// STEP:WHICH: follow one path with these choices, and tell each step.
    #[arg(long)]
    take: Vec<Choice>,
}

impl Explore {
    fn cases(&self) -> anyhow::Result<Vec<explore::Case>> {
        let Self { deviations, crashes, cuts, .. } = *self;
        let bounds = Bounds { deviations, crashes, cuts };
        let named = |name: &String| {
            let all = explore::BUGS.iter().find(|bug| bug.name() == *name);
            all.map(|bug| bug.planted).ok_or_else(|| anyhow!("no bug is called {name}"))
        };
        let planted = self.plant.as_ref().map(named).transpose()?;
        let openings = if self.opening.is_empty() { Opening::ALL } else { &self.opening };
        let orders =
            if self.order.is_empty() { (0..explore::ORDERS).collect() } else { self.order.clone() };
        let case = |opening, order| explore::Case { opening, order, bounds, planted };
        Ok(openings
            .iter()
            .flat_map(|opening| orders.iter().map(move |order| case(*opening, *order)))
            .collect())
    }

    fn run(&self) -> anyhow::Result<()> {
        for case in self.cases()? {
            if !self.take.is_empty() {
                let (lines, found) = explore::replay(case, &self.take);
                lines.iter().for_each(|line| println!("{line}"));
                return found.map_or(Ok(()), |found| Err(anyhow!("{found}")));
            }
            let start = Instant::now();
            let explored = explore::explore(case);
            println!("{case}: {explored}, {:.1?}", start.elapsed());
            if let Some(found) = &explored.found {
                bail!(explore::report(case, found));
            }
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    let (seed, seeds, from, changes, veiled, script, crash, sweep) =
        match Arguments::parse().command {
            Command::Explore(explore) => return explore.run(),
            Command::Sim { seed, seeds, from, changes, veiled, script, crash, sweep } => {
                (seed, seeds, from, changes, veiled, script, crash, sweep)
            }
        };
    let mut tell = |line: &str| println!("{line}");
    let course = |seed| Course { seed, changes, veiled };
    match (seed, script, sweep) {
        (Some(seed), ..) => {
            show(sim::run_traced(course(seed), None, tell), &course(seed).to_string())
        }
        (_, Some(script), _) => {
            let case = Case { script, seed: from, crashes: crash };
            show(sim::run_script(&case, None, Some(&mut tell)), &case.to_string())
        }
        (_, _, Some(pairs)) => (from..from + seeds).try_for_each(|seed| run_sweep(seed, pairs)),
        _ => run_many(from, seeds, course),
    }
}

fn run_sweep(seed: u64, pairs: usize) -> anyhow::Result<()> {
    for script in Script::ALL {
        let (start, mut sum) = (Instant::now(), Coverage::default());
        let named = |failure: Failure| anyhow!(failure.report(&format!("{script:?}")));
        let mut cases = sim::every_point(*script, seed).map_err(named)?;
        let points = cases.len();
        cases.extend(sim::pairs(*script, seed, pairs).map_err(named)?);
        for case in &cases {
            let _named = Named(case.to_string());
            sum.join(
                &case.run(None).map_err(|failure| anyhow!(failure.report(&case.to_string())))?,
            );
        }
        let spent = start.elapsed();
        println!("{script:?} from {seed}: {points} crashes at a point, {pairs} pairs: {spent:.1?}");
    }
    Ok(())
}

fn show(result: Result<Coverage, Failure>, what: &str) -> anyhow::Result<()> {
    match result {
        Ok(coverage) => println!("{what} holds: {coverage:#?}"),
        Err(failure) => bail!(failure.report(what)),
    }
    Ok(())
}

fn run_many(from: u64, seeds: u64, course: impl Fn(u64) -> Course) -> anyhow::Result<()> {
    let (start, mut sum) = (Instant::now(), Coverage::default());
    for course in (from..from + seeds).map(&course) {
        let name = course.to_string();
        let _named = Named(name.clone());
        match sim::run(course, None) {
            Ok(coverage) => sum.join(&coverage),
            Err(failure) => bail!(failure.report(&name)),
        }
    }
    println!("{seeds} seeds from {from} hold, {:.1?}: {sum:#?}", start.elapsed());
    let missed = sum.missed();
    if !course(from).veiled && !missed.is_empty() {
        println!("never reached: {}", missed.join(", "));
    }
    Ok(())
}

/// Names the run if it panics.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} at commit {}: panicked", self.0, sim::commit());
        }
    }
}
