//! One roll over the nodes of a site.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use tokio::task::JoinSet;
use tradewind_client::wire::Incarnation;
use tradewind_topology::{ProcessName, Site};

use super::strength::{Answers, Goal, Missing, NodeStatus, missing};
use crate::{connect::Connector, exit::words, output::Output, progress::Progress};

/// How often the nodes are asked while the site is below full strength.
const POLL: Duration = Duration::from_millis(100);

/// How long a site may take to show its full strength before a roll: what was just delivered is not yet on every disk.
const SETTLE: Duration = Duration::from_secs(2);

/// What a roll has done.
#[derive(Debug, Serialize)]
pub(crate) struct Rolled {
    pub(crate) site: String,
    /// Who kept it from beginning; then no node was restarted.
    pub(crate) missing: Vec<Missing>,
    pub(crate) nodes: Vec<Restarted>,
    pub(crate) seconds: f64,
}

/// A node that was restarted.
#[derive(Debug, Serialize)]
pub(crate) struct Restarted {
    pub(crate) name: ProcessName,
    /// Its incarnation before.
    pub(crate) before: u64,
    /// Its incarnation now.
    pub(crate) incarnation: u64,
    /// From the request until the site was at full strength again.
    pub(crate) seconds: f64,
}

/// A roll to be done.
pub(crate) struct Roll<'a> {
    pub(crate) connector: &'a Connector,
    pub(crate) site: &'a Site,
    pub(crate) patience: Duration,
    pub(crate) output: &'a Output,
}

impl Roll<'_> {
    /// Restarts `nodes`, one after the other.
    ///
    /// # Errors
    /// Which node did not come back, and which were not restarted.
    pub(crate) async fn run(&self, nodes: &[ProcessName]) -> anyhow::Result<Rolled> {
        let (site, began) = (self.site.name.to_string(), Instant::now());
        let all: Vec<_> = self.site.present().map(|(_, node)| node.name.clone()).collect();
        let asked = self.in_force(&self.ask(&all).await);
        let nodes: Vec<ProcessName> =
            nodes.iter().filter(|node| asked.contains(node)).cloned().collect();
        let goal = Goal::of(&self.ask(&asked).await);
        let (mut answers, missing) = loop {
            let answers = self.ask(&asked).await;
            let missing = missing(&answers, &goal);
            if missing.is_empty() || began.elapsed() > SETTLE {
                break (answers, missing);
            }
            tokio::time::sleep(POLL).await;
        };
        let mut rolled = Rolled { site, missing, nodes: Vec::new(), seconds: 0.0 };
        if !rolled.missing.is_empty() {
            return Ok(rolled);
        }
        let progress =
            Progress::steps(&format!("rolling {}", rolled.site), nodes.len() as u64, self.output);
        for (place, name) in nodes.iter().enumerate() {
            progress.step(place as u64, || format!("restarting {name}"));
            let restarted = self.restart(name, &mut answers, &progress).await;
            rolled.nodes.push(restarted.with_context(|| match &nodes[place + 1..] {
                [] => format!("the roll ended at {name}, the last node"),
                rest => {
                    let rest: Vec<&str> = rest.iter().map(ProcessName::as_str).collect();
                    format!("the roll ended at {name}; not restarted: {}", rest.join(", "))
                }
            })?);
        }
        rolled.seconds = began.elapsed().as_secs_f64();
        Ok(rolled)
    }

    /// Restarts one node and waits for full strength. `answers` are the latest, and the next node's then.
    async fn restart(
        &self,
        name: &ProcessName,
        answers: &mut Answers,
        progress: &Progress,
    ) -> anyhow::Result<Restarted> {
        let Some(Ok(NodeStatus { incarnation: before, .. })) = answers.get(name) else {
            bail!("{name} is not known to be there");
        };
        let (before, began) = (*before, Instant::now());
        let process = self.connector.topology().process(name.as_str()).context("a node")?;
        let client = self.connector.client_of(&process).await?;
        client.restart(Incarnation(before)).await?;
        let mut goal = None;
        loop {
            let names: Vec<_> = answers.keys().cloned().collect();
            *answers = self.ask(&names).await;
            let now = answers.get(name).and_then(|answer| answer.as_ref().ok());
            let incarnation = now.map_or(before, |status| status.incarnation);
            let weak = missing(answers, goal.as_ref().unwrap_or(&Goal::default()));
            if incarnation > before {
                if goal.is_some() && weak.is_empty() {
                    let (name, seconds) = (name.clone(), began.elapsed().as_secs_f64());
                    return Ok(Restarted { name, before, incarnation, seconds });
                }
                // What the others had when it was back is what it must have.
                goal.get_or_insert_with(|| Goal::of(answers));
            }
            let weak: Vec<String> = weak.iter().map(ToString::to_string).collect();
            progress.tell(|| format!("{name} restarted; {}", weak.join("; ")));
            if began.elapsed() > self.patience {
                bail!("no full strength within {:?}: {}", self.patience, weak.join("; "));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The nodes by which the site goes as they tell: not those that the file adds or replaces and that are yet to be let
    /// in, for which this roll may be made.
    fn in_force(&self, answers: &Answers) -> Vec<ProcessName> {
        let rosters = self.connector.topology().rosters(self.site);
        let told = answers.values().flatten().map(|status| status.roster).max();
        let roster = &rosters[told.unwrap_or(rosters.len() - 1).min(rosters.len() - 1)];
        let nodes = self.site.present().filter(|(index, node)| {
            roster.seats.iter().any(|seat| seat.node == *index && seat.key == node.key)
        });
        nodes.map(|(_, node)| node.name.clone()).collect()
    }

    /// Asks nodes of the site for their status.
    async fn ask(&self, nodes: &[ProcessName]) -> Answers {
        let mut asked = JoinSet::new();
        for name in nodes {
            let connector = self.connector.clone();
            let name = name.clone();
            asked.spawn(async move {
                let answer = status(&connector, &name).await.map_err(|error| words(&error));
                (name, answer)
            });
        }
        asked.join_all().await.into_iter().collect()
    }
}

async fn status(connector: &Connector, name: &ProcessName) -> anyhow::Result<NodeStatus> {
    let process = connector.topology().process(name.as_str()).context("a node")?;
    let client = connector.client_of(&process).await?;
    let text = client.status().await?;
    serde_json::from_str(&text).context("its status is not that of a node of this release")
}
