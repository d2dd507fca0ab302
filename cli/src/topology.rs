//! `tradewind topology check|show|graph|init`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tradewind_topology::{Diagnostics, InitOptions, Loaded, PoolName, Topology, init, render};
use tradewind_transport::Identity;

use crate::{
    exit::Exit,
    output::{Output, count},
};

/// Check, show, draw and start topology files
#[derive(Subcommand, Debug)]
pub(crate) enum TopologyCommand {
    Check(CheckArgs),
    Show(ShowArgs),
    Graph(GraphArgs),
    Init(InitArgs),
}

/// Tell everything that is wrong with a topology file
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code 0 if the file can be used (with warnings, perhaps), 1 if not.

Examples:
  tradewind topology check atlas.toml
  tradewind topology check atlas.toml -o json | jq '.diagnostics[].key'")]
pub(crate) struct CheckArgs {
    /// The topology file
    #[arg(env = "TRADEWIND_TOPOLOGY", hide_env_values = true)]
    file: PathBuf,
    /// Take warnings for errors
    #[arg(long)]
    strict: bool,
}

/// Show a topology as a tree
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind topology show atlas.toml
  tradewind topology show atlas.toml -o json | jq '.pools'")]
pub(crate) struct ShowArgs {
    /// The topology file
    #[arg(env = "TRADEWIND_TOPOLOGY", hide_env_values = true)]
    file: PathBuf,
}

/// Draw a topology
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  tradewind topology graph atlas.toml --out atlas.svg
  tradewind topology graph atlas.toml --format dot | dot -Tpng > atlas.png")]
pub(crate) struct GraphArgs {
    /// The topology file
    #[arg(env = "TRADEWIND_TOPOLOGY", hide_env_values = true)]
    file: PathBuf,
    /// A picture of its own, or input for Graphviz
    #[arg(long, value_enum, default_value_t = Picture::Svg)]
    format: Picture,
    /// Write to this file instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Picture {
    Svg,
    Dot,
}

