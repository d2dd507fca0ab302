//! `tradewind demo`: a whole deployment on this machine, the main job end to end.
//!
//! - [`deployment`]: what is built; [`records`]: what is written
//! - [`story`]: the steps; [`traffic`]: what goes on at the same time; [`check`]: what is proven at the end
//! - [`figures`], [`picture`], [`steps`]: what is told

mod check;
mod deployment;
mod figures;
mod picture;
mod records;
mod steps;
mod story;
mod traffic;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tradewind_local::Deployment;

use crate::connect::block_on;
use crate::exit::Exit;
use crate::output::Output;
use crate::scratch::Scratch;
use figures::Figures;
use steps::Steps;

/// Show a whole deployment at work on this machine, end to end
///
/// Two sites with three nodes each, a relay and two leaf mirrors in a chain, all real processes: imports 28,298
/// airports, writes from several clients, kills a mirror and brings it back, and audits every ledger at every place.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Where to put topology, keys, data and logs, and keep them; otherwise a temporary directory, removed at the end
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End when everything is shown, with 0 or the first failure, instead of staying up until Ctrl-C
    #[arg(long)]
    exit: bool,
}

impl DemoArgs {
    /// Runs the demo; the figures go to stdout, as a picture or as JSON, what is going on to stderr.
    ///
    /// # Errors
    /// The first thing that does not hold, or that the demo was interrupted.
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        block_on(self.play(output))
    }

    async fn play(self, output: &Output) -> anyhow::Result<Exit> {
        let binary = std::env::current_exe().context("finding the own executable")?;
        let home = Scratch::new("demo", self.dir.as_deref())?;
        let steps = Steps::new();
        let mut deployment = Deployment::create(home.path(), &binary, deployment::plan())?;
        let mut interrupts = Interrupts::new()?;

        let told = tokio::select! {
            told = story::run(&mut deployment, &steps) => told,
            name = interrupts.next() => bail!("interrupted by {name}"),
        };
        let figures = match told {
            Ok(figures) => figures,
            Err(error) => {
                drop(deployment);
                let dir = home.keep();
                let kept = format!("data and logs are kept in {}", dir.display());
                return Err(error.context(kept));
            }
        };
        output.print(&figures, ToString::to_string)?;
        if !self.exit {
            invite(&deployment, &figures);
            interrupts.next().await;
        }
        deployment.stop_all()?;
        Ok(Exit::Done)
    }
}

/// What to try while everything is up.
fn invite(deployment: &Deployment, figures: &Figures) {
    let topology = deployment.topology_file();
    let mirrors = figures.mirrors.iter().map(|mirror| &mirror.name);
    let last = figures.mirrors.last().map_or("", |mirror| &mirror.name);
    eprintln!("A page to look at, from each process:");
    for name in figures.sites.iter().map(|site| &site.nodes[0]).chain(mirrors) {
        eprintln!("  {name:<8} {}/", deployment.http(name));
    }
    eprintln!("\nIn another terminal:\n  export TRADEWIND_TOPOLOGY={}", topology.display());
    for command in EXAMPLES {
        eprintln!("  {command}");
    }
    eprintln!("  tradewind audit verify {}", deployment.http(last));
    eprintln!("\nEverything stays up until Ctrl-C.");
}

/// Commands that work with the environment of [`invite`].
const EXAMPLES: [&str; 6] = [
    "tradewind status",
    "tradewind put flights TW0-0001 '{\"state\":\"delayed\"}'",
    "tradewind history flights TW0-0001",
    "tradewind get flights TW0-0001 --endpoints leaf-2 --only --min-version VERSION",
    "tradewind list airports --prefix EH --endpoints relay",
    "tradewind topology show",
];

/// The signals that end the demo.
struct Interrupts([(tokio::signal::unix::Signal, &'static str); 3]);

impl Interrupts {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self([
            (listen(SignalKind::interrupt())?, "SIGINT"),
            (listen(SignalKind::terminate())?, "SIGTERM"),
            (listen(SignalKind::hangup())?, "SIGHUP"),
        ]))
    }

    /// Waits for one of them.
    async fn next(&mut self) -> &'static str {
        let [(int, int_name), (term, term_name), (hup, hup_name)] = &mut self.0;
        tokio::select! {
            _ = int.recv() => int_name,
            _ = term.recv() => term_name,
            _ = hup.recv() => hup_name,
        }
    }
}
