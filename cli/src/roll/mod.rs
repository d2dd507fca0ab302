//! `tradewind roll`: restarts the nodes of a site one at a time, each at full strength only.
//!
//! | module | holds |
//! |---|---|
//! | `strength` | whether a site is at full strength, and who is missing |
//! | `schedule` | when the next roll is due |
//! | `restarts` | one roll |

mod restarts;
mod schedule;
mod strength;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use tradewind_topology::{ProcessName, Site, SiteName};

use crate::{
    connect::{ConnectArgs, Connector, block_on},
    exit::{Exit, words},
    output::{Output, table},
};
use restarts::{Roll, Rolled};
use schedule::Schedule;

/// Restart the nodes of a site one at a time, under load, without a client noticing
#[derive(Args, Debug)]
#[command(after_help = "\
A roll begins only at full strength: every node of the site answers, all are active in one view, and \
none lacks what another had when it was asked. It then restarts a node (the same process, a fresh \
process image, see `tradewind serve --help`), waits for full strength again, and goes on with the \
next. So each node gets the executable and the topology file that are then on its machine, and what \
only grows in a long life starts again from nothing. Clients send what is under way to another node.

Exit code 0 when all are restarted, 1 if the site is below full strength (nothing was restarted), 2 \
if a node did not come back: the nodes after it are as they were. With --every, a roll that ends with \
1 or 2 is told on stderr and tried again within the hour.

Examples:
  tradewind roll ams
  tradewind roll ams --node ams-2
  tradewind roll ams -o json | jq '.nodes[] | {name, seconds}'
  tradewind roll ams --every 7d")]
pub(crate) struct RollArgs {
    /// The site
    site: String,
    /// Only this node
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Stay, and roll again after so long: a number and s, m, h or d
    #[arg(long, value_name = "PERIOD", value_parser = schedule::period)]
    every: Option<Duration>,
    /// Seconds that the site may take to be at full strength, each time
    #[arg(long, default_value = "120", value_name = "SECONDS")]
    patience: u32,
    #[command(flatten)]
    connect: ConnectArgs,
}

impl RollArgs {
    pub(crate) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        block_on(async {
            let Some(every) = self.every else { return self.roll(output).await };
            let started = Instant::now();
            let mut schedule = Schedule::new(every);
            loop {
                tokio::time::sleep(schedule.next().saturating_sub(started.elapsed())).await;
                let rolled = self.roll(output).await;
                if let Err(error) = &rolled {
                    output.note(&words(error));
                }
                schedule.rolled(started.elapsed(), matches!(rolled, Ok(Exit::Done)));
            }
        })
    }

    /// One roll. The topology is read each time: it may name other nodes by then.
    async fn roll(&self, output: &Output) -> anyhow::Result<Exit> {
        let connector = self.connect.connector()?;
        let site = site(&connector, &self.site)?;
        let nodes = self.nodes(site)?;
        let patience = Duration::from_secs(self.patience.into());
        let rolled = Roll { connector: &connector, site, patience, output }.run(&nodes).await?;
        let exit = if rolled.missing.is_empty() { Exit::Done } else { Exit::No };
        output.print(&rolled, text)?;
        Ok(exit)
    }

    fn nodes(&self, site: &Site) -> anyhow::Result<Vec<ProcessName>> {
        let all = || site.present().map(|(_, node)| node.name.clone());
        let Some(name) = &self.node else { return Ok(all().collect()) };
        let found: Vec<_> = all().filter(|node| node.as_str() == name).collect();
        if found.is_empty() {
            let known: Vec<String> = all().map(|node| node.to_string()).collect();
            bail!("site {} has no node {name}; it has {}", site.name, known.join(", "));
        }
        Ok(found)
    }
}

fn site<'a>(connector: &'a Connector, name: &str) -> anyhow::Result<&'a Site> {
    let topology = connector.topology();
    topology.site(name).with_context(|| {
        let known: Vec<&SiteName> = topology.sites.iter().map(|site| &site.name).collect();
        let known: Vec<&str> = known.into_iter().map(SiteName::as_str).collect();
        format!("the topology has no site {name}; it has {}", known.join(", "))
    })
}

fn text(rolled: &Rolled) -> String {
    if !rolled.missing.is_empty() {
        let missing: Vec<String> =
            rolled.missing.iter().map(|missing| format!("  {missing}")).collect();
        return format!(
            "{} is below full strength; nothing was restarted:\n{}",
            rolled.site,
            missing.join("\n")
        );
    }
    let mut table = table(&["name", "incarnation", "seconds"]);
    for node in &rolled.nodes {
        let incarnation = format!("{} → {}", node.before, node.incarnation);
        table.add_row([node.name.to_string(), incarnation, format!("{:.1}", node.seconds)]);
    }
    table.trim_fmt()
}
