//! `tradewind node replace`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tradewind_topology::{ChangeKind, Node, Process, PublicKey, Site, Topology};
use tradewind_transport::Identity;

use super::file::{TopologyFile, with_table};
use super::remove::site_of;
use crate::{exit::Exit, output::Output};

/// Give a node that lost its disk a new identity: the same name and place, a new key
#[derive(Args, Debug)]
#[command(after_help = "\
A node that lost its disk has lost what it promised the others, so it does not come back as the one it \
was: it becomes a new member in its place. This makes a new key, moves the old one aside, and writes the \
new one into the topology file, with the change; the old key stays there, for ledgers tell of it. \
Its first VIEW entry under the new key, signed by a majority of those before, makes mirrors and auditors \
take its signatures, and the old key's no longer.

Then, as it says: give the topology file to all processes, start the node, and restart the others one after the \
other. They go on meanwhile; the node learns beside them, and is let in once all have the file.

Exit code 0 when done, 2 if nothing was changed.

Examples:
  tradewind node replace ams-2 --topology atlas.toml
  tradewind node replace ams-2 --topology atlas.toml -o json | jq -r .key")]
pub(crate) struct ReplaceArgs {
    /// The node
    name: String,
    /// The topology file to change
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: PathBuf,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Replaced {
    name: String,
    site: String,
    key: PublicKey,
    former_key: PublicKey,
    key_file: PathBuf,
    /// Where the former key is now, if it was here.
    former_key_file: Option<PathBuf>,
    topology: PathBuf,
    data: PathBuf,
}

impl ReplaceArgs {
    pub(super) fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let file = TopologyFile::read(&self.topology)?;
        let topology = &file.topology;
        let (site, node) = node(topology, &self.name)?;
        let identity = Identity::generate(&self.name)?;
        let is_founder = !site.changes.iter().any(|change| {
            change.kind == ChangeKind::Add && site.nodes[change.node].name == node.name
        });
        let text = with_new_key(&file.text, node, is_founder, &identity.public_key())?;
        let change = format!("replace = \"{}\"\nformer_key = \"{}\"\n", self.name, node.key);
        let changed =
            file.check(with_table(&text, site.name.as_str(), "changes", "nodes", &change))?;
        let key_file = topology.keys.join(format!("{}.key", self.name));
        let former_key_file = key_file.exists().then(|| aside(&key_file));
        // First the key, then the file that names it: in between the old pair is refused, and nothing runs half changed.
        fs::create_dir_all(&topology.keys)?;
        if let Some(aside) = &former_key_file {
            fs::rename(&key_file, aside).with_context(|| aside.display().to_string())?;
        }
        identity.save(&key_file)?;
        file.replace(&changed)?;
        let replaced = Replaced {
            name: self.name.clone(),
            site: site.name.to_string(),
            key: identity.public_key(),
            former_key: node.key,
            key_file,
            former_key_file,
            topology: self.topology.clone(),
            data: topology.data.join(&self.name),
        };
        output.print(&replaced, told)?;
        Ok(Exit::Done)
    }
}

fn node<'a>(topology: &'a Topology, name: &str) -> anyhow::Result<(&'a Site, &'a Node)> {
    match topology.process(name) {
        Some(Process::Node { site, index }) => Ok((site, &site.nodes[index])),
        Some(Process::Mirror(_)) => {
            bail!("{name} is a mirror: it needs no replacement, start it with an empty directory")
        }
        None => Err(site_of(topology, name).expect_err("there is no such process")),
    }
}

/// The text of a topology file with another key for one node, everything else as it was.
fn with_new_key(
    text: &str,
    node: &Node,
    is_founder: bool,
    key: &PublicKey,
) -> anyhow::Result<String> {
    let former = node.key.to_string();
    // A key stands for one name only, so its text is there once: in the line to change.
    let is_it = |line: &&str| {
        let line = line.trim_start();
        line.starts_with("key") && line.contains(&former)
    };
    let mut lines = text.lines().filter(is_it);
    let (Some(line), None) = (lines.next(), lines.next()) else {
        bail!(
            "the line with the key {former} of {} is not there once: change it by hand",
            node.name
        );
    };
    let mut changed = line.replace(&former, &key.to_string());
    if is_founder && node.founding_key.is_none() {
        let indent = &line[..line.len() - line.trim_start().len()];
        changed += &format!("\n{indent}founding_key = \"{former}\"");
    }
    Ok(text.replacen(line, &changed, 1))
}

/// A name beside `file` that nothing has yet.
fn aside(file: &Path) -> PathBuf {
    let name = |n: u32| file.with_extension(format!("key.replaced-{n}"));
    (1..).map(name).find(|path| !path.exists()).expect("a free number")
}

fn told(replaced: &Replaced) -> String {
    let Replaced { name, site, key, key_file, former_key_file, topology, data, .. } = replaced;
    let aside = match former_key_file {
        Some(aside) => format!(" (the former one is now {})", aside.display()),
        None => String::new(),
    };
    format!(
        "{name} of {site} has the new key {key}
  private key: {}{aside}
Now:
  1. put {} on the machine of {name}, and see that {} is empty there
  2. give {} to every process of the deployment
  3. start {name}, then `tradewind roll {site}`: the others take the file up one after the other, and {name} is let in
  4. restart the mirrors and clients with the new file when it suits: until then they do not talk to {name}",
        key_file.display(),
        key_file.display(),
        data.display(),
        topology.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[deployment]\nname = \"d\"\n# The nodes.\n[[sites.s.nodes]]\nname = \"a1\"\n  key = \"3tisoLJWv4uaZt4LvL4Jt6feAgYA8MHxW/ArFyON29o=\" # of a1\nport = 1\n";

    fn a1(founding_key: Option<PublicKey>) -> Node {
        let key: PublicKey = "3tisoLJWv4uaZt4LvL4Jt6feAgYA8MHxW/ArFyON29o=".parse().unwrap();
        let http = "127.0.0.1:2".parse().unwrap();
        let address = "127.0.0.1".parse().unwrap();
        let ports = tradewind_topology::Ports { address, base: 1, http };
        Node { name: "a1".parse().unwrap(), ports, key, founding_key, certificate: None }
    }

    #[test]
    fn only_the_key_changes_and_the_founding_one_is_kept() {
        let new: PublicKey = "yUxIchcIVFYF9iYCPttWv2UyAElx0EUJjQX96H3Lz7c=".parse().unwrap();
        let changed = with_new_key(FILE, &a1(None), true, &new).unwrap();
        let old = "3tisoLJWv4uaZt4LvL4Jt6feAgYA8MHxW/ArFyON29o=";
        let line = format!("  key = \"{old}\" # of a1\n");
        let lines = format!("  key = \"{new}\" # of a1\n  founding_key = \"{old}\"\n");
        assert_eq!(changed, FILE.replace(&line, &lines));
        let again = with_new_key(FILE, &a1(Some(new)), true, &new).unwrap();
        assert_eq!(again, FILE.replace(old, &new.to_string()), "the first one stays");
        let twice = format!("{FILE}{line}");
        assert!(with_new_key(&twice, &a1(None), true, &new).is_err());
    }
}
