//! `tradewind keys new|show`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;
use tradewind_ledger::{LedgerId, VerifierKey, note::KeyKind};
use tradewind_topology::{ProcessName, Topology};
use tradewind_transport::Identity;

use crate::{
    exit::Exit,
    output::{Output, table},
    topology::load,
};

/// Make and show the keys of processes, clients and ledgers
#[derive(Subcommand, Debug)]
pub(crate) enum KeysCommand {
    New(NewArgs),
    Show(ShowArgs),
}

/// Make a private key, and print its public half for the topology
#[derive(Args, Debug)]
#[command(after_help = "\
The private key is a PKCS#8 PEM file that only its owner can read; nothing is overwritten.

Examples:
  tradewind keys new a1                       # keys/a1.key
  tradewind keys new ops --dir /etc/tradewind/keys")]
pub(crate) struct NewArgs {
    /// Whose key: the file is called NAME.key
    name: String,
    /// Directory of key files
    #[arg(long, default_value = "keys")]
    dir: PathBuf,
}

/// Print public keys: of key files, of a whole topology, or of a ledger's signers
#[derive(Args, Debug)]
#[command(after_help = "\
A ledger's verifier keys (C2SP signed-note) are what an auditor needs, one for each node that signs its checkpoints.

Examples:
  tradewind keys show keys/a1.key
  tradewind keys show --topology atlas.toml
  tradewind keys show --topology atlas.toml --vkey flights.0 > flights.0.vkeys")]
pub(crate) struct ShowArgs {
    /// Private key files
    #[arg(conflicts_with = "vkey")]
    files: Vec<PathBuf>,
    /// The topology file
    #[arg(long, env = "TRADEWIND_TOPOLOGY", hide_env_values = true, value_name = "FILE")]
    topology: Option<PathBuf>,
    /// A ledger, POOL.SHARD: print the verifier keys of its signers
    #[arg(long, value_name = "LEDGER", requires = "topology")]
    vkey: Option<LedgerId>,
}

impl KeysCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::New(args) => args.run(output),
            Self::Show(args) => args.run(output),
        }
    }
}

impl NewArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let name: ProcessName = self.name.parse()?;
        std::fs::create_dir_all(&self.dir).with_context(|| self.dir.display().to_string())?;
        let file = self.dir.join(format!("{name}.key"));
        let identity = Identity::generate(name.as_str())?;
        identity.save(&file)?;
        let key = identity.public_key();
        output.print(&json!({ "name": name, "file": file, "key": key }), |_| key.to_string())?;
        output.note(&format!("wrote {}; put the key above into the topology", file.display()));
        Ok(Exit::Done)
    }
}

/// A name and its public key.
type Named = (String, String);

impl ShowArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let topology = self.topology.as_deref().map(load).transpose()?;
        if let (Some(topology), Some(ledger)) = (&topology, &self.vkey) {
            let keys = verifier_keys(topology, ledger)?;
            let members: Vec<_> =
                keys.iter().map(|(node, vkey)| json!({ "node": node, "vkey": vkey })).collect();
            let value = json!({ "ledger": ledger.to_string(), "signers": members });
            output.print(&value, |_| {
                keys.iter().map(|(_, vkey)| vkey.as_str()).collect::<Vec<_>>().join("\n")
            })?;
            return Ok(Exit::Done);
        }
        let keys = match topology.filter(|_| self.files.is_empty()) {
            Some(topology) => topology
                .identities()
                .map(|(key, name, _)| (name.to_owned(), key.to_string()))
                .collect(),
            None if self.files.is_empty() => {
                bail!("nothing to show: name a key file, or a topology with --topology")
            }
            None => {
                self.files.iter().map(|file| of_file(file)).collect::<anyhow::Result<Vec<_>>>()?
            }
        };
        let value: Vec<_> =
            keys.iter().map(|(name, key)| json!({ "name": name, "key": key })).collect();
        output.print(&value, |_| match keys.as_slice() {
            [(_, key)] => key.clone(),
            _ => {
                let mut table = table(&["name", "key"]);
                table.add_rows(keys.iter().map(|(name, key)| [name, key]));
                table.trim_fmt()
            }
        })?;
        Ok(Exit::Done)
    }
}

fn of_file(file: &Path) -> anyhow::Result<Named> {
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let identity = Identity::load(&name, file)?;
    Ok((name, identity.public_key().to_string()))
}

/// The verifier key of each member of a ledger's shard, in the order of the site's nodes.
///
/// # Errors
/// If the topology has no such ledger.
pub(crate) fn verifier_keys(topology: &Topology, ledger: &LedgerId) -> anyhow::Result<Vec<Named>> {
    let (pool, shard) = (ledger.pool(), ledger.shard());
    let Some(pool) = topology.pool(pool) else {
        let pools: Vec<&str> = topology.pools.iter().map(|pool| pool.name.as_str()).collect();
        bail!("no pool {pool}: the topology has {}", pools.join(", "));
    };
    if shard >= pool.shards {
        bail!("pool {} has {} shards, counted from 0: no ledger {ledger}", pool.name, pool.shards);
    }
    let site = topology.site(pool.home.as_str()).context("a pool without a home")?;
    let origin = format!("{}/{}/{}/{shard}", topology.name, site.name, pool.name);
    let members = topology.shard_members(pool, shard).into_iter();
    members
        .map(|index| {
            let node = &site.nodes[index];
            let vkey = VerifierKey::new(&origin, KeyKind::Ed25519, *node.key.as_bytes())?;
            Ok((node.name.to_string(), vkey.to_string()))
        })
        .collect()
}
