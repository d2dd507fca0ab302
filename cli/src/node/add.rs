//! `tradewind node add`.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tradewind_topology::{PublicKey, Site, Topology};
use tradewind_transport::Identity;

use super::file::{TopologyFile, names, with_table};
use crate::{exit::Exit, output::Output};

/// Add a node to a site, which goes on meanwhile
#[derive(Args, Debug)]
#[command(after_help = "\
Writes the node and the change into the topology file. The running nodes take it up one after the other, as they are \
restarted with the new file; the new node learns what it lacks beside them and is let in when it has it. The roster \
changes in one step, in the first view of which all have the file: what clients wait for is the change of a view.

The node becomes a member of each shard that has fewer members than its pool's `replicas`; --replicas raises that for \
all pools of the site, for instance to 5 when the fifth node comes. Without such a shard it is a spare: it takes the \
place of a node that is removed.

One change at a time: see that `tradewind status` shows the new roster before the next one.

Exit code 0 when done, 2 if nothing was changed.

Examples:
  tradewind node add ams-4 --address 10.0.1.4 --replicas 4 --topology atlas.toml
  tradewind node add ams-4 --address 10.0.1.4 --key 3tisoLJWv4uaZt4LvL4Jt6feAgYA8MHxW/ArFyON29o= -o json")]
pub(crate) struct AddArgs {
    /// Its name, which no site, node, mirror or client ever had
    name: String,
    /// Where the others reach it
    #[arg(long, value_name = "IP")]
    address: IpAddr,
    /// Its site, where the file has several
    #[arg(long)]
    site: Option<String>,
    /// Its base port, and the three that follow it
    #[arg(long)]
    port: Option<u16>,
    /// Where it serves HTTP
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// Its public key, where its private one is kept elsewhere; otherwise a new pair is made
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    /// From now on each shard of the site has so many members, as far as there are nodes
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// The topology file to change
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: PathBuf,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Added {
    name: String,
    site: String,
    /// The number of the new roster.
    roster: usize,
    nodes: Vec<String>,
    key: PublicKey,
    /// The new private key, if it was made here.
    key_file: Option<PathBuf>,
    /// The ledgers that it is to hold.
    ledgers: Vec<String>,
    warnings: Vec<String>,
    topology: PathBuf,
    data: PathBuf,
}

impl AddArgs {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let file = TopologyFile::read(&self.topology)?;
        let site = self.site(&file.topology)?.name.to_string();
        let made = match self.key {
            Some(_) => None,
            None => Some(Identity::generate(&self.name)?),
        };
        let key = self.key.or(made.as_ref().map(Identity::public_key)).context("a key")?;
        let text = with_table(&file.text, &site, "nodes", "nodes", &self.lines(&key));
        let mut change = format!("add = \"{}\"\n", self.name);
        if let Some(replicas) = self.replicas {
            _ = writeln!(change, "replicas = {replicas}");
        }
        let changed = file.check(with_table(&text, &site, "changes", "nodes", &change))?;
        let key_file = file.topology.keys.join(format!("{}.key", self.name));
        if made.is_some() && key_file.exists() {
            bail!(
                "{} is there already: give its public key with --key, or move it away",
                key_file.display()
            );
        }
        if let Some(identity) = &made {
            // First the key, then the file that names it.
            std::fs::create_dir_all(&file.topology.keys)?;
            identity.save(&key_file)?;
        }
        file.replace(&changed)?;
        let own = changed.topology.site(&site).context("its own site")?;
        let added = Added {
            name: self.name.clone(),
            roster: own.changes.len(),
            nodes: names(own),
            key,
            key_file: made.map(|_| key_file),
            ledgers: ledgers(&changed.topology, own, &self.name),
            warnings: changed.warnings.to_string().lines().map(str::to_owned).collect(),
            topology: self.topology.clone(),
            data: changed.topology.data.join(&self.name),
            site,
        };
        output.print(&added, told)?;
        Ok(Exit::Done)
    }

    fn site<'a>(&self, topology: &'a Topology) -> anyhow::Result<&'a Site> {
        let all: Vec<&str> = topology.sites.iter().map(|site| site.name.as_str()).collect();
        match (&self.site, &topology.sites[..]) {
            (Some(name), _) => topology.site(name).with_context(|| {
                format!("the topology has no site {name}; it has {}", all.join(", "))
            }),
            (None, [site]) => Ok(site),
            (None, _) => bail!("--site is needed: the topology has {}", all.join(", ")),
        }
    }

    fn lines(&self, key: &PublicKey) -> String {
        let mut lines = format!("name = \"{}\"\naddress = \"{}\"\n", self.name, self.address);
        if let Some(port) = self.port {
            _ = writeln!(lines, "port = {port}");
        }
        if let Some(http) = self.http {
            _ = writeln!(lines, "http = \"{http}\"");
        }
        lines + &format!("key = \"{key}\"\n")
    }
}

/// The ledgers of which a node is a member, by the last roster.
fn ledgers(topology: &Topology, site: &Site, name: &str) -> Vec<String> {
    let pools = topology.pools_of(&site.name);
    let shards = pools.flat_map(|pool| (0..pool.shards).map(move |shard| (pool, shard)));
    let of_node = shards.filter(|(pool, shard)| {
        let members = topology.shard_members(pool, *shard);
        members.iter().any(|node| site.nodes[*node].name == *name)
    });
    of_node.map(|(pool, shard)| format!("{}.{shard}", pool.name)).collect()
}

fn told(added: &Added) -> String {
    let Added { name, site, roster, nodes, key, key_file, ledgers, topology, data, .. } = added;
    let mut text = format!(
        "{name} is added to {site}: roster {roster}, {} nodes\n  public key: {key}\n",
        nodes.len()
    );
    match ledgers.len() {
        0 => {
            text += "  a spare, member of no shard: all have as many members as `replicas` says; \
                     --replicas raises it\n";
        }
        _ => _ = writeln!(text, "  member of {}", ledgers.join(", ")),
    }
    for warning in &added.warnings {
        _ = writeln!(text, "  {warning}");
    }
    let place = match key_file {
        Some(key_file) => format!("put {} on the machine of {name}, and see", key_file.display()),
        None => "see".to_owned(),
    };
    text + &format!(
        "Now:
  1. {place} that {} is empty there
  2. give {} to every process of the deployment, and start {name}
  3. `tradewind roll {site}`: the nodes take the file up one after the other, and {name} is let in
  4. see that `tradewind status {name}` is active, before the next change
  5. restart the mirrors and clients with the new file when it suits: until then they do not talk to {name}",
        data.display(),
        topology.display(),
    )
}
