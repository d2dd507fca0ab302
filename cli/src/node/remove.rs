//! `tradewind node remove`.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tradewind_topology::{Process, Site, Topology};

use super::file::{TopologyFile, names, with_table};
use crate::{exit::Exit, output::Output};

/// Remove a node from a site, which goes on meanwhile, whether the node is up or not
#[derive(Args, Debug)]
#[command(after_help = "\
Writes the change into the topology file; the node's own lines stay there, for they say who it was. The running nodes \
take it up one after the other, as they are restarted with the new file. The roster changes in one step, in the first \
view of which all have the file; from then on the node counts for nothing, and is told so when it comes back: it ends \
with exit code 2.

Whoever stays must be a majority of those who were there, and of the members of each shard: otherwise it is refused. In \
a shard that had the node as a member another node takes its place, if there is one that is none.

One change at a time: see that `tradewind status` shows the new roster before the next one.

Exit code 0 when done, 2 if nothing was changed.

Examples:
  tradewind node remove ams-2 --topology atlas.toml
  tradewind node remove ams-2 --topology atlas.toml -o json | jq -r .roster")]
pub(crate) struct RemoveArgs {
    /// The node
    name: String,
    /// The topology file to change
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: PathBuf,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Removed {
    name: String,
    site: String,
    /// The number of the new roster.
    roster: usize,
    /// Who stays.
    nodes: Vec<String>,
    warnings: Vec<String>,
    topology: PathBuf,
}

impl RemoveArgs {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let file = TopologyFile::read(&self.topology)?;
        let site = site_of(&file.topology, &self.name)?.name.to_string();
        let change = format!("remove = \"{}\"\n", self.name);
        let changed = file.check(with_table(&file.text, &site, "changes", "nodes", &change))?;
        file.replace(&changed)?;
        let own = changed.topology.site(&site).context("its own site")?;
        let removed = Removed {
            name: self.name.clone(),
            roster: own.changes.len(),
            nodes: names(own),
            warnings: changed.warnings.to_string().lines().map(str::to_owned).collect(),
            topology: self.topology.clone(),
            site,
        };
        output.print(&removed, told)?;
        Ok(Exit::Done)
    }
}

/// The site of a node that is there.
pub(super) fn site_of<'a>(topology: &'a Topology, name: &str) -> anyhow::Result<&'a Site> {
    match topology.process(name) {
        Some(Process::Node { site, .. }) => return Ok(site),
        Some(Process::Mirror(_)) => {
            bail!("{name} is a mirror, no node of a site: it is changed by its lines in the file")
        }
        None => {}
    }
    let mut sites = topology.sites.iter();
    if let Some(site) = sites.find(|site| site.nodes.iter().any(|node| node.name == *name)) {
        bail!("{name} was removed from {} already", site.name);
    }
    let nodes: Vec<String> = topology.sites.iter().flat_map(names).collect();
    bail!("the topology has no node {name}; it has {}", nodes.join(", "));
}

fn told(removed: &Removed) -> String {
    let Removed { name, site, roster, nodes, warnings, topology } = removed;
    let warnings: String = warnings.iter().map(|warning| format!("  {warning}\n")).collect();
    format!(
        "{name} is removed from {site}: roster {roster}, with {}
{warnings}Now:
  1. give {} to every process of the deployment but {name}
  2. `tradewind roll {site}`: the nodes take the file up one after the other; with the last of them {name} is out, and ends by itself if it runs
  3. see that `tradewind status` of the nodes shows roster {roster}, before the next change
  4. restart the mirrors and clients with the new file when it suits",
        nodes.join(", "),
        topology.display(),
    )
}