/// Make a topology file to start from, with a private key for each process and one client
#[derive(Args, Debug)]
#[command(after_help = "\
Makes DIR/topology.toml and DIR/keys/*.key; overwrites nothing. All processes listen on 127.0.0.1.

Examples:
  tradewind topology init atlas
  tradewind topology init atlas --sites 2 --mirrors 3 --pool flights --pool settings --shards 4")]
pub(crate) struct InitArgs {
    /// Directory of the new deployment
    directory: PathBuf,
    /// Name of the deployment; the directory's name if it will do
    #[arg(long)]
    name: Option<String>,
    /// Number of sites
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    sites: u8,
    /// Nodes of each site
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    nodes: u8,
    /// Mirrors, in a chain behind the sites
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=64))]
    mirrors: u8,
    /// A pool; may be given several times. They have their homes at the sites in turn [default: one a site]
    #[arg(long = "pool", value_name = "POOL")]
    pools: Vec<String>,
    /// Shards of each pool
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    shards: u32,
    /// First port; each process takes four, and begins ten after the one before it
    #[arg(long, default_value_t = 7400, value_parser = clap::value_parser!(u16).range(1..=60000))]
    port: u16,
}

impl TopologyCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Exit> {
        match self {
            Self::Check(args) => args.run(output),
            Self::Show(args) => args.run(output),
            Self::Graph(args) => args.run(output),
            Self::Init(args) => args.run(output),
        }
    }
}

/// Loads a topology for another subcommand: warnings go to stderr, errors end it.
///
/// # Errors
/// All faults of the file.
pub(crate) fn load(file: &std::path::Path) -> anyhow::Result<Topology> {
    let Loaded { topology, .. } = Topology::load(file)
        .map_err(|faults| anyhow::anyhow!("the topology cannot be used\n{faults}"))?;
    Ok(topology)
}

impl CheckArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let (diagnostics, summary) = match Topology::load(&self.file) {
            Ok(loaded) => {
                let Topology { name, sites, mirrors, pools, .. } = &loaded.topology;
                let summary = format!(
                    "{name}: {}, {}, {}: ok",
                    count(sites.len(), "site"),
                    count(mirrors.len(), "mirror"),
                    count(pools.len(), "pool")
                );
                (loaded.warnings, Some(summary))
            }
            Err(diagnostics) => (diagnostics, None),
        };
        let bad = diagnostics.errors() > 0 || (self.strict && !diagnostics.is_empty());
        let value = json!({
            "ok": !bad,
            "file": self.file,
            "errors": diagnostics.errors(),
            "warnings": diagnostics.warnings(),
            "diagnostics": diagnostics.list,
        });
        output.print(&value, |_| text(&diagnostics, summary))?;
        Ok(match bad {
            // What cannot be read has no faults that could be told.
            true if std::fs::File::open(&self.file).is_err() => Exit::Failed,
            true => Exit::No,
            false => Exit::Done,
        })
    }
}

fn text(diagnostics: &Diagnostics, summary: Option<String>) -> String {
    let faults = (!diagnostics.is_empty()).then(|| diagnostics.to_string());
    faults.into_iter().chain(summary).collect::<Vec<_>>().join("\n")
}

impl ShowArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        output.print(&load(&self.file)?, render::text)?;
        Ok(Exit::Done)
    }
}

impl GraphArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let topology = load(&self.file)?;
        let (picture, format) = match self.format {
            Picture::Svg => (render::svg(&topology), "svg"),
            Picture::Dot => (render::dot(&topology), "dot"),
        };
        match &self.out {
            Some(file) => {
                fs::write(file, &picture).with_context(|| file.display().to_string())?;
                let value = json!({ "format": format, "file": file });
                output.print(&value, |_| format!("wrote {}", file.display()))?;
            }
            None if output.is_json() => {
                output
                    .print(&json!({ "format": format, "picture": picture }), |_| String::new())?;
            }
            None => output.bytes(picture.as_bytes())?,
        }
        Ok(Exit::Done)
    }
}

impl InitArgs {
    fn run(&self, output: &Output) -> anyhow::Result<Exit> {
        let options = InitOptions {
            name: self.deployment_name().parse().context("give a name with --name")?,
            sites: self.sites.into(),
            nodes: self.nodes.into(),
            mirrors: self.mirrors.into(),
            pools: self.pools()?,
            shards: self.shards,
            port: self.port,
        };
        let file = self.directory.join("topology.toml");
        anyhow::ensure!(
            !file.exists(),
            "{} exists and is not overwritten: choose another directory",
            file.display()
        );
        let keys = self.directory.join("keys");
        fs::create_dir_all(&keys).with_context(|| keys.display().to_string())?;
        let text = init(&options, |name| {
            let identity = Identity::generate(name)?;
            identity.save(&keys.join(format!("{name}.key")))?;
            anyhow::Ok(identity.public_key())
        })?;
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        let topology = load(&file)?;
        let processes: Vec<String> = topology.processes().map(|p| p.name().to_string()).collect();
        let value = json!({ "topology": file, "keys": keys, "processes": processes });
        output.print(&value, |_| {
            let (shown, first) = (file.display(), &processes[0]);
            let pool = &topology.pools[0].name;
            format!(
                "made {shown} and {} keys beside it; next:\n  \
                 tradewind serve --topology {shown} {first}    # and the others: {}\n  \
                 tradewind put --topology {shown} {pool} hello world",
                processes.len() + 1,
                processes[1..].join(", ")
            )
        })?;
        Ok(Exit::Done)
    }

    fn pools(&self) -> anyhow::Result<Vec<PoolName>> {
        let names = match (self.pools.as_slice(), self.sites) {
            ([], 1) => vec!["default".to_owned()],
            ([], sites) => (1..=sites).map(|site| format!("pool-{site}")).collect(),
            (given, _) => given.to_vec(),
        };
        names.iter().map(|pool| pool.parse().context("a pool's name")).collect()
    }

    fn deployment_name(&self) -> String {
        let from_directory = || {
            let name = std::path::absolute(&self.directory).ok()?;
            Some(name.file_name()?.to_str()?.to_lowercase())
        };
        self.name.clone().or_else(from_directory).unwrap_or_default()
    }
}
